"""Claims D1–D17 (paper D) against our own runs, by the rule of papers_repro/verdicts.py.

A printed number is reproduced within a declared margin of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from papers_repro.dit_laws import studies
from papers_repro.dit_laws.compare import COUNTINGS, paired
from papers_repro.dit_laws.profiles import Profile, at_budgets
from papers_repro.verdicts import NOTHING, Verdict, mean_interval, needed, ranked_within, verdict
from papers_repro.verdicts import table as table
from papers_repro.verdicts import tidy as tidy
from t2ikit import laws
from t2ikit.errors import UserError
from t2ikit.laws.holdout import skill
from t2ikit.laws.intervals import LEVEL
from t2ikit.laws.power import PowerFit

MARGINS = {"N_opt": 0.1, "D_opt": 0.1, "loss": 0.01, "FID": 0.05}  # of an exponent, around the printed one
FLAT = 0.01  # of the loss, around the best rate


def interior_minima(id: str, p: Profile, claim: str = "") -> Verdict:
    """D1, and D7–D9 of another family or resolution: the share of budgets with a vertex inside the grid and a curvature
    whose interval excludes 0; reproduced from 4 of 5 on, contradicted where in as many the interval lies below 0."""
    claim = claim or "at each budget the loss's parabola in log N has an interior minimum"
    found = p.fit.budgets if p.fit else []
    good = [b for b in p.usable if b.low is not None]
    row = verdict(id, f"{p.label}: {claim}", p.tier, "every budget", len(good) / len(found) if found else None)
    row |= {"n": len(found), "why": f"{len(good)} of {len(found)} budgets" if found else p.why or NOTHING}
    if len(found) >= 5:
        hills = sum("curvature interval below 0" in b.flags for b in found)
        most = 0.8 * len(found)
        row["verdict"] = "reproduced" if len(good) >= most else "contradicted" if hills >= most else "undecided"
    return row


def exponent(id: str, p: Profile, name: str, printed: str, fit: PowerFit | None = None) -> Verdict:
    """D2–D4: whether our exponent's interval lies within the declared margin of the printed one. An exponent of a loss
    or distance depends on what is measured and where: beside a law that was fitted to larger budgets alone ours is
    shown, and decides nothing."""
    law = next(x for x in laws.read_laws(studies.PUBLISHED / "laws.csv") if x.quantity == printed)
    margin, fit = MARGINS[printed.split()[0]], fit or p.law(name)
    claim = f"{p.label}: {printed} ∝ C^{law.exponent} (margin ± {margin:g})"
    if fit is None:
        return verdict(id, claim, p.tier, law.b, why=_lawless(p))
    where = (law.b - margin, law.b + margin)
    needs = needed(fit.exponent, fit.low, fit.high, fit.n, where, lost=2)
    row = verdict(id, claim, p.tier, law.b, fit.exponent, fit.low, fit.high, fit.n, where, needs=needs)
    if printed in ("loss", "FID") and fit.x.max() < law.low:
        why = f"another {printed}, at {fit.x.max():.0e} FLOPs and less; the print's starts at {law.low:.0e}"
        row |= {"verdict": "undecided", "why": why, "needs": None}
    return row


def falls(id: str, p: Profile, what: str = "") -> Verdict:
    """D3: what the profile measures (said in `what` if its label does not) falls with compute as a power law: with an
    exponent below 0, and without a bend; contradicted also where it falls and certainly bends."""
    claim, fit = f"{p.label}{what and ': '}{what} falls with C as a power law", p.law("loss_opt")
    if fit is None:
        return verdict(id, claim, p.tier, "< 0", why=_lawless(p))
    needs = needed(fit.exponent, fit.low, fit.high, fit.n, (-np.inf, 0.0), lost=2)
    row = verdict(id, claim, p.tier, "< 0", fit.exponent, fit.low, fit.high, fit.n, (-np.inf, 0.0), needs=needs)
    if row["verdict"] == "reproduced" and (bend := fit.bend()) and not bend[1] <= 0 <= bend[2]:
        way = "steeper" if bend[0] < 0 else "flatter"
        why = f"it falls, {way} at larger budgets: the slope changes by {bend[0]:.3f} a decade"
        row |= {"verdict": "contradicted", "why": f"{why} ({bend[1]:.3f} to {bend[2]:.3f})"}
    return row


def predicted(id: str, p: Profile, held: dict | None, why: str = "") -> Verdict:
    """D5: the surface of small budgets predicts a larger one: its best size (seeds averaged) lies in the prediction
    interval, and the prediction beats both baselines; contradicted where it lies outside."""
    row = verdict(id, f"{p.label}: the surface of small budgets predicts the largest", p.tier, "predicted", why=why)
    if held is None:
        return row | {"why": why or p.why or NOTHING}
    best = pd.DataFrame(held["predictions"]).groupby("N").mean().sort_values("loss").iloc[0]
    skills = [held["skill_over_last_budget"], held["skill_over_power_law"]]
    inside = best["low"] <= best["loss"] <= best["high"]
    told = ", ".join("–" if s is None else f"{s:.2f}" for s in skills)
    row |= {"paper": best["predicted"], "ours": best["loss"], "low": best["low"], "high": best["high"]}
    row |= {"n": held["points"], "why": f"{held['covered']:.0%} of points covered; skill over the two baselines {told}"}
    won = all(s is not None and s > 0 for s in skills)
    return row | {"verdict": "contradicted" if not inside else "reproduced" if won else "undecided"}


def steeper(id: str, claim: str, first: Profile, second: Profile) -> Verdict:
    """D6, D11, D16: the loss of `second` falls faster with C than that of `first`, paired by budget."""
    try:
        ratios = [paired(first, second, counting).ratio for counting in COUNTINGS]
    except UserError as error:
        return verdict(id, claim, first.tier, "< 0", why=_unpaired(first, second, error))
    return under_both([
        verdict(id, claim, first.tier, "< 0", r.exponent, r.low, r.high, r.n, (-np.inf, 0.0),
                needs=needed(r.exponent, r.low, r.high, r.n, (-np.inf, 0.0), lost=2))
        for r in ratios
    ])  # fmt: skip


def crosses(id: str, first: Profile, second: Profile) -> Verdict:
    """D6: the curves of the two cross within the budgets of this tier."""
    claim = f"the losses of {first.label} and {second.label} cross within these budgets"
    rows = []
    for counting in COUNTINGS:
        try:
            found = paired(first, second, counting)
        except UserError as error:
            return verdict(id, claim, first.tier, "a crossing", why=_unpaired(first, second, error))
        low, high = found.crossing_interval or (None, None)
        where, why = (found.ratio.x.min(), found.ratio.x.max()), "" if low else "no interval: the slopes may be equal"
        rows.append(verdict(id, claim, first.tier, "a crossing", found.crossing, low, high, found.ratio.n, where, why))
    return under_both(rows)


def _unpaired(first: Profile, second: Profile, error: UserError) -> str:
    """Why two profiles cannot be compared."""
    if first.table.empty or second.table.empty:
        return NOTHING
    return first.why or second.why or str(error)


def _lawless(p: Profile) -> str:
    """Why a profile has no law of its losses."""
    if p.table.empty:
        return NOTHING
    if (p.table[p.y] <= 0).any():
        return "it falls below 0, as no power law does"
    return p.why or f"{len(p.usable)} usable budgets: a law needs five"


def under_both(rows: Sequence[Verdict]) -> Verdict:
    """One verdict of those by 6ND and by exact FLOPs: decided where both say the same."""
    row, exact = rows
    ends = "" if exact["low"] is None else f" ({exact['low']:.3g} to {exact['high']:.3g})"
    why = "; ".join(filter(None, [row["why"], f"by exact FLOPs {exact['ours']:.3g}{ends}, {exact['verdict']}"]))
    return row | {"why": why} | ({} if row["verdict"] == exact["verdict"] else {"verdict": "undecided"})


def shape_matters(id: str, p: Profile) -> Verdict:
    """D17: at equal N and C the worst shape is at most 1% above the best, a value a seed that has all shapes. Worst and
    best are those of the other seeds: by a seed's own, its noise alone would set them apart."""
    claim = f"at equal N the worst of these shapes is at most {FLAT:.0%} above the best"
    losses = p.table.pivot_table(index="seed", columns="backbone", values=p.y)
    losses = losses.dropna() if losses.shape[1] == len(p.study.points(p.tier)) else losses[:0]
    others = [losses.drop(index=seed).mean() if len(losses) > 1 else losses.loc[seed] for seed in losses.index]
    above = np.array([
        losses.loc[seed, mean.idxmax()] / losses.loc[seed, mean.idxmin()] - 1
        for seed, mean in zip(losses.index, others, strict=True)
    ])  # fmt: skip
    low, high = mean_interval(above)
    why = "" if low is not None else "one seed: its spread is unknown" if len(above) else NOTHING
    mean, where = float(above.mean()) if len(above) else None, (-np.inf, FLAT)
    needs = needed(mean, low, high, len(above), where) if len(above) else None
    return verdict(id, claim, p.tier, f"< {FLAT:g}", mean, low, high, len(above), where, why, needs)


def far(id: str, beyond: pd.DataFrame, tier: str) -> list[Verdict]:
    """D5: whether each far run (the mean of its seeds) fell into the interval that was predicted for it by the surface
    and by the power law, paper D's own form. Reproduced if two seeds or more did and the prediction was nearer than
    the best loss of the largest budget and, for the surface, than the power law; contradicted if it fell outside."""
    rows = []
    for at in beyond.to_dict("records"):
        baselines = {"last budget": at["last budget"], "power law": at["power law"]}
        for law, value, low, high, over in (
            ("surface", at["predicted"], at["low"], at["high"], ("last budget", "power law")),
            ("power law", at["power law"], at["power law low"], at["power law high"], ("last budget",)),
        ):
            claim = f"the {law} predicts {at['backbone']} at {at['C (FLOPs)']:.1e} FLOPs"
            row = verdict(id, claim, tier, value, at["measured"], low, high, at["n"])
            if pd.isna(low) or pd.isna(at["measured"]):
                rows.append(row | {"verdict": "undecided", "why": f"no {law}" if pd.isna(low) else NOTHING})
                continue
            skills = {name: skill(value, baselines[name], at["measured"]) for name in over}
            won = all(s is not None and s > 0 for s in skills.values())
            told = ", ".join(f"{s:.2f} over the {name}" for name, s in skills.items() if s is not None)
            inside = low <= at["measured"] <= high
            row["verdict"] = "contradicted" if not inside else "reproduced" if won and at["n"] > 1 else "undecided"
            one = "one seed; " if at["n"] == 1 else ""
            rows.append(row | {"why": f"{one}error {value / at['measured'] - 1:+.1%}; skill {told}"})
    return rows


def ranks_alike(id: str, claim: str, table: pd.DataFrame, x: str, y: str, tier: str) -> Verdict:
    """D3, D12: sizes rank alike by `x` and `y` within budgets: over all points compute alone would carry it."""
    groups = at_budgets(table, x, y)
    sizes = len(set().union(*(of.index for of in groups)))
    return ranked_within(id, claim, groups, x, y, sizes, tier, "budgets")


def flat_rate(id: str, sweep: pd.DataFrame, own: dict[str, float], tier: str) -> list[Verdict]:
    """D10: at half and at twice a size's best rate the loss is at most 1% above that at it, and at sixteen times and a
    sixteenth of its own rate, the better of the two, more than 1% above it: means over sizes, their intervals over
    seeds; one seed decides nothing. Of half and twice the worse counts, its interval as wide as two at once ask: the
    worst of several noisy rates, seed by seed, would lie above the best where nothing differs. A seed counts where it
    has these rates of every size."""
    octaves = np.log2(sweep["lr"] / sweep["backbone"].map(own).astype(float)).round().astype(int)
    sides = _beside(sweep.assign(octave=octaves), list(own))
    both = sides[["half", "twice"]]
    worse = both[both.mean().idxmax()].to_numpy() if len(sides) else np.array([])
    outside = sides["outside"].dropna().to_numpy() if len(sides) else np.array([])
    two = 1 - (1 - LEVEL) / 2
    rows = []
    for claim, of_seed, where, level, said in (
        ("flat within a factor of 2: half and twice the rate are at most 1% above it", worse, (-np.inf, FLAT), two,
         f"the worse of the two: its interval is one of {two:.1%}"),
        ("worse well outside: at 16 times and at a sixteenth more than 1% above", outside, (FLAT, np.inf), LEVEL, ""),
    ):  # fmt: skip
        low, high = mean_interval(of_seed, level)
        why = said if low is not None else "one seed: its spread is unknown" if len(of_seed) else NOTHING
        mean = float(of_seed.mean()) if len(of_seed) else None
        needs = needed(mean, low, high, len(of_seed), where, level=level) if len(of_seed) else None
        printed = f"{'<' if where[1] == FLAT else '>'} {FLAT:g}"
        rows.append(verdict(id, claim, tier, printed, mean, low, high, len(of_seed), where, why, needs))
    return rows


def _beside(sweep: pd.DataFrame, sizes: Sequence[str]) -> pd.DataFrame:
    """How far the loss at half and at twice a size's best rate lies above that at it, and how far the lower one of
    those at sixteen times and a sixteenth of its own rate (a NaN without both): a row a seed, the mean over `sizes`.
    The best is that of the other seeds: by the seed's own, what is asked of it would have chosen it. With one seed it
    is the size's own rate."""
    losses = sweep.pivot_table(index=["backbone", "seed"], columns="octave", values="val_loss")
    rows = {}
    for backbone, seed in losses.index:
        of, others = losses.loc[backbone, seed], losses.loc[backbone].drop(index=seed)
        known = set(others.dropna(axis="columns").columns) if len(others) else {0}
        best = [k for k in sorted(known) if of.reindex([k - 1, k, k + 1]).notna().all()]
        if best:
            at = others[best].mean().idxmin() if len(others) else 0
            wide = of[[k for k in of.index if abs(k) > 3]].dropna()
            least = wide.min() / of[at] - 1 if len(wide) > 1 else np.nan
            rows[seed, backbone] = {"half": of[at - 1] / of[at] - 1, "twice": of[at + 1] / of[at] - 1, "outside": least}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["half", "twice", "outside"])
    counts = pd.Series(dtype=int) if table.empty else table.groupby(level=0).size()
    table = table.loc[np.array([counts[seed] == len(sizes) for seed, *_ in table.index], bool)]
    return table if table.empty else table.groupby(level=0).agg(lambda values: values.mean(skipna=False))


def covered(p: Profile, floor: float | None) -> list[Verdict]:
    """Whether the intervals of the fitted irreducible loss E cover the known one, by both ways of fitting; one that
    reaches 0, or is wider than twice the floor, covers too much to decide."""
    claim = "{}: the fitted irreducible loss E covers the known floor ({})"
    if floor is None or p.fit is None or p.fit.surface is None:
        reason = next((f["finding"] for f in p.fit.audit if f["check"] == "surface"), "") if p.fit else p.why
        return [verdict("floor", claim.format(p.label, "surface"), p.tier, floor, why=reason or NOTHING)]
    rows = []
    for name in ("huber", "vpnls"):
        fit = getattr(p.fit.surface, name)
        low, high = fit.intervals["E"]
        row = verdict("floor", claim.format(p.label, name), p.tier, floor, fit.E, low, high, p.fit.surface.n)
        inside = low <= floor and (high is None or floor <= high)
        too_much = {
            "the interval has no upper end": high is None,
            "the interval is wider than twice the floor": high is not None and high - low > 2 * floor,
            "the interval reaches 0, which is no floor": low <= 0,
        }
        why = "; ".join(reason for reason, holds in too_much.items() if holds and inside)
        row["verdict"] = "undecided" if why else "reproduced" if inside else "contradicted"
        rows.append(row | {"why": why})
    return rows


def refuses_two_points() -> Verdict:
    """D13, asked of the code itself: two points are refused, five give an interval."""
    x = np.geomspace(1, 100, 5)
    fit = laws.fit_power(x, x**-0.1 * (1 + 0.01 * np.array([1, -1, 0, 1, -1])))
    try:
        laws.fit_power(x[:2], x[:2])
        refused = False
    except UserError:
        refused = True
    row = verdict("D13", "a power law needs five points: two are refused, five have an interval", "all", "refused")
    return row | {"verdict": "reproduced" if refused and fit.low is not None else "contradicted", "n": 5}


def gives_hours_and_images() -> Verdict:
    """D14, asked of the code itself: each budget of tier paper comes with hours of a GPU and images."""
    costs = studies.INCONTEXT.budget_costs("paper", {"GPU": 4e14})
    given = costs[["GPU_hours", "images_from", "images_to"]].gt(0).all(axis=None)
    row = verdict("D14", "compute and tokens are given as GPU hours and images", "all", "given", n=len(costs))
    return row | {"verdict": "reproduced" if given else "contradicted"}


def audited(id: str, claim: str, audit: Sequence[dict], *checks: str) -> Verdict:
    """D15: exact arithmetic on the printed numbers: contradicted if any finding of the named checks fails."""
    found = [f for f in audit if f["check"].startswith(checks)]
    failed = [f for f in found if f["verdict"] == "fail"]
    row = verdict(id, claim, "print", n=len(found), why=f"{len(failed)} of {len(found)} findings fail")
    return row | {"verdict": "contradicted" if failed else "reproduced" if found else "undecided"}
