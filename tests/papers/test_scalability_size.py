"""S21 to S23: size and compute beside alignment, by seeds' means, and no verdict where noise could have made it."""

import numpy as np
import pandas as pd
import pytest

from papers_repro.scalability import size, studies
from t2ikit.results import Results

NAMES = size.UNETS[:6]
STEPS = (100, 200, 400, 800)


def measured(score, names=NAMES, seeds=1, error=0.001, late=()):
    """Flip accuracies score(k, C, step, seed) of backbones of 2^k million parameters, each step as dear as its size."""
    rows = []
    for k, name in enumerate(names):
        for seed in range(seeds):
            for step in STEPS[3 if name in late else 0 :]:
                c = 1e9 * 2**k * step
                rows.append({"run": f"{name}-{seed}", "backbone": name, "seed": seed, "step": step, "flops_paper": c})
                rows[-1] |= {"flip_accuracy": score(k, c, step, seed), "flip_accuracy_se": error, "tier": "tiny"}
                rows[-1] |= {"world": "scenes", "source": "committed", "N": 1e6 * 2**k}
    curves = pd.DataFrame(rows)
    runs = curves.drop_duplicates("run").assign(flops_exact=lambda t: 3e9 * t["N"] / 1e6, images=3)
    return Results(runs[["run", "source", "world", "backbone", "N", "flops_exact", "images"]], curves.drop(columns="N"))


def asked(rows):
    found = size.evaluations(rows, "flip_accuracy")
    verdicts = size.correlations(found, found, "flip_accuracy")
    return dict(zip(["compute", "parameters", "legend's compute", "legend", "equal compute"], verdicts, strict=True))


def rising(k, c, step, seed):
    """A score that rises with steps more than with size."""
    return 0.5 + 0.01 * k + 0.1 * np.log10(step)


def test_larger_ahead_at_equal_steps_and_smaller_at_equal_compute():
    rows = asked(measured(rising))
    assert rows["parameters"]["ours"] == rows["compute"]["ours"] == 1 and rows["legend"]["n"] < 6
    many = asked(measured(rising, size.UNETS))
    assert many["compute"]["verdict"] == many["parameters"]["verdict"] == "reproduced"
    assert (many["parameters"]["n"], many["legend"]["n"]) == (len(size.UNETS), len(size.LEGEND))
    assert many["parameters"]["why"] == f"backbones with two seeds or more: 0 of {len(size.UNETS)}"
    assert (
        many["equal compute"]["ours"] > 0.7 and many["equal compute"]["why"] == "rho of the budgets 0.90 to 0.90"
    )  # four in order


def test_equal_compute_reads_the_curves_between_their_points_at_budgets_that_training_sets():
    found = size.evaluations(measured(lambda k, c, step, seed: np.log(step)), "flip_accuracy")
    budgets = size.budgets(found)
    np.testing.assert_allclose(budgets, 8e11 * 2.0 ** np.arange(6))  # 800 steps of the smallest to those of the largest
    table = size.at_compute(found, "flip_accuracy", budgets[1]).sort_values("N")
    # the smallest was trained for less, the sixth first scored at twice as much
    np.testing.assert_allclose(table["flip_accuracy"], np.log(800 / 2.0 ** np.arange(4)))
    # a run that is not wholly scored yet moves no budget, and is left out where it is not
    early = found[(found["backbone"] != NAMES[0]) | (found["step"] == 100)]
    assert size.budgets(early) == budgets
    assert NAMES[0] not in size.at_compute(early, "flip_accuracy", budgets[0]).index


def test_seeds_are_averaged_and_their_noise_decides_nothing():
    """Sizes that differ less than seeds do: whatever rho is found, it contradicts nothing."""

    def noisy(k, c, step, seed):
        return 0.5 - 0.001 * k + (0.05 if seed else -0.05)

    rows = asked(measured(noisy, size.UNETS, seeds=2))
    assert rows["parameters"]["ours"] == -1 and rows["parameters"]["verdict"] == "undecided"
    assert rows["parameters"]["why"] == "noise of the scores leaves about 0.00 of a rho"
    quiet = asked(measured(lambda k, c, step, seed: 0.5 - 0.001 * k, size.UNETS, seeds=2, error=1e-5))
    assert quiet["parameters"]["verdict"] == "contradicted"
    table = size.at_the_end(size.evaluations(measured(noisy, seeds=2), "flip_accuracy"), "flip_accuracy")
    np.testing.assert_allclose(table["noise"], 0.05**2)  # half of the two seeds' variance
    single = size.at_the_end(size.evaluations(measured(noisy), "flip_accuracy"), "flip_accuracy")
    np.testing.assert_allclose(single["noise"], 0.001**2)


def test_our_own_scaling_functions_are_found_and_decide_nothing():
    found = size.evaluations(measured(lambda k, c, step, seed: 0.01 * c**0.1), "flip_accuracy")
    of_c, of_n = size.scaling(found, found, "flip_accuracy")
    assert (of_c["claim"], of_c["paper"]) == ("flip_accuracy ∝ C^0.02", 0.02)
    assert of_c["ours"] == pytest.approx(0.1, rel=1e-6) == of_n["ours"]
    assert of_c["verdict"] == of_n["verdict"] == "undecided"
    assert of_n["n"] == 6 and of_n["why"] == "N of 3.2e+07 and less; the print's starts at 4.2e+08"
    few = size.scaling(*[found[found["backbone"].isin(NAMES[:3])]] * 2, "flip_accuracy")[1]
    assert few["ours"] is None and "give at least 5" in few["why"]


def test_before_anything_is_scored_nothing_is_decided():
    nothing = studies.ALL.results(studies.RESULTS, "smoke", live=False)
    for score in ("tifa", "flip_accuracy"):
        found = size.evaluations(nothing, score)
        rows = size.correlations(found, found, score) + size.scaling(found, found, score)
        assert {row["verdict"] for row in rows} == {"undecided"} and {row["why"] for row in rows} == {"not measured"}
