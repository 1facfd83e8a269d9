"""The numbers and pictures of the papers' pages, from the committed results: `python -m papers_repro.readme`.

Text between `<!--=name-->` and `<!--/-->` is the value of `VALUES[name]`; a test holds the files to it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pandas as pd
from PIL import Image, PngImagePlugin

from papers_repro import measured
from papers_repro.dit_laws import studies as dit
from papers_repro.measured import audited, counted, drawn, so_far, summary, verdict_table
from papers_repro.scalability import studies as scalability
from papers_repro.scalability import verdicts as of_figures
from t2ikit import charts, figures
from t2ikit.config import digest
from t2ikit.files import write_atomic

FOLDER = measured.ROOT / "papers_repro"
FILES = (measured.ROOT / "README.md", FOLDER / "README.md", FOLDER / "FINDINGS.md")
PICTURE = scalability.HERE / "fig03.png"
FIG04 = [claim for claim in of_figures.FIG04 if claim not in of_figures.FIG13]
VALUES: dict[str, Callable[[], str]] = {
    "fig03": lambda: measured.results_table(scalability.FIG03),
    "rates": measured.rate_table,
    "rates at length": measured.rates_at_length,
    "collapsed": measured.collapsed,
    "normalised": measured.normalised,
    "seed spread": measured.seed_spread,
    "S7 at the higher rate": measured.narrow_at_the_higher_rate,
    "without images of": measured.without_images_of,
    "other rates": measured.other_rates,
    "wider sweep": measured.wider_sweep,
    "surface optima": measured.surface_optima,
    "precision": measured.precision_range,
    "beta2": measured.beta2,
    "make reproduce": measured.first_figure,
    "hours a row": measured.hours_a_row,
    "rho": lambda: f"{measured.rank_correlation():.3f}",
    "lowest rho": lambda: f"{measured.lowest_rank_correlation():.3f}",
    "attn sdxl-c320": lambda: f"{counted().attn_macs['sdxl-c320'] / 1e9:.2f}",
    "attn sdxl-td4_8": lambda: f"{counted().attn_macs['sdxl-td4_8'] / 1e9:.2f}",
    "share sdxl-c128": lambda: f"{counted().share['sdxl-c128']:.2f}",
    "share sdxl-td4_8": lambda: f"{counted().share['sdxl-td4_8']:.2f}",
    "macs t5": lambda: f"{counted().macs['pixart-xl2-t5'] / 1e9:.2f}",
    "params sdxl-td4": lambda: f"{counted().params['sdxl-td4'] / 1e9:.5f}",
    "S22 range": lambda: "{low:.3g} to {high:.3g}".format(**audited(scalability)["range TIFA(N)"]),
    "S4": lambda: summary(measured.fig03("tifa")),
    "S4 by TIFA": lambda: verdict_table(measured.fig03("tifa")),
    "S4 by flips": lambda: verdict_table(measured.fig03()),
    "S7": lambda: summary(measured.by_scores(FIG04)),
    "S7 scores": lambda: so_far(measured.by_scores(FIG04)),
    "S9": lambda: summary(measured.by_scores(of_figures.FIG13)),
    "S9 scores": lambda: verdict_table(measured.by_scores(of_figures.FIG13)),
    "S12": lambda: summary(measured.by_scores(of_figures.FIG06)),
    "S12 scores": lambda: so_far(measured.by_scores(of_figures.FIG06)),
    "S24": lambda: summary(measured.ranked_alike()),
    "paired": measured.paired_table,
    "S24 S32": lambda: verdict_table(measured.ranked_alike(), ".2f"),
    "guidance": measured.guidance_table,
    "without images": lambda: verdict_table(measured.without_images(), ".2f"),
    "D1": lambda: summary(measured.optimum()),
    "D1 D2": lambda: verdict_table(measured.optimum()),
    "seeds": measured.seeds_table,
    "D3": lambda: summary(pd.concat([measured.falling(), measured.likelihoods()])),
    "D3 laws": lambda: verdict_table(measured.falling()),
    "D3 best sizes": measured.bend_of_best,
    "D3 likelihood": lambda: verdict_table(measured.likelihoods()),
    "D4": lambda: summary(measured.quality()),
    "D4 D12": lambda: verdict_table(measured.quality()),
    "D2 exponents": measured.exponents_table,
    "hours of the study": measured.spent,
    "D5": lambda: summary(measured.extrapolated()),
    "D5 budget": lambda: verdict_table(measured.extrapolated()),
    "D5 held out": measured.held_out,
    "D6": lambda: summary(measured.families()),
    "D6 vertices": measured.vertices_table,
    "D6 D16": lambda: so_far(measured.families()),
    "D10": lambda: summary(measured.learning_rates()),
    "D11": lambda: summary(measured.captions()),
    "D17": lambda: summary(measured.shapes()),
    "D17 shapes": measured.shapes_table,
    "D10 D11 D17": lambda: so_far(pd.concat([measured.learning_rates(), measured.captions(), measured.shapes()])),
    "floor": lambda: summary(measured.known_floor()),
    "floor values": measured.floor_values,
    "known floor": lambda: so_far(measured.known_floor()),
    "D11 crossing": measured.crossing,
    "D15 tokens": lambda: f"{audited(dit)['statement D15a']['computed'] / 1e9:.0f}B",
}


def fill(text: str) -> str:
    """`text` with every marked value as the committed results have it now."""
    return re.sub(r"(<!--=(.+?)-->).*?(<!--/-->)", lambda m: m[1] + VALUES[m[2]]() + m[3], text, flags=re.S)


def source() -> str:
    """The rows that the picture shows, as a hash: stored in the PNG, so that a stale picture is seen."""
    return digest(drawn(scalability.FIG03).curves.to_csv(index=False, float_format="%.7g"))


def draw() -> bytes:
    """Figure 3 on `scenes` from the committed results, as PNG."""
    import altair as alt

    charts.use()
    curves = drawn(scalability.FIG03).select(world="scenes").curves
    order = scalability.FIG03.backbones
    chart = alt.hconcat(
        figures.learning_curves(curves, "step", "flip_accuracy", "Alignment against steps", order),
        figures.learning_curves(curves, "flops_paper", "flip_accuracy", "against compute", order),
    )
    buffer, out, info = io.BytesIO(), io.BytesIO(), PngImagePlugin.PngInfo()
    chart.save(buffer, format="png", scale_factor=1.5)
    info.add_text("source", source())
    Image.open(buffer).convert("RGB").save(out, "PNG", pnginfo=info, optimize=True)
    return out.getvalue()


def main() -> None:
    for path in FILES:
        path.write_text(fill(path.read_text()))
    if len(drawn(scalability.FIG03).runs):
        write_atomic(PICTURE, draw())


if __name__ == "__main__":
    main()
