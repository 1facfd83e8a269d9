"""Samplers on data whose denoiser is known exactly; guidance; starting noise."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2ikit.errors import UserError
from t2ikit.objectives import DDPM, RectifiedFlow
from t2ikit.samplers import ddim, euler, guided, heun, prompt_noise, sampler

MEAN, STD = 1.5, 0.5
ALPHAS = DDPM().scheduler.alphas_cumprod


class Gaussian(torch.nn.Module):
    """The optimal prediction for data N(MEAN, STD²)."""

    def __init__(self, prediction="epsilon"):
        super().__init__()
        self.prediction = prediction

    def forward(self, x, t, states, mask):
        a = ALPHAS[t].view(-1, 1, 1, 1)
        noise = (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)
        x0 = (x - (1 - a).sqrt() * noise) / a.sqrt()
        return noise if self.prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * x0


class GaussianFlow(torch.nn.Module):
    """The optimal velocity for data N(MEAN, STD²): E[noise − x0 | x_t], both jointly Gaussian with x_t."""

    def forward(self, x, t, states, mask):
        t = t.view(-1, 1, 1, 1).double()
        variance = (1 - t) ** 2 * STD**2 + t**2
        return (-MEAN + (t - (1 - t) * STD**2) / variance * (x - (1 - t) * MEAN)).to(x.dtype)


class Shifted(torch.nn.Module):
    """Predicts the mean of the states, whatever x is."""

    def forward(self, x, t, states, mask):
        return states.mean((1, 2)).view(-1, 1, 1, 1).expand_as(x)


def condition(value, batch=1):
    return torch.full((batch, 2, 3), float(value)), torch.ones(batch, 2, dtype=torch.bool)


def sample(prediction="epsilon", steps=50, guidance=1.0):
    noise = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return ddim(Gaussian(prediction), DDPM(prediction), noise, condition(0, 64), condition(0), steps, guidance)


def flow(x, first):
    """The exact probability flow from timestep `first` to 0: with Gaussian data it is linear in x."""
    a, end = ALPHAS[first], ALPHAS[0]  # sampling ends at the first level of noise, not at none
    z = (x - a.sqrt() * MEAN) / (a * STD**2 + 1 - a).sqrt()
    return end.sqrt() * MEAN + (end * STD**2 + 1 - end).sqrt() * z


def test_noise_is_carried_to_the_datas_moments():
    """ᾱ_T = 0.0047 is not zero: unit noise there lacks √ᾱ_T times the data's mean, and a little of that stays."""
    x = sample(steps=50)
    assert x.mean().item() == pytest.approx(MEAN, abs=0.07)
    assert x.std().item() == pytest.approx(STD, abs=0.03)


def test_more_steps_come_nearer_to_the_probability_flow():
    noise, errors = torch.linspace(-2, 2, 9).view(9, 1, 1, 1), []
    for steps, first in ((10, 901), (50, 981), (200, 996)):
        x = ddim(Gaussian(), DDPM(), noise, condition(0, 9), condition(0), steps, 1.0)
        errors.append((x - flow(noise, first)).abs().max().item())
    assert errors[0] > 3 * errors[1] > 9 * errors[2]
    assert errors[2] < 0.02


def test_noise_and_v_predictions_sample_the_same():
    torch.testing.assert_close(sample("epsilon"), sample("v_prediction"), atol=1e-3, rtol=0)


def test_sampling_has_no_chance_in_it():
    assert torch.equal(sample(steps=5), sample(steps=5))


def transport(method, steps, guidance=1.0):
    """Where `method` carries noise −2…2 in float64, and where the exact flow does: to MEAN + STD · noise."""
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64).view(9, 1, 1, 1)
    x = method(GaussianFlow(), RectifiedFlow(), noise, condition(0, 9), condition(0), steps, guidance)
    return x, MEAN + STD * noise


@pytest.mark.parametrize("method, order", [(euler, 1), (heun, 2)])
def test_the_error_falls_with_the_order_of_the_method(method, order):
    errors = [(x - exact).abs().max().item() for x, exact in (transport(method, steps) for steps in (20, 40, 80, 160))]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


def test_heun_carries_noise_to_the_datas_moments():
    noise = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x = heun(GaussianFlow(), RectifiedFlow(), noise, condition(0, 64), condition(0), 50, 1.0)
    torch.testing.assert_close(x, MEAN + STD * noise, atol=1e-3, rtol=0)


def test_one_euler_step_is_the_mean_of_the_data():
    """At t = 1 x is noise alone and says nothing of the data: x0 = x − v is its mean."""
    x, _ = transport(euler, 1)
    torch.testing.assert_close(x, torch.full_like(x, MEAN))


def test_heun_with_half_the_steps_is_nearer_than_euler():
    """At as many predictions."""
    off = [(x - exact).abs().max() for x, exact in (transport(euler, 50), transport(heun, 25))]
    assert off[1] < 0.1 * off[0]


@pytest.mark.parametrize("method", [euler, heun])
def test_guidance_of_one_is_none_and_more_moves_along_the_difference(method):
    """A model that predicts its condition moves x by the guided condition, whatever the steps."""
    noise = torch.zeros(2, 1, 1, 1)
    for scale, moved in ((1.0, 0.5), (0.0, 2.0), (3.0, 2.0 + 3 * (0.5 - 2.0))):
        x = method(Shifted(), RectifiedFlow(), noise, condition(0.5, 2), condition(2.0), 7, scale)
        torch.testing.assert_close(x, torch.full_like(x, -moved))


def test_each_objective_has_its_samplers():
    assert sampler(DDPM()) is sampler(DDPM("v_prediction"), "ddim") is ddim
    assert sampler(RectifiedFlow()) is sampler(RectifiedFlow("logit-normal"), "euler") is euler
    assert sampler(RectifiedFlow(), "heun") is heun
    with pytest.raises(UserError, match="Unknown DDPM sampler 'euler': choose one of ddim"):
        sampler(DDPM(), "euler")
    with pytest.raises(UserError, match="Unknown RectifiedFlow sampler 'ddim': choose one of euler, heun"):
        sampler(RectifiedFlow(), "ddim")


@given(st.floats(-3, 10), st.floats(-2, 2), st.floats(-2, 2))
def test_guidance_is_null_plus_scale_times_the_difference(scale, c, n):
    x, t = torch.zeros(2, 1, 2, 2), torch.tensor([5, 5])
    found = guided(Shifted(), x, t, condition(c, 2), condition(n), scale)
    torch.testing.assert_close(found, torch.full_like(x, n + scale * (c - n)), atol=1e-4, rtol=1e-4)


def test_guidance_of_one_asks_the_condition_alone():
    calls = []

    def model(x, t, states, mask):
        calls.append(len(x))
        return states[:, :1, :1, None].expand_as(x)

    guided(model, torch.zeros(3, 1, 1, 1), torch.zeros(3, dtype=torch.long), condition(2, 3), condition(0), 1.0)
    guided(model, torch.zeros(3, 1, 1, 1), torch.zeros(3, dtype=torch.long), condition(2, 3), condition(0), 2.0)
    assert calls == [3, 6]


@pytest.mark.parametrize("steps", [0, -1, 1000])
def test_steps_out_of_range_are_one_sentence(steps):
    with pytest.raises(UserError, match=f"^{steps} DDIM steps are not possible: choose 1 to 999"):
        sample(steps=steps)


def test_steps_that_would_leave_out_the_noisy_end_are_refused():
    with pytest.raises(UserError, match="^600 DDIM steps would start .* at timestep 600 of 1000: choose 500 or 900."):
        sample(steps=600)


@pytest.mark.parametrize("method", [euler, heun])
def test_steps_of_a_flow_that_are_out_of_range_are_one_sentence(method):
    with pytest.raises(UserError, match="^0 (Euler|Heun) steps are not possible: choose 1 to 10000"):
        transport(method, 0)
    with pytest.raises(UserError, match="guidance scale of inf"):
        transport(method, 1, float("inf"))


def test_the_most_steps_and_the_fewest_run():
    assert sample(steps=1).isfinite().all()
    noise = torch.zeros(1, 1, 1, 1)
    assert ddim(Gaussian(), DDPM(), noise, condition(0), condition(0), 999, 1.0).isfinite().all()


def test_guidance_that_is_no_number_is_one_sentence():
    with pytest.raises(UserError, match="guidance scale of nan"):
        sample(guidance=float("nan"))


@given(st.lists(st.text(), min_size=1, max_size=5), st.integers(0, 2**31))
def test_a_prompts_noise_is_its_own(prompts, seed):
    together = prompt_noise(prompts, (2, 3, 3), seed)
    assert together.dtype == torch.float32 and together.shape == (len(prompts), 2, 3, 3)
    for prompt, noise in zip(prompts, together, strict=True):
        assert torch.equal(prompt_noise([prompt], (2, 3, 3), seed)[0], noise)
    assert not torch.equal(prompt_noise(prompts, (2, 3, 3), seed + 1), together)


def test_different_prompts_differ_and_noise_is_normal():
    noise = prompt_noise([f"a red circle {k}" for k in range(64)], (4, 8, 8), 0)
    assert len({n.sum().item() for n in noise}) == 64
    assert noise.mean().item() == pytest.approx(0, abs=0.03) and noise.std().item() == pytest.approx(1, abs=0.02)
