"""Charts of paper D's notebooks, from the tables and fits of `profiles`; units on every axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from papers_repro.dit_laws.profiles import LAWS, Profile, title_of

if TYPE_CHECKING:
    import altair as alt


def compute() -> alt.X:
    """The axis of C."""
    import altair as alt

    return alt.X("C:Q", title="C (FLOPs)", axis=alt.Axis(format="~e", tickCount=6)).scale(type="log", nice=False)


def beside(*charts: alt.TopLevelMixin | None) -> alt.ConcatChart | None:
    """Charts two a row, each with its own colours, those that are None left out; None where nothing is left."""
    import altair as alt

    drawn = [chart for chart in charts if chart is not None]
    return alt.concat(*drawn, columns=2).resolve_scale(color="independent") if drawn else None


def parabolas(profiles: Sequence[Profile]) -> alt.ConcatChart | None:
    """Loss against size, a parabola a budget, a chart a study; None where nothing has been measured."""
    import altair as alt

    drawn = []
    for p in profiles:
        if p.fit:
            chart = p.fit.chart()
            title = alt.TitleParams(p.label, subtitle=[title_of(p.y), chart.title.subtitle])
            drawn.append(chart.properties(title=title, width=330))
        elif len(p.table):
            x = alt.X("N:Q", title="N (parameters)").scale(type="log", nice=False)
            y = alt.Y(f"{p.y}:Q", title=title_of(p.y)).scale(zero=False)
            colour = alt.Color("C:O", title="C (FLOPs)").scale(scheme="viridis")
            data = p.table[["C", "N", p.y]]
            drawn.append(alt.Chart(data, title=p.label, width=330).mark_point().encode(x=x, y=y, color=colour))
    return beside(*drawn)


def law_chart(profiles: Sequence[Profile], name: str, title: str = "", y_title: str = "") -> alt.LayerChart | None:
    """Vertices of each study against C with their 95% intervals, and the law through them with its band."""
    import altair as alt

    points, lines = [], []
    for p in profiles:
        for b in p.usable:
            value = {"n_opt": b.N_opt, "d_opt": b.C / (6 * b.N_opt), "loss_opt": b.loss}[name]
            ends = {"n_opt": (b.low, b.high), "d_opt": (b.high and b.C / (6 * b.high), b.low and b.C / (6 * b.low))}
            low, high = ends.get(name, (None, None))
            points.append({"of": p.label, "C": b.C, "y": value, "low": low, "high": high})
        if law := p.law(name):
            for x in np.geomspace(law.x.min(), law.x.max(), 40):
                low, high = law.band(x)
                lines.append({"of": p.label, "C": x, "y": float(law.predict(x)), "low": low, "high": high})
    if not points:
        return None
    x = compute()
    scale = {"type": "log", "nice": False, "zero": False}
    y = alt.Y("y:Q", title=y_title or LAWS[name], axis=alt.Axis(format="~g" if name == "loss_opt" else "~e")).scale(
        **scale
    )
    colour = alt.Color(
        "of:N", title=None, sort=[p.label for p in profiles], legend=alt.Legend(orient="bottom", symbolOpacity=1)
    )
    low = alt.Y("low:Q", title=y_title).scale(**scale)
    tips = [alt.Tooltip("of:N"), *(alt.Tooltip(f"{k}:Q", format=".4g") for k in ("C", "y", "low", "high"))]
    of_points, of_lines = (alt.Chart(pd.DataFrame(v or [], columns=list(points[0]))) for v in (points, lines))
    layers = [
        of_lines.mark_area(opacity=0.18, clip=True).encode(x=x, y=low, y2="high:Q", color=colour),
        of_lines.mark_line().encode(x=x, y=y, color=colour),
        of_points.transform_filter("isValid(datum.low)").mark_rule(clip=True).encode(
            x=x, y=low, y2="high:Q", color=colour),
        of_points.mark_point(filled=True, size=60).encode(x=x, y=y, color=colour, tooltip=tips),
    ]  # fmt: skip
    return alt.layer(*layers).properties(title=title or LAWS[name], width=330)


def against_compute(table: pd.DataFrame, y: str, colour: str, title: str = "", y_title: str = "") -> alt.LayerChart:
    """Every point against C, and a line through the lowest of each budget; a colour a value of the column `colour`."""
    import altair as alt

    best = table.loc[table.groupby([colour, "C"])[y].idxmin()]
    x = compute()
    score = alt.Y(f"{y}:Q", title=y_title or title_of(y)).scale(zero=False)
    paint = alt.Color(f"{colour}:N", title=None, sort=list(dict.fromkeys(table[colour])))
    tips = ["backbone:N", alt.Tooltip("C:Q", format=".3g"), alt.Tooltip(f"{y}:Q", format=".5g"), "seed:Q", "source:N"]
    points = alt.Chart(table).mark_point(size=25, opacity=0.6).encode(x=x, y=score, color=paint, tooltip=tips)
    line = alt.Chart(best).mark_line().encode(x=x, y=score, color=paint.legend(orient="bottom"))
    return alt.layer(line, points).properties(title=title, width=330)


def against_rate(sweep: pd.DataFrame) -> alt.LayerChart:
    """Loss against the learning rate, a line a size and seed, ± one standard error over validation images."""
    import altair as alt

    frame = sweep.assign(low=sweep["val_loss"] - sweep["val_loss_se"], high=sweep["val_loss"] + sweep["val_loss_se"])
    x = alt.X("lr:Q", title="Learning rate (AdamW, constant after warm-up)", axis=alt.Axis(format="~g"))
    x, title = x.scale(type="log", nice=False), title_of("val_loss")
    base = alt.Chart(frame).encode(x=x, color=alt.Color("backbone:N", title=None), detail="seed:N")
    y = alt.Y("val_loss:Q", title=title).scale(zero=False)
    bars = base.mark_rule().encode(y=alt.Y("low:Q", title=title).scale(zero=False), y2="high:Q")
    tips = ["backbone:N", "seed:Q", *(alt.Tooltip(f"{k}:Q", format=".4g") for k in ("lr", "val_loss", "above"))]
    line = base.mark_line(point=True).encode(y=y, tooltip=tips)
    return alt.layer(bars, line).properties(title=f"After {int(sweep['steps'].min()):,} steps", width=420)


def against_shape(table: pd.DataFrame, y: str) -> alt.Chart:
    """Loss against depth at one budget, with the width beside each point."""
    import altair as alt

    frame = table.assign(text="width " + table["width"].astype(int).astype(str), seed=table["seed"].astype(str))
    x = alt.X("depth:Q", title="Depth (blocks)").scale(type="log", nice=False, padding=30)
    encoded = alt.Chart(frame).encode(x=x, y=alt.Y(f"{y}:Q", title=title_of(y)).scale(zero=False, padding=20))
    points = encoded.mark_point(filled=True, size=70).encode(
        color=alt.Color("seed:N", title="Seed"), tooltip=["backbone"]
    )
    title = f"About {table['N'].mean():.2g} parameters, C = {table['C'].iloc[0]:.1e} FLOPs"
    return (points + encoded.mark_text(dy=-12).encode(text="text:N")).properties(title=title)


def against_prediction(p: Profile, held: dict) -> alt.LayerChart:
    """The held-out points against size, with what was predicted of them and its 95% interval."""
    import altair as alt

    frame = pd.DataFrame(held["predictions"])
    x = alt.X("N:Q", title="N (parameters)", axis=alt.Axis(format="~e", tickCount=6)).scale(
        type="log", nice=False, padding=20
    )

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=title_of(p.y)).scale(zero=False)

    base = alt.Chart(frame).encode(x=x)
    tips = [alt.Tooltip(f"{k}:Q", format=".4g") for k in ("N", "D", "loss", "predicted", "low", "high")]
    colour = alt.Color("kind:N", title=None, scale=alt.Scale(domain=["measured", "predicted, 95%"]))
    ours, law = (base.transform_calculate(kind=f"'{name}'") for name in ("measured", "predicted, 95%"))
    return alt.layer(
        law.mark_rule().encode(y=y("low"), y2="high:Q", color=colour),
        law.mark_point(shape="stroke", filled=False, size=140, strokeWidth=2).encode(
            y=y("predicted"), color=colour, tooltip=tips
        ),
        ours.mark_point(filled=True, size=60).encode(y=y("loss"), color=colour, tooltip=tips),
    ).properties(title=f"Held out: C = {held['C']:.2g} FLOPs")


def further(p: Profile, beyond: pd.DataFrame) -> alt.LayerChart | None:
    """The points of a study against compute, and beyond them what the surface and the power law foretold of each row of
    `compare.predict`, with 95% intervals side by side, and what was measured there; None where nothing was foretold."""
    import altair as alt

    kinds = {"surface, 95%": ("predicted", "low", "high"), "power law, 95%": tuple(
        f"power law{end}" for end in ("", " low", " high"))}  # fmt: skip
    told = [
        {"kind": kind, "C": at["C (FLOPs)"] * aside} | {k: at[c] for k, c in zip(("y", "low", "high"), of, strict=True)}
        for at in beyond.to_dict("records")
        for aside, (kind, of) in zip((0.93, 1.07), kinds.items(), strict=True)
    ]
    foretold = pd.DataFrame(told, columns=["kind", "C", "y", "low", "high"]).dropna().astype({"y": float})
    if foretold.empty:
        return None
    measured = beyond.rename(columns={"C (FLOPs)": "C", "measured": p.y}).dropna(subset=[p.y])[["C", p.y]]
    points = pd.concat([p.table[["C", p.y]].assign(kind="fitted"), measured.assign(kind="measured")])
    x, title = compute().scale(type="log", nice=False, padding=20), title_of(p.y)
    colour = alt.Color("kind:N", title=None, sort=["fitted", "measured", *kinds])

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=title).scale(type="log", nice=False)

    law = alt.Chart(foretold).encode(x=x, color=colour)
    tips = [alt.Tooltip(f"{k}:Q", format=".4g") for k in ("y", "low", "high")]
    return alt.layer(
        law.mark_rule().encode(y=y("low"), y2="high:Q"),
        law.mark_point(shape="stroke", filled=False, size=140, strokeWidth=2).encode(y=y("y"), tooltip=tips),
        alt.Chart(points.astype({p.y: float})).mark_point(filled=True, size=45).encode(x=x, y=y(p.y), color=colour),
    ).properties(title="Beyond the largest budget")


def above_floor(p: Profile, floor: float) -> alt.LayerChart:
    """All points against compute, and the known floor below them, both on a log axis."""
    import altair as alt

    y = alt.Y(f"{p.y}:Q", title=title_of(p.y)).scale(type="log")
    x = compute()
    colour = alt.Color("N:Q", title="N (parameters)", legend=alt.Legend(format="~e")).scale(
        type="log", scheme="viridis"
    )
    points = alt.Chart(p.table).mark_point(filled=True).encode(x=x, y=y, color=colour)
    line = (
        alt.Chart(pd.DataFrame({"y": [floor]})).mark_rule(strokeDash=[6, 4]).encode(y=alt.Y("y:Q", title=title_of(p.y)))
    )
    return alt.layer(points, line).properties(title=f"Dashed: the known floor, {floor:.4g}")
