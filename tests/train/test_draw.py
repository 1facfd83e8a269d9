"""Draws are a pure function of (seed, step, slot), and every epoch is a permutation."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ikit.cache import SHARD
from t2ikit.train import draw as module
from t2ikit.train.draw import draw, items

SHAPE = (4, 2, 2)
seeds, steps = st.integers(0, 2**31 - 1), st.integers(0, 10**9)


def same(a, b):
    return np.array_equal(a.indices, b.indices) and all(
        torch.equal(getattr(a, k), getattr(b, k)) for k in ("u", "noise", "dropped")
    )


@given(seeds, steps, steps, st.integers(1, 5 * SHARD))
def test_a_draw_does_not_depend_on_the_draws_before_it(seed, step, before, n):
    for forget in (module._shards, module._within):
        forget.cache_clear()
    alone = draw(seed, step, 3, n, SHAPE, 0.5)
    draw(seed, before, 3, n, SHAPE, 0.5)
    draw(seed + 1, step, 3, n, SHAPE, 0.5)
    assert same(alone, draw(seed, step, 3, n, SHAPE, 0.5))


@settings(max_examples=25)
@given(
    seeds,
    st.sampled_from([1, 2, 7, 100, SHARD - 1, SHARD, SHARD + 1, 2 * SHARD, 3 * SHARD + 5]),
    st.integers(0, 3),
    st.data(),
)
def test_every_epoch_is_a_permutation(seed, n, epoch, data):
    batch = data.draw(st.integers(1, n))
    pieces = [items(seed, epoch * n + start, min(batch, n - start), n) for start in range(0, n, batch)]
    assert np.array_equal(np.sort(np.concatenate(pieces)), np.arange(n))


@given(seeds, st.integers(1, 3 * SHARD), st.integers(0, 10**7), st.integers(1, 300))
def test_a_stretch_of_items_is_its_items_one_by_one(seed, n, position, count):
    whole = items(seed, position, count, n)
    assert whole.shape == (count,) and whole.dtype == np.int64
    picked = [0, count // 2, count - 1]
    assert [int(items(seed, position + k, 1, n)[0]) for k in picked] == whole[picked].tolist()


def test_epochs_and_seeds_have_orders_of_their_own():
    n = 500
    orders = [items(seed, epoch * n, n, n).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(o) for o in orders}) == 4


def test_a_short_run_touches_few_shards():
    assert len(np.unique(items(0, 0, SHARD, 50 * SHARD) // SHARD)) == 1


@given(seeds, st.integers(1, 4))
def test_processes_share_a_batch_without_changing_it(seed, processes):
    whole = draw(seed, 5, 8, 1000, SHAPE, 0.1)
    parts = [whole.indices[slice(rank, None, processes)] for rank in range(processes)]
    assert sorted(np.concatenate(parts)) == sorted(whole.indices)


def test_draws_are_the_same_in_another_process_and_stay_what_they_were():
    code = (
        "from t2ikit.train.draw import draw\n"
        "d = draw(7, 123456, 2, 5000, (1, 1, 2), 0.5)\n"
        "u, noise = [round(x, 6) for x in d.u.tolist()], [round(x, 5) for x in d.noise.flatten().tolist()]\n"
        "print(d.indices.tolist(), u, noise, d.dropped.tolist())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    d = draw(7, 123456, 2, 5000, (1, 1, 2), 0.5)
    rounded = ([round(x, 6) for x in d.u.tolist()], [round(x, 5) for x in d.noise.flatten().tolist()])
    assert said == f"{d.indices.tolist()} {rounded[0]} {rounded[1]} {d.dropped.tolist()}"
    assert said == GOLDEN


GOLDEN = "[3521, 4025] [0.066453, 0.435922] [0.72365, 0.15163, 1.08092, -0.31636] [False, True]"


def test_moments():
    d = draw(3, 0, 4000, 10**6, (4, 4, 4), 0.1)
    assert d.noise.mean().item() == pytest.approx(0, abs=0.01)
    assert d.noise.std().item() == pytest.approx(1, abs=0.01)
    assert d.u.mean().item() == pytest.approx(0.5, abs=0.02) and d.u.min() >= 0 and d.u.max() < 1
    assert d.dropped.float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (d.noise[0] != d.noise[1]).all()


def test_caption_dropout_of_zero_and_one():
    assert not draw(0, 0, 64, 100, SHAPE, 0.0).dropped.any()
    assert draw(0, 0, 64, 100, SHAPE, 1.0).dropped.all()
