"""The list of shipped weights, `assets/assets.json`: what each is, its hash, licence, command, configuration and
scores.

`python -m t2ikit.standins.assets` adds what is new. An asset that is listed never changes: better weights get the
next version's name.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from t2ikit.encoders import ASSETS, OWN_CODECS, file_hash
from t2ikit.errors import UserError
from t2ikit.files import read_json, write_atomic, write_json
from t2ikit.metrics.weights import load_strictly

COMMANDS = {folder: f"python -m t2ikit.standins.vae {name}" for name, folder in OWN_CODECS.items()} | {
    "pca-minilm-v1": "python -m t2ikit.standins.pca",
    "vqa-scenes-v1": "python -m t2ikit.standins.vqa",
    "contrastive-v1": "python -m t2ikit.standins.contrastive",
}
WEIGHTS = "model.safetensors"
LISTED = ASSETS / "assets.json"
MEGABYTES = 12  # all assets together


def save_asset(module: nn.Module, folder: Path) -> None:
    """The module's weights as float16."""
    write_atomic(folder / WEIGHTS, save({k: v.half().contiguous() for k, v in module.state_dict().items()}))


def load_asset(module: nn.Module, folder: Path) -> str:
    """Load a folder's weights into the module, every key and shape as it is there; returns the file's SHA-256."""
    path = folder / WEIGHTS
    try:
        state = {k: v.float() for k, v in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): install t2ikit again.") from None
    for key, tensor in state.items():
        if not tensor.isfinite().all():
            raise UserError(f"{path} has NaN or infinity in {key!r}: install t2ikit again.")
    load_strictly(module, state, path)
    return file_hash(path)


def described(folder: str) -> dict:
    """The entry of one asset, from its folder."""
    (weights,) = (ASSETS / folder).glob("*.safetensors")
    return {
        "file": f"{folder}/{weights.name}",
        "sha256": file_hash(weights),
        "bytes": weights.stat().st_size,
        "licence": "Apache-2.0",
        "command": COMMANDS[folder],
        "training": read_json(ASSETS / folder / "training.json"),
    }


def main() -> None:
    """List what is new; refuse what changed."""
    listed = read_json(LISTED) if LISTED.exists() else {}
    for folder in (name for name in COMMANDS if (ASSETS / name).exists()):
        entry = described(folder)
        if folder in listed and listed[folder]["sha256"] != entry["sha256"]:
            raise UserError(f"{folder} is listed with other weights: give the new ones the next version's name.")
        listed[folder] = entry
    size = sum(entry["bytes"] for entry in listed.values())
    if size > MEGABYTES * 1e6:
        raise UserError(f"The assets are {size / 1e6:.1f} MB together: {MEGABYTES} MB is the limit.")
    write_json(LISTED, listed)


if __name__ == "__main__":
    main()
