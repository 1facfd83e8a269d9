"""What is compared in paper D's notebooks: two profiles budget by budget, a law with budgets it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from papers_repro.dit_laws.profiles import Profile, at_vertices, between, fitted, three
from papers_repro.verdicts import tidy
from t2ikit.errors import UserError, choose
from t2ikit.isoflop import IsoFlop
from t2ikit.laws import fit_power, hold_out_largest
from t2ikit.laws.intervals import LEVEL, fieller, t_quantile
from t2ikit.laws.isoflop import SHARED
from t2ikit.laws.power import PowerFit, widened

COUNTINGS = ("6ND", "exact FLOPs")
TOLD = ("predicted", "low", "high", "power law", "power law low", "power law high", "last budget")


@dataclass(frozen=True)
class Comparison:
    """Loss of `second` over loss of `first` at the budgets that both have: a power law of C, and where it meets 1."""

    first: str
    second: str
    ratio: PowerFit
    crossing: float  # NaN of parallel laws
    crossing_interval: tuple[float, float] | None  # None: unbounded


def paired(first: Profile, second: Profile, counting: str = COUNTINGS[0]) -> Comparison:
    """Paired by budget, so that what both share at a budget cancels. UserError with fewer than five common budgets.

    6ND charges adaLN's and the text's parameters for every token, which they do not meet. By exact FLOPs the two
    vertices of a budget cost different amounts: the loss of `second` is moved to the cost of `first` along its own
    power law, whose noise is left out. The exponent's interval is no narrower than both jackknives over runs together.
    """
    theirs = {round(np.log10(b.C), 1): k for k, b in enumerate(second.usable)}
    pairs = [(j, theirs[key]) for j, b in enumerate(first.usable) if (key := round(np.log10(b.C), 1)) in theirs]
    j, k = np.array(pairs, int).reshape(-1, 2).T
    c, ours, other = (np.array(v) for v in ([first.usable[i].C for i in j], _losses(first, j), _losses(second, k)))
    if choose("counting", counting, COUNTINGS) == COUNTINGS[1] and len(pairs):
        c, spent = (at_vertices(p, lambda t: t["flops_exact"])[i] for p, i in ((first, j), (second, k)))
        other = other * (c / spent) ** fit_power(spent, other).exponent
    ratio = plain = fit_power(c, other / ours, x_label="C (FLOPs)", y_label="ratio of losses")
    if first.fit and second.fit and first.fit.jackknife and second.fit.jackknife:
        ratio = widened(ratio, float(np.hypot(first.fit.jackknife[2], second.fit.jackknife[2])), SHARED)
    middle, values = float(np.log(ratio.x).mean()), np.log(ratio.y)
    u, level = np.log(ratio.x) - middle, float(values.mean())
    noise, dof = float(np.sum((values - level - ratio.exponent * u) ** 2)) / (len(u) - 2), len(u) - 2
    # what runs share holds for the crossing too; without scatter there is nothing to widen
    wider = (ratio.high - ratio.low) / (plain.high - plain.low) if noise > 0 else 1.0
    covariance = noise * wider**2 * np.diag([1 / len(u), 1 / (u @ u)])
    ends = fieller(-level, ratio.exponent, covariance, t_quantile(LEVEL, dof)) or ()
    met = -level / ratio.exponent if ratio.exponent else np.nan
    place = [float(np.exp(np.clip(middle + v, -600, 600))) for v in (met, *ends)]
    return Comparison(first.label, second.label, ratio, place[0], tuple(place[1:]) if ends else None)


def _losses(p: Profile, at: np.ndarray) -> list[float]:
    return [p.usable[i].loss for i in at]


def comparisons(pairs: Sequence[tuple[Profile, Profile]]) -> pd.DataFrame:
    """Exponents side by side, a row a pair and way of counting: their difference with its 95% interval, and the
    crossing; or why not."""
    rows = []
    for (first, second), counting in product(pairs, COUNTINGS):
        row = {"first": first.label, "second": second.label, "counting": counting}
        try:
            found = paired(first, second, counting)
        except UserError as error:
            rows.append(row | {"note": first.why or second.why or str(error)})
            continue
        rows.append(
            row | {"difference of exponents": found.ratio.exponent, "95%": between(found.ratio.low, found.ratio.high),
                   "budgets": found.ratio.n, "crossing (FLOPs)": three(found.crossing),
                   "its 95%": between(*(found.crossing_interval or (None, None)))}
        )  # fmt: skip
    return tidy(pd.DataFrame(rows))


def stacked(profiles: Mapping[str, Profile]) -> pd.DataFrame:
    """The points of several profiles with a column `of`, their names."""
    frames = [p.table.assign(of=name) for name, p in profiles.items() if len(p.table)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def asked(trained: Mapping[str, Profile], scored: Mapping[str, pd.DataFrame]) -> dict[tuple[str, str], Profile]:
    """Each training's profile under its loss on each caption set, by (trained on, asked with)."""
    return {
        (name, captions): fitted(
            p.study,
            scored[name][scored[name]["on_captions"] == captions].assign(
                loss_space=captions, val_loss=lambda t: t["value"]
            ),
            p.tier, f"{name} on {captions}", "val_loss",
        )
        for (name, p), captions in product(trained.items(), trained)
    }  # fmt: skip


def matrix(scored: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """At the largest budget that all have: the lowest loss of each training on each caption set ± its standard error
    over validation images, a row a training, a column a caption set."""
    full = [frame for frame in scored.values() if len(frame)]
    if len(full) < len(scored):
        return pd.DataFrame()
    c = max(set.intersection(*(set(frame["C"]) for frame in full)))
    rows = {}
    for name, frame in scored.items():
        of = frame[frame["C"] == c]
        best = of.loc[of.groupby("on_captions")["value"].idxmin()]
        cells = {f"asked with {r.on_captions} captions": f"{r.value:.5g} ± {r.se:.1g}" for r in best.itertuples()}
        rows[f"trained on {name}, C = {c:.1e} FLOPs, {int(best['n'].iloc[0])} images"] = cells
    return pd.DataFrame(rows).T


def held_out(p: Profile) -> tuple[dict | None, str]:
    """`hold_out_largest` of the profile's points, the points of one training one cluster; or why there is none."""
    if p.table.empty:
        return None, "Nothing is held out."
    columns = [p.table[c].to_numpy(float) for c in ("N", "D", p.y)]
    try:
        held = hold_out_largest(*columns, C=p.table["C"].to_numpy(float), runs=p.table["run"].to_numpy())
    except UserError as error:
        return None, str(error)
    text = (
        f"Without the largest budget ({held['C']:.2g} FLOPs) {held['fitted_on']} points predict its {held['points']}: "
    )
    return held, f"{text}mean error {held['error']:.2%}, {held['covered']:.0%} inside the 95% interval."


def headline(held: dict | None) -> pd.DataFrame | None:
    """The numbers of a held-out budget, a row each."""
    names = {
        "C": "C (FLOPs)", "decades_beyond": "decades beyond the others", "fitted_on": "points fitted",
        "points": "points held out", "error": "mean |error| (share)", "covered": "inside the 95% interval (share)",
        "best_loss": "best loss", "best_predicted": "predicted of that size",
        "baseline_last_budget": "baseline: best of the budget before", "skill_over_last_budget": "skill over it",
        "baseline_power_law": "baseline: power law without floor", "skill_over_power_law": "skill over it too",
    }  # fmt: skip
    return held and tidy(pd.DataFrame({"held-out budget": {name: held[key] for key, name in names.items()}}))


def predict(p: Profile, further: IsoFlop, far: Profile) -> pd.DataFrame:
    """What the surface through all budgets says of the points of another study, and what they were, where trained;
    beside it the two baselines: the power law through the budgets' optima (paper D's own form, with its interval), and
    the best loss of the largest budget, seeds averaged."""
    law, line = p.fit.surface.huber if p.fit and p.fit.surface else None, p.law("loss_opt")
    last = p.table[p.table["C"] == p.table["C"].max()].groupby("backbone")[p.y].mean().min() if len(p.table) else None
    measured = far.table.groupby("backbone")[far.y].agg(["mean", "size"]) if len(far.table) else pd.DataFrame()
    beyond = np.log10(1 / p.table["C"].max()) if len(p.table) else np.nan
    rows = []
    for at in further.points(p.tier):
        low, high = law.prediction_interval(at.N, at.D) if law else (None, None)
        ends = line.band(at.C, new_point=True) if line else (None, None)
        known = measured.loc[at.backbone] if at.backbone in measured.index else {"mean": None, "size": 0}
        rows.append({
            "backbone": at.backbone, "C (FLOPs)": at.C, "decades beyond": np.log10(at.C) + beyond,
            "N (parameters)": at.N, "D (tokens)": at.D, "predicted": float(law.predict(at.N, at.D)) if law else None,
            "low": low, "high": high, "power law": float(line.predict(at.C)) if line else None,
            "power law low": ends[0], "power law high": ends[1], "last budget": last,
            "measured": known["mean"], "n": int(known["size"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def read_foretold(path: Path) -> pd.DataFrame:
    """What `papers_repro.dit_laws.predict` wrote down before runs were trained; empty before that."""
    columns = ["tier", "backbone", "C (FLOPs)", *TOLD]
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=columns)


def as_foretold(beyond: pd.DataFrame, foretold: pd.DataFrame, tier: str) -> pd.DataFrame:
    """`predict`'s rows with the prediction as it was written down before training, where it was; `foretold` says so."""
    of_tier = foretold[foretold["tier"] == tier].set_index("backbone")
    rows = []
    for row in beyond.to_dict("records"):
        at = of_tier.loc[row["backbone"]] if row["backbone"] in of_tier.index else None
        same = at is not None and np.isclose(at["C (FLOPs)"], row["C (FLOPs)"], rtol=0.01)
        rows.append(row | ({k: at[k] for k in TOLD} if same else {}) | {"foretold": bool(same)})
    return pd.DataFrame(rows)
