"""The power-function EMA against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t2ikit.train.ema import power_of, update


@pytest.mark.parametrize("std", [0.05, 0.10, 0.15])
def test_average_is_the_literal_power_weighted_mean(std):
    """β_t = (1 − 1/t)^(γ+1) unrolled: step s counts by ∫ τ^γ over [s − 1, s], divided by that over [0, t]."""
    rng, steps, gamma = np.random.default_rng(0), 200, power_of(std)
    path = rng.standard_normal((steps, 3, 5)).cumsum(0)
    average = [torch.zeros(3, 5)]
    for step in range(1, steps + 1):
        update(average, [torch.tensor(path[step - 1], dtype=torch.float32)], step, gamma)
    edges = (np.arange(steps + 1) / steps) ** (gamma + 1)
    wanted = np.tensordot(np.diff(edges), path, 1)
    np.testing.assert_allclose(average[0].numpy(), wanted, atol=2e-5)


@given(st.floats(0.01, 0.28))
def test_width_of_the_profile_is_the_one_asked_for(std):
    """Karras et al. 2024: the density (γ+1) τ^γ on [0, 1] has standard deviation σ_rel."""
    g = power_of(std)
    mean, square = (g + 1) / (g + 2), (g + 1) / (g + 3)
    assert (square - mean**2) ** 0.5 == pytest.approx(std, rel=1e-6)


def test_published_pairs():
    """EDM2's code: σ_rel = 0.05 → γ = 16.97, 0.10 → 6.94."""
    assert power_of(0.05) == pytest.approx(16.97, abs=0.01)
    assert power_of(0.10) == pytest.approx(6.94, abs=0.01)


def test_the_first_step_takes_the_weights_whole():
    average, weights = [torch.full((4,), 7.0)], [torch.randn(4, generator=torch.Generator().manual_seed(0))]
    update(average, weights, 1, power_of(0.1))
    assert torch.equal(average[0], weights[0])


def test_a_constant_is_its_own_average():
    average, weights = [torch.tensor([0.1, -3.0])], [torch.tensor([0.1, -3.0])]
    for step in range(1, 50):
        update(average, weights, step, 6.94)
    assert torch.allclose(average[0], weights[0], rtol=1e-6)
