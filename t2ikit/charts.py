"""How every chart of the kit looks and how it is stored in a notebook: one altair theme, one renderer. `use()` switches
both on; nothing happens at import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import altair as alt

# Chosen by search for contrast >= 3:1 on white and for distance under simulated protanopia, deuteranopia and
# tritanopia; tests/test_charts.py measures both again.
COLOURS = ["#0077AA", "#DD6600", "#663300", "#1CA383", "#4400CC", "#9977FF", "#222222"]

DASHES = [[1, 0], [6, 3], [2, 2]]  # of a line: a second and third round of the colours

# JupyterLab, nbconvert and `t2ikit.report` all know this type; altair's own v6 name is not a legal key in a notebook
# file and stops papermill.
VEGALITE_MIME = "application/vnd.vegalite.v5+json"

INK, MUTED, GRID = "#1b1f24", "#57606a", "#e3e6ea"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def use() -> None:
    """Register and enable the theme `t2ikit` and the renderer `t2ikit` in altair, and show tables with whole sentences
    and numbers of five digits. Calling it again changes nothing."""
    import altair as alt
    import pandas as pd

    pd.set_option("display.max_colwidth", None)
    pd.set_option("display.float_format", "{:.5g}".format)

    alt.theme.register("t2ikit", enable=True)(theme)
    alt.renderers.register("t2ikit", _bundle)
    alt.renderers.enable("t2ikit")


def theme() -> alt.theme.ThemeConfig:
    """The Vega-Lite configuration: 420 × 280 px views, light grid, 12 px labels, palette of `COLOURS`."""
    text = {"labelFont": FONT, "titleFont": FONT, "labelColor": INK, "titleColor": INK, "labelFontSize": 12}
    return {
        "config": {
            "background": "white",
            "font": FONT,
            "view": {"continuousWidth": 420, "continuousHeight": 280, "stroke": None},
            "title": {
                "font": FONT, "fontSize": 15, "fontWeight": 600, "color": INK, "anchor": "start", "offset": 12,
                "subtitleFont": FONT, "subtitleFontSize": 12, "subtitleColor": MUTED, "subtitlePadding": 4,
            },
            "axis": {
                **text, "titleFontSize": 12, "titleFontWeight": 500, "titlePadding": 8, "labelPadding": 4,
                "gridColor": GRID, "gridWidth": 1, "domainColor": "#8c959f", "tickColor": "#8c959f", "tickSize": 4,
                "labelOverlap": "greedy", "labelSeparation": 6,
            },
            "legend": {
                **text, "titleFontSize": 12, "titleFontWeight": 600, "symbolSize": 80, "symbolStrokeWidth": 2,
                "labelLimit": 220,
            },
            "header": {**text, "titleFontSize": 12, "labelFontWeight": 600},
            "range": {"category": COLOURS, "ramp": {"scheme": "viridis"}},
            "mark": {"color": COLOURS[0]},
            "line": {"strokeWidth": 2},
            "point": {"size": 60, "filled": True, "opacity": 0.9},
            "rule": {"color": MUTED},
            "area": {"opacity": 0.2},
        }
    }  # fmt: skip


def colours(field: str, domain: Sequence[str], **options: Any) -> alt.Color:
    """A colour for each of `domain` in its order, from the start again after `COLOURS`; `options` of alt.Color."""
    import altair as alt

    hues = [COLOURS[k % len(COLOURS)] for k in range(len(domain))]
    return alt.Color(f"{field}:N", **options).scale(domain=list(domain), range=hues)


def dashes(field: str, domain: Sequence[str], **options: Any) -> alt.StrokeDash:
    """With `colours` of the same arguments: lines of one colour differ in their dash."""
    import altair as alt

    kinds = [DASHES[k // len(COLOURS) % len(DASHES)] for k in range(len(domain))]
    return alt.StrokeDash(f"{field}:N", **options).scale(domain=list(domain), range=kinds)


def _bundle(spec: dict, **_options: object) -> dict[str, object]:
    said = "; ".join(dict.fromkeys(_titles(spec)))
    if said:  # what a screen reader says of the picture
        spec = {"description": said} | spec
    return {VEGALITE_MIME: spec, "text/plain": f"<chart: {said}>" if said else "<chart>"}


def _titles(spec: dict) -> list[str]:
    """The title of a chart, or of those that it is made of."""
    title = spec.get("title", "")
    if name := title.get("text", "") if isinstance(title, dict) else title:
        return [name]
    parts = [part for key in ("hconcat", "vconcat", "concat", "layer") for part in spec.get(key, [])]
    return [found for part in parts for found in _titles(part)]
