"""Information between captions and images, for pairs whose information is known."""

import math

import numpy as np
import pytest
import torch

from t2ikit.errors import UserError
from t2ikit.metrics.alignment import alignment, information, noise_error
from t2ikit.metrics.likelihood import chain
from t2ikit.objectives import objective
from t2ikit.probe import BINS, Probe

RHO, SHAPE, N = 0.8, (2, 12, 12), 24
EXACT = -0.5 * math.log(1 - RHO**2)  # nats a dimension between x0 and c, jointly Gaussian with correlation ρ
OBJECTIVES = ["ddpm-eps", "ddpm-v", "rf-uniform", "rf-logit-normal"]


def mmse(snr, variance):
    """Of the noise, a dimension, for data N(·, variance)."""
    return snr * variance / (1 + snr * variance)


def test_information_is_exact_on_a_gaussian_pair():
    log_snr = np.linspace(-25, 25, 2000)
    gap = mmse(np.exp(log_snr), 1) - mmse(np.exp(log_snr), 1 - RHO**2)
    assert information(gap, log_snr) == pytest.approx(EXACT, rel=1e-6)
    shuffled = np.random.default_rng(0).permutation(2000)
    assert information(gap[shuffled], log_snr[shuffled]) == pytest.approx(EXACT, rel=1e-6)
    assert information(np.stack([gap, 0 * gap]), log_snr) == pytest.approx([EXACT, 0], rel=1e-6)


class Best(torch.nn.Module):
    """The best denoiser of x0 = ρ c + √(1 − ρ²) e, told c by the states, or that there is none by a mask of zeros."""

    def __init__(self, name):
        super().__init__()
        self.objective, self.name = objective(name), name

    def forward(self, x, t, states, mask):
        told = mask[:, :1, None, None].double()
        mean = told * RHO * states.view(-1, *SHAPE)
        variance = 1 - told * RHO**2
        if self.name.startswith("rf"):
            signal, spread = 1 - t.double(), t.double()
        else:
            a = self.objective.scheduler.alphas_cumprod[t].double()
            signal, spread = a.sqrt(), (1 - a).sqrt()
        signal, spread = signal.view(-1, 1, 1, 1), spread.view(-1, 1, 1, 1)
        x0 = mean + signal * variance / (signal**2 * variance + spread**2) * (x - signal * mean)
        noise = (x - signal * x0) / spread
        if self.name.startswith("rf"):
            return noise - x0
        return noise if self.name == "ddpm-eps" else signal * noise - spread * x0


@pytest.fixture(scope="module")
def pair():
    g = torch.Generator().manual_seed(0)
    c, e = torch.randn(N, *SHAPE, generator=g), torch.randn(N, *SHAPE, generator=g)
    x0, mask = RHO * c + math.sqrt(1 - RHO**2) * e, torch.ones(N, 1, dtype=torch.bool)
    states, of = c.flatten(1)[:, None], np.arange(N)
    noise = torch.randn(N, BINS, *SHAPE, generator=g)
    wrong = states.roll(1, 0)
    return Probe(x0, noise, (states, mask), (wrong, mask), (wrong, mask), of, ["color", "shape"] * (N // 2))


NULL = (torch.zeros(1, 1, math.prod(SHAPE)), torch.zeros(1, 1, dtype=torch.bool))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_best_denoiser_finds_the_information_within_its_noise_levels(pair, name):
    found = alignment(Best(name), objective(name), pair, NULL)
    low, high = (math.exp(found["log_snr"][k]) for k in (0, -1))
    size = math.prod(SHAPE)

    def between(variance):  # ½ ∫ of variance · γ / (1 + variance · γ) d log γ
        return 0.5 * math.log((1 + high * variance) / (1 + low * variance))

    expected = size * (between(1) - between(1 - RHO**2))
    assert found["information"] == pytest.approx(expected, rel=0.06)
    assert abs(found["information"] - expected) < 5 * found["information_se"]
    if name != "rf-logit-normal":
        assert expected == pytest.approx(size * EXACT, rel=0.1)  # the schedule sees nearly all of it
    assert np.diff(found["log_snr"]).min() > 0 and len(found["information_by_bin"]) == 24
    # and what the probe measures in training
    assert found["caption_gap"] > 0 and found["flip_accuracy"] == 1.0
    assert found["flip_accuracy_by_category"] == {"color": 1.0, "shape": 1.0}


def test_a_model_that_does_not_read_finds_none(pair):
    model = torch.nn.Module()
    model.forward = lambda x, t, states, mask: 0.5 * x
    found = alignment(model, objective("ddpm-eps"), pair, NULL)
    assert found["information"] == found["information_se"] == 0 and found["flip_accuracy"] == 0.5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_errors_of_the_prediction_become_errors_of_the_noise(name):
    made, g = objective(name), torch.Generator().manual_seed(0)
    x0, noise, off = (torch.randn(5, 2, 3, 3, generator=g) for _ in range(3))
    u = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.95])
    t = made.timesteps(u)
    x, target = made.mix(x0, noise, t), made.target(x0, noise, t)
    log_snr, weight = noise_error(made, u)
    snr = torch.from_numpy(log_snr).exp().float().view(-1, 1, 1, 1)
    signal = made.mix(torch.ones_like(x0), torch.zeros_like(x0), t)
    spread = made.mix(torch.zeros_like(x0), torch.ones_like(x0), t)
    torch.testing.assert_close(signal**2 / spread**2, snr.expand_as(x0), rtol=1e-3, atol=0)

    def as_noise(prediction):
        if name == "ddpm-eps":
            return prediction
        return signal * prediction + spread * x if name == "ddpm-v" else x + signal * prediction

    torch.testing.assert_close(as_noise(target), noise, rtol=1e-3, atol=1e-4)
    found = (as_noise(target + off) - noise).square().mean((1, 2, 3)) / off.square().mean((1, 2, 3))
    assert found.numpy() == pytest.approx(weight, rel=1e-3)


@pytest.mark.parametrize("name", ["ddpm-eps", "ddpm-v"])
def test_noise_levels_are_known_after_the_objective_was_used_on_another_device(name):
    of = objective(name)
    before = noise_error(of, torch.tensor([0.1, 0.9]))
    there = torch.zeros(1, 1, 2, 2, device="meta")
    of.mix(there, there, torch.zeros(1, dtype=torch.long, device="meta"))  # diffusers moves its schedule there
    np.testing.assert_array_equal(noise_error(of, torch.tensor([0.1, 0.9])), before)
    assert chain(of.alphas_cumprod)[-1] == 999


def test_another_objective_is_one_sentence():
    class Other:
        def timesteps(self, u):
            return u

    with pytest.raises(UserError, match="noise levels of Other are not known"):
        noise_error(Other(), torch.tensor([0.5]))


def test_a_trained_run_has_a_bound_a_density_and_an_alignment(trained):
    """The parts fit together on a real backbone, its captions and latents; four steps of training show little."""
    from t2ikit.generate import load_run
    from t2ikit.metrics.likelihood import ddpm_log_likelihood, noise_of, variational_bound
    from t2ikit.probe import make_probe

    parts, model = load_run(trained)
    probe = make_probe(parts.world, parts.config.captions, parts.codec, parts.text, 2)
    found = alignment(model, parts.objective, probe, parts.text.encode([""]), bins=3)
    assert math.isfinite(found["information"]) and set(found) >= {"caption_gap_by_bin", "flip_accuracy_by_category"}
    noise, schedule = noise_of(model, parts.objective, probe.true), parts.objective.alphas_cumprod
    bound = variational_bound(noise, probe.x0, schedule, timesteps=[10, 500, 999])
    assert bound.terms.shape == (2, 3) and np.isfinite(bound.total).all() and (bound.terms >= 0).all()
    density = ddpm_log_likelihood(noise, probe.x0, schedule, tolerance=0.1)
    assert density.shape == (2,) and density.isfinite().all()
