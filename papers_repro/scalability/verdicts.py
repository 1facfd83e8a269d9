"""Claims S4–S13 (paper S) against our own runs, by the rule of papers_repro/verdicts.py: who is ahead.

A difference is taken seed by seed and its interval is over seeds. With one seed the interval is over validation images
(of TIFA: over prompts) alone, as if each backbone had images of its own (they are the same, so it is wider than need
be), is shown, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from papers_repro.verdicts import Verdict, mean_interval, table, verdict
from t2ikit.laws.intervals import LEVEL, t_quantile

SCORE = "flip_accuracy"
AT_EQUAL = {"step": "steps", "flops_paper": "compute"}
# id, the backbone that the paper has ahead, the other, at equal what; a margin where it has them match
FIG03 = (
    ("S4", "sdxl-c320", "sd2-c512", "step"),
    ("S4", "sd2-c512", "sd2-c320", "step"),
    ("S4", "sdxl-c320", "ifxl-c512", "step"),
    ("S6", "sd2-c320", "sd2-c512", "flops_paper"),
)
FIG04 = (
    ("S7", "sdxl-c192", "sdxl-c128", "step"),
    ("S7", "sdxl-c320", "sdxl-c192", "step"),
    ("S7", "sdxl-c384", "sdxl-c320", "step"),
    ("S7", "sdxl-c128", "sd2-c320", "step"),
    ("S8", "sdxl-td4", "sdxl-td2", "step"),
    ("S8", "sdxl-c320", "sdxl-td4", "step"),  # depths 2 and 10
    ("S8", "sdxl-td12", "sdxl-c320", "step"),
    ("S8", "sdxl-td14", "sdxl-td12", "step"),
    ("S8", "sdxl-td4_4", "sdxl-td4", "step"),
    ("S9", "sdxl-td4_4", "sdxl-c320", "flops_paper"),
)
MATCH = 0.02  # what "matches within noise" allows either way, of a score between 0 and 1
FIG13 = (("S9", "sdxl-td4_4", "sdxl-c320", "step", MATCH), ("S9", "sdxl-td4_4", "sdxl-c320", "flops_paper"))
FIG06 = (
    ("S12", "pixart-h1536-d28", "pixart-h1152-d28", "step"),
    ("S12", "pixart-h1024-d56", "pixart-h1152-d28", "step"),
    ("S13", "sd2-c320", "pixart-h1152-d28", "step"),
)


def at(curve: pd.DataFrame, x: str, value: float, column: str) -> float:
    """`column` of one run where `x` is `value`, between evaluations linear in log x."""
    curve = curve[curve["step"] > 0].sort_values(x)
    return float(np.interp(np.log(value), np.log(curve[x]), curve[column].astype(float)))


def ahead(
    curves: pd.DataFrame, id: str, first: str, second: str, x: str = "step", margin: float = 0, score: str = SCORE
) -> Verdict:
    """Whether `first` scores above `second` at the largest `x` that both have reached, on one world; with a `margin`
    whether they score alike within it."""
    says, where = (
        (f"matches {second} within ± {margin:g}", (-margin, margin))
        if margin
        else (f"is ahead of {second}", (0, np.inf))
    )
    claim, printed = f"{first} {says} at equal {AT_EQUAL[x]} ({score})", f"± {margin:g}" if margin else "> 0"
    runs = [{s: c for s, c in curves[curves["backbone"] == b].groupby("seed")} for b in (first, second)]
    seeds = sorted(runs[0].keys() & runs[1].keys())
    tier = curves["tier"].iloc[0] if len(curves) else ""
    if not seeds:
        return verdict(id, claim, tier, printed, why="not measured")
    both = [(runs[0][s], runs[1][s]) for s in seeds]
    ends = [min(a[x].max(), b[x].max()) for a, b in both]
    if any(end < c.loc[c["step"] > 0, x].min() for pair, end in zip(both, ends, strict=True) for c in pair):
        return verdict(id, claim, tier, printed, why=f"one of the two was not scored at equal {AT_EQUAL[x]}")
    gained = np.array([at(a, x, end, score) - at(b, x, end, score) for (a, b), end in zip(both, ends, strict=True)])
    if len(seeds) > 1:
        return verdict(id, claim, tier, printed, gained.mean(), *mean_interval(gained), len(seeds), where)
    half = t_quantile(LEVEL, 1e6) * np.hypot(*(at(c, x, ends[0], f"{score}_se") for c in both[0]))
    row = verdict(id, claim, tier, printed, gained[0], gained[0] - half, gained[0] + half, 1)
    return row | {"verdict": "undecided", "why": "one seed: the interval is over images alone"}


def decide(curves: pd.DataFrame, claims: Sequence[tuple], score: str = SCORE) -> pd.DataFrame:
    """The verdict cell of a notebook: a row a world and claim, from the committed runs that have the score."""
    committed = curves[curves["source"] == "committed"]
    committed = committed.dropna(subset=[score]) if score in committed else committed.iloc[:0]
    worlds = dict(list(committed.groupby("world"))) or {"–": committed}
    return pd.concat(
        [table([ahead(c, *claim, score=score) for claim in claims]).assign(world=w) for w, c in worlds.items()]
    )
