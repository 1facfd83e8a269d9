"""The list of shipped weights, `assets/assets.json`: what each is, its hash, licence, command, configuration and
scores.

`python -m t2ikit.standins.assets` adds what is new. An asset that is listed never changes: better weights get the
next version's name.
"""

from __future__ import annotations

from t2ikit.encoders import ASSETS, OWN_CODECS, file_hash
from t2ikit.errors import UserError
from t2ikit.runs import read_json, write_json

COMMANDS = {folder: f"python -m t2ikit.standins.vae {name}" for name, folder in OWN_CODECS.items()} | {
    "pca-minilm-v1": "python -m t2ikit.standins.pca"
}
LISTED = ASSETS / "assets.json"
MEGABYTES = 12  # all assets together


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
    for folder in COMMANDS:
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
