"""Charts from tables of results. A figure never trains: it reads rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from t2ikit import charts
from t2ikit.config import digest
from t2ikit.errors import UserError, choose
from t2ikit.results import one_loss_space

if TYPE_CHECKING:
    import altair as alt

    from t2ikit.laws.audit import PrintedLaw

AXES = {
    "step": "Training steps",
    "images": "Training images",
    "flops_paper": "Training compute (FLOPs, paper convention: 6 × MACs × images)",
    "flops_exact": "Training compute (FLOPs, exact)",
}
SCORES = {
    "val_loss": "Validation loss (MSE, fixed noise)",
    "caption_gap": "Caption gap (MSE, wrong caption − true caption)",
    "flip_accuracy": "Flip accuracy (share of flips recognised)",
    "tifa": "TIFA (own VQA network, drawn images)",
    "contrastive-v1": "Contrastive score (own model, drawn images)",
}


def learning_curves(
    curves: pd.DataFrame, x: str = "step", y: str = "caption_gap", title: str = "", order: Sequence[str] | None = None
) -> alt.LayerChart:
    """Score against steps, images or compute, a line a backbone: the mean over seeds, its band ± one standard
    deviation of the seeds.

    Live runs are points on top of the committed lines. With a single seed the band is the 95% interval over validation
    images (of TIFA: prompts), and the legend says n = 1. The untrained step 0 is left out. Zoom and pan with the mouse;
    hover for values.
    """
    import altair as alt

    choose("x axis", x, AXES)
    choose("score", y, SCORES)
    one_loss_space(curves)
    frame = curves[curves["step"] > 0].dropna(subset=[y])
    table = banded(frame, y)
    seeds = table.groupby("backbone")["seeds"].max()
    names = order or sorted(seeds.index)
    labels = {b: f"{b} (n = {seeds.get(b, 0)})" for b in names}  # a missing backbone keeps its colour, unused
    table = table.assign(line=table["backbone"].map(labels)).dropna(subset="line")
    domain = list(labels.values())
    drawn = [labels[b] for b in names if b in seeds.index]
    form = ".1e" if x.startswith("flops") else ",d"  # "," alone would give 2e+2
    key = {
        "title": None,
        "sort": domain,
        "legend": alt.Legend(symbolOpacity=1, symbolType="stroke", symbolSize=400, values=drawn),
    }
    base = alt.Chart(table).encode(
        x=alt.X(f"{x}:Q", title=AXES[x], axis=alt.Axis(format=form, tickMinStep=1)).scale(
            zero=False, nice=False, padding=8
        ),
        color=charts.colours("line", domain, **key),
    )
    committed, live = (base.transform_filter(alt.datum.source == s) for s in ("committed", "live"))
    score = alt.Y("mean:Q", title=SCORES[y]).scale(zero=False)
    tooltip = [
        alt.Tooltip("line:N", title="backbone"),
        alt.Tooltip("source:N"),
        alt.Tooltip(f"{x}:Q", format=".4g"),
        alt.Tooltip("mean:Q", title=y, format=".5f"),
        alt.Tooltip("spread:Q", title="±", format=".1g"),
    ]
    band = committed.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=SCORES[y]).scale(zero=False), y2="high:Q")
    line = committed.mark_line(point={"size": 18}).encode(
        y=score, tooltip=tooltip, strokeDash=charts.dashes("line", domain, **key)
    )
    ends = {"y": alt.Y("low:Q").scale(zero=False), "y2": "high:Q"}
    bars, thin = live.mark_rule(strokeWidth=1.5).encode(**ends), committed.mark_rule(opacity=0.4).encode(**ends)
    points = live.mark_point(size=70, filled=True, stroke="black", strokeWidth=0.8).encode(y=score, tooltip=tooltip)
    return (
        alt.layer(band, thin, line, bars, points)
        .properties(title=title)
        .interactive(name=f"zoom_{digest([title, x, y], 8)}")
    )


def measured(curves: pd.DataFrame, score: str) -> bool:
    """Whether any row has the score."""
    return score in curves and bool(curves[score].notna().any())


def by_world(curves: pd.DataFrame, score: str, order: Sequence[str] | None = None, title: str = "") -> alt.VConcatChart:
    """A row of two charts a world, against steps and against compute, the world of most runs first; worlds without that
    score are left out."""
    import altair as alt

    choose("score", score, SCORES)
    if not measured(curves, score):
        raise UserError(
            f"No run has {score} yet: train this figure's runs, or draw another score of {', '.join(SCORES)}."
        )
    rows = []
    worlds = curves.dropna(subset=[score]).groupby("world")
    for world, frame in sorted(worlds, key=lambda pair: -pair[1]["run"].nunique()):
        name = f"{title}, {world}" if title else world
        rows.append(
            alt.hconcat(
                learning_curves(frame, "step", score, f"{name}: against steps", order),
                learning_curves(frame, "flops_paper", score, f"{name}: against compute", order),
            )
        )
    return stacked(*rows)


def stacked(*charts: alt.Chart) -> alt.VConcatChart:
    """Charts one below the other, each with a legend of its own."""
    import altair as alt

    return alt.vconcat(*charts).resolve_scale(color="independent", strokeDash="independent")


def banded(frame: pd.DataFrame, y: str) -> pd.DataFrame:
    """Mean and spread of `y` over seeds at each step of each backbone and source: columns mean, spread, low, high,
    seeds. Steps that only some of the seeds have are left out: their mean is of other runs than its neighbours'.
    UserError where a seed has several rows: their spread is not that of seeds."""
    one_row_a_seed(frame)
    error = f"{y}_se"
    groups = frame.groupby(["source", "backbone", "step"], as_index=False)
    table = groups.agg(
        mean=(y, "mean"), spread=(y, "std"), seeds=(y, "size"), error=(error, "mean"),
        **{k: (k, "mean") for k in AXES if k != "step"},
    )  # fmt: skip
    table = table[table["seeds"] == table.groupby(["source", "backbone"])["seeds"].transform("max")]
    table["spread"] = table["spread"].fillna(1.96 * table["error"])
    return table.assign(low=table["mean"] - table["spread"], high=table["mean"] + table["spread"])


def one_row_a_seed(curves: pd.DataFrame) -> None:
    """Refuse several runs of one seed (other rates, other worlds), and one run that is there twice."""
    of = ["source", "backbone", "step", "seed"]
    if len(twice := curves[curves.duplicated(of)]):
        source, backbone, step, seed = twice.iloc[0][of]
        raise UserError(
            f"Seed {seed} of {backbone} has several {source} rows at step {step}: select one world, rate and setting "
            "first, or drop runs that are there twice (t2ikit.results.distinct)."
        )


def final_table(curves: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation of each world, backbone and source: score ± spread, images, compute, seeds that got there;
    `SCORE n` where only so many of them have the score. UserError where a seed has several rows, and where the losses
    of a world are in different spaces."""
    rows = []
    for _, frame in curves.groupby("world"):
        one_row_a_seed(frame)
        one_loss_space(frame)
    for (world, source, backbone), frame in curves.groupby(["world", "source", "backbone"], sort=False):
        last = frame[frame["step"] == frame["step"].max()]
        values = {
            "world": world,
            "backbone": backbone,
            "source": source,
            "seeds": len(last),
            "images": int(last["images"].max()),
            "flops_paper": last["flops_paper"].mean(),
        }
        for score in SCORES:
            if len(scored := last.dropna(subset=[score]) if score in last else ()):
                spread = scored[score].std() if len(scored) > 1 else scored[f"{score}_se"].iloc[0]
                values |= {score: scored[score].mean(), f"{score} ±": spread}
                values |= {f"{score} n": len(scored)} if len(scored) < len(last) else {}
        rows.append(values)
    return pd.DataFrame(rows)


def grid(images: dict[str, list], prompts: list[str], size: int = 96):
    """Prompts × runs as an HTML table of images; every text is escaped."""
    from html import escape

    from IPython.display import HTML

    from t2ikit.widgets.compare import data_uri

    head = "".join(f"<th>{escape(label)}</th>" for label in images)
    body = ""
    for i, prompt in enumerate(prompts):
        cells = ""
        for label, pictures in images.items():
            source, text = data_uri(pictures[i], label, i), escape(f"{prompt}, {label}")
            cells += f'<td><img src="{source}" width="{size}" height="{size}" alt="{text}"></td>'
        body += f"<tr><th>{escape(prompt)}</th>{cells}</tr>"
    return HTML(f"<table><tr><th></th>{head}</tr>{body}</table>")


def printed_laws(laws: Sequence[PrintedLaw], title: str = "", y: str | None = None) -> alt.LayerChart:
    """Laws as a paper prints them, over their own ranges; the bands are what the rounding of their digits leaves
    open."""
    import altair as alt
    import numpy as np

    drawn = [law for law in laws if law.a is not None]
    if not drawn:
        raise UserError("None of these laws has a coefficient: an exponent alone cannot be drawn.")
    rows = []
    for law in drawn:
        for x in np.geomspace(law.low, law.high, 60):
            low, high = law.rounded(x)
            text = f"{law.quantity} = {law.coefficient} · {law.predictor.split()[0]}^{law.exponent}"
            rows.append({"x": x, "y": law.at(x), "low": low, "high": high, "law": text})
    names, first = list(dict.fromkeys(r["law"] for r in rows)), drawn[0]
    base = alt.Chart(pd.DataFrame(rows)).encode(
        x=alt.X("x:Q", title=f"{first.predictor} ({first.unit})", axis=alt.Axis(format=".0e")).scale(type="log"),
        color=alt.Color(
            "law:N", title=None, sort=names, legend=alt.Legend(symbolOpacity=1, orient="bottom", labelLimit=400)
        ),
    )
    wide = max(r["high"] for r in rows) > 5 * min(r["low"] for r in rows)
    scale = {"type": "log" if wide else "linear", "zero": False, "nice": False}
    band = base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=y or first.quantity).scale(**scale), y2="high:Q")
    line = base.mark_line().encode(y=alt.Y("y:Q").scale(**scale), tooltip=["law:N", "x:Q", "y:Q", "low:Q", "high:Q"])
    return alt.layer(band, line).properties(title=title)


def findings(audit: Sequence[dict], *checks: str) -> pd.DataFrame:
    """An audit as a table, worst first: verdict, law, finding; of the named checks alone if any are named."""
    order = {"fail": 0, "warning": 1, "note": 2, "ok": 3}
    kept = [f for f in audit if not checks or f["check"].split()[0] in checks]
    rows = [{"verdict": f["verdict"], "check": f["check"], "finding": f["finding"]} for f in kept]
    return pd.DataFrame(sorted(rows, key=lambda r: order[r["verdict"]]))


def scatter(
    frame: pd.DataFrame, x: str, y: str, colour: str, x_title: str, y_title: str, error: str = ""
) -> alt.LayerChart:
    """Points on log axes, a family a colour; hover for names. With `error`, a column, scores that span less than a
    decade: on a linear axis, each ± so much."""
    import altair as alt

    scale = alt.Scale(zero=False) if error else alt.Scale(type="log")
    if error:
        frame = frame.assign(low=frame[y] - frame[error], high=frame[y] + frame[error])
    base = alt.Chart(frame).encode(
        x=alt.X(f"{x}:Q", title=x_title).scale(type="log", nice=False, padding=12).axis(format="~s")
    )
    axis = alt.Axis() if error else alt.Axis(format="~s")
    points = base.mark_point(filled=True, size=70).encode(
        y=alt.Y(f"{y}:Q", title=y_title, scale=scale, axis=axis),
        color=alt.Color(f"{colour}:N", title=None),
        shape=alt.Shape(f"{colour}:N", title=None),
        tooltip=list(frame.columns),
    )
    bars = base.mark_rule(color="grey").encode(y=alt.Y("low:Q", title=y_title, scale=scale, axis=axis), y2="high:Q")
    return alt.layer(bars, points) if error else alt.layer(points)
