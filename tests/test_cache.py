"""Shards: encoded once, read by index, never another's, never damaged ones."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ikit import cache
from t2ikit.cache import SHARD, EncodedSplit, cached_latents, cached_states
from t2ikit.data.world import get_world
from t2ikit.encoders import image_codec, text_encoder
from t2ikit.errors import UserError

N = SHARD + 300
IDENTITY = {"world": "w", "kind": "latents"}


def encode(indices):
    """Values that half precision holds exactly."""
    values = torch.as_tensor(indices, dtype=torch.float32)
    return {"latents": torch.stack([values % 2048, -(values // 2048)], 1), "mask": values % 3 == 0}


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return EncodedSplit(tmp_path_factory.mktemp("split"), IDENTITY, N, encode)


@settings(max_examples=50)
@given(st.lists(st.integers(0, N - 1), min_size=1, max_size=40))
def test_rows_come_in_the_order_asked_for(split, indices):
    found, wanted = split.rows(indices), encode(np.array(indices))
    assert torch.equal(found["latents"], wanted["latents"]) and found["latents"].dtype == torch.float32
    assert torch.equal(found["mask"], wanted["mask"]) and found["mask"].dtype == torch.bool


@pytest.mark.parametrize("bad", [-1, N, 10**9])
def test_an_index_outside_is_named(split, bad):
    with pytest.raises(UserError, match=f"Index {bad} is outside the split: it has {N} items"):
        split.rows([0, bad, 3])


def test_only_shards_that_are_asked_for_are_made(tmp_path):
    made = []
    split = EncodedSplit(tmp_path, IDENTITY, 10 * SHARD, lambda i: made.append(i[0]) or encode(i))
    split.rows([3 * SHARD + 1, 3 * SHARD + 2])
    assert [p.name for p in sorted(tmp_path.glob("0*"))] == ["000003.safetensors"]
    count = len(made)
    EncodedSplit(tmp_path, IDENTITY, 10 * SHARD, encode).rows([3 * SHARD])
    split.rows([3 * SHARD + 5])
    assert len(made) == count


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-5], lambda d: d[:-1] + bytes([d[-1] ^ 1]), lambda d: b"", lambda d: b"\x05" * 40]
)
def test_a_damaged_shard_is_named_and_made_anew_once_deleted(tmp_path, damage):
    EncodedSplit(tmp_path, IDENTITY, N, encode).rows([0])
    path = tmp_path / "000000.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        UserError, match=r"000000.safetensors is damaged: delete this cache shard and run again"
    ) as error:
        EncodedSplit(tmp_path, IDENTITY, N, encode).rows([0])
    assert "\n" not in str(error.value)
    path.unlink()
    assert EncodedSplit(tmp_path, IDENTITY, N, encode).rows([7])["latents"].tolist() == [[7.0, 0.0]]


def test_a_cache_of_another_encoder_is_refused(tmp_path):
    EncodedSplit(tmp_path, IDENTITY, N, encode)
    with pytest.raises(UserError, match="made from other data or by another encoder"):
        EncodedSplit(tmp_path, IDENTITY | {"codec": "other"}, N, encode)
    (tmp_path / "index.json").write_text('{"wor')
    with pytest.raises(UserError, match="index.json is not readable JSON"):
        EncodedSplit(tmp_path, IDENTITY, N, encode)


ASK = """
import sys
from pathlib import Path
import torch
from t2ikit.cache import EncodedSplit

folder = Path(sys.argv[1])

def encode(indices):
    with (folder / "made").open("a") as f:
        f.write(".")
    return {"latents": torch.zeros(len(indices), 1)}

print("ready", flush=True)
input()
EncodedSplit(folder, {"world": "w", "kind": "latents"}, 100, encode).rows([5])
"""


def test_two_runs_that_need_a_shard_encode_it_once(tmp_path):
    line, pipes = [sys.executable, "-c", ASK, str(tmp_path)], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    children = [subprocess.Popen(line, text=True, **pipes) for _ in range(4)]
    assert [child.stdout.readline() for child in children] == ["ready\n"] * 4
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
    assert [child.returncode for child in children] == [0] * 4
    assert (tmp_path / "made").read_text() == "."


def test_every_encoder_world_split_and_density_has_its_own_folder(tmp_path, codec, save_codec):
    scenes, small = get_world("scenes"), get_world("scenes", train=100)
    first, second = image_codec(codec), image_codec(f"local-dir:{save_codec(tmp_path / 'other', seed=1)}")
    text = text_encoder("minilm-64"), text_encoder("minilm")
    splits = [
        cached_latents(scenes, "train", first, tmp_path),
        cached_latents(scenes, "val", first, tmp_path),
        cached_latents(small, "train", first, tmp_path),
        cached_latents(scenes, "train", second, tmp_path),
        *(cached_states(scenes, "train", density, text[0], tmp_path) for density in ("sparse", "medium", "dense")),
        cached_states(scenes, "train", "medium", text[1], tmp_path),
    ]
    assert len({s.folder for s in splits}) == len(splits)
    assert all(json.loads((s.folder / "index.json").read_text()) == s.identity for s in splits)


def test_what_is_cached_is_what_the_encoders_give(tmp_path, codec, monkeypatch):
    world, vae, text = get_world("scenes", train=40), image_codec(codec), text_encoder("minilm-64")
    indices = np.array([31, 4, 4])
    latents = cached_latents(world, "train", vae, tmp_path).rows(indices)["latents"]
    torch.testing.assert_close(latents, vae.encode(world.images("train", indices)), atol=2e-3, rtol=2e-3)
    found = cached_states(world, "train", "medium", text, tmp_path).rows(indices)
    states, mask = text.encode(world.captions("train", indices, "medium"))
    torch.testing.assert_close(found["states"], states, atol=5e-3, rtol=2e-3)
    assert torch.equal(found["mask"], mask)


def test_few_shards_stay_in_memory(tmp_path):
    split = EncodedSplit(tmp_path, IDENTITY, 20 * SHARD, encode)
    split.rows(np.arange(0, 20 * SHARD, SHARD))
    assert split._shard.cache_info().currsize <= cache.IN_MEMORY
