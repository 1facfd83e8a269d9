"""Bounds and densities of Gaussian data, for which the best denoiser and every number are known."""

import math

import numpy as np
import pytest
import torch

from t2ikit.errors import UserError
from t2ikit.metrics.likelihood import (
    bits_per_dim,
    ddpm_log_likelihood,
    discretised_log_likelihood,
    flow_log_likelihood,
    noise_levels,
    noise_of,
    noise_of_flow,
    variational_bound,
    velocity_of,
)
from t2ikit.objectives import DDPM, objective

LDM = DDPM().alphas_cumprod
LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
S2 = 1.7  # the data's variance
LEVELS = noise_levels(LDM)


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def alpha(t):
    """ᾱ at timesteps, whole or between two."""
    level = np.interp(t.double().numpy(), np.arange(1000), LEVELS)
    return torch.from_numpy(1 / (1 + np.exp(2 * level))).view(-1, 1, 1, 1)


def best_noise(x, t, s2=S2):
    """E[ε | x_t] for data N(0, s²)."""
    a = alpha(t).to(x)
    return (1 - a).sqrt() * x / (a * s2 + 1 - a)


def best_velocity(x, t, s2=4.0):
    """E[ε − x0 | x_t] for data N(0, s²)."""
    t = t.to(x).view(-1, 1, 1, 1)
    return (t - (1 - t) * s2) / ((1 - t) ** 2 * s2 + t**2) * x


def log_normal(x, variance):
    flat = x.flatten(1)
    return -0.5 * (flat.square().sum(1) / variance + flat.shape[1] * math.log(2 * math.pi * variance))


@pytest.mark.parametrize(
    ("schedule", "at_zero", "at_one"), [(LINEAR, 5.8748e-10, 2.9113e-5), (LDM, None, 3.37e-3)], ids=["linear", "LDM"]
)
def test_the_prior_is_the_published_constant(schedule, at_zero, at_one):
    x = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2), -torch.ones(1, 2, 2)])
    found = variational_bound(lambda x, t: x, x, schedule, timesteps=[0, 999], pixels=True)
    assert found.prior[1:] == pytest.approx([at_one] * 2, rel=1e-3) and found.unit == "bits/dim"
    if at_zero:
        assert found.prior[0] == pytest.approx(at_zero, rel=1e-4)


@pytest.mark.parametrize("steps", [None, [0, 10, 100, 500, 999]], ids=["all", "few"])
def test_each_term_is_the_kl_of_two_gaussians(steps):
    """From the posterior's mean and variance as in Ho et al., eqs. 6 and 7, term by term, for one draw of noise."""
    x0, seen = draw(2, 1, 2, 2).float(), {}

    def predict(x, t):
        seen[int(t[0])] = x
        return 0.3 * x

    found = variational_bound(predict, x0, LDM, timesteps=steps)
    chain, a = found.timesteps, LDM.double()
    assert found.terms.shape == (2, len(chain)) and (found.terms[:, 0] == 0).all() and found.decoder is None
    assert 0 not in seen and len(seen) == len(chain) - 1
    for k in range(1, len(chain)):
        before, now = a[chain[k - 1]], a[chain[k]]
        beta = 1 - now / before
        variance = beta * (1 - before) / (1 - now)

        def mean(x0, x_t, before=before, now=now, beta=beta):
            return (before.sqrt() * beta * x0 + (now / before).sqrt() * (1 - before) * x_t) / (1 - now)

        x_t = seen[chain[k]].double()
        guess = (x_t - (1 - now).sqrt() * 0.3 * x_t) / now.sqrt()
        kl = (mean(x0.double(), x_t) - mean(guess, x_t)).square().flatten(1).mean(1) / (2 * variance)
        assert found.terms[:, k] == pytest.approx(kl.numpy(), rel=1e-4)
    assert found.total == pytest.approx(found.prior + found.terms.sum(1))


def test_the_bound_of_gaussian_data_is_the_sum_of_their_mmses():
    """E|x0 − x̂0|² = s² (1 − ᾱ) / (ᾱ s² + 1 − ᾱ), and ½ Σ (SNR(t − 1) − SNR(t)) of it."""
    x0 = math.sqrt(S2) * draw(4, 1, 60, 60)
    found, a = variational_bound(best_noise, x0.float(), LDM), LDM.double()
    snr, mmse = a / (1 - a), S2 * (1 - a) / (a * S2 + 1 - a)
    expected = 0.5 * (snr[:-1] - snr[1:]) * mmse[1:]
    assert found.terms.mean(0)[1:] == pytest.approx(expected.numpy(), rel=0.08)
    assert found.terms.sum(1).mean() == pytest.approx(float(expected.sum()), rel=5e-3)
    # I-MMSE's ½ ∫ mmse dγ from the last to the first noise level, which no bound is below
    integral = 0.5 * math.log((1 + S2 * snr[0]) / (1 + S2 * snr[-1]))
    assert integral < expected.sum() < 1.1 * integral
    worse = variational_bound(lambda x, t: 0.9 * best_noise(x, t), x0.float(), LDM)
    assert (worse.total > found.total).all() and found.unit == "nats/dim"


def test_a_shorter_chain_is_a_looser_bound():
    x0 = math.sqrt(S2) * draw(4, 1, 40, 40).float()
    totals = [variational_bound(best_noise, x0, LDM, range(999 % k, 1000, k)).terms.sum(1).mean() for k in (1, 9, 111)]
    assert totals == sorted(totals)


def test_pixels_have_a_discretised_last_step():
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, deviation in ((0.1, 0.02), (-0.99, 0.3), (5.0, 1.0)):
        mass = discretised_log_likelihood(levels, torch.tensor(mean), torch.tensor(deviation)).exp()
        assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    x0 = levels[torch.randint(256, (2, 3, 4, 4), generator=torch.Generator().manual_seed(0))].float()

    def oracle(x, t):  # knows the noise, since it knows x0
        a = LINEAR[t].view(-1, 1, 1, 1)
        return ((x - a.sqrt() * x0) / (1 - a).sqrt()).float()

    found = variational_bound(oracle, x0, LINEAR, timesteps=[0, 1, 999], pixels=True)
    assert found.terms == pytest.approx(0, abs=1e-6)
    # the step's deviation is that of the posterior at the second timestep; its mean is right
    a = LINEAR[:2]
    sigma = ((1 - a[0]) / (1 - a[1]) * (1 - a[1] / a[0])).sqrt().item()
    inside = math.erf(1 / 255 / sigma / math.sqrt(2))
    assert found.decoder.max() == pytest.approx(-math.log2(inside), rel=1e-3)
    assert found.total == pytest.approx(found.prior + found.terms.sum(1) + found.decoder)


def test_the_flow_of_a_gaussian_has_the_published_density():
    """Lipman et al. 2024's example: N(0, 4·I₃) at (1, −2, ½)."""
    x0 = torch.tensor([1, -2, 0.5], dtype=torch.float64).view(1, 3, 1, 1)
    assert flow_log_likelihood(best_velocity, x0).item() == pytest.approx(-5.4925071413, abs=1e-4)
    assert flow_log_likelihood(best_velocity, x0, tolerance=1e-9).item() == pytest.approx(-5.4925071413, abs=1e-7)
    assert flow_log_likelihood(best_velocity, x0.float()).item() == pytest.approx(-5.4925071413, abs=1e-4)


def test_a_field_that_wavers_in_time_is_followed():
    """What trained backbones do: v = A cos(ω t) x has log p(x0) = log N(x1) + d log g, x1 = g x0, log g = A sin(ω) / ω.
    Twenty equal steps of Runge–Kutta's fourth order are off by some sixty nats here."""
    amplitude, omega, x0 = 60.0, 150.0, draw(2, 3, 4, 4).double()

    def velocity(x, t):
        return amplitude * torch.cos(omega * t).view(-1, 1, 1, 1) * x

    grown = amplitude * math.sin(omega) / omega
    exact = log_normal(x0 * math.exp(grown), 1.0) + x0[0].numel() * grown
    torch.testing.assert_close(flow_log_likelihood(velocity, x0), exact, atol=0.05, rtol=0)


def test_ddpms_ode_has_the_density_of_its_gaussian():
    """The path of N(0, s²) is linear: x0 = c · y_T with y_T ~ N(0, 1 + σ_T²), so the density is known to the digit."""
    x0, (first, last) = math.sqrt(S2) * draw(3, 4, 3, 3), (math.exp(2 * k) for k in (LEVELS[0], LEVELS[-1]))
    exact = log_normal(x0, (S2 + first) * (1 + last) / (S2 + last))
    torch.testing.assert_close(ddpm_log_likelihood(best_noise, x0, LDM, tolerance=1e-8), exact, atol=2e-5, rtol=0)
    torch.testing.assert_close(ddpm_log_likelihood(best_noise, x0, LDM), exact, atol=1e-3, rtol=0)


def test_the_divergence_is_right_on_average_and_comes_from_the_seed():
    """A field that mixes dimensions: x ~ N(0, Σ). One probe is noisy, many agree with the density."""
    mix = draw(6, 6, seed=1)
    covariance = mix @ mix.T / 6 + 0.1 * torch.eye(6, dtype=torch.float64)

    def velocity(x, t):  # E[ε − x0 | x_t] = (t − (1 − t) Σ) ((1 − t)² Σ + t²)⁻¹ x_t
        s, eye = t[0].to(x), torch.eye(6, dtype=x.dtype)
        matrix = (s * eye - (1 - s) * covariance) @ torch.linalg.inv((1 - s) ** 2 * covariance + s**2 * eye)
        return (x.flatten(1) @ matrix.T).view_as(x)

    x0 = (draw(2, 6, seed=2) @ torch.linalg.cholesky(covariance).T).view(2, 6, 1, 1)
    exact = torch.distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance)
    many = flow_log_likelihood(velocity, x0, probes=150)
    torch.testing.assert_close(many, exact.log_prob(x0.flatten(1)), atol=0.4, rtol=0)
    one, again, other = (flow_log_likelihood(velocity, x0, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_bits_of_uniform_pixels_are_eight():
    density = torch.tensor([-math.log(256 / 127.5) * 12])  # uniform over [−1, −1 + 256 / 127.5)
    assert bits_per_dim(density, 12).item() == pytest.approx(8)


def test_backbones_are_asked_in_the_way_they_were_trained():
    """v and ε say the same; a timestep between two reaches the backbone as a time times 1000."""
    from t2ikit.models.denoiser import timestep

    condition, x, t = (
        (torch.zeros(2, 1, 1), torch.ones(2, 1, dtype=torch.bool)),
        draw(2, 1, 3, 3),
        torch.tensor([3, 900]),
    )
    asked = []

    def backbone(x, t, states, mask):
        asked.append(timestep(t))
        return 0.5 * x

    noise = noise_of(backbone, objective("ddpm-eps"), condition)
    torch.testing.assert_close(noise(x, t), 0.5 * x)
    noise(x, torch.tensor([3.25, 900.0]))
    assert asked[0].tolist() == [3, 900] and asked[1].tolist() == pytest.approx([3.25, 900], rel=1e-6)

    a = alpha(t)
    v = noise_of(lambda x, t, *c: best_v(x, t), objective("ddpm-v"), condition)
    torch.testing.assert_close(v(x, t), best_noise(x, t), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(v(x, t.double()), best_noise(x, t), rtol=1e-6, atol=1e-9)
    assert a.shape == (2, 1, 1, 1)
    torch.testing.assert_close(
        velocity_of(lambda x, t, *c: t.view(-1, 1, 1, 1) * x, condition)(x, t / 1000), x * t.view(-1, 1, 1, 1) / 1000
    )


def best_v(x, t):
    """v = √ᾱ ε − √(1 − ᾱ) x0 for the best guess of both."""
    a = alpha(t * 1000 if t.is_floating_point() else t)
    noise = (1 - a).sqrt() * x / (a * S2 + 1 - a)
    return a.sqrt() * noise - (1 - a).sqrt() * (x - (1 - a).sqrt() * noise) / a.sqrt()


@pytest.mark.parametrize("steps", [[999], [10, 5, 999], [0, 500], [-1, 999]])
def test_bad_chains_are_one_sentence(steps):
    with pytest.raises(UserError, match="two or more rising timesteps, none below 0, of which the last is 999"):
        variational_bound(best_noise, torch.zeros(1, 1, 2, 2), LDM, timesteps=steps)


def test_what_solves_no_ode_is_one_sentence():
    with pytest.raises(UserError, match="A tolerance of 0 with 1 probes solves no ODE"):
        flow_log_likelihood(best_velocity, torch.zeros(1, 1, 2, 2), tolerance=0)
    with pytest.raises(UserError, match="ODE met NaN or infinity in what the model predicts"):
        flow_log_likelihood(lambda x, t: x * float("nan"), torch.ones(1, 1, 2, 2))


def test_a_flow_predicts_ddpms_noise():
    """The best velocity of Gaussian data gives, at DDPM's timesteps, the best noise; and with it the same bound."""
    x, t = draw(3, 1, 2, 2), torch.tensor([20, 400, 980])
    flow = noise_of_flow(lambda x, t: best_velocity(x, t, S2), LDM, ())
    torch.testing.assert_close(flow(x, t), best_noise(x, t), rtol=1e-4, atol=1e-6)
    x0 = 1.3 * draw(4, 1, 2, 2).float()
    bounds = [variational_bound(p, x0, LDM, [0, 100, 500, 999]).total for p in (flow, best_noise)]
    np.testing.assert_allclose(*bounds, rtol=1e-4)


def test_ddpms_ode_has_the_density_of_its_gaussian_through_a_flow_too():
    """Its timesteps lie between two: taken as whole ones, the solver would step from one jump to the next."""
    x0, (first, last) = math.sqrt(S2) * draw(3, 4, 3, 3), (math.exp(2 * k) for k in (LEVELS[0], LEVELS[-1]))
    exact = log_normal(x0, (S2 + first) * (1 + last) / (S2 + last))
    flow = noise_of_flow(lambda x, t: best_velocity(x, t, S2), LDM, ())
    t = torch.tensor([3.25, 400.5, 998.75])
    torch.testing.assert_close(flow(x0, t), best_noise(x0, t), rtol=1e-6, atol=1e-9)
    for predict in (flow, best_noise):
        found = ddpm_log_likelihood(predict, x0, LDM, tolerance=1e-8)
        torch.testing.assert_close(found, exact, atol=2e-5, rtol=0)
