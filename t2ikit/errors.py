"""What a user reads when something is wrong: one sentence with the bad value, the allowed ones and the next step."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake the user can mend. The CLI prints the sentence and exits with 2, without a traceback."""


class Busy(UserError):
    """Another process trains this run. The CLI exits with 75 (EX_TEMPFAIL): try again later."""


class NotebookFailed(RuntimeError):
    """A notebook stopped before its end; the message names the notebook, the cell and the error.

    The CLI exits with 1.
    """


def choose(kind: str, name: object, allowed: Iterable[str]) -> str:
    """`name` if it is one of `allowed`; otherwise a UserError that lists them, with the closest match."""
    options = list(allowed)
    if name in options:
        return str(name)
    close = difflib.get_close_matches(str(name), options, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise UserError(f"Unknown {kind} {name!r}: choose one of {', '.join(options)}{hint}")


def need(extra: str, package: str) -> UserError:
    """The sentence for a missing optional dependency."""
    return UserError(f"{package} is not installed: run `pip install 't2ikit[{extra}]'` and try again.")
