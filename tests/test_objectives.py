"""DDPM with LDM's schedule against closed forms."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2ikit.errors import UserError
from t2ikit.objectives import DDPM, objective, sample_losses

G = torch.Generator().manual_seed(0)
X0, NOISE = torch.randn(6, 4, 3, 3, generator=G), torch.randn(6, 4, 3, 3, generator=G)
T = torch.tensor([0, 1, 250, 500, 998, 999])


def schedule():
    """ᾱ of scaled-linear betas: √β rises linearly (LDM)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


def test_schedule_is_ldms():
    found = DDPM().scheduler.alphas_cumprod
    torch.testing.assert_close(found.double(), schedule(), rtol=1e-4, atol=0)
    assert found[-1].item() == pytest.approx(0.0047, abs=5e-5)
    assert DDPM().sampling_scheduler().alphas_cumprod.equal(found)


@pytest.mark.parametrize("name", ["ddpm-eps", "ddpm-v"])
def test_x0_comes_back_from_what_is_predicted(name):
    made, a = objective(name), schedule()[T].float().view(-1, 1, 1, 1)
    x, target = made.mix(X0, NOISE, T), made.target(X0, NOISE, T)
    torch.testing.assert_close(x, a.sqrt() * X0 + (1 - a).sqrt() * NOISE)
    x0 = (x - (1 - a).sqrt() * target) / a.sqrt() if name == "ddpm-eps" else a.sqrt() * x - (1 - a).sqrt() * target
    torch.testing.assert_close(x0, X0, rtol=1e-3, atol=1e-4)


def test_v_and_noise_are_one_prediction_in_two_forms():
    """ε = √ᾱ v + √(1 − ᾱ) x_t (Salimans & Ho 2022, appendix D)."""
    made, a = DDPM("v_prediction"), schedule()[T].float().view(-1, 1, 1, 1)
    v, x = made.target(X0, NOISE, T), made.mix(X0, NOISE, T)
    torch.testing.assert_close(a.sqrt() * v + (1 - a).sqrt() * x, NOISE, rtol=1e-4, atol=1e-5)


@given(st.floats(0, 1, exclude_max=True, width=32))
def test_timesteps_cover_the_schedule_and_stay_in_it(u):
    t = DDPM().timesteps(torch.tensor([u]))
    assert t.dtype == torch.int64 and 0 <= t.item() <= 999 and abs(t.item() + 0.5 - 1000 * u) <= 0.501


def test_all_timesteps_are_equally_likely():
    t = DDPM().timesteps((torch.arange(5000) + 0.5) / 5000)
    assert torch.bincount(t, minlength=1000).eq(5).all()


@pytest.mark.parametrize("name", ["ddpm-eps", "ddpm-v"])
def test_losses_are_one_a_sample_and_zero_for_the_right_answer(name):
    made = objective(name)
    states, mask = torch.zeros(6, 2, 3), torch.ones(6, 2, dtype=torch.bool)

    def oracle(x, t, states, mask):
        return made.target(X0, NOISE, t)

    def off_by_one(x, t, states, mask):
        return made.target(X0, NOISE, t) + torch.arange(6).view(-1, 1, 1, 1)

    assert sample_losses(oracle, made, X0, NOISE, T, states, mask).tolist() == [0.0] * 6
    found = sample_losses(off_by_one, made, X0, NOISE, T, states, mask)
    torch.testing.assert_close(found, torch.arange(6.0) ** 2)


def test_unknown_names_are_one_sentence():
    with pytest.raises(UserError, match="Unknown objective 'flow'"):
        objective("flow")
    with pytest.raises(UserError, match="Unknown prediction"):
        DDPM("sample")
