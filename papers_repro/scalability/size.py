"""What parameters and compute say of alignment over UNets (figures 10 and 11): S21, S22, S23.

Seeds of a backbone are averaged. Noise lowers a rank correlation: where that of the scores could take it below what is
claimed though the two rank alike, a low one decides nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from papers_repro.scalability import studies
from papers_repro.scalability.verdicts import at, tier_of
from papers_repro.verdicts import Verdict, in_noise, ranked, verdict
from t2ikit import laws
from t2ikit.errors import UserError
from t2ikit.laws.frontier import FrontierFit
from t2ikit.laws.power import PowerFit
from t2ikit.results import Results, last

UNETS = tuple(name for name in studies.ALL.backbones if not name.startswith("pixart"))
SIZES = {"flops_per_image": "an image's compute ranks", "N": "parameters rank"}


def evaluations(rows: Results, score: str) -> pd.DataFrame:
    """Every evaluation of the committed UNets on `scenes` that has `score`, with N and the exact FLOPs of an image's
    training step."""
    rows = rows.select(world="scenes", source="committed", backbone=UNETS)
    of = last(rows).set_index("run")[list(SIZES)]
    scored = {name: rows.curves.get(name, np.nan) for name in (score, f"{score}_se")}
    curves = rows.curves.assign(**scored).astype(dict.fromkeys(scored, float)).dropna(subset=[score])
    return curves[curves["step"] > 0].join(of, on="run")


def at_the_end(curves: pd.DataFrame, score: str) -> pd.DataFrame:
    """A row a backbone at its last evaluation: its sizes, its `score`, and the variance that seeds leave in it, or
    images or prompts where that is more (`noise`)."""
    ends = curves.sort_values("step").groupby("run").tail(1)
    return _averaged(ends.assign(noise=ends[f"{score}_se"] ** 2), score)


def at_equal_compute(curves: pd.DataFrame, score: str) -> pd.DataFrame:
    """The same at the largest training compute that every run has reached, of runs first scored before that."""
    c = curves.groupby("run")["flops_paper"].max().min()
    found = []
    for _, of in curves.groupby("run"):
        if of["flops_paper"].min() <= c:
            noise = at(of, "flops_paper", c, f"{score}_se") ** 2
            found.append(of.iloc[-1].to_dict() | {score: at(of, "flops_paper", c, score), "noise": noise})
    return _averaged(pd.DataFrame(found, columns=[*curves.columns, "noise"]), score)


def _averaged(table: pd.DataFrame, score: str) -> pd.DataFrame:
    of = table.astype(dict.fromkeys([*SIZES, score, "noise"], float)).groupby("backbone")
    spread = of[score].var().mean()  # of those that have two seeds or more
    means = of[[*SIZES, score, "noise"]].mean()
    return means.assign(noise=np.fmax(means["noise"], spread / of.size()))


def ranks(id: str, claim: str, table: pd.DataFrame, size: str, score: str, tier: str, sign: int = 1) -> Verdict:
    """`size` ranks the backbones of `table` as `score` does, or (`sign` -1) the other way round."""
    row = ranked(id, claim, sign * table[size].to_numpy(float), table[score].to_numpy(float), tier)
    scatter = table[score].var()
    left = float(np.clip(1 - table["noise"].mean() / scatter, 0, 1)) ** 0.5 if scatter else 0.0
    return in_noise(row, left, "seeds")


def correlations(ends: pd.DataFrame, along: pd.DataFrame, score: str) -> list[Verdict]:
    """S21, and S23: larger UNets are ahead at equal steps, smaller ones at equal compute. `ends`: evaluations whose
    last are the best measured; `along`: those drawn in one way from early on."""
    last_of, tier, equal = at_the_end(ends, score), tier_of(ends), at_equal_compute(along, score)
    named = [(size, f"{name} UNets as {score} does at the end") for size, name in SIZES.items()]
    return [
        *(ranks("S21", claim, last_of, size, score, tier) for size, claim in named),
        ranks("S23", f"at equal steps larger UNets are ahead ({score})", last_of, "N", score, tier),
        ranks("S23", f"at equal compute smaller UNets are ahead ({score})", equal, "N", score, tier, sign=-1),
    ]


def scaling(ends: pd.DataFrame, along: pd.DataFrame, score: str) -> list[Verdict]:
    """S22: our own S = a C^b through the frontier of the curves (n counts runs) and S = a N^b through the last scores.
    The printed laws begin far above our sizes: the exponents are shown side by side, and decide nothing."""
    tier, rows = tier_of(ends), []
    printed = {law.predictor.split()[0]: law for law in laws.read_laws(studies.PUBLISHED / "laws.csv")}
    for of, unit, fit in (("C", 1e9, _of_compute), ("N", 1e6, _of_size)):
        law = printed[of]
        head = ("S22", f"{score} ∝ {of}^{law.b:g}", tier, law.b)
        try:
            found, n = fit(along if of == "C" else ends, score)
        except UserError as error:
            rows.append(verdict(*head, why=str(error)))
            continue
        why = f"{of} of {found.x.max():.1e} and less; the print's starts at {unit * law.low:.1e}"
        if (bend := found.bend()) and not bend[1] <= 0 <= bend[2]:
            why += f"; it bends, by {bend[0]:.3f} a decade ({bend[1]:.3f} to {bend[2]:.3f})"
        rows.append(verdict(*head, found.exponent, found.low, found.high, n, why=why) | {"verdict": "undecided"})
    return rows


def frontier(curves: pd.DataFrame, score: str) -> FrontierFit:
    """The power law through the best of all `curves` at each training compute."""
    cost, value = (curves[name].to_numpy(float) for name in ("flops_paper", score))
    return laws.fit_frontier(cost, value, maximise=True, runs=curves["run"].to_numpy(), y_label=score)


def _of_compute(curves: pd.DataFrame, score: str) -> tuple[PowerFit, int]:
    fit = frontier(curves, score)
    return fit.law, curves["run"].iloc[fit.on_frontier].nunique()


def _of_size(curves: pd.DataFrame, score: str) -> tuple[PowerFit, int]:
    table = at_the_end(curves, score)
    return laws.fit_power(table["N"].to_numpy(float), table[score].to_numpy(float), y_label=score), len(table)
