"""The Pareto frontier of learning curves (score against compute), the power law through it, and what its few points can
show: exact Spearman p-values, and intervals that count runs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from t2ikit.errors import UserError
from t2ikit.laws.intervals import finite, spearman
from t2ikit.laws.points import prepare
from t2ikit.laws.power import LEAST_POINTS, PowerFit, fit_power
from t2ikit.laws.result import Result, finding


def pareto(cost: np.ndarray, score: np.ndarray, *, maximise: bool) -> np.ndarray:
    """Indices, by rising cost, of the points that no cheaper or equal point matches in score; UserError for values
    that are no numbers."""
    cost, score = finite(cost, score)
    signed = -score if maximise else score
    order = np.lexsort([signed, cost])
    best = np.concatenate([[np.inf], np.minimum.accumulate(signed[order])[:-1]])
    return order[signed[order] < best]


@dataclass(frozen=True)
class FrontierFit(Result):
    """The frontier's points, its law and its rank correlation."""

    law: PowerFit
    spearman: dict
    cost: np.ndarray  # all points
    score: np.ndarray
    on_frontier: np.ndarray  # indices into them
    runs: np.ndarray | None
    maximise: bool
    audit: list[dict] = field(default_factory=list)
    chart_kind = "frontier"
    title = "Pareto frontier and its power law"

    def as_dict(self) -> dict:
        return self.law.as_dict() | {
            "law": "frontier", "claimed": False, "points": len(self.cost), "on_frontier": len(self.on_frontier),
            "maximise": self.maximise, "spearman": self.spearman, "audit": self.audit,
        }  # fmt: skip


def fit_frontier(
    cost: np.ndarray,  # compute (FLOPs) of each evaluation, [n]
    score: np.ndarray,  # [n]
    *,
    maximise: bool,
    runs: np.ndarray | None = None,  # [n] labels of the learning curves
    x_label: str = "C (FLOPs)",
    y_label: str = "score",
) -> FrontierFit:
    """Power law in logs through the Pareto frontier, clustered by run.

    The frontier is the best of its noise: its level is biased towards good luck and its points are few curves, so the
    interval is a guide (`claimed` is False). UserError for fewer than five frontier points.
    """
    prepare({"cost": cost, "score": score}, runs=runs)
    cost, score = np.asarray(cost, float).ravel(), np.asarray(score, float).ravel()
    index = pareto(cost, score, maximise=maximise)
    if len(index) < LEAST_POINTS:
        raise UserError(f"The frontier has {len(index)} point(s) of {len(cost)}: a law needs at least {LEAST_POINTS}; "
                        "evaluate the curves at more steps.")  # fmt: skip
    labels = None if runs is None else np.asarray(runs).astype(str)[index]
    curves = len(index) if labels is None else len(np.unique(labels))
    law = fit_power(cost[index], score[index], runs=labels if curves >= LEAST_POINTS else None,
                    x_label=x_label, y_label=y_label)  # fmt: skip
    audit = [*law.audit, finding(
        "frontier", "note",
        f"{len(index)} of {len(cost)} points are on the frontier, from {curves} curve(s); selecting the best of noisy "
        "points shifts the law towards good scores, its interval is a guide (docs/laws_coverage.md), and its rank "
        "correlation is 1 by construction.")]  # fmt: skip
    if curves < min(LEAST_POINTS, len(index)):
        audit.append(finding("clusters", "warning", f"Only {curves} curve(s) reach the frontier: the interval takes "
                             "their points for independent and is too narrow."))  # fmt: skip
    return FrontierFit(law, spearman(cost[index], score[index]), cost, score, index, runs, maximise, audit)
