"""Charts of the results, in altair: points, the law, its interval as a band, units on both axes. altair is imported
only when a chart is drawn; fonts come from the theme in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from t2ikit.errors import need

if TYPE_CHECKING:
    import altair as alt

POINT, LAW = "#0077AA", "#DD6600"


def _start(x_title: str, y_title: str, *, log_y: bool = False):
    """altair and the axes of a chart."""
    try:
        import altair as alt
    except ImportError as error:
        raise need("all", "altair") from error
    x = alt.X("x:Q", title=x_title, scale=alt.Scale(type="log", nice=False),
              axis=alt.Axis(format="~e", tickCount=6, labelSeparation=10))  # fmt: skip
    y = alt.Y("y:Q", title=y_title, scale=alt.Scale(type="log" if log_y else "linear", zero=False),
              axis=alt.Axis(format="~e", tickCount=6) if log_y else alt.Axis())  # fmt: skip
    return alt, x, y


def _data(alt, **columns):
    """Columns as a chart's data; numpy arrays and lists."""
    values = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    return alt.Chart(alt.Data(values=[dict(zip(columns, row, strict=True)) for row in values]))


def _law(alt, grid: np.ndarray, centre, ends, x, y):
    """The law over `grid` with the interval (low, high) at each x as a band."""
    low, high = np.array(list(ends)).T
    base = _data(alt, x=grid, y=centre, low=low, high=high)
    band = base.mark_area(opacity=0.2, color=LAW).encode(x=x, y=alt.Y("low:Q", title=y["title"]), y2="high:Q")
    return band + base.mark_line(color=LAW, clip=True).encode(x=x, y=y)


def power(fit) -> alt.LayerChart:
    """Points and law, with the 95% interval of the law as a band."""
    alt, x, y = _start(fit.x_label, fit.y_label, log_y=fit.y.max() / fit.y.min() > 10)
    grid = np.geomspace(fit.x.min(), fit.x.max(), 60)
    points = _data(alt, x=fit.x, y=fit.y).mark_point(filled=True, color=POINT)
    low, high = (f"{end:.4g}" if end is not None else "open" for end in (fit.low, fit.high))
    title = alt.TitleParams(f"exponent {fit.exponent:.4g}", subtitle=f"95% interval {low} to {high}, {fit.n} points")
    law = _law(alt, grid, fit.predict(grid), map(fit.band, grid), x, y)
    return (law + points.encode(x=x, y=y, tooltip=["x:Q", "y:Q"])).properties(title=title)


def frontier(fit) -> alt.LayerChart:
    """All evaluations in grey, the frontier and its law."""
    alt, x, y = _start(fit.law.x_label, fit.law.y_label)
    rest = _data(alt, x=fit.cost, y=fit.score).mark_point(color="#8c959f", size=20).encode(x=x, y=y)
    rho = fit.spearman
    title = alt.TitleParams(f"frontier: exponent {fit.law.exponent:.3g}",
                            subtitle=f"Spearman {rho['rho']:.3f}, p = {rho['p']:.2g} ({rho['method']})")  # fmt: skip
    return (rest + power(fit.law)).properties(title=title)


def isoflop(fit) -> alt.LayerChart:
    """One parabola a budget; vertices with Fieller's intervals as rules (none where unbounded)."""
    alt, x, y = _start("N (parameters)", "loss")
    points, curves, vertices = [], [], []
    for budget in fit.budgets:
        name = {"C (FLOPs)": f"{budget.C:.1e}"}
        points += [{"x": n, "y": v} | name for n, v in zip(budget.N.tolist(), budget.losses.tolist(), strict=True)]
        if budget.coefficients is not None:
            grid = np.geomspace(budget.N.min(), budget.N.max(), 40)
            curve = np.polyval(budget.coefficients[::-1], np.log10(grid) - budget.centre)
            curves += [{"x": n, "y": v} | name for n, v in zip(grid.tolist(), curve.tolist(), strict=True)]
        if budget.in_law:
            ends = {"low": budget.low, "high": budget.high}
            vertices.append({"x": budget.N_opt, "y": budget.loss} | ends | name)
    colour = alt.Color("C (FLOPs):N", sort=None, scale=alt.Scale(scheme="viridis"))
    layers = [alt.Chart(alt.Data(values=points)).mark_point(filled=True).encode(x=x, y=y, color=colour),
              alt.Chart(alt.Data(values=curves)).mark_line(clip=True).encode(x=x, y=y, color=colour)]  # fmt: skip
    if vertices:
        base = alt.Chart(alt.Data(values=vertices))
        rule = base.transform_filter("isValid(datum.low)").mark_rule(clip=True)
        layers.append(rule.encode(x=alt.X("low:Q", title="N (parameters)"), x2="high:Q", y=y))
        layers.append(base.mark_point(shape="diamond", size=90, filled=True, color="black").encode(x=x, y=y))
    subtitle = "no law: fewer than five usable budgets"
    if fit.n_opt is not None:
        subtitle = f"N_opt ∝ C^{fit.n_opt.exponent:.3f}, 95% {fit.n_opt.low:.3f} to {fit.n_opt.high:.3f}"
    return alt.layer(*layers).properties(title=alt.TitleParams("Loss against model size", subtitle=subtitle))


def surface(fit) -> alt.LayerChart:
    """Measured loss against C, with the law at its own optimum N_opt(C) and its 95% band; the points alone where there
    is no optimum."""
    alt, x, y = _start("C (FLOPs)", "loss")
    c, law = 6 * fit.N * fit.D, fit.huber
    marks = _data(alt, x=c, y=fit.loss, N=fit.N, D=fit.D).mark_point(filled=True).encode(
        x=x, y=y, color=alt.Color("N:Q", title="N (parameters)", scale=alt.Scale(type="log", scheme="viridis"),
                                  legend=alt.Legend(format="~e")),
        tooltip=["N:Q", "D:Q", "y:Q"])  # fmt: skip
    if not law.has_optimum:
        subtitle = f"no optimum: the fitted loss does not fall with both N and D, {fit.n} points"
        return alt.layer(marks).properties(title=alt.TitleParams("Loss surface", subtitle=subtitle))
    grid = np.geomspace(c.min(), c.max() * 10, 60)
    n, d = law.n_opt(grid), law.d_opt(grid)
    ends = (law.prediction_interval(*at, new_run=False) for at in zip(n, d, strict=True))
    low, high = law.intervals["a"]
    title = alt.TitleParams("Loss surface at its optimum",
                            subtitle=f"N_opt ∝ C^{law.a:.3f}, 95% {low:.3f} to {high:.3f}, {fit.n} points")  # fmt: skip
    return (_law(alt, grid, law.predict(n, d), ends, x, y) + marks).properties(title=title)


def plan(result) -> alt.LayerChart:
    """Expected loss against compute with the plan marked; the law's own range ends at the dashed line."""
    alt, x, y = _start("C (FLOPs)", "loss")
    law, c = result.law, result.values["C"]
    low, high = law.range
    grid = np.geomspace(min(low, c), max(high, c) * 3, 60)
    line = _law(alt, grid, [law.loss(at) for at in grid], (law.interval(at, new_run=True) for at in grid), x, y)
    here = _data(alt, x=[c], y=[result.values["loss"]])
    here = here.mark_point(shape="diamond", size=120, filled=True, color="black").encode(x=x, y=y)
    edge = _data(alt, x=[high]).mark_rule(strokeDash=[4, 4]).encode(x=x)
    title = alt.TitleParams(
        f"Expected loss, {result.values['decades_beyond']:.2f} orders of magnitude outside the law's points",
        subtitle=f"Band: {result.values['interval']}",
    )
    return (line + edge + here).properties(title=title)
