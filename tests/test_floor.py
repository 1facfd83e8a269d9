"""The floor against numeric integrals, Bayes' rule, an identity of information theory, and models of the real world."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from t2ikit import floor
from t2ikit.config import OBJECTIVES
from t2ikit.data.scenes_enumerated import ScenesEnumerated
from t2ikit.errors import UserError
from t2ikit.floor import Distribution, estimate, losses
from t2ikit.objectives import objective
from t2ikit.probe import BINS, make_probe
from t2ikit.study import preset
from t2ikit.train.loop import train
from t2ikit.train.setup import resolve

ALPHAS = objective("ddpm-eps").scheduler.alphas_cumprod.double()


def points(n, d, captions=1, seed=0):
    """n random points in d dimensions; captions in equal parts."""
    latents = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, d)))
    return Distribution(latents, torch.arange(n) % captions)


def drawn(data, m, seed=0):
    """rows [m], noise [m, d]"""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(len(data.latents), size=m)), torch.from_numpy(
        rng.standard_normal((m, data.latents.shape[1]))
    )


def snr(name, t):
    """a² / s² at timesteps t."""
    a = ALPHAS[t] if name.startswith("ddpm") else None
    return a / (1 - a) if a is not None else ((1 - t) / t) ** 2


def two_point_mmse(ratio):
    """E (x0 − E[x0 | x_t])² of x0 = ±1 with equal odds at an SNR: 1 − E tanh(SNR + √SNR z), z a unit Gaussian."""
    z = np.linspace(-12, 12, 4801)
    return 1 - np.trapezoid(np.tanh(ratio + ratio**0.5 * z) * stats.norm.pdf(z), z)


# name → how often the squared error of x0 the loss is, as a function of (t, SNR)
WEIGHT = {
    "ddpm-eps": lambda t, ratio: ratio,
    "ddpm-v": lambda t, ratio: 1 + ratio,
    "rf-uniform": lambda t, ratio: 1 / t**2,
    "rf-logit-normal": lambda t, ratio: 1 / t**2,
}
TWO = Distribution(torch.tensor([[1.0], [-1.0]]).double(), torch.zeros(2).long())


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("where", [0.3, 0.6, 0.9])
def test_two_points_at_one_timestep_are_the_numeric_integral(name, where):
    made, m = objective(name), 40_000
    t = torch.tensor(1000 * where).long() if name.startswith("ddpm") else torch.tensor(where)
    found = losses(TWO, made, *drawn(TWO, m), t.expand(m))[:, 0]
    ratio = float(snr(name, t))
    wanted = WEIGHT[name](float(t), ratio) * two_point_mmse(ratio)
    assert abs(found.mean() - wanted) < 4 * found.std() / m**0.5 + 1e-6 * wanted
    assert 0.001 < wanted < 2


def test_two_points_over_all_timesteps_are_the_numeric_integral():
    ratios = snr("ddpm-eps", torch.arange(1000))
    wanted = {"ddpm-eps": np.mean([r * two_point_mmse(r) for r in ratios.tolist()])}

    def at(t):
        return two_point_mmse(((1 - t) / t) ** 2) / t**2

    wanted["rf-uniform"] = integrate.quad(at, 1e-3, 1, limit=200)[0]
    wanted["rf-logit-normal"] = integrate.quad(lambda x: at(stats.logistic.cdf(x)) * stats.norm.pdf(x), -6, 6)[0]
    for name, value in wanted.items():
        table = estimate(TWO, objective(name), draws=32_000).query("condition == 'none' and bin == 'all'").iloc[0]
        assert abs(table["value"] - value) < 4 * table["standard_error"] and table["standard_error"] < 0.04 * value


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_image_leaves_nothing_to_learn(name):
    table = estimate(points(1, 8), objective(name), draws=512)
    assert (table["value"] == 0).all() and (table["standard_error"] == 0).all()


def test_the_posterior_mean_is_bayes_rule():
    data, a, s = points(7, 3, captions=2), 0.8, 0.6
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 3)))
    caption = torch.tensor([0, 1, 0, 1, 1])
    weights = stats.norm.pdf(x[:, None].numpy(), a * data.latents.numpy(), s).prod(2)
    told = weights * (caption[:, None] == data.caption).numpy()
    wanted = [torch.from_numpy(w / w.sum(1, keepdims=True)) @ data.latents for w in (weights, told)]
    scale = [torch.full((5, 1), v).double() for v in (a, s)]
    torch.testing.assert_close(floor.posterior_means(data, x, *scale, caption), torch.stack(wanted))


def test_noise_v_and_velocity_are_one_floor_in_three_forms():
    """At equal SNR the posterior is one: draw by draw, loss_ε = SNR e, loss_v = (1 + SNR) e, loss_RF = e / t²."""
    data, t = points(40, 12, captions=5), torch.tensor([50, 300, 500, 700, 900]).repeat(60)
    rows, noise = drawn(data, 300)
    ratio = snr("ddpm-eps", t)
    time = (1 / (1 + ratio.sqrt())).float()
    eps, v = (losses(data, objective(name), rows, noise, t) for name in ("ddpm-eps", "ddpm-v"))
    flow = losses(data, objective("rf-uniform"), rows, noise, time)
    error = eps / ratio[:, None].numpy()
    assert error.max() > 0.1
    np.testing.assert_allclose(v, error * (1 + ratio[:, None].numpy()), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(flow, error / time[:, None].double().numpy() ** 2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("captions", [1, 4])
def test_the_area_under_the_error_is_twice_the_entropy(captions):
    """∫ mmse dSNR = 2 H in nats (Guo, Shamai and Verdú 2005); for a flow dSNR = 2 (1 − t) / t³ dt, mmse = d t² loss."""
    data, m = points(32, 6, captions), 40_000
    u = (np.arange(m) + np.random.default_rng(2).random(m)) / m
    found = losses(data, objective("rf-uniform"), *drawn(data, m), torch.from_numpy(u).float())
    area = found * 6 * 2 * ((1 - u) / u)[:, None]
    for column, entropy in enumerate((np.log(32), np.log(32 / captions))):
        error = area[:, column].std() / m**0.5
        assert abs(area[:, column].mean() - 2 * entropy) < 4 * error and error < 0.03 * entropy


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shift=st.lists(st.floats(-2, 2), min_size=4, max_size=4),
    stretch=st.floats(0.2, 3),
    noisy=st.floats(0.05, 0.98),
)
def test_no_other_prediction_is_better(seed, shift, stretch, noisy):
    """Given x_t, the expected squared error of any prediction over the posterior is that of its mean, and more."""
    data = points(9, 4, captions=3, seed=seed)
    rows, noise = drawn(data, 6, seed)
    a, s = (torch.full((6, 1), v).double() for v in ((1 - noisy**2) ** 0.5, noisy))
    x, caption = a * data.latents[rows] + s * noise, data.caption[rows]
    best = floor.posterior_means(data, x, a, s, caption)
    density = torch.exp(-((x[:, None] - a[..., None] * data.latents) ** 2).sum(2) / (2 * noisy**2))
    for k, weight in enumerate((density, density * (caption[:, None] == data.caption))):
        weight = weight / weight.sum(1, keepdim=True)

        def risk(prediction, weight=weight):
            return (weight * (prediction[:, None] - data.latents).square().sum(2)).sum(1)

        other = stretch * best[k] + torch.tensor(shift).double()
        torch.testing.assert_close(risk(other) - risk(best[k]), (other - best[k]).square().sum(1))


def test_on_the_same_draws_a_perturbed_prediction_loses_its_perturbation():
    """The best's error is uncorrelated with whatever x_t tells: losses differ by the perturbation's square."""
    data, m, t = points(30, 4, captions=3), 20_000, 0.6
    rows, noise = drawn(data, m)
    a, s = (torch.full((m, 1), v).double() for v in (1 - t, t))
    x = a * data.latents[rows] + s * noise
    best = losses(data, objective("rf-uniform"), rows, noise, torch.full((m,), t))
    means = floor.posterior_means(data, x, a, s, data.caption[rows])
    for k in (0, 1):
        for off in (0.0, 0.1, 0.1 * torch.tanh(x)):
            velocity = (x - means[k]) / t + off
            other = (velocity - (noise - data.latents[rows])).square().mean(1).numpy()
            more = other - best[:, k]
            wanted = (torch.zeros_like(x) + off).square().mean().item()
            assert abs(more.mean() - wanted) < 4 * more.std() / m**0.5 + 1e-6


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_caption_never_raises_the_floor(name):
    made = objective(name)
    data = points(60, 6, captions=12)
    rows, noise = drawn(data, 4000)
    t = made.timesteps(torch.rand(4000, generator=torch.Generator().manual_seed(0)))
    without, told = losses(data, made, rows, noise, t).T
    less = without - told
    assert less.mean() > 4 * less.std() / 4000**0.5
    same = losses(replace(data, caption=torch.zeros(60)), made, rows, noise, t)
    assert (same[:, 0] == same[:, 1]).all()
    each = losses(replace(data, caption=torch.arange(60)), made, rows, noise, t)
    assert (each[:, 1] == 0).all() and (each[:, 0] == without).all()


def test_the_table_is_reproducible_and_its_errors_are_honest():
    data, made = points(20, 3, captions=4), objective("ddpm-v")
    tables = [estimate(data, made, draws=400, bins=4, seed=seed) for seed in range(60)]
    assert tables[0].equals(estimate(data, made, draws=400, bins=4, seed=0))
    whole = tables[0].query("bin == 'all' and condition == 'caption'").iloc[0]
    parts = tables[0].query("bin != 'all' and condition == 'caption'")
    assert whole["value"] == pytest.approx(parts["value"].mean()) and whole["n"] == parts["n"].sum() == 400
    assert parts["t"].is_monotonic_increasing and parts["t"].between(0, 999).all()
    totals = np.array([t.query("bin == 'all'")[["value", "standard_error"]].to_numpy() for t in tables])
    ratio = totals[..., 0].std(0, ddof=1) / totals[..., 1].mean(0)
    assert (np.abs(ratio - 1) < 0.4).all()  # 60 draws of a standard deviation: ± 0.09 each
    for draws, bins in ((8, 8), (8, 0), (0, 4)):
        with pytest.raises(UserError, match="too few for a standard error"):
            estimate(data, made, draws, bins)


@pytest.fixture
def parts(home, codec):
    """Those of a smoke run on 54 enumerated scenes of one thing, nine to a caption."""
    config, budget = preset("incontext-d2-w32", "scenes-enumerated", "smoke", codec=codec, probe_images=12, steps=2)
    world = ScenesEnumerated(things=1, colors=3, shapes=2, sizes=1, backgrounds=1)
    return replace(resolve(config), world=world), budget


class Best(torch.nn.Module):
    """The best model of a distribution that is not told captions."""

    def __init__(self, data, objective):
        super().__init__()
        self.data, self.objective = data, objective

    def forward(self, x, t, states, mask):
        a, s, p, q = floor.coefficients(self.objective, t)
        flat = x.flatten(1).double()
        mean = floor.posterior_means(self.data, flat, a, s, torch.zeros(len(x)).long())[0]
        return (p * mean + q * (flat - a * mean) / s).view_as(x)


@pytest.mark.parametrize("name", ["ddpm-eps", "rf-uniform"])
def test_the_best_model_scores_the_floor_of_the_probe(parts, name):
    parts = replace(parts[0], objective=objective(name), config=replace(parts[0].config, objective=name))
    probe = make_probe(parts.world, "medium", parts.codec, parts.text, 12)
    wanted = floor.on_probe(parts, probe)
    data = floor.distribution(parts)
    assert data.latents.shape == (54, 1024) and torch.bincount(data.caption).tolist() == [9] * 6
    found = probe.losses(Best(data, parts.objective), parts.objective, np.arange(12), probe.true, range(BINS), "cpu")
    np.testing.assert_allclose(found, wanted[..., 0], rtol=0.02, atol=2e-5)
    assert (wanted.mean(0)[:, 1] <= wanted.mean(0)[:, 0] + 1e-9).all() and wanted.max() > 0


def test_a_model_is_above_the_floor_by_its_excess(parts):
    parts, budget = parts
    model = parts.spec.build(seed=0).eval()
    found = floor.excess(parts, model)
    probe = make_probe(parts.world, "medium", parts.codec, parts.text, 12)
    assert found["val_loss"] == pytest.approx(probe.measure(model, parts.objective)["val_loss"], rel=1e-6)
    assert found["excess"] == pytest.approx(found["val_loss"] - found["floor"]) and found["n"] == 12
    assert found["excess"] > 4 * found["excess_se"] > 0 and min(found["excess_by_bin"]) > 0
    assert np.mean(found["excess_by_bin"]) == pytest.approx(found["excess"])
    table = floor.of(parts, draws=256, bins=4)
    assert found["val_loss"] > table["value"].max() and list(table["n"]) == [64] * 4 + [256] + [64] * 4 + [256]


def test_it_is_trained_like_any_world(parts, home):
    parts, budget = parts
    folder = train(parts.config, budget, home / "runs", parts)
    assert (folder / "row.json").exists()


def test_another_world_has_no_known_floor(codec):
    config, _ = preset("incontext-d2-w32", "scenes", "smoke", codec=codec)
    with pytest.raises(UserError, match="floor of the world 'scenes' is not known: choose 'scenes-enumerated'"):
        floor.of(resolve(config))
