"""What the committed results of paper S say: tables, verdicts, numbers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from papers_repro.measured import audited, together
from papers_repro.scalability import metrics, size, studies, verdicts
from papers_repro.verdicts import table as verdicts_of
from t2ikit import figures, laws
from t2ikit.laws.intervals import spearman
from t2ikit.models import zoo
from t2ikit.results import Results, fullest_curves, read_committed, read_scores, scored
from t2ikit.study import PRESETS, preset, trained_as

SWEPT = 400  # steps of the rate sweep
TITLES = ("validation loss", "caption gap", "flip accuracy", "TIFA", "contrastive score")
NAMES = dict(zip(figures.SCORES, TITLES, strict=True))
COLLAPSED = 0.9  # a validation loss of noise: 1 for a network that predicts its mean


@functools.cache
def committed() -> Results:
    return read_committed(studies.RESULTS)


def drawn(study) -> Results:
    return study.results(studies.RESULTS, "tiny", live=False)


@functools.cache
def scores() -> pd.DataFrame:
    """What was found of the images of the figures' committed runs on `scenes`."""
    return metrics.joined(read_scores(studies.RESULTS), drawn(studies.ALL).select(world="scenes"))


@functools.cache
def counted() -> pd.DataFrame:
    """Every backbone's costs at the published size, GMACs rounded as the paper's tables have them."""
    return pd.DataFrame(zoo.table()).set_index("name").assign(share=lambda t: 100 * t.attn_macs / t.macs)


def fig03(score: str = verdicts.SCORE) -> pd.DataFrame:
    return verdicts.decide(drawn(studies.FIG03), verdicts.FIG03, score)


def on_both_worlds() -> pd.DataFrame:
    """S4 on each world, by the contrastive score, which both have."""
    return verdicts.decide(drawn(studies.FIG03), [verdicts.Ahead("S4", "sdxl-c320", "sd2-c320")], "contrastive-v1")


def by_scores(asked: Sequence[verdicts.Claim]) -> pd.DataFrame:
    """Claims of paper S by TIFA and by flip accuracy."""
    return pd.concat([verdicts.decide(drawn(studies.ALL), asked, score) for score in ("tifa", verdicts.SCORE)])


def paired_table() -> str:
    """TIFA and the contrastive score prompt by prompt."""
    lines = ["", "| score | difference | ours (95%) | prompts | alike within the margin |", "|---|---|---|---|---|"]
    table = metrics.paired(studies.RESULTS, drawn(studies.ALL))
    for r in table[table["metric"].isin(["tifa", "contrastive-v1"])].to_dict("records"):
        alike = "–" if pd.isna(r["margin"]) else f"{'yes' if r['alike'] else 'not shown'} (± {r['margin']:g})"
        ends = f"{r['value']:.3f} ({r['low']:.3f} to {r['high']:.3f})"
        lines.append(f"| {r['metric']} | {r['backbone']} − {r['less']} | {ends} | {r['n']:,} | {alike} |")
    return "\n".join(lines) + "\n"


def ranked_alike() -> pd.DataFrame:
    """S24 and S32: whether metrics, and earlier steps, rank backbones as TIFA does at the end."""
    return verdicts_of(metrics.stable(metrics.final(scores()), "tiny") + metrics.early(scores(), "tiny"))


@functools.cache
def without_images_points() -> pd.DataFrame:
    """Alignment without sampling beside TIFA over all committed runs, those of the rate sweep among them."""
    every = committed().select(tier="tiny", world="scenes")
    return metrics.without_sampling(metrics.joined(read_scores(studies.RESULTS), every), every.curves)


def without_images() -> pd.DataFrame:
    return verdicts_of(metrics.instead(without_images_points(), "tiny"))


def without_images_of() -> str:
    """Which runs those are."""
    lengths = without_images_points()["step"].value_counts().sort_index()
    told = " and ".join(f"{count} of {step:,} steps" for step, count in lengths.items())
    return f"{without_images_points()['n'].iloc[0]:,} prompts, {told}"


def guidance_table() -> str:
    """Each backbone's place at each guidance, and the rank correlation with the places at the paper's."""
    lines = []
    for metric in ("tifa", "contrastive-v1"):
        places = metrics.guidance_ranks(scores(), metric)
        if places.empty:
            continue
        if not lines:
            lines += [
                "",
                f"| metric | guidance | {' | '.join(places.columns)} |",
                "|---" * (len(places.columns) + 2) + "|",
            ]
        lines += [
            f"| {metric} | {g:g} | {' | '.join('–' if pd.isna(v) else f'{v:.2g}' for v in row)} |"
            for g, row in places.iterrows()
        ]
    return "\n".join(lines) + "\n" if lines else "\nNot swept yet.\n"


def results_table(study, *worlds: str) -> str:
    """The last evaluation of each of the study's committed rows (on `worlds`; none: all), with the hours of one core it
    took."""
    rows = drawn(study).select(world=worlds) if worlds else drawn(study)
    if not len(rows.runs):
        return "\nNo run of it has been committed yet.\n"
    table = figures.final_table(rows.curves)
    of = rows.runs.groupby(["world", "backbone"])
    hours, rates = of["seconds"].mean() / 3600, of["lr"].first()
    head = ("world", "backbone", "rate", "images", *NAMES.values(), "hours a run", "n")
    lines = ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in table.to_dict("records"):
        cells = [f"{r[s]:.4f} ± {r[f'{s} ±']:.4f}" if pd.notna(r.get(s)) else "–" for s in figures.SCORES]
        fewer = [r.get(f"{s} n") for s in figures.SCORES]
        cells = [f"{cell} (n = {n:.0f})" if pd.notna(n) else cell for cell, n in zip(cells, fewer, strict=True)]
        spent, rate = (of[r["world"], r["backbone"]] for of in (hours, rates))
        about = f"{r['world']} | `{r['backbone']}` | {rate:g} | {r['images']:,}"
        lines.append(f"| {about} | {' | '.join(cells)} | {spent:.2f} | {r['seeds']} |")
    return "\n".join(lines) + "\n"


def normalised() -> str:
    """Between which ends TIFA of figure 3's runs lies, 0 its floor and 1 its ceiling, at their last step."""
    of_figure = metrics.final(scores())[lambda t: t["backbone"].isin(studies.FIG03.backbones)]
    values = of_figure.query("metric == 'tifa-normalised'")["value"]
    return f"{values.min():.2f} to {values.max():.2f}"


def collapsed() -> str:
    """The committed runs that predict nothing at their end: an error near 1, the variance of the noise."""
    ends = committed().curves.sort_values("step").groupby("run").tail(1)
    ends = ends[ends["val_loss"] > COLLAPSED].merge(committed().runs[["run", "lr"]], on="run")
    told = [f"`{r.backbone}`, seed {r.seed}, at {r.lr:g} ({r.val_loss:.3f})" for r in ends.itertuples()]
    return "; ".join(told) or "none"


def rate_table() -> str:
    """The scores after a quarter of the tier's steps at each swept rate; the one that the tier uses in bold."""
    return rates_at(SWEPT)


def rates_at_length() -> str:
    """The same after all of the tier's steps, of the backbones that were trained to the end at several rates."""
    return rates_at(PRESETS["tiny"]["steps"])


def rates_at(step: int) -> str:
    """Scores of seed 0 at `step` by backbone and rate, all else as the tier has it; a dash where one is not scored."""
    rows = swept(step)
    columns = [c for c in figures.SCORES if c in rows and rows[c].notna().any()]
    lines = ["", f"| backbone | rate | {' | '.join(NAMES[c] for c in columns)} |", "|---" * (len(columns) + 2) + "|"]
    for r in rows.to_dict("records"):
        rate = f"**{r['lr']:g}**" if r["lr"] == preset(r["backbone"])[0].lr else f"{r['lr']:g}"
        cells = ["–" if pd.isna(r[c]) else f"{r[c]:.4f} ± {r[f'{c}_se']:.4f}" for c in columns]
        lines.append(f"| `{r['backbone']}` | {rate} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" if len(rows) else "\nNot swept yet.\n"


def swept(step: int) -> pd.DataFrame:
    """The evaluations at `step`, seed 0, of backbones with several rates."""
    rows = scored(committed(), read_scores(studies.RESULTS)).select(world="scenes", tier="tiny", seed=0)
    alike = [r.run for r in rows.runs.itertuples() if trained_as(r, preset(r.backbone)[0], [r.lr])]
    at = rows.curves[(rows.curves["step"] == step) & rows.curves["run"].isin(alike)]
    at = at.merge(rows.runs[["run", "lr"]], on="run")
    return at[at.groupby("backbone")["lr"].transform("nunique") > 1].sort_values(["backbone", "lr"])


def narrow_at_the_higher_rate() -> str:
    """TIFA of sdxl-c128 and sd2-c320 (S7) at the highest rate that both were trained with to the end."""
    rows = swept(PRESETS["tiny"]["steps"]).set_index(["lr", "backbone"])["tifa"].unstack()
    pair = rows[["sdxl-c128", "sd2-c320"]].dropna()
    return f"{pair.index[-1]:g}: {pair.iloc[-1, 0]:.3f} against {pair.iloc[-1, 1]:.3f}"


def seed_spread() -> str:
    """How far seeds of one backbone lie apart."""
    table = figures.final_table(drawn(studies.ALL).select(world="scenes").curves)
    told = [
        f"`{r['backbone']}` {r['flip_accuracy ±']:.3f} in flip accuracy, {r['val_loss ±'] / r['val_loss']:.1%} in loss "
        f"(n = {r['seeds']}), so that the difference of two runs has one of {2**0.5 * r['flip_accuracy ±']:.3f}"
        for r in table[table["seeds"] > 1].to_dict("records")
    ]
    return "; ".join(told) or "not known yet"


def shared_luck() -> str:
    """Of how many backbones with both seeds the second has the lower TIFA."""
    ends = drawn(studies.ALL).select(world="scenes", seed=(0, 1)).curves.query(f"step == {PRESETS['tiny']['steps']}")
    pairs = ends.pivot(index="backbone", columns="seed", values="tifa").dropna()
    return f"{(pairs[1] < pairs[0]).sum()} of {len(pairs)}"


def hours_a_row() -> str:
    rows = drawn(studies.FIG03).runs
    if not len(rows):
        return "unmeasured"
    spent = rows["seconds"] / 3600
    return f"{spent.min():.1f} to {spent.max():.1f} hours"


def rank_correlation() -> float:
    """Spearman's rank correlation of parameters and MACs over the UNets of paper S's Table 1 (claim S21)."""
    unets = counted().query("family != 'PixArt'")
    return spearman(unets["params"].to_numpy(), unets["macs"].to_numpy())["rho"]


def lowest_rank_correlation(of: int = 11) -> float:
    """The lowest over any so many of these UNets: what figure 10 prints are multiples of 1/220, as of 11 models."""
    unets = counted().query("family != 'PixArt'")[["params", "macs"]].to_numpy()
    chosen = unets[list(combinations(range(len(unets)), of))].argsort(axis=1).argsort(axis=1)
    return float(1 - 6 * (np.diff(chosen, axis=2) ** 2).sum(axis=(1, 2)).max() / (of**3 - of))


def precision_range() -> str:
    """How many of the last drawn images of each backbone lie among the real ones."""
    table = metrics.final(scores()).query("metric == 'precision-efficientnet-lite0'")
    return f"{table['value'].min():.1%} to {table['value'].max():.1%} of {table['n'].min():,} images"


def printed_range() -> str:
    """Between which scores the printed law of N lies over its plotted range, N in millions (S22)."""
    return "{low:.3g} to {high:.3g}".format(**audited(studies.PUBLISHED)["range TIFA(N)"])


@functools.cache
def sized(score: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The UNets' evaluations: `score` on the largest set of prompts, and as drawn at most steps."""
    rows = drawn(studies.ALL)
    along = scored(rows, read_scores(studies.RESULTS), chosen=fullest_curves)
    return size.evaluations(rows, score), size.evaluations(along, score)


def of_size() -> pd.DataFrame:
    """S21 and S23: how parameters and compute rank UNets."""
    return verdicts_of([row for score in ("tifa", verdicts.SCORE) for row in size.correlations(*sized(score), score)])


def of_scale() -> pd.DataFrame:
    """S22: our own scaling functions beside the printed ones."""
    return verdicts_of([row for score in ("tifa", verdicts.SCORE) for row in size.scaling(*sized(score), score)])


def still_rising() -> str:
    """By how much the least TIFA of the UNets' runs rose over the second half of their steps, and the most."""
    curves = sized("tifa")[0]
    halves = PRESETS["tiny"]["steps"] // 2, PRESETS["tiny"]["steps"]
    gained = curves[curves["step"].isin(halves)].pivot(index="run", columns="step", values="tifa").dropna()
    gained = gained[halves[1]] - gained[halves[0]]
    return f"{gained.min():.3f} to {gained.max():.3f} ({len(gained)} runs)"


def without_the_smallest() -> str:
    """The exponent of TIFA in N with the smallest UNet left out."""
    table = size.at_the_end(sized("tifa")[0], "tifa").sort_values("N").iloc[1:]
    fit = laws.fit_power(table["N"].to_numpy(), table["tifa"].to_numpy())
    return f"{fit.exponent:.3f} ({fit.low:.3f} to {fit.high:.3f})"


def every_claim() -> pd.DataFrame:
    """The verdicts on all claims of the paper that have been asked."""
    asked = dict.fromkeys((*verdicts.FIG03, *verdicts.FIG04, *verdicts.FIG13, *verdicts.FIG06))
    return together([by_scores(list(asked)), on_both_worlds(), of_size(), of_scale(), ranked_alike(), without_images()])
