"""The numbers and pictures of the READMEs, from the committed results: `python -m papers_repro.readme`.

Text between `<!--=name-->` and `<!--/-->` is the value of `VALUES[name]`; a test holds the files to it.
"""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from PIL import Image, PngImagePlugin

from papers_repro.dit_laws import compare, profiles
from papers_repro.dit_laws import studies as dit
from papers_repro.dit_laws import verdicts as dit_verdicts
from papers_repro.scalability import studies as scalability
from papers_repro.scalability import verdicts
from papers_repro.verdicts import table as verdicts_of
from t2ikit import charts, figures, laws
from t2ikit.config import digest
from t2ikit.files import write_atomic
from t2ikit.laws.intervals import spearman
from t2ikit.models import zoo
from t2ikit.results import Results, read_committed
from t2ikit.study import preset

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "README.md", ROOT / "papers_repro" / "README.md")
PICTURE = scalability.HERE / "fig03.png"
SWEPT = 400  # steps of the rate sweep


@functools.cache
def committed() -> Results:
    return read_committed(scalability.RESULTS)


@functools.cache
def findings(paper) -> dict[str, dict]:
    """The findings of a paper's audit by `check law`."""
    return {
        f"{f['check']} {f.get('law') or ' and '.join(f.get('laws', []))}".strip(): f
        for f in laws.audit_folder(paper.PUBLISHED)
    }


@functools.cache
def counted() -> pd.DataFrame:
    """Every backbone's costs at the published size, GMACs rounded as the paper's tables have them."""
    return pd.DataFrame(zoo.table()).set_index("name").assign(share=lambda t: 100 * t.attn_macs / t.macs)


def drawn(study) -> Results:
    return study.results(scalability.RESULTS, "tiny", live=False)


def results_table(study) -> str:
    """The last evaluation of each of the study's committed rows, with the hours of one core it took."""
    rows = drawn(study)
    if not len(rows.runs):
        return "\nNo run of it has been committed yet.\n"
    table = figures.final_table(rows.curves)
    of = rows.runs.groupby(["world", "backbone"])
    hours, rates = of["seconds"].mean() / 3600, of["lr"].first()
    lines = [
        "",
        "| world | backbone | rate | images | validation loss | caption gap | flip accuracy | TIFA | contrastive score "
        "| hours a run | n |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in table.to_dict("records"):
        cells = [f"{r[s]:.4f} ± {r[f'{s} ±']:.4f}" if r.get(s) == r.get(s) and s in r else "–" for s in figures.SCORES]
        spent, rate = (of[r["world"], r["backbone"]] for of in (hours, rates))
        about = f"{r['world']} | `{r['backbone']}` | {rate:g} | {r['images']:,}"
        lines.append(f"| {about} | {' | '.join(cells)} | {spent:.2f} | {r['seeds']} |")
    return "\n".join(lines) + "\n"


def rate_table() -> str:
    """The scores after a quarter of the tier's steps at each swept rate; the one that the tier uses in bold."""
    rows = committed()
    if not len(rows.runs):
        return "\nNo sweep has been committed yet.\n"
    at = rows.curves[(rows.curves["step"] == SWEPT) & (rows.curves["world"] == "scenes") & (rows.curves["seed"] == 0)]
    at = at.merge(rows.runs[["run", "lr"]], on="run")
    lines = ["", "| backbone | rate | validation loss | caption gap | flip accuracy |", "|---|---|---|---|---|"]
    for backbone, frame in at.groupby("backbone"):
        if len(frame) > 1:
            used = preset(backbone)[0].lr
            for _, r in frame.sort_values("lr").iterrows():
                name = f"**{r['lr']:g}**" if r["lr"] == used else f"{r['lr']:g}"
                scores = [f"{r[s]:.4f} ± {r[f'{s}_se']:.4f}" for s in ("val_loss", "caption_gap", "flip_accuracy")]
                lines.append(f"| `{backbone}` | {name} | {' | '.join(scores)} |")
    return "\n".join(lines) + "\n"


def told(rows: pd.DataFrame, form: str = ".3f") -> str:
    """Verdicts as a cell: each claim with what we found, its 95% interval and n, and what is to be known of it."""
    cells = []
    for r in rows.astype(object).where(rows.notna(), None).itertuples():
        ends = f"{r.low:{form}} to {r.high:{form}}, " if r.low is not None and r.high is not None else ""
        found = f"{r.ours:{form}} ({ends}n = {r.n}), " if r.ours is not None else ""
        cells.append(f"{r.claim}: {found}{r.verdict}{f' ({r.why})' if r.why else ''}")
    return "; ".join(cells)


@functools.cache
def incontext(loss: str = "val_loss_averaged"):
    """The committed isoFLOP study of the in-context ladder at tier tiny, fitted."""
    rows = profiles.gather([dit.INCONTEXT], "tiny", live=False)
    return profiles.profile(dit.INCONTEXT, rows, "tiny", "in-context", loss)


def optimum() -> str:
    ours = incontext()
    return told(verdicts_of([
        dit_verdicts.interior_minima("D1", ours), dit_verdicts.exponent("D2", ours, "n_opt", "N_opt"),
        dit_verdicts.exponent("D2", ours, "d_opt", "D_opt"),
    ]))  # fmt: skip


def falling() -> str:
    return told(verdicts_of([
        dit_verdicts.exponent("D3", incontext("loss"), "loss_opt", "loss"),
        dit_verdicts.falls("D3", incontext(), "validation loss"),
    ]))  # fmt: skip


def extrapolated() -> str:
    """The held-out largest budget: error and coverage of its points, and its best run against the prediction."""
    ours = incontext()
    held, why = compare.held_out(ours)
    row = dit_verdicts.predicted("D5", ours, held, why)
    if held is None:
        return f"{row['verdict']} ({row['why']})"
    return (
        f"{why} Its best run has {row['ours']:.3f}, predicted {row['paper']:.3f} (95% of predictions "
        f"{row['low']:.3f} to {row['high']:.3f}): {row['verdict']} ({row['why']})"
    )


def decided(claims) -> str:
    """The verdicts on figure 3's claims."""
    return told(verdicts.decide(drawn(scalability.FIG03).curves, claims), "+.3f")


def hours_a_row() -> str:
    rows = drawn(scalability.FIG03).runs
    if not len(rows):
        return "unmeasured"
    spent = rows["seconds"] / 3600
    return f"{spent.min():.1f} to {spent.max():.1f} hours"


VALUES: dict[str, Callable[[], str]] = {
    "fig03": lambda: results_table(scalability.FIG03),
    "rates": rate_table,
    "make reproduce": lambda: first_figure(),
    "S4": lambda: decided(verdicts.FIG03),
    "hours a row": hours_a_row,
    "rho": lambda: f"{rank_correlation():.3f}",
    "attn sdxl-c320": lambda: f"{counted().attn_macs['sdxl-c320'] / 1e9:.2f}",
    "attn sdxl-td4_8": lambda: f"{counted().attn_macs['sdxl-td4_8'] / 1e9:.2f}",
    "share sdxl-c128": lambda: f"{counted().share['sdxl-c128']:.2f}",
    "share sdxl-td4_8": lambda: f"{counted().share['sdxl-td4_8']:.2f}",
    "macs t5": lambda: f"{counted().macs['pixart-xl2-t5'] / 1e9:.2f}",
    "params sdxl-td4": lambda: f"{counted().params['sdxl-td4'] / 1e9:.3f}",
    "S22 range": lambda: "{low:.3g} to {high:.3g}".format(**findings(scalability)["range TIFA(N)"]),
    "D1 D2": optimum,
    "D3": falling,
    "D5": extrapolated,
    "D11 crossing": lambda: f"{findings(dit)['crossing FID and FID sparse captions']['at']:.1e}",
    "D15 tokens": lambda: f"{findings(dit)['statement D15a']['computed'] / 1e9:.0f}B",
}


def first_figure() -> str:
    """What `make reproduce` takes, as benchmarks.reproduce measured it."""
    of = json.loads((ROOT / "docs" / "reproduce.json").read_text())
    return (
        f"{of['minutes']:.0f} minutes from a fresh clone, installation included, and {of['peak_gb_all_processes']:.1f} "
        f"GB of memory for all its processes together ({of['device']} cores)"
    )


def rank_correlation() -> float:
    """Spearman's rank correlation of parameters and MACs over the UNets of paper S's Table 1 (claim S21)."""
    unets = counted().query("family != 'PixArt'")
    return spearman(unets["params"].to_numpy(), unets["macs"].to_numpy())["rho"]


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
