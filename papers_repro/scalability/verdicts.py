"""Claims S4–S13 (paper S) against our own runs, by the rule of papers_repro/verdicts.py: who is ahead, who is there
sooner, what a parameter buys.

Backbones are compared seed by seed and intervals are over seeds; of who is ahead they reach two standard errors by the
spread of each backbone's seeds at least, since two pairs may differ alike by chance. With one seed the interval is over
validation images (of TIFA: over prompts) alone, as if each backbone had images of its own (they are the same, so it is
wider than need be), is shown, and decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from papers_repro.verdicts import NOTHING, Verdict, mean_interval, needed, seeded, table, verdict
from papers_repro.verdicts import tidy as tidy
from t2ikit.laws.intervals import LEVEL, t_quantile
from t2ikit.results import Results

SCORE = "flip_accuracy"
MATCH = 0.02  # what "matches within noise" and "gains little" allow either way, of a score between 0 and 1
SEEDS = 2  # standard errors by the seeds' spread inside which nothing is decided
ABSENT = "not there at the end: counted as if"
NAMES = {"step": "steps", "flops_paper": "compute"}


@dataclass(frozen=True)
class Ahead:
    """`first` scores above `second` at the largest `x` that both have reached; with a `margin` alike within it."""

    id: str
    first: str
    second: str
    x: str = "step"
    margin: float = 0

    def __call__(self, curves: pd.DataFrame, score: str = SCORE) -> Verdict:
        """The verdict from `curves` of one world: a row an evaluation, with `score` and its standard error."""
        x, says, printed, where = self.x, f"is ahead of {self.second}", "> 0", (0, np.inf)
        if self.margin:
            says, printed = f"matches {self.second} within ± {self.margin:g}", f"± {self.margin:g}"
            where = (-self.margin, self.margin)
        head = (self.id, f"{self.first} {says} at equal {NAMES[x]} ({score})", tier_of(curves), printed)
        both = pairs(curves, self.first, self.second)
        if not both:
            return verdict(*head, why=NOTHING)
        ends = [min(a[x].max(), b[x].max()) for a, b in both]
        if any(end < c.loc[c["step"] > 0, x].min() for pair, end in zip(both, ends, strict=True) for c in pair):
            return verdict(*head, why=f"one of the two was not scored at equal {NAMES[x]}")
        scores = np.array([[at(c, x, e, score) for c in pair] for pair, e in zip(both, ends, strict=True)])
        gained = scores[:, 0] - scores[:, 1]
        if len(both) > 1:
            n, mean, t = len(both), gained.mean(), t_quantile(LEVEL, len(both) - 1)
            paired, apart = gained.std(ddof=1) / n**0.5, np.hypot(*scores.std(axis=0, ddof=1)) / n**0.5
            half, widest = max(t * paired, SEEDS * apart), t * max(paired, apart)
            needs = needed(mean, mean - widest, mean + widest, n, where)
            return verdict(*head, mean, mean - half, mean + half, n, where, needs=needs)
        half = t_quantile(LEVEL, 1e6) * np.hypot(*(at(c, x, ends[0], f"{score}_se") for c in both[0]))
        row = verdict(*head, gained[0], gained[0] - half, gained[0] + half, 1)
        return row | {"verdict": "undecided", "why": "one seed: the interval is over images alone"}


@dataclass(frozen=True)
class Sooner:
    """`first` reaches the last score of `second` with at most one of `times` parts of its `x`."""

    id: str
    first: str
    second: str
    times: float
    x: str = "step"

    def __call__(self, curves: pd.DataFrame, score: str = SCORE) -> Verdict:
        """The verdict from `curves` of one world. A run that does not get there counts as if it had at its end, which
        is too early, so that it reproduces nothing, one that is there when it is first scored from then on; both are
        said. Where a run is first scored too late for so
        large a factor to be seen, nothing is decided."""
        says = f"reaches {self.second}'s last score ({score}) with {self.times:g} times less {NAMES[self.x]}"
        head = (self.id, f"{self.first} {says}", tier_of(curves), f"{self.times:g} times")
        both = pairs(curves, self.first, self.second)
        if not both:
            return verdict(*head, why=NOTHING)
        goals = [b.sort_values(self.x)[score].iloc[-1] for _, b in both]
        found = [reached(a, self.x, score, goal) for (a, _), goal in zip(both, goals, strict=True)]
        factor = np.log([b[self.x].max() / place for (place, _), (_, b) in zip(found, both, strict=True)])
        inexact = Counter(how for _, how in found if how)
        told = [f"{count} of {len(both)} {how}" for how, count in inexact.items()]
        most = min(b[self.x].max() / a.loc[a["step"] > 0, self.x].min() for a, b in both)
        if late := most < self.times:
            told.append(f"scored too late to see more than {most:.3g} times")
        low, high = mean_interval(factor)
        if low is None:
            return verdict(*head, float(np.exp(factor[0])), n=1, why="; ".join(("one seed", *told)))
        why = "; ".join(told)
        if late:
            row = verdict(*head, *np.exp([factor.mean(), low, high]), len(both), why=why)
            return row | {"verdict": "undecided"}
        needs = needed(factor.mean(), low, high, len(both), (np.log(self.times), np.inf))
        row = verdict(*head, *np.exp([factor.mean(), low, high]), len(both), (self.times, np.inf), why, needs)
        bounds = any(how == ABSENT for _, how in found)  # the factor may be less
        return row | {"verdict": "undecided"} if bounds and row["verdict"] == "reproduced" else row


@dataclass(frozen=True)
class Slope:
    """A doubling of the parameters buys more score along the backbones `first` than along `second`."""

    id: str
    says: str
    first: Sequence[str]
    second: Sequence[str]

    def __call__(self, curves: pd.DataFrame, score: str = SCORE) -> Verdict:
        """The verdict from `curves` of one world, which have N: last scores, a backbone's seeds averaged, on a line in
        log N each, both through one value at the backbone that the two series share. The interval of the slopes'
        difference is by the scatter about the lines, or by that of seeds, where it is larger; one seed decides nothing.
        """
        head = (self.id, f"{self.says} ({score} a doubling)", tier_of(curves), "> 0")
        ends = curves[curves["backbone"].isin([*self.first, *self.second])].sort_values("step").groupby("run").tail(1)
        ends = ends.astype({"N": float, score: float}).groupby("backbone")
        seeds, of = ends[score].var().dropna(), ends[["N", score]].mean()
        both = [b for b in self.first if b in self.second]
        alone = [of.index.isin(names) & ~of.index.isin(both) for names in (self.first, self.second)]
        if not of.index.isin(both).any() or min(mask.sum() for mask in alone) < 2:
            return verdict(*head, n=len(of), why="a line needs three backbones in each series")
        doublings = np.log2(of["N"] / of.loc[of.index.isin(both), "N"].mean())
        design = np.stack([np.ones(len(of)), *(doublings * mask for mask in alone)], axis=1)
        solved, freedom = np.linalg.pinv(design) @ of[score].to_numpy(), len(of) - 3
        noise = max(float(np.sum((of[score] - design @ solved) ** 2)) / freedom, seeds.mean() if len(seeds) else 0.0)
        contrast = np.array([0, 1, -1])
        error = float(noise * contrast @ np.linalg.inv(design.T @ design) @ contrast) ** 0.5
        difference, half = float(contrast @ solved), t_quantile(LEVEL, freedom) * error
        low, high = difference - half, difference + half
        needs = needed(difference, low, high, len(of), (0, np.inf), lost=3)
        row = verdict(*head, difference, low, high, len(of), (0, np.inf), seeded(len(seeds), len(of)), needs)
        why = "one seed a backbone: the interval is by the scatter about the lines alone"
        return row if len(seeds) else row | {"verdict": "undecided", "why": why, "needs": None}


FIG03 = (
    Ahead("S4", "sdxl-c320", "sd2-c512"),
    Ahead("S4", "sd2-c512", "sd2-c320"),
    Ahead("S4", "sdxl-c320", "ifxl-c512"),
    Sooner("S5", "sdxl-c320", "sd2-c320", 6),
    Sooner("S5", "sdxl-c320", "sd2-c512", 3),
    Sooner("S5", "sdxl-c320", "sd2-c320", 2, "flops_paper"),
    Ahead("S6", "sd2-c320", "sd2-c512", "flops_paper"),
)
FIG04 = (
    Ahead("S7", "sdxl-c192", "sdxl-c128"),
    Ahead("S7", "sdxl-c320", "sdxl-c192"),
    Ahead("S7", "sdxl-c384", "sdxl-c320"),
    Ahead("S7", "sdxl-c128", "sd2-c320"),
    Ahead("S8", "sdxl-td4", "sdxl-td2"),
    Ahead("S8", "sdxl-c320", "sdxl-td4"),  # depths 2 and 10
    Ahead("S8", "sdxl-td12", "sdxl-c320"),
    Ahead("S8", "sdxl-td14", "sdxl-td12"),
    Ahead("S8", "sdxl-td4_4", "sdxl-td4"),
    Ahead("S9", "sdxl-td4_4", "sdxl-c320", "flops_paper"),
    Ahead("S10", "sdxl-c384-td4_12", "sdxl-c384", margin=MATCH),
    Ahead("S10", "sdxl-c384-td4_12", "sdxl-td4_12", margin=MATCH),
    Slope(
        "S11",
        "depth buys more than width",
        ("sdxl-td2", "sdxl-td4", "sdxl-c320", "sdxl-td12", "sdxl-td14", "sdxl-td4_4", "sdxl-td4_8", "sdxl-td4_12"),
        ("sdxl-c128", "sdxl-c192", "sdxl-c320", "sdxl-c384"),
    ),
)
FIG13 = (Ahead("S9", "sdxl-td4_4", "sdxl-c320", margin=MATCH), Ahead("S9", "sdxl-td4_4", "sdxl-c320", "flops_paper"))
FIG06 = (
    Ahead("S12", "pixart-h1536-d28", "pixart-h1152-d28"),
    Ahead("S12", "pixart-h1024-d56", "pixart-h1152-d28"),
    Sooner("S12", "pixart-h1536-d28", "pixart-h1152-d28", 1.5),
    Sooner("S12", "pixart-h1024-d56", "pixart-h1152-d28", 1.5),
    Ahead("S13", "sd2-c320", "pixart-h1152-d28"),
)
Claim = Ahead | Sooner | Slope


def tier_of(curves: pd.DataFrame) -> str:
    return curves["tier"].iloc[0] if len(curves) else ""


def pairs(curves: pd.DataFrame, first: str, second: str) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The curves of both backbones for every seed that both have."""
    runs = [{s: c for s, c in curves[curves["backbone"] == b].groupby("seed")} for b in (first, second)]
    return [(runs[0][seed], runs[1][seed]) for seed in sorted(runs[0].keys() & runs[1].keys())]


def at(curve: pd.DataFrame, x: str, value: float, column: str) -> float:
    """`column` of one run where `x` is `value`, between evaluations linear in log x."""
    curve = curve[curve["step"] > 0].sort_values(x)
    return float(np.interp(np.log(value), np.log(curve[x]), curve[column].astype(float)))


def reached(curve: pd.DataFrame, x: str, column: str, goal: float) -> tuple[float, str]:
    """The first `x` of one run at which `column` is `goal`, between evaluations linear in log x; and why that is a
    bound, if it is one."""
    curve = curve[curve["step"] > 0].sort_values(x)
    values, places = curve[column].to_numpy(float), curve[x].to_numpy(float)
    there = np.flatnonzero(values >= goal)
    if not len(there):
        return places[-1], ABSENT
    k = there[0]
    if k == 0:
        return places[0], "there when first scored: counted from then"
    return float(np.exp(np.interp(goal, values[k - 1 : k + 1], np.log(places[k - 1 : k + 1])))), ""


def decide(rows: Results, claims: Sequence[Claim], score: str = SCORE) -> pd.DataFrame:
    """The verdict cell of a notebook: a row a world and claim, from the committed runs that have the score."""
    curves = rows.curves[rows.curves["source"] == "committed"]
    curves = curves.assign(**{score: curves.get(score, np.nan)}).dropna(subset=[score])
    sizes = rows.runs.reindex(columns=["run", "N"]).drop_duplicates("run").set_index("run")["N"]
    curves = curves.assign(N=curves["run"].map(sizes))
    worlds = dict(list(curves.groupby("world"))) or {"–": curves}
    return pd.concat([table([claim(c, score) for claim in claims]).assign(world=w) for w, c in worlds.items()])
