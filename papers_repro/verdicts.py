"""Verdicts on the papers' claims: every one follows from numbers and intervals by one rule.

reproduced: the whole 95% interval lies where the claim says; contradicted: none of it does; undecided: the rest, and
whatever has not been measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr

from t2ikit.errors import UserError
from t2ikit.laws.intervals import LEVEL, spearman, t_quantile

ORDER = ("id", "claim", "verdict", "paper", "ours", "low", "high", "n", "needs", "tier", "why")
STRONG = 0.7  # of a rank correlation
ALIKE = f"rho > {STRONG}"
POWER = 0.8  # of the n that is said to decide
NOTHING = "not measured"
MANY = 10_000  # an n beyond which nobody goes
Verdict = dict[str, Any]


def table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """The verdict cell of a notebook. Runs of tier smoke show that the code works: they decide nothing."""
    rows = [
        r | {"verdict": "undecided", "needs": None, "why": f"tier smoke decides nothing ({r['why'] or r['verdict']})"}
        if r["tier"] == "smoke" else r
        for r in verdicts
    ]  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=ORDER)


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """A table for readers: a dash where nothing is known."""
    return table.astype(object).where(table.notna(), "–")


def verdict(
    id: str, claim: str, tier: str, paper: Any = None, ours: float | None = None, low: float | None = None,
    high: float | None = None, n: int = 0, where: tuple[float, float] = (-np.inf, np.inf), why: str = "",
    needs: int | None = None,
) -> Verdict:  # fmt: skip
    """One row: reproduced, contradicted or undecided by whether [low, high] lies in `where`, outside, or neither; of an
    undecided one `needs` is the n that would decide it."""
    decided = "undecided"
    if low is not None and high is not None and np.isfinite([low, high]).all():
        if where[0] <= low and high <= where[1]:
            decided = "reproduced"
        elif high < where[0] or low > where[1]:
            decided = "contradicted"
    values = (id, claim, decided, paper, ours, low, high, n, needs if decided == "undecided" else None, tier, why)
    return dict(zip(ORDER, values, strict=True))


def needed(
    value: float, low: float | None, high: float | None, n: int, where: tuple[float, float], lost: int = 1,
    level: float = LEVEL,
) -> int | None:  # fmt: skip
    """The n of which a t interval about the same `value`, of the same scatter, would lie inside the ends of `where`,
    or outside if the value does, in 8 of 10 trials. lost: degrees of freedom that the estimate takes, 1 a mean, 2 a
    line. level: the interval's."""
    if low is None or high is None or n <= lost or value in where:
        return None
    scatter = (high - low) / 2 * n**0.5 / t_quantile(level, n - lost)
    inside = where[0] < value < where[1]

    def enough(many: int) -> bool:
        away, half = (np.array(where) - value) / max(scatter / many**0.5, 1e-300), t_quantile(level, many - lost)
        if not inside:  # beyond the nearer end
            return stdtr(many - lost, np.abs(away).min() - half) >= POWER
        return stdtr(many - lost, away[1] - half) - stdtr(many - lost, away[0] + half) >= POWER

    few, many = n, MANY
    if not enough(many):
        return None
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle + 1, many)
    return few


def mean_interval(values: np.ndarray, level: float = LEVEL) -> tuple[float | None, float | None]:
    """The mean's interval by Student's t; no interval with fewer than two values."""
    if len(values) < 2:
        return None, None
    half = t_quantile(level, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def ranked(id: str, claim: str, x: np.ndarray, y: np.ndarray, tier: str) -> Verdict:
    """Two numbers rank runs alike: Spearman's rho with its interval above `STRONG`; undecided below five runs."""
    try:
        found = spearman(x, y)
    except UserError as error:  # fewer than three, or all of one are equal
        return verdict(id, claim, tier, ALIKE, n=len(x), why=str(error))
    if len(x) < 5:
        why = f"{len(x)} runs have both (exact p = {found['p']:.2g}): an interval needs five"
        return verdict(id, claim, tier, ALIKE, found["rho"], n=len(x), why=why)
    row = _by_fisher(id, claim, tier, _place(found["rho"], len(x)), len(x) - 3, len(x))
    return row | {"ours": found["rho"]}


def ranked_within(
    id: str, claim: str, groups: Iterable[pd.DataFrame], x: str, y: str, runs: int, tier: str, names: str
) -> Verdict:
    """The same within groups (`names`: budgets, lengths) of runs that are alike in what else would order them: the mean
    of the groups' rho by Fisher's z, weighted by n - 3. `runs` differ: one with a point in several groups counts
    once."""
    places, weights = [], []
    for of in groups:
        with suppress(UserError):  # all of one are equal
            if len(of) > 3:
                places.append(_place(spearman(of[x].to_numpy(float), of[y].to_numpy(float))["rho"], len(of)))
                weights.append(len(of) - 3)
    freedom = min(sum(weights), runs - 3)
    if freedom < 2:
        return verdict(id, claim, tier, ALIKE, n=runs, why=f"{len(weights)} {names} have four runs or more")
    row = _by_fisher(id, claim, tier, float(np.average(places, weights=weights)), freedom, runs)
    return row | {"why": f"rho of the {names} {np.tanh(min(places)):.2f} to {np.tanh(max(places)):.2f}"}


def in_noise(row: Verdict, left: float, noise: str) -> Verdict:
    """The row of a rank correlation, which `noise` of the scores lowers by the factor `left` (attenuation, Spearman
    1904): it contradicts only below what would be left of `STRONG`, and decides nothing where a perfect one could come
    out below it. No n is said to be enough to contradict."""
    lost = left < STRONG and row["verdict"] != "reproduced"
    if row["ours"] is None or not (lost or (row["verdict"] == "contradicted" and row["high"] >= left * STRONG)):
        return row if row["ours"] is None or row["ours"] >= STRONG else row | {"needs": None}
    why = f"noise of the {noise} leaves about {left:.2f} of a rho"
    return row | {"verdict": "undecided", "needs": None, "why": "; ".join(filter(None, (row["why"], why)))}


def seeded(known: int, n: int) -> str:
    """Of how many backbones the scatter of seeds is known; empty if of all."""
    return "" if known == n else f"backbones with two seeds or more: {known} of {n}"


def _place(rho: float, n: int) -> float:
    """Fisher's z of rho: a perfect order of few is no certainty, and counts as halfway to one swap of neighbours."""
    most = 1 - 6 / (n**3 - n)
    return float(np.arctanh(np.clip(rho, -most, most)))


def _by_fisher(id: str, claim: str, tier: str, place: float, freedom: int, n: int) -> Verdict:
    """Whether the rank correlation at Fisher's z `place` is above `STRONG`, by Bonett and Wright's (2000) variance of
    Spearman's, (1 + rho²/2) / (n - 3): a constant one is too small where ranks agree."""
    rho = float(np.tanh(place))
    scatter, sides = (1 + rho**2 / 2) ** 0.5, (t_quantile(LEVEL, np.inf), t_quantile(2 * POWER - 1, np.inf))
    low, high = (float(np.tanh(place + sign * sides[0] * scatter / freedom**0.5)) for sign in (-1, 1))
    apart = abs(place - np.arctanh(STRONG))
    enough = n - freedom + (sum(sides) * scatter / apart) ** 2 if apart else np.inf
    needs = int(np.ceil(enough)) if enough <= MANY else None
    return verdict(id, claim, tier, ALIKE, rho, low, high, n, (STRONG, 1.0), needs=needs)
