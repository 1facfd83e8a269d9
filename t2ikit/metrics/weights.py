"""Published checkpoints: read without running what is in them, and loaded only where every key and shape fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2ikit.errors import UserError
from t2ikit.tensors import only_finite


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What `torch.save` wrote, tensors and plain values only (`weights_only=True`); a UserError names the file."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"The checkpoint {path} is missing: put it there, or give the path where it is.") from None
    except Exception:  # of a damaged file torch's reader raises whatever it stumbles over, IndexError and TypeError too
        raise UserError(
            f"{path} is no checkpoint of tensors alone, or it is damaged: get it again from its authors."
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not a state dict: give the authors' checkpoint.")
    return found


def load_strictly(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path,
    unused: tuple[str, ...] = (),
    name: Callable[[str], str] = str,
) -> None:
    """Load `state` into `module`, whose tensor `key` it calls `name(key)`. None may be missing or of another shape, and
    none left over but those that begin with one of `unused`; NaN and infinity are refused.
    """
    ours = {name(key): (key, tensor.shape) for key, tensor in module.state_dict().items()}
    for what, keys in {
        "lacks": [k for k in ours if k not in state],
        "has a key that the model does not know,": [k for k in state if k not in ours and not k.startswith(unused)],
        "has in another shape": [k for k in ours if getattr(state.get(k), "shape", None) != ours[k][1]],
    }.items():
        if keys:
            raise UserError(
                f"{path} {what} {keys[0]!r} ({len(keys)} in all): give the checkpoint that this metric was published "
                "with."
            )
    only_finite({k: state[k] for k in ours}, path)
    module.load_state_dict({key: state[k] for k, (key, _) in ours.items()})
