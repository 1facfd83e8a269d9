"""Figure 12's panel: every metric of the committed runs' images, how alike metrics rank backbones, and what guidance
and the number of steps change of that.

Scores are what `t2ikit evaluate --export` wrote (t2ikit.results.read_scores).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from papers_repro.verdicts import ALIKE, NOTHING, Verdict, in_noise, ranked, ranked_within, verdict
from t2ikit import charts
from t2ikit.evaluation.tables import ROW, read
from t2ikit.laws.intervals import LEVEL, spearman, t_quantile
from t2ikit.results import WAY, Results, largest_set

if TYPE_CHECKING:
    import altair as alt

LESS = ("fd-", "kid-")  # metrics of which less is better
PARTS = ("/", "-floor", "-ceiling", "-normalised", "fd-infinity")  # rows that belong to a metric
NO_IMAGES = ("caption_gap", "information", "flip_accuracy")
GUIDANCE = 7.5  # the paper's
OF_RUN = ["run", "backbone", "world", "seed", "steps", "lr"]


def joined(scores: pd.DataFrame, rows: Results) -> pd.DataFrame:
    """`scores` of the runs among `rows`, with each run's backbone, world, seed, rate and last step (`steps`)."""
    runs = rows.runs.reindex(columns=OF_RUN).drop_duplicates("run")
    return scores.merge(runs, on="run")


def final(table: pd.DataFrame, guidance: float = GUIDANCE) -> pd.DataFrame:
    """Of a `joined` table each run's last step at one guidance, on the largest set of prompts."""
    table = table[(table["step"] == table["steps"]) & np.isclose(table["images.guidance"].astype(float), guidance)]
    return largest_set(table).drop_duplicates(["run", "metric"], keep="last")


def paired(folder: Path, rows: Results) -> pd.DataFrame:
    """Two runs on the same prompts, as `t2ikit evaluate RUN RUN … --export` paired them: the difference to the first
    run with its 95% interval over prompts, and whether the two are alike within the margin that was declared."""
    path = folder / "scores.csv"
    table = read(path) if path.exists() else pd.DataFrame(columns=[*ROW[:-1], "metric.margin", "metric.equivalent"])
    table = table[table["versus"].notna()].rename(columns={"metric.margin": "margin", "metric.equivalent": "alike"})
    of = rows.runs.drop_duplicates("run").set_index("run")["backbone"] if len(rows.runs) else pd.Series(dtype=str)
    names = {"backbone": table["run"].map(of), "less": table["versus"].map(of)}
    columns = ["metric", "backbone", "less", "step", "value", "low", "high", "n", "margin", "alike"]
    return table.assign(**names).dropna(subset=["backbone", "less"]).reindex(columns=columns).reset_index(drop=True)


def of_panel(table: pd.DataFrame) -> list[str]:
    """The metrics of a table, TIFA first."""
    names = [m for m in table["metric"].unique() if not any(part in m for part in PARTS)]
    return sorted(names, key=lambda m: (m != "tifa", "tifa" not in m, m.startswith(LESS), m))


def panel(table: pd.DataFrame, order: Sequence[str]) -> alt.ConcatChart | None:
    """A chart a metric, a row a run: the value with its 95% interval; None where nothing has been scored."""
    import altair as alt

    panels = []
    for metric in of_panel(table):
        data = table.loc[table["metric"] == metric, ["backbone", "seed", "value", "low", "high", "n"]]
        names = [b for b in order if b in set(data["backbone"])]
        title = alt.TitleParams(metric, subtitle="less is better" if metric.startswith(LESS) else "more is better")
        base = alt.Chart(data, title=title, width=260).encode(
            y=alt.Y("backbone:N", title=None, sort=names),
            color=charts.colours("backbone", order, legend=None),
            tooltip=["backbone", "seed", "value", "low", "high", "n"],
        )
        x = alt.X("value:Q", title=metric).scale(zero=False)
        bars = base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q", title=metric).scale(zero=False), x2="high:Q")
        panels.append(bars + base.mark_point(filled=True, size=60).encode(x=x))
    return alt.concat(*panels, columns=3).resolve_scale(color="independent") if panels else None


def told(table: pd.DataFrame) -> pd.DataFrame:
    """A row a metric, a column a backbone and seed: the value and its 95% interval as text."""
    text = [
        f"{v:.4g}" + (f" ({a:.4g} to {b:.4g})" if a == a else "")
        for v, a, b in zip(table["value"], table["low"], table["high"], strict=True)
    ]
    who = table["backbone"] + ", seed " + table["seed"].astype(str)
    return table.assign(text=text, who=who).pivot(index="metric", columns="who", values="text").fillna("–")


def ranks(table: pd.DataFrame) -> pd.DataFrame:
    """A row a backbone, a column a metric: its place, 1 the best, by the mean over seeds."""
    mean = table.groupby(["metric", "backbone"])["value"].mean().unstack("metric")
    return pd.DataFrame({m: mean[m].rank(ascending=m.startswith(LESS)) for m in of_panel(table)})


def alike(table: pd.DataFrame) -> pd.DataFrame:
    """Spearman's rank correlation of every two metrics over backbones, signed so that 1 is agreement: a square table,
    `p if 1` the exact chance of a perfect agreement of so many; empty with fewer than three backbones."""
    places = ranks(table).dropna(axis="columns")
    places = places.loc[:, places.nunique() > 1]
    if len(places) < 3:
        return pd.DataFrame()
    square = places.corr("spearman")
    return square.assign(**{"p if 1": 2 / math.factorial(len(places))})


def stable(table: pd.DataFrame, tier: str) -> list[Verdict]:
    """S24: each other metric of drawn images ranks the backbones as TIFA does."""
    places, rows = ranks(table), []
    of = table.assign(noise=variance(table)).groupby(["metric", "backbone"])[["value", "noise"]].mean()
    for other in [m for m in places if "tifa" not in m and m not in NO_IMAGES] if "tifa" in places else ():
        both = places[["tifa", other]].dropna()
        row = ranked("S24", f"{other} ranks backbones as TIFA does", *both.to_numpy().T, tier)
        left = attenuation(*(of.loc[metric].loc[both.index] for metric in ("tifa", other)))
        rows.append(in_noise(row, left, "prompts"))
    why = NOTHING
    return rows or [verdict("S24", "metrics rank backbones alike", tier, ALIKE, why=why)]


def variance(table: pd.DataFrame) -> pd.Series:
    """Of each score over its prompts, by its 95% interval; 0 where it has none."""
    return (((table["high"] - table["low"]) / (2 * t_quantile(LEVEL, np.inf))) ** 2).fillna(0.0)


def attenuation(*scores: pd.DataFrame) -> float:
    """The factor by which the `noise` (a variance) of two scores, each with a column `value` over backbones, lowers the
    correlation of what they measure (Spearman 1904)."""
    return float(np.sqrt(np.prod([max(0.0, 1 - of["noise"].mean() / of["value"].var()) for of in scores])))


def early(table: pd.DataFrame, tier: str, metric: str = "tifa", guidance: float = GUIDANCE) -> list[Verdict]:
    """S32: scores at each earlier step rank the backbones as the last step does; both of images drawn alike, in the way
    that gives most backbones at that step, of such ways for most prompts. Noise of the prompts lowers rho: where it
    could do so below what is claimed though the backbones rank alike, no lower rho contradicts."""
    table = table[(table["metric"] == metric) & np.isclose(table["images.guidance"].astype(float), guidance)]
    table = table.assign(noise=variance(table))
    found: dict[int, tuple[tuple, pd.DataFrame]] = {}
    for _, of in table.groupby(WAY):
        then = of.groupby(["step", "backbone"])[["value", "noise"]].mean()
        end = of[of["step"] == of["steps"]].groupby("backbone")[["value", "noise"]].mean()
        for step in of.loc[of["step"] < of["steps"], "step"].unique():
            both = then.loc[step].join(end.add_suffix(" at the end"), how="inner").dropna(subset=["value"])
            if len(both) > 2:
                found[step] = max(found.get(step, ((), both)), ((len(both), of["n"].max()), both), key=lambda f: f[0])
    rows = []
    for step, (_, both) in sorted(found.items()):
        then = both[["value", "noise"]]
        end = both[["value at the end", "noise at the end"]].set_axis(then.columns, axis="columns")
        says = f"{metric} at step {step:,} ranks backbones as at the end"
        row = ranked("S32", says, then["value"].to_numpy(), end["value"].to_numpy(), tier)
        rows.append(in_noise(row, attenuation(then, end), "prompts"))
    return rows or [verdict("S32", f"{metric} ranks backbones early", tier, ALIKE, why=NOTHING)]


def guidances(table: pd.DataFrame, metric: str = "tifa") -> pd.DataFrame:
    """The metric at each run's last step by guidance, of the guidances that were drawn for the same prompts."""
    table = table[(table["metric"] == metric) & (table["step"] == table["steps"])]
    swept = table.groupby(["run", "images.prompts", "images.steps"])["images.guidance"].transform("nunique") > 1
    return table[swept].sort_values(["backbone", "images.guidance"], ignore_index=True)


def guidance_chart(table: pd.DataFrame, metric: str, order: Sequence[str]) -> alt.LayerChart | None:
    """The metric against guidance, a line a backbone, with 95% intervals over prompts; None before it was swept."""
    import altair as alt

    data = guidances(table, metric)[["backbone", "images.guidance", "value", "low", "high", "n"]]
    if data.empty:
        return None
    data = data.rename(columns={"images.guidance": "guidance"})
    base = alt.Chart(data, title=f"{metric} by guidance, {data['n'].iloc[0]:,} prompts").encode(
        x=alt.X("guidance:Q", title="Classifier-free guidance scale"),
        color=charts.colours("backbone", order, title=None),
        tooltip=["backbone", "guidance", "value", "low", "high"],
    )
    y = alt.Y("value:Q", title=metric).scale(zero=False)
    band = base.mark_area(opacity=0.15).encode(y=alt.Y("low:Q", title=metric).scale(zero=False), y2="high:Q")
    return band + base.mark_line(point=True).encode(y=y, strokeDash=charts.dashes("backbone", order, title=None))


def guidance_ranks(table: pd.DataFrame, metric: str = "tifa") -> pd.DataFrame:
    """A row a guidance: each backbone's place, and the rank correlation with the places at the paper's guidance, with
    its exact p (t2ikit.laws.intervals.spearman)."""
    wide = guidances(table, metric).groupby(["images.guidance", "backbone"])["value"].mean().unstack("backbone")
    places = wide.rank(axis="columns", ascending=metric.startswith(LESS))
    if GUIDANCE not in places.index or places.shape[1] < 3:
        return places
    others = places.drop(index=GUIDANCE)
    every = others.columns[others.notna().all() & places.loc[GUIDANCE].notna()]  # drawn at each guidance
    if len(every) < 3:
        return places
    found = [spearman(row.to_numpy(), places.loc[GUIDANCE, every].to_numpy()) for _, row in others[every].iterrows()]
    told = pd.DataFrame(found, index=others.index)[["rho", "p"]]
    return places.join(told.rename(columns={"rho": f"rho with {GUIDANCE:g}", "p": "exact p"}))


def without_sampling(table: pd.DataFrame, curves: pd.DataFrame, guidance: float = GUIDANCE) -> pd.DataFrame:
    """A row a run: TIFA at its last scored step, on the set of prompts that most runs have, beside what alignment
    without sampling says there; one point a run, since steps of one run are not independent."""
    tifa = table[(table["metric"] == "tifa") & np.isclose(table["images.guidance"].astype(float), guidance)]
    runs = tifa.groupby(["images.prompts", "images.steps"])["run"].transform("nunique")
    tifa = tifa[runs == runs.max()].sort_values("step", kind="stable").drop_duplicates("run", keep="last")
    tifa = tifa[["run", "step", "backbone", "lr", "n", "value"]].rename(columns={"value": "tifa"})
    scores = ["run", "step", "caption_gap", "flip_accuracy", "val_loss"]
    points = tifa.merge(curves[scores].drop_duplicates(["run", "step"]), on=["run", "step"])
    nats = table[table["metric"] == "information"].drop_duplicates(["run", "step"], keep="last")
    nats = nats[["run", "step", "value"]].rename(columns={"value": "information"})
    return points.merge(nats, on=["run", "step"], how="left")


def instead(points: pd.DataFrame, tier: str) -> list[Verdict]:
    """Whether what needs no images ranks the runs of `without_sampling` as TIFA does, among those of one length: over
    all of them length alone would carry it. n counts backbones: two seeds of one are nearly one point."""
    rows = []
    for name, sign in (("caption_gap", 1), ("information", 1), ("flip_accuracy", 1), ("val_loss", -1)):
        both = points.assign(**{name: sign * points[name]})[["step", "backbone", "tifa", name]].dropna()
        says = f"{'' if sign > 0 else '−'}{name} ranks runs as TIFA does"
        groups = [of for _, of in both.groupby("step")]
        rows.append(ranked_within("TIFA", says, groups, "tifa", name, both["backbone"].nunique(), tier, "lengths"))
    return rows
