"""What is told of the committed results, written anew from them: `python -m papers_repro.readme`.

The numbers and pictures of the papers' pages, and `results/claims.csv` of each paper, which `t2ikit claims` prints.

Text between `<!--=name-->` and `<!--/-->` is the value of `VALUES[name]`; a test holds the files to it.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from PIL import Image, PngImagePlugin

from papers_repro import measured
from papers_repro.dit_laws import measured as dit
from papers_repro.measured import count_of, decided, so_far, summary, verdict_table
from papers_repro.scalability import measured as scalability
from papers_repro.scalability import studies
from papers_repro.scalability import verdicts as of_figures
from t2ikit import charts, figures, papers
from t2ikit.config import digest
from t2ikit.files import write_atomic, write_csv

FOLDER = measured.ROOT / "papers_repro"
FILES = (measured.ROOT / "README.md", FOLDER / "README.md", FOLDER / "FINDINGS.md")
PICTURE = studies.HERE / "fig03.png"
FIG04 = [claim for claim in of_figures.FIG04 if claim not in of_figures.FIG13]
CLAIMS = {
    studies.RESULTS / papers.CLAIMS: scalability.every_claim,
    dit.studies.RESULTS / papers.CLAIMS: dit.every_claim,
}


@functools.cache
def claims_of(path: Path) -> pd.DataFrame:
    """The verdicts that stand at `path`, as the committed results have them now."""
    return CLAIMS[path]()


VALUES: dict[str, Callable[[], str]] = {
    "verdicts": lambda: count_of(pd.concat(map(claims_of, CLAIMS))),
    "decided": lambda: decided(pd.concat(map(claims_of, CLAIMS))),
    "repeats": measured.repeats_table,
    "fig03": lambda: scalability.results_table(studies.FIG03),
    "fig06": lambda: scalability.results_table(studies.FIG06, "scenes"),
    "rates": scalability.rate_table,
    "rates at length": scalability.rates_at_length,
    "collapsed": scalability.collapsed,
    "normalised": scalability.normalised,
    "shared luck": scalability.shared_luck,
    "seed spread": scalability.seed_spread,
    "S7 at the higher rate": scalability.narrow_at_the_higher_rate,
    "without images of": scalability.without_images_of,
    "other rates": dit.other_rates,
    "wider sweep": dit.wider_sweep,
    "surface optima": dit.surface_optima,
    "precision": scalability.precision_range,
    "beta2": dit.beta2,
    "make reproduce": measured.first_figure,
    "hours a row": scalability.hours_a_row,
    "rho": lambda: f"{scalability.rank_correlation():.3f}",
    "lowest rho": lambda: f"{scalability.lowest_rank_correlation():.3f}",
    "attn sdxl-c320": lambda: f"{scalability.counted().attn_macs['sdxl-c320'] / 1e9:.2f}",
    "attn sdxl-td4_8": lambda: f"{scalability.counted().attn_macs['sdxl-td4_8'] / 1e9:.2f}",
    "share sdxl-c128": lambda: f"{scalability.counted().share['sdxl-c128']:.2f}",
    "share sdxl-td4_8": lambda: f"{scalability.counted().share['sdxl-td4_8']:.2f}",
    "macs t5": lambda: f"{scalability.counted().macs['pixart-xl2-t5'] / 1e9:.2f}",
    "params sdxl-td4": lambda: f"{scalability.counted().params['sdxl-td4'] / 1e9:.5f}",
    "S22 range": scalability.printed_range,
    "S4": lambda: summary(scalability.fig03("tifa")),
    "S4 by TIFA": lambda: verdict_table(scalability.fig03("tifa")),
    "S4 by flips": lambda: verdict_table(scalability.fig03()),
    "S4 by world": lambda: verdict_table(scalability.on_both_worlds()),
    "S7": lambda: summary(scalability.by_scores(FIG04)),
    "S7 scores": lambda: so_far(scalability.by_scores(FIG04)),
    "S9": lambda: summary(scalability.by_scores(of_figures.FIG13)),
    "S9 scores": lambda: verdict_table(scalability.by_scores(of_figures.FIG13)),
    "S12": lambda: summary(scalability.by_scores(of_figures.FIG06)),
    "S12 scores": lambda: so_far(scalability.by_scores(of_figures.FIG06)),
    "S21": lambda: summary(scalability.of_size()),
    "S21 S23": lambda: verdict_table(scalability.of_size(), ".2f"),
    "S22": lambda: verdict_table(scalability.of_scale()),
    "still rising": scalability.still_rising,
    "S22 without the smallest": scalability.without_the_smallest,
    "S24": lambda: summary(scalability.ranked_alike()),
    "paired": scalability.paired_table,
    "S24 S32": lambda: verdict_table(scalability.ranked_alike(), ".2f"),
    "guidance": scalability.guidance_table,
    "without images": lambda: verdict_table(scalability.without_images(), ".2f"),
    "D1": lambda: summary(dit.optimum()),
    "D1 D2": lambda: verdict_table(dit.optimum()),
    "seeds": dit.seeds_table,
    "D3": lambda: summary(pd.concat([dit.falling(), dit.likelihoods()])),
    "D3 laws": lambda: verdict_table(dit.falling()),
    "D3 best sizes": dit.bend_of_best,
    "D3 likelihood": lambda: verdict_table(dit.likelihoods()),
    "D4": lambda: summary(dit.quality()),
    "D4 D12": lambda: verdict_table(dit.quality()),
    "D2 exponents": dit.exponents_table,
    "hours of the study": dit.spent,
    "D5": lambda: summary(dit.extrapolated()),
    "D5 budget": lambda: verdict_table(dit.extrapolated()),
    "D5 held out": dit.held_out,
    "D6": lambda: summary(dit.families()),
    "D6 vertices": lambda: dit.vertices_table(dit.of_families()),
    "worlds": lambda: dit.vertices_table(dit.of_worlds()),
    "captions": lambda: dit.vertices_table(dit.of_captions()),
    "D2 pictograms": lambda: verdict_table(dit.on_pictograms()),
    "D6 D16": lambda: so_far(dit.families()),
    "D10": lambda: summary(dit.learning_rates()),
    "D11": lambda: summary(dit.captions()),
    "D17": lambda: summary(dit.shapes()),
    "D17 shapes": dit.shapes_table,
    "D10 D11 D17": lambda: so_far(pd.concat([dit.learning_rates(), dit.captions(), dit.shapes()])),
    "floor": lambda: summary(dit.known_floor()),
    "floor values": dit.floor_values,
    "above floor": dit.above_floor,
    "known floor": lambda: so_far(dit.known_floor()),
    "D11 crossing": dit.crossing,
    "D15 tokens": dit.printed_tokens,
}


def fill(text: str) -> str:
    """`text` with every marked value as the committed results have it now."""
    return re.sub(r"(<!--=(.+?)-->).*?(<!--/-->)", lambda m: m[1] + VALUES[m[2]]() + m[3], text, flags=re.S)


def source() -> str:
    """The rows that the picture shows, as a hash: stored in the PNG, so that a stale picture is seen."""
    return digest(scalability.drawn(studies.FIG03).curves.to_csv(index=False, float_format="%.7g"))


def draw() -> bytes:
    """Figure 3 on `scenes` from the committed results, as PNG."""
    import altair as alt

    charts.use()
    curves = scalability.drawn(studies.FIG03).select(world="scenes").curves
    order = studies.FIG03.backbones
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
    for path in CLAIMS:
        write_csv(path, claims_of(path))
    if len(scalability.drawn(studies.FIG03).runs):
        write_atomic(PICTURE, draw())


if __name__ == "__main__":
    main()
