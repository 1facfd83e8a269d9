"""Loading weights that others trained: quietly, and without minutes of retries where no model hub answers."""

from __future__ import annotations

import contextlib
import logging
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator

SECONDS = 5.0  # how long a hub has to answer


@contextlib.contextmanager
def loading(from_hub: bool = False) -> Iterator[None]:
    """Without the libraries' bars and warnings; if `from_hub` and no hub answers, only its local cache."""
    from diffusers.utils import logging as diffusers
    from huggingface_hub import constants
    from transformers.utils import logging as transformers

    before = [(m, m.get_verbosity(), m.is_progress_bar_enabled()) for m in (diffusers, transformers)]
    offline, disabled = constants.HF_HUB_OFFLINE, logging.root.manager.disable
    for module, *_ in before:
        module.set_verbosity_error()
        module.disable_progress_bar()
    logging.disable(logging.CRITICAL)  # what fails is raised
    if from_hub:
        constants.HF_HUB_OFFLINE = offline or not answers(constants.ENDPOINT)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.disable(disabled)
        for module, verbosity, bar in before:
            module.set_verbosity(verbosity)
            if bar:
                module.enable_progress_bar()


def answers(endpoint: str) -> bool:
    """Whether an HTTP server answers at `endpoint`, whatever it says."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True
