"""The caption gap and the flip accuracy of models whose answers are known."""

import json

import numpy as np
import pytest
import torch

from t2ikit.data.world import get_world
from t2ikit.encoders import image_codec, text_encoder
from t2ikit.objectives import DDPM, RectifiedFlow
from t2ikit.probe import BINS, Probe, make_probe, others, standard_error

SHAPE, N = (2, 4, 4), 12
ALPHAS = DDPM().scheduler.alphas_cumprod


@pytest.fixture
def known():
    """A probe whose true captions hold their image itself, others another's; a flip holds half of it."""
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(N, *SHAPE, generator=g), torch.randn(N, BINS, *SHAPE, generator=g)
    flip_of = np.array([0, 0, 0, 1, 2, 5, 5, 11])
    mask = torch.ones(N, 1, dtype=torch.bool)
    states = x0.flatten(1)[:, None]
    return Probe(
        x0,
        noise,
        (states, mask),
        (states.roll(1, 0), mask),
        (states[flip_of] / 2, mask[flip_of]),
        flip_of,
        [*"aabababa"],
    )


def oracle(x, t, states, mask):
    """Takes the states for the image, and so knows the noise."""
    a = ALPHAS[t].view(-1, 1, 1, 1)
    return (x - a.sqrt() * states.view(-1, *SHAPE)) / (1 - a).sqrt()


def measured(probe, forward):
    model = torch.nn.Module()
    model.forward = forward
    return probe.measure(model, DDPM())


def test_a_model_that_ignores_text_has_no_gap_and_guesses(known):
    found = measured(known, lambda x, t, states, mask: x * 0.5)
    assert found["caption_gap"] == found["caption_gap_se"] == 0
    assert found["flip_accuracy"] == 0.5 and found["flip_accuracy_se"] == 0
    assert found["flip_accuracy_by_category"] == {"a": 0.5, "b": 0.5}


def test_rounding_is_a_tie(known):
    """Two batches of different size round a matrix product differently; that is no sign of having read the caption."""
    found = measured(
        known, lambda x, t, states, mask: x * 0.5 * (1 + 1e-8 * len(x) * states.mean((1, 2)).view(-1, 1, 1, 1))
    )
    assert found["flip_accuracy"] == 0.5


def test_an_oracle_has_a_gap_and_recognises_every_flip(known):
    found = measured(known, oracle)
    assert found["val_loss"] == pytest.approx(0, abs=1e-8)
    assert found["flip_accuracy"] == 1.0 and found["flip_accuracy_se"] == 0
    # the wrong image moves the predicted noise by √(ᾱ / (1 − ᾱ)) times their difference
    difference = (known.x0 - known.x0.roll(1, 0)).square().mean().item()
    a = ALPHAS[[int((k + 0.5) / BINS * 1000) for k in range(BINS)]]
    assert found["caption_gap_by_bin"] == pytest.approx((a / (1 - a) * difference).tolist(), rel=1e-3)
    assert found["caption_gap"] == pytest.approx(np.mean(found["caption_gap_by_bin"]))


@pytest.mark.parametrize("times", ["uniform", "logit-normal"])
def test_the_gap_of_a_flows_oracle(known, times):
    """Who takes the states for the image predicts v = (x_t − x0) / t; the wrong one moves it by their distance / t."""
    flow, model = RectifiedFlow(times), torch.nn.Module()
    model.forward = lambda x, t, states, mask: (x - states.view(-1, *SHAPE)) / t.view(-1, 1, 1, 1)
    found = known.measure(model, flow)
    assert found["val_loss"] == pytest.approx(0, abs=1e-8) and found["flip_accuracy"] == 1.0
    t = flow.timesteps((torch.arange(BINS) + 0.5) / BINS)
    difference = (known.x0 - known.x0.roll(1, 0)).square().mean()
    assert found["caption_gap_by_bin"] == pytest.approx((difference / t**2).tolist(), rel=1e-3)


def test_a_model_that_prefers_the_wrong_caption_scores_none(known):
    found = measured(
        known, lambda x, t, states, mask: oracle(x, t, 2 * states, mask)
    )  # right where half an image is given
    assert found["flip_accuracy"] == 0.0


def test_measuring_has_no_chance_in_it_and_fits_json(known):
    first = measured(known, oracle)
    torch.manual_seed(5)
    assert measured(known, oracle) == first
    json.dumps(first, allow_nan=False)


def test_without_flips_there_is_no_accuracy(known):
    known.flip_category, known.flip_of = [], np.array([], int)
    found = measured(known, oracle)
    assert found["flip_accuracy"] is None and found["flip_accuracy_by_category"] == {}


def test_standard_error_of_independent_values_is_the_usual_one():
    x = np.random.default_rng(0).standard_normal(50)
    assert standard_error(x, np.arange(50)) == pytest.approx(x.std(ddof=1) / 50**0.5)


def test_values_of_one_image_are_one_cluster():
    """Copies of a value carry no information; with equal clusters it is the standard error of their means."""
    x = np.random.default_rng(0).standard_normal((40, 3))
    of = np.repeat(np.arange(40), 3)
    assert standard_error(np.repeat(x[:, 0], 3), of) == pytest.approx(x[:, 0].std(ddof=1) / 40**0.5)
    assert standard_error(x.ravel(), of) == pytest.approx(x.mean(1).std(ddof=1) / 40**0.5)
    assert standard_error(x[0], np.zeros(3)) is None


def test_standard_error_with_unequal_clusters_agrees_with_the_bootstrap():
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 5, 200)
    of = np.repeat(np.arange(200), sizes)
    x = (rng.random(200)[of] + rng.standard_normal(len(of)) > 0.5).astype(float)
    clusters = [x[of == k] for k in range(200)]
    means = [np.concatenate([clusters[k] for k in rng.integers(200, size=200)]).mean() for _ in range(2000)]
    assert standard_error(x, of) == pytest.approx(np.std(means), rel=0.08)


def test_others_read_differently():
    captions = ["a", "a", "b", "c", "a"]
    assert [captions[j] for j in others(captions)] == ["b", "b", "c", "a", "b"]
    assert others(["a", "a"]) == [0, 1]


def test_the_probe_of_scenes_is_the_same_twice_and_begins_the_same(codec):
    world, parts = get_world("scenes"), (image_codec(codec), text_encoder("minilm-64"))
    first, again, longer = (make_probe(world, "medium", *parts, n) for n in (4, 4, 6))
    assert torch.equal(first.x0, again.x0) and torch.equal(first.noise, again.noise)
    assert torch.equal(first.flipped[0], again.flipped[0]) and first.flip_category == again.flip_category
    torch.testing.assert_close(first.x0, longer.x0[:4], atol=1e-4, rtol=1e-4)
    assert torch.equal(first.noise, longer.noise[:4])
    kept = longer.flip_of < 4
    assert first.flip_of.tolist() == longer.flip_of[kept].tolist()
    assert len(first.flip_category) == len(first.flip_of) >= 4
    assert not torch.equal(first.true[0][0], first.shuffled[0][0])
