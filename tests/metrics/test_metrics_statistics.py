"""Intervals that cover, tests that agree with their closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from t2ikit.errors import UserError
from t2ikit.metrics.statistics import deviation, differences, equivalent, interval, paired, prompts_needed


def by_prompt(values):
    return {f"p{k}": float(v) for k, v in enumerate(values)}


@pytest.mark.parametrize("n", [10, 40])
def test_intervals_cover_the_truth_as_often_as_they_say(n):
    """Means of six questions answered rightly with probability 0.8, as TIFA's."""
    hits = 0
    for k in range(250):
        found = interval(np.random.default_rng(k).binomial(6, 0.8, n) / 6, seed=k, draws=500)
        hits += found["low"] <= 0.8 <= found["high"]
    assert 0.92 <= hits / 250 <= 0.98


@pytest.mark.parametrize("n, covered", [(40, 0.80), (100, 0.92)])
def test_near_the_end_of_a_scale_intervals_cover_as_little_as_their_docstring_says(n, covered):
    hits = 0
    for k in range(400):
        found = interval(np.random.default_rng(k).binomial(8, 0.995, n) / 8, seed=k, draws=500)
        hits += found["low"] <= 0.995 <= found["high"]
    assert hits / 400 == pytest.approx(covered, abs=0.05)


def test_an_interval_is_that_of_the_t_distribution_where_that_is_exact():
    x = np.random.default_rng(0).standard_normal(300)
    found = interval(x, draws=20_000)
    exact = stats.t.interval(0.95, 299, x.mean(), stats.sem(x))
    assert (found["low"], found["high"]) == pytest.approx(exact, abs=0.005)
    assert found["value"] == pytest.approx(x.mean()) and found["n"] == 300


def test_pooled_questions_are_resampled_by_prompt():
    """Copies of a prompt's questions carry no information: twice as many questions, the same interval."""
    rng = np.random.default_rng(1)
    x, w = rng.random(80), rng.integers(1, 9, 80).astype(float)
    once, twice = interval(x, w), interval(x, 2 * w)
    assert once == twice and once["value"] == pytest.approx((w * x).sum() / w.sum())
    assert interval(x, np.ones(80)) == interval(x)


def test_intervals_come_from_a_seed_and_constants_have_none_around_them():
    x = np.random.default_rng(2).random(30)
    assert interval(x, seed=3) == interval(x, seed=3) != interval(x, seed=4)
    assert interval([0.5] * 7) == {"value": 0.5, "low": 0.5, "high": 0.5, "n": 7}
    assert interval([0.5]) == {"value": 0.5, "low": None, "high": None, "n": 1}


def test_pairing_removes_what_the_prompts_have_in_common():
    rng = np.random.default_rng(0)
    prompts = 10 * rng.standard_normal(200)
    a, b = (by_prompt(prompts + d + 0.1 * rng.standard_normal(200)) for d in (0, 0.1))
    found = paired(a, b)
    assert found["low"] > 0 and found["high"] - found["low"] < 0.1
    assert interval(list(b.values()))["low"] < interval(list(a.values()))["high"]
    assert paired(a, dict(reversed(b.items()))) == found  # by id, whatever the order


def test_other_prompts_are_refused():
    with pytest.raises(UserError, match="Only one of the two runs has a score for 'p2' .1 such"):
        differences(by_prompt([1, 2, 3]), by_prompt([1, 2]))


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 60), st.floats(-2, 2), st.floats(0.1, 3), st.integers(0, 99))
def test_equivalence_is_schuirmanns_two_t_tests(n, shift, margin, seed):
    d = np.random.default_rng(seed).standard_normal(n) + shift
    found = equivalent(by_prompt(np.zeros(n)), by_prompt(d), margin)
    tests = stats.ttest_1samp(d, -margin, alternative="greater"), stats.ttest_1samp(d, margin, alternative="less")
    p = max(t.pvalue for t in tests)
    assert found["p"] == pytest.approx(p, abs=1e-9)
    assert found["equivalent"] == (p < 0.05) == (-margin < found["low"] and found["high"] < margin)


def test_ties_are_equivalent_by_many_prompts_and_a_margin_is_declared():
    same = by_prompt([0.5, 0.75, 1])
    assert equivalent(same, same, 0.01)["equivalent"] is False  # three prompts that tie show little
    many = by_prompt([0.5] * 1000)
    assert equivalent(many, many, 0.01)["equivalent"] is True
    assert equivalent(many, many, 0.01)["p"] == pytest.approx(0.99**1000)
    assert not equivalent(same, by_prompt([0.75, 1, 1.25]), 0.25)["equivalent"]
    with pytest.raises(UserError, match="margin of 0 is not possible"):
        equivalent(same, same, 0)
    with pytest.raises(UserError, match="on one prompt"):
        equivalent(by_prompt([1]), by_prompt([1]), 0.1)


def test_prompts_needed_is_the_textbooks_number():
    assert prompts_needed(0.5, 1) == 34  # Cohen's d = 0.5, paired, power 0.8
    assert prompts_needed(-0.5, 1, power=0.9) == 44
    assert prompts_needed(0.01, 0.25) == pytest.approx((2.8016 * 25) ** 2, abs=4)


def test_with_that_many_prompts_the_difference_is_found_that_often():
    n, rng = prompts_needed(0.4, 1), np.random.default_rng(0)
    p = stats.ttest_1samp(rng.standard_normal((4000, n)) + 0.4, 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: interval([]), "one number per prompt"),
        (lambda: interval([0.1, float("nan")]), "Score 1 is nan"),
        (lambda: interval([0.1, 0.2], [0, 0]), "Weights must be"),
        (lambda: interval([0.1, 0.2], level=95), "level of 95"),
        (lambda: prompts_needed(0, 1), "no number of prompts"),
        (lambda: prompts_needed(0.1, 1, power=1), "power of 1"),
    ],
)
def test_bad_values_are_one_sentence(call, sentence):
    with pytest.raises(UserError, match=sentence):
        call()


def test_differences_that_are_the_same_but_for_rounding_are_the_same():
    a, b = {"a": 1 / 3, "b": 2 / 3, "c": 0.0}, {"a": 2 / 3, "b": 1.0, "c": 1 / 3}
    found = equivalent(a, b, 0.4)
    assert found["p"] == pytest.approx((1 - (0.4 - 1 / 3)) ** 3) and not found["equivalent"]
    assert deviation(differences(a, b)) == 0 and deviation([0.0, 1.0]) == pytest.approx(0.5**0.5)
