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

from t2ikit.errors import UserError
from t2ikit.laws.intervals import LEVEL, spearman, t_quantile

ORDER = ("id", "claim", "verdict", "paper", "ours", "low", "high", "n", "needs", "tier", "why")
STRONG = 0.7  # of a rank correlation
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


def needed(value: float, low: float | None, high: float | None, n: int, end: float, lost: int = 1) -> int | None:
    """The n at which a t interval about the same `value`, of the same scatter, would no longer hold `end`, where the
    claim begins to fail. lost: degrees of freedom that the estimate takes, 1 a mean, 2 a line."""
    if low is None or high is None or n <= lost or value == end:
        return None
    scatter = (high - low) / 2 * n**0.5 / t_quantile(LEVEL, n - lost)
    few, many = n, MANY
    if t_quantile(LEVEL, many - lost) * scatter / many**0.5 > abs(value - end):
        return None
    while few < many:
        middle = (few + many) // 2
        wide = t_quantile(LEVEL, middle - lost) * scatter / middle**0.5 > abs(value - end)
        few, many = (middle + 1, many) if wide else (few, middle)
    return few


def rhos(groups: Iterable[pd.DataFrame], x: str, y: str) -> list[float]:
    """Spearman's rho of two columns in each group that has one: of three rows or more, not all of one column equal."""
    found = []
    for of in groups:
        with suppress(UserError):
            found.append(spearman(of[x].to_numpy(float), of[y].to_numpy(float))["rho"])
    return found


def held_within(row: Verdict, within: Sequence[float], groups: str) -> Verdict:
    """A verdict on ranks with the rank correlations `within` groups of runs that are alike in what else could order
    them (compute, length): where these are weak in the median, the groups carry the agreement and it is undecided."""
    if not within:
        return row
    why = f"within {groups} rho is {min(within):.2f} to {max(within):.2f}"
    row = row | {"why": "; ".join(filter(None, [row["why"], why]))}
    if np.median(within) <= STRONG:  # more runs would not help
        row |= {"needs": None} | ({"verdict": "undecided"} if row["verdict"] == "reproduced" else {})
    return row


def mean_interval(values: np.ndarray) -> tuple[float | None, float | None]:
    """The mean's 95% interval by Student's t; no interval with fewer than two values."""
    if len(values) < 2:
        return None, None
    half = t_quantile(LEVEL, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half), float(values.mean() + half)


def ranked(id: str, claim: str, x: np.ndarray, y: np.ndarray, tier: str) -> Verdict:
    """Two numbers rank runs alike: Spearman's rho with Fisher's interval above `STRONG`; undecided below five runs."""
    try:
        found = spearman(x, y)
    except UserError as error:  # fewer than three, or all of one are equal
        return verdict(id, claim, tier, f"rho > {STRONG}", n=len(x), why=str(error))
    rho = found["rho"]
    if len(x) < 5:
        why = f"{len(x)} runs have both (exact p = {found['p']:.2g}): an interval needs five"
        return verdict(id, claim, tier, f"rho > {STRONG}", rho, n=len(x), why=why)
    most = 1 - 6 / (len(x) ** 3 - len(x))  # halfway to one swap of neighbours: a perfect order of few is no certainty
    half = t_quantile(LEVEL, 1e6) * (1.06 / max(len(x) - 3, 1)) ** 0.5  # Fieller, Hartley and Pearson 1957
    place = np.arctanh(np.clip(rho, -most, most))
    low, high = (float(np.tanh(place + s * half)) for s in (-1, 1))
    apart = abs(place - np.arctanh(STRONG))
    enough = 3 + 1.06 * (t_quantile(LEVEL, 1e6) / apart) ** 2 if apart else np.inf
    needs = int(np.ceil(enough)) if enough <= MANY else None
    return verdict(id, claim, tier, f"rho > {STRONG}", rho, low, high, len(x), (STRONG, 1.0), needs=needs)
