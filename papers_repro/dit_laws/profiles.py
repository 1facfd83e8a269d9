"""What paper D's notebooks share: a study's points under one loss, the laws through them, tables of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from papers_repro.dit_laws import studies
from papers_repro.verdicts import tidy
from t2ikit.errors import UserError, choose
from t2ikit.isoflop import RATE_OF, IsoFlop
from t2ikit.laws import fit_isoflop, fit_power
from t2ikit.laws.isoflop import IsoflopFit
from t2ikit.laws.power import PowerFit, widened
from t2ikit.results import Results, combine, distinct, one_loss_space

LOSSES = {
    "val_loss_averaged": "Validation loss, averaged weights (MSE)",
    "val_loss": "Validation loss, raw weights (MSE)",
    "loss": "Training loss, smoothed (MSE)",
}
LAWS = {"n_opt": "N_opt (parameters)", "d_opt": "D_opt (tokens)", "loss_opt": "Loss at N_opt"}


@dataclass(frozen=True)
class Profile:
    """The measured points of a study under one loss `y`, and their isoFLOP fit: None with the reason in `why`."""

    label: str
    study: IsoFlop
    tier: str
    table: pd.DataFrame  # of `IsoFlop.table`
    y: str
    fit: IsoflopFit | None
    why: str

    @property
    def usable(self) -> list:
        """Budgets whose parabola has a vertex inside the grid."""
        return [b for b in self.fit.budgets if b.in_law] if self.fit else []

    @property
    def unswept(self) -> list[str]:
        """Its sizes that train at the tier's rate or at another setting's: none was found by a sweep of their own."""
        return [b for b in dict.fromkeys(self.table["backbone"]) if not self.study.swept(b, self.tier)]

    def law(self, name: str) -> PowerFit | None:
        return getattr(self.fit, name) if self.fit else None

    def runs(self, rows: Results) -> Results:
        """Those of `rows` that are its points'."""
        return rows.select(run=list(self.table["run"]))

    def note(self) -> str:
        """What has been measured, in a sentence."""
        have, points = self.table.groupby(["backbone", "C"]).ngroups, len(self.study.points(self.tier))
        if not have:
            return f"{self.label}: no measured results yet at tier {self.tier} ({points} grid points)."
        seeds = self.table.groupby(["backbone", "C"])["seed"].nunique()
        n = f"n = {seeds.min()}" if seeds.min() == seeds.max() else f"n = {seeds.min()} to {seeds.max()}"
        one = ": the spread of seeds is unknown" if seeds.max() == 1 else ""
        sources = " and ".join(sorted(self.table["source"].unique()))
        text = f"{self.label}: {have} of {points} grid points measured ({sources}), {n} seed(s) a point{one}."
        if self.unswept:
            text += f" The rates of {len(self.unswept)} sizes were not swept, {self.unswept[0]} the first."
        return f"{text} {self.why}".strip() if len(self.study.at(self.tier).budgets) > 1 else text


def gather(
    chosen: Sequence[IsoFlop], tier: str, seeds: Sequence[int] = (0,), live: bool | None = None, rates: bool = False
) -> Results:
    """The rows of several studies, committed and live; `live` None: train what is missing at tier smoke alone."""
    live = tier == "smoke" if live is None else live
    return distinct([s.results(studies.RESULTS, tier, seeds, live, rates) for s in chosen] or [combine([])])


def profile(study: IsoFlop, rows: Results, tier: str, label: str, y: str = "val_loss_averaged") -> Profile:
    """The points of `study` among `rows`, fitted under `y`."""
    return fitted(study, study.table(rows, tier), tier, label, y)


def fitted(study: IsoFlop, table: pd.DataFrame, tier: str, label: str, y: str) -> Profile:
    """The same from a table in memory."""
    from papers_repro.dit_laws.scores import UNITS

    choose("loss", y, dict.fromkeys([*LOSSES, *UNITS]))
    table = table.dropna(subset=[y]) if y in table else table.iloc[:0]
    one_loss_space(table)
    if table.empty:
        return Profile(label, study, tier, table, y, None, "")
    try:
        fit = fit_isoflop(
            *(table[c].to_numpy(float) for c in ("C", "N", y)), D=table["D"].to_numpy(float), steps=table["steps"],
            runs=table["run"].to_numpy(), min_steps=study.at(tier).least_steps,
        )  # fmt: skip
    except UserError as error:
        return Profile(label, study, tier, table, y, None, str(error))
    return Profile(label, study, tier, table, y, fit, "")


def at_budgets(table: pd.DataFrame, x: str, y: str) -> list[pd.DataFrame]:
    """Two columns at each budget, a row a size, its seeds averaged: where compute carries no rank correlation."""
    of = table.reindex(columns=["C", "backbone", x, y]).dropna().groupby("C")
    return [sizes.groupby("backbone")[[x, y]].mean() for _, sizes in of]


def say(profiles: Sequence[Profile]) -> None:
    """What has been measured of each, a line a study."""
    print("\n".join(p.note() for p in profiles))


def title_of(y: str) -> str:
    from papers_repro.dit_laws.scores import UNITS

    return LOSSES.get(y) or UNITS.get(y, y)


def budgets(profiles: Sequence[Profile]) -> pd.DataFrame:
    """A row a study and budget: the vertex with its 95% interval, the surface's beside it, flags; no vertex where it
    lies outside the grid."""
    rows = []
    for p in profiles:
        for b in p.fit.budgets if p.fit else ():
            n_opt = b.N_opt if b.in_law else None
            rows.append({
                "of": p.label, "C (FLOPs)": b.C, "sizes": b.sizes, "N_opt (parameters)": n_opt and three(n_opt),
                "95%": between(b.low, b.high) if n_opt else None,
                "surface's": b.surface_N_opt and three(b.surface_N_opt),
                "D_opt (tokens)": n_opt and three(b.C / (6 * n_opt)),
                "loss there": b.loss if n_opt else None, "flags": "; ".join(b.flags) or "none",
            })  # fmt: skip
    return tidy(pd.DataFrame(rows))


def shown(table: pd.DataFrame) -> pd.DataFrame | None:
    """The same for a notebook: nothing at all of a table without rows."""
    return None if table.empty else tidy(table)


def three(value: float) -> float:
    """`value` to three digits."""
    return float(f"{value:.3g}")


def between(low: float | None, high: float | None) -> str | None:
    """An interval as text; None where it is unbounded."""
    return None if low is None or high is None else f"{low:.3g} to {high:.3g}"


def basins(p: Profile) -> pd.DataFrame:
    """How flat the loss is around each budget's vertex."""
    rows = [{"C (FLOPs)": b.C, "N_opt (parameters)": b.N_opt, "decades of N within 1%": basin(b)} for b in p.usable]
    return pd.DataFrame(rows)


def basin(budget) -> float | None:
    """How many decades of N around the vertex cost at most 1% in loss."""
    if budget.loss is None or budget.coefficients is None or budget.coefficients[2] <= 0:
        return None
    return 2 * float(np.sqrt(0.01 * budget.loss / budget.coefficients[2]))


def laws(profiles: Sequence[Profile], published: Sequence = ()) -> pd.DataFrame:
    """The power laws in C of each study with their 95% intervals, the surface's exponent of N_opt, the printed ones."""
    rows = []
    for p in profiles:
        for name, quantity in LAWS.items():
            if law := p.law(name):
                rows.append({"of": p.label, "law": quantity, "counting": "6ND, all parameters"} | _numbers(law))
        if p.fit and p.fit.surface:
            a = p.fit.surface.huber
            low, high = a.intervals["a"]
            values = {"coefficient": None, "exponent": a.a, "low": low, "high": high, "n": p.fit.surface.n}
            rows.append({"of": p.label, "law": LAWS["n_opt"], "counting": "6ND, by the surface"} | values)
        rows += conventions(p)
    for law in published:
        rows.append({"of": "paper D", "law": law.quantity, "coefficient": law.a, "exponent": law.b, "n": law.points})
    columns = ["of", "law", "counting", "coefficient", "exponent", "low", "high", "n"]
    return tidy(pd.DataFrame(rows, columns=columns))


def conventions(p: Profile) -> list[dict]:
    """The three laws under the other ways of counting, of the same vertices: those of the parabolas along equal 6ND. N
    and C at each are restated for a model of that size; D, the tokens, and the loss stay. No interval is narrower than
    that of the usual counting, which knows of runs that share budgets."""
    if p.law("n_opt") is None:
        return []
    d, loss = (np.array(values) for values in zip(*((b.C / (6 * b.N_opt), b.loss) for b in p.usable), strict=True))
    rows = []
    for counting, (n_of, c_of) in {
        "6ND, per-token parameters": (lambda t: t["N_token"], lambda t: t["C"] * t["N_token"] / t["N"]),
        "exact FLOPs": (lambda t: t["N"], lambda t: t["flops_exact"]),
    }.items():
        n, c = at_vertices(p, n_of), at_vertices(p, c_of)
        for name, values in zip(LAWS, (n, d, loss), strict=True):
            usual = p.law(name)
            law = widened(fit_power(c, values), (usual.high - usual.low) / 2, usual.interval_method)
            rows.append({"of": p.label, "law": LAWS[name], "counting": counting} | _numbers(law))
    return rows


def at_vertices(p: Profile, column: Callable[[pd.DataFrame], pd.Series]) -> np.ndarray:
    """`column` of the points (parameters or FLOPs) at the vertex of each usable budget, between sizes linear in
    logs [B]."""
    at = p.table.drop_duplicates(["backbone", "C"]).sort_values("N")
    found = []
    for b in p.usable:
        of = at[np.isclose(at["C"], b.C, rtol=0.1)]
        x, y = (np.log(v.to_numpy(float)) for v in (of["N"], column(of)))
        found.append(float(np.exp(np.interp(np.log(b.N_opt), x, y))))
    return np.array(found)


def _numbers(law: PowerFit) -> dict:
    return {k: getattr(law, k) for k in ("coefficient", "exponent", "low", "high", "n")}


def of_runs(profiles: Sequence[Profile], rows: Results) -> Results:
    """Those of `rows` that are points of any of the profiles."""
    return rows.select(run=[run for p in profiles for run in p.table["run"]])


def best_rates(path: Path, tier: str) -> pd.DataFrame:
    """The rates that studies of a tier use, from the sweep of each size: the best, by how much the next one is worse,
    and whether the best lies at the sweep's edge, so that a still better one may lie outside."""
    if not path.exists():
        return pd.DataFrame()
    rows = []
    for setting, sweep in pd.read_csv(path).query("tier == @tier").groupby(list(RATE_OF)[1:]):
        of = sweep.groupby("lr")["val_loss"].mean()
        best = of.idxmin()
        found = {"rate": best, "next above it by": of.drop(best).min() / of[best] - 1}
        edge = best in (of.index.min(), of.index.max())
        rows.append(dict(zip(RATE_OF[1:], setting, strict=True)) | found | {"at the edge": edge})
    return pd.DataFrame(rows)


def shapes(table: pd.DataFrame) -> pd.DataFrame:
    """With the depth and width that a rung's name says."""
    found = table["backbone"].astype(str).str.extract(r"-d(\d+)-w(\d+)$").astype(float)
    return table.assign(depth=found[0], width=found[1])


def surfaces(profiles: Sequence[Profile]) -> pd.DataFrame:
    """E, α and β of each profile's surface by both ways of fitting, with 95% intervals."""
    rows = []
    for p in profiles:
        for name in ("huber", "vpnls") if p.fit and p.fit.surface else ():
            fit = getattr(p.fit.surface, name)
            row = {"of": p.label, "fit": name, "interval": fit.interval_method}
            for k in ("E", "alpha", "beta"):
                row |= {k: getattr(fit, k), f"{k} low": fit.intervals[k][0], f"{k} high": fit.intervals[k][1]}
            rows.append(row)
    return pd.DataFrame(rows)
