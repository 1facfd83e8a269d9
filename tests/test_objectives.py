"""DDPM with LDM's schedule, and rectified flow, against closed forms."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from t2ikit.config import OBJECTIVES
from t2ikit.errors import UserError
from t2ikit.objectives import DDPM, RectifiedFlow, objective, sample_losses

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


TIMES = torch.tensor([0.0, 1e-3, 0.25, 0.5, 0.75, 1.0])


def test_x0_and_noise_come_back_from_the_velocity():
    """x0 = x_t − t v and ε = x_t + (1 − t) v."""
    flow, t = RectifiedFlow(), TIMES.view(-1, 1, 1, 1)
    x, v = flow.mix(X0, NOISE, TIMES), flow.target(X0, NOISE, TIMES)
    torch.testing.assert_close(x, (1 - t) * X0 + t * NOISE)
    torch.testing.assert_close(x - t * v, X0)
    torch.testing.assert_close(x + (1 - t) * v, NOISE)
    assert torch.equal(x[0], X0[0]) and torch.equal(x[-1], NOISE[-1])


def test_the_path_is_diffusers_own():
    scheduler, flow = FlowMatchEulerDiscreteScheduler(), RectifiedFlow()
    timesteps = scheduler.timesteps[[0, 300, 999]]
    wanted = scheduler.scale_noise(X0[:3], timesteps, NOISE[:3])
    torch.testing.assert_close(flow.mix(X0[:3], NOISE[:3], timesteps / 1000), wanted)


@given(st.floats(0, 1, exclude_max=True, width=32), st.floats(0, 1, exclude_max=True, width=32))
def test_times_rise_with_u_and_stay_in_the_path(u, other):
    for times in ("uniform", "logit-normal"):
        t = RectifiedFlow(times).timesteps(torch.tensor(sorted([u, other])))
        assert t.dtype == torch.float32 and 0 <= t[0] <= t[1] < 1


def test_the_times_distributions():
    """Logit-normal(0, 1): the logit of t is a unit Gaussian; half of the times are below ½, as with uniform ones."""
    u = (torch.arange(100_000) + 0.5) / 100_000
    assert torch.equal(RectifiedFlow("uniform").timesteps(u), u)
    logits = torch.logit(RectifiedFlow("logit-normal").timesteps(u).double())
    assert logits.mean().item() == pytest.approx(0, abs=1e-4) and logits.std().item() == pytest.approx(1, abs=1e-3)
    assert (logits.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=1e-3)


def test_every_configurable_objective_is_made():
    for name in OBJECTIVES:
        made = objective(name)
        t = made.timesteps(torch.rand(6, generator=torch.Generator().manual_seed(1)))
        assert made.mix(X0, NOISE, t).shape == made.target(X0, NOISE, t).shape == X0.shape


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_one_a_sample_and_zero_for_the_right_answer(name):
    made, t = objective(name), TIMES if name.startswith("rf") else T
    states, mask = torch.zeros(6, 2, 3), torch.ones(6, 2, dtype=torch.bool)

    def oracle(x, t, states, mask):
        return made.target(X0, NOISE, t)

    def off_by_one(x, t, states, mask):
        return made.target(X0, NOISE, t) + torch.arange(6).view(-1, 1, 1, 1)

    assert sample_losses(oracle, made, X0, NOISE, t, states, mask).tolist() == [0.0] * 6
    found = sample_losses(off_by_one, made, X0, NOISE, t, states, mask)
    torch.testing.assert_close(found, torch.arange(6.0) ** 2)


def test_unknown_names_are_one_sentence():
    with pytest.raises(UserError, match="Unknown objective 'flow'"):
        objective("flow")
    with pytest.raises(UserError, match="Unknown prediction"):
        DDPM("sample")
    with pytest.raises(UserError, match="Unknown distribution of times 'cosine': choose one of uniform, logit-normal"):
        RectifiedFlow("cosine")
