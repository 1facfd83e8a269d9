"""What parameters and compute say of alignment over UNets (figures 10 and 11): S21, S22, S23.

Seeds of a backbone are averaged; noise of its score lowers a rank correlation, and is reckoned with.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from papers_repro.scalability import studies
from papers_repro.scalability.verdicts import at, tier_of
from papers_repro.verdicts import ALIKE, NOTHING, Verdict, in_noise, ranked, ranked_within, seeded, verdict
from t2ikit import laws
from t2ikit.errors import UserError
from t2ikit.laws.frontier import FrontierFit
from t2ikit.laws.power import PowerFit
from t2ikit.results import Results, last

UNETS = tuple(name for name in studies.ALL.backbones if not name.startswith("pixart"))
# the legend of the paper's figure 10; its coefficients are of eleven models
LEGEND = (
    "sd2-c320", "sdxl-c320", "sdxl-c128", "sdxl-c192", "sdxl-c384", "sdxl-td2", "sdxl-td4", "sdxl-td4_4", "sdxl-td4_8",
    "sdxl-c384-td4_12",
)  # fmt: skip
SIZES = {"flops_per_image": "an image's compute ranks", "N": "parameters rank"}


def evaluations(rows: Results, score: str) -> pd.DataFrame:
    """Every evaluation of the committed UNets on `scenes` that has `score`, with N, the exact FLOPs of an image's
    training step, and the compute of all of the run's training (`trained`), scored or not."""
    rows = rows.select(world="scenes", source="committed", backbone=UNETS)
    of = last(rows).set_index("run")[list(SIZES)]
    of = of.assign(trained=rows.curves.groupby("run")["flops_paper"].max())
    scored = {name: rows.curves.get(name, np.nan) for name in (score, f"{score}_se")}
    curves = rows.curves.assign(**scored).astype(dict.fromkeys(scored, float)).dropna(subset=[score])
    return curves[curves["step"] > 0].join(of, on="run")


def at_the_end(curves: pd.DataFrame, score: str) -> pd.DataFrame:
    """A row a backbone at its last evaluation: its sizes, its `score`, `seeds`, and the variance that they leave in it,
    or images or prompts where that is more (`noise`)."""
    ends = curves.sort_values("step").groupby("run").tail(1)
    return _averaged(ends.assign(noise=ends[f"{score}_se"] ** 2), score)


def at_compute(curves: pd.DataFrame, score: str, c: float) -> pd.DataFrame:
    """The same at `c` FLOPs of training, of runs that were scored before and after."""
    found = []
    for _, of in curves.groupby("run"):
        if of["flops_paper"].min() <= c <= of["flops_paper"].max() * (1 + 1e-9):
            noise = at(of, "flops_paper", c, f"{score}_se") ** 2
            found.append(of.iloc[-1].to_dict() | {score: at(of, "flops_paper", c, score), "noise": noise})
    return _averaged(pd.DataFrame(found, columns=[*curves.columns, "noise"]), score)


def _averaged(table: pd.DataFrame, score: str) -> pd.DataFrame:
    of = table.astype(dict.fromkeys([*SIZES, score, "noise"], float)).groupby("backbone")
    more = of.size() - 1  # degrees of freedom that its seeds give
    spread = (of[score].var() * more).sum() / more.sum() if more.sum() else np.nan
    means = of[[*SIZES, score, "noise"]].mean()
    return means.assign(noise=np.fmax(means["noise"], spread / of.size()), seeds=of.size())


def ranks(id: str, claim: str, table: pd.DataFrame, size: str, score: str, tier: str) -> Verdict:
    """`size` ranks the backbones of `table` as `score` does."""
    if table.empty:
        return verdict(id, claim, tier, ALIKE, why=NOTHING)
    row = ranked(id, claim, table[size].to_numpy(float), table[score].to_numpy(float), tier)
    scatter, noise = table[score].var(), table["noise"].mean()
    left = float(np.clip(1 - noise / scatter, 0, 1)) ** 0.5 if scatter > 0 and np.isfinite(noise) else 0.0
    row = in_noise(row, left, "scores")
    return row | {"why": "; ".join(filter(None, (row["why"], seeded((table["seeds"] > 1).sum(), len(table)))))}


def correlations(ends: pd.DataFrame, along: pd.DataFrame, score: str) -> list[Verdict]:
    """S21 of all UNets and of those in the paper's legend, and S23 at equal compute. (At equal steps S23 is S21.)
    `ends`: evaluations whose last are the best measured; `along`: those drawn in one way from early on."""
    table, tier = at_the_end(ends, score), tier_of(ends)
    sets = {"UNets": table, "the UNets of figure 10's legend": table[table.index.isin(LEGEND)]}
    asked = [
        (f"{name} {of} as {score} does at the end", t, size) for of, t in sets.items() for size, name in SIZES.items()
    ]
    return [*(ranks("S21", claim, t, size, score, tier) for claim, t, size in asked), compact(along, score, tier)]


def budgets(curves: pd.DataFrame) -> list[float]:
    """Compute at which UNets are compared: all that the cheapest run was trained with, doubled as far as any went."""
    least, most = curves["trained"].min(), curves["trained"].max()
    return [] if curves.empty else [float(least * 2**k) for k in range(int(np.log2(most / least) + 1e-9) + 1)]


def compact(curves: pd.DataFrame, score: str, tier: str) -> Verdict:
    """S23: at equal compute smaller UNets are ahead, among those trained so far at each budget."""
    claim = f"at equal compute smaller UNets are ahead ({score})"
    groups = [at_compute(curves, score, c).assign(small=lambda t: -t["N"]) for c in budgets(curves)]
    if not groups:
        return verdict("S23", claim, tier, ALIKE, why=NOTHING)
    n = len(set().union(*(of.index for of in groups)))
    return ranked_within("S23", claim, groups, "small", score, n, tier, "budgets")


def scaling(ends: pd.DataFrame, along: pd.DataFrame, score: str) -> list[Verdict]:
    """S22: our own S = a C^b through the frontier of the curves (n counts runs) and S = a N^b through the last scores.
    The printed laws begin far above our sizes: the exponents are shown side by side, and decide nothing."""
    tier, rows = tier_of(ends), []
    printed = {law.predictor.split()[0]: law for law in laws.read_laws(studies.PUBLISHED / "laws.csv")}
    for of, unit, fit in (("C", 1e9, _of_compute), ("N", 1e6, _of_size)):
        law = printed[of]
        head = ("S22", f"{score} ∝ {of}^{law.b:g}", tier, law.b)
        if ends.empty:
            rows.append(verdict(*head, why=NOTHING))
            continue
        try:
            found, n = fit(along if of == "C" else ends, score)
        except UserError as error:
            rows.append(verdict(*head, why=str(error)))
            continue
        why = f"{of} of {found.x.max():.1e} and less; the print's starts at {unit * law.low:.1e}"
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
