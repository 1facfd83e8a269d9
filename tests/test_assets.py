"""Shipped weights are the listed ones, in safetensors, within the size that a wheel can carry."""

import pytest

from t2ikit.encoders import ASSETS, file_hash
from t2ikit.files import read_json
from t2ikit.standins.assets import LISTED, MEGABYTES

ENTRIES = read_json(LISTED) if LISTED.exists() else {}


@pytest.mark.parametrize("name", ENTRIES)
def test_weights_are_the_listed_ones(name):
    entry = ENTRIES[name]
    path = ASSETS / entry["file"]
    assert path.suffix == ".safetensors"
    assert (path.stat().st_size, file_hash(path)) == (entry["bytes"], entry["sha256"])


def test_every_file_of_weights_is_listed():
    assert {str(p.relative_to(ASSETS)) for p in ASSETS.rglob("*.safetensors")} == {e["file"] for e in ENTRIES.values()}


def test_all_assets_together_stay_small():
    assert sum(p.stat().st_size for p in ASSETS.rglob("*") if p.is_file()) < MEGABYTES * 1e6


def test_the_two_vaes_differ_measurably_and_stay_under_six_megabytes():
    worse, better = (ENTRIES[f"vae-{name}-like-v1"] for name in ("sd2", "sdxl"))
    assert worse["bytes"] + better["bytes"] < 6e6
    for world in ("scenes", "pictograms"):
        assert better["training"][f"psnr_{world}"] > worse["training"][f"psnr_{world}"] + 0.5  # dB
