"""Charts of the results, in altair: points, the law, its interval as a band, units on both axes. altair is imported
only when a chart is drawn; colours and fonts come from the theme in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t2ikit.errors import need

if TYPE_CHECKING:
    import altair as alt

POINT, LAW, BAND = "#0077AA", "#DD6600", "#DD6600"


def _altair():
    try:
        import altair
    except ImportError as error:
        raise need("all", "altair") from error
    return altair


def _axes(alt, x_title: str, y_title: str, *, log_y: bool = False):
    x = alt.X(
        "x:Q",
        title=x_title,
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format="~e", tickCount=6, labelSeparation=10),
    )
    y = alt.Y("y:Q", title=y_title, scale=alt.Scale(type="log" if log_y else "linear", zero=False),
              axis=alt.Axis(format="~e", tickCount=6) if log_y else alt.Axis())  # fmt: skip
    return x, y


def _rows(**columns) -> list[dict]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _law(alt, rows: list[dict], x, y, y_title: str):
    data = alt.Data(values=rows)
    band = alt.Chart(data).mark_area(opacity=0.2, color=BAND).encode(x=x, y=alt.Y("low:Q", title=y_title), y2="high:Q")
    line = alt.Chart(data).mark_line(color=LAW, clip=True).encode(x=x, y=y)
    return band + line


def power(fit) -> alt.LayerChart:
    """Points and law, with the 95% interval of the law as a band."""
    alt = _altair()
    x, y = _axes(alt, fit.x_label, fit.y_label, log_y=fit.y.max() / fit.y.min() > 10)
    grid = np.geomspace(fit.x.min(), fit.x.max(), 60)
    ends = np.array([fit.band(at) for at in grid])
    rows = _rows(x=grid.tolist(), y=fit.predict(grid).tolist(), low=ends[:, 0].tolist(), high=ends[:, 1].tolist())
    points = alt.Chart(alt.Data(values=_rows(x=fit.x.tolist(), y=fit.y.tolist()))).mark_point(filled=True, color=POINT)
    low, high = (f"{end:.4g}" if end is not None else "open" for end in (fit.low, fit.high))
    title = alt.TitleParams(f"exponent {fit.exponent:.4g}", subtitle=f"95% interval {low} to {high}, {fit.n} points")
    return (_law(alt, rows, x, y, fit.y_label) + points.encode(x=x, y=y, tooltip=["x:Q", "y:Q"])).properties(
        title=title
    )


def frontier(fit) -> alt.LayerChart:
    """All evaluations in grey, the frontier and its law."""
    alt = _altair()
    x, y = _axes(alt, fit.law.x_label, fit.law.y_label)
    rows = _rows(x=fit.cost.tolist(), y=fit.score.tolist())
    rest = alt.Chart(alt.Data(values=rows)).mark_point(color="#8c959f", size=20).encode(x=x, y=y)
    rho = fit.spearman
    title = alt.TitleParams(f"frontier: exponent {fit.law.exponent:.3g}",
                            subtitle=f"Spearman {rho['rho']:.3f}, p = {rho['p']:.2g} ({rho['method']})")  # fmt: skip
    return (rest + power(fit.law)).properties(title=title)


def isoflop(fit) -> alt.LayerChart:
    """One parabola a budget; vertices with Fieller's intervals as rules (none where unbounded)."""
    alt = _altair()
    x, y = _axes(alt, "N (parameters)", "loss")
    points, curves, vertices = [], [], []
    for budget in fit.budgets:
        name = f"{budget.C:.1e}"
        points += [
            {"x": n, "y": v, "C (FLOPs)": name} for n, v in zip(budget.N.tolist(), budget.losses.tolist(), strict=True)
        ]
        if budget.coefficients is None:
            continue
        grid = np.geomspace(budget.N.min(), budget.N.max(), 40)
        u = np.log10(grid) - budget.centre
        c0, c1, c2 = budget.coefficients
        curves += [
            {"x": n, "y": v, "C (FLOPs)": name}
            for n, v in zip(grid.tolist(), (c0 + c1 * u + c2 * u * u).tolist(), strict=True)
        ]
        if budget.N_opt is not None and budget.usable:
            vertices.append(
                {"x": budget.N_opt, "y": budget.loss, "low": budget.low, "high": budget.high, "C (FLOPs)": name}
            )
    colour = alt.Color("C (FLOPs):N", sort=None, scale=alt.Scale(scheme="viridis"))
    layers = [alt.Chart(alt.Data(values=points)).mark_point(filled=True).encode(x=x, y=y, color=colour),
              alt.Chart(alt.Data(values=curves)).mark_line(clip=True).encode(x=x, y=y, color=colour)]  # fmt: skip
    if vertices:
        base = alt.Chart(alt.Data(values=vertices))
        layers.append(base.transform_filter("isValid(datum.low)").mark_rule(clip=True).encode(
            x=alt.X("low:Q", title="N (parameters)"), x2="high:Q", y=y))  # fmt: skip
        layers.append(base.mark_point(shape="diamond", size=90, filled=True, color="black").encode(x=x, y=y))
    law = fit.n_opt
    subtitle = "no law: fewer than five usable budgets" if law is None else (
        f"N_opt ∝ C^{law.exponent:.3f}, 95% {law.low:.3f} to {law.high:.3f}")  # fmt: skip
    return alt.layer(*layers).properties(title=alt.TitleParams("Loss against model size", subtitle=subtitle))


def surface(fit) -> alt.LayerChart:
    """Measured loss against C, with the law at its own optimum N_opt(C) and its 95% band."""
    alt = _altair()
    x, y = _axes(alt, "C (FLOPs)", "loss")
    c = 6 * fit.N * fit.D
    points = alt.Chart(alt.Data(values=_rows(x=c.tolist(), y=fit.loss.tolist(), N=fit.N.tolist(), D=fit.D.tolist())))
    marks = points.mark_point(filled=True).encode(
        x=x, y=y, color=alt.Color("N:Q", title="N (parameters)", scale=alt.Scale(type="log", scheme="viridis"),
                                  legend=alt.Legend(format="~e")),
        tooltip=["N:Q", "D:Q", "y:Q"])  # fmt: skip
    grid = np.geomspace(c.min(), c.max() * 10, 60)
    n = fit.huber.n_opt(grid)
    ends = np.array([fit.huber.prediction_interval(a, b, new_run=False) for a, b in zip(n, grid / 6 / n, strict=True)])
    rows = _rows(x=grid.tolist(), y=fit.huber.predict(n, grid / 6 / n).tolist(), low=ends[:, 0].tolist(),
                 high=ends[:, 1].tolist())  # fmt: skip
    low, high = fit.huber.intervals["a"]
    title = alt.TitleParams(
        "Loss surface at its optimum",
        subtitle=f"N_opt ∝ C^{fit.huber.a:.3f}, 95% {low:.3f} to {high:.3f}, {fit.n} points",
    )
    return (_law(alt, rows, x, y, "loss") + marks).properties(title=title)


def plan(result) -> alt.LayerChart:
    """Expected loss against compute with the plan marked; the law's own range ends at the dashed line."""
    alt = _altair()
    x, y = _axes(alt, "C (FLOPs)", "loss")
    law, c = result.law, result.values["C"]
    low, high = law.range
    grid = np.geomspace(min(low, c), max(high, c) * 3, 60)
    ends = np.array([law.interval(at, new_run=True) for at in grid])
    rows = _rows(x=grid.tolist(), y=[law.loss(at) for at in grid], low=ends[:, 0].tolist(), high=ends[:, 1].tolist())
    here = alt.Chart(alt.Data(values=[{"x": c, "y": result.values["loss"]}])).mark_point(
        shape="diamond", size=120, filled=True, color="black").encode(x=x, y=y)  # fmt: skip
    edge = alt.Chart(alt.Data(values=[{"x": high}])).mark_rule(strokeDash=[4, 4]).encode(x=x)
    beyond = result.values["decades_beyond"]
    title = alt.TitleParams("Expected loss", subtitle=f"{beyond:.2f} orders of magnitude outside the law's points")
    return (_law(alt, rows, x, y, "loss") + edge + here).properties(title=title)
