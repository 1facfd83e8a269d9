"""What the committed results say, as text: tables, verdicts, numbers. papers_repro.readme writes it into files."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from papers_repro.dit_laws import claims, compare, floor, predict, profiles
from papers_repro.dit_laws import scores as dit_scores
from papers_repro.dit_laws import studies as dit
from papers_repro.scalability import metrics
from papers_repro.scalability import studies as scalability
from papers_repro.scalability import verdicts as of_figures
from papers_repro.verdicts import NOTHING
from papers_repro.verdicts import table as verdicts_of
from t2ikit import figures, laws
from t2ikit.laws.intervals import spearman
from t2ikit.models import zoo
from t2ikit.results import Results, read_committed, read_scores, scored
from t2ikit.study import PRESETS, preset, trained_as

ROOT = Path(__file__).resolve().parent.parent
DISTANCE = "fd-efficientnet-lite0"
SWEPT = 400  # steps of the rate sweep
TITLES = ("validation loss", "caption gap", "flip accuracy", "TIFA", "contrastive score")
NAMES = dict(zip(figures.SCORES, TITLES, strict=True))
COLLAPSED = 0.9  # a validation loss of noise: 1 for a network that predicts its mean


@functools.cache
def committed() -> Results:
    return read_committed(scalability.RESULTS)


def drawn(study) -> Results:
    return study.results(scalability.RESULTS, "tiny", live=False)


@functools.cache
def scores() -> pd.DataFrame:
    """What was found of the images of the figures' committed runs."""
    return metrics.joined(read_scores(scalability.RESULTS), drawn(scalability.ALL))


@functools.cache
def profiled(name: str, label: str, loss: str = claims.VALIDATION) -> profiles.Profile:
    """The committed rows of an isoFLOP study at tier tiny, fitted."""
    study = dit.STUDIES[name]
    return profiles.profile(study, profiles.gather([study], "tiny", live=False), "tiny", label, loss)


def incontext(loss: str = claims.VALIDATION, label: str = "in-context") -> profiles.Profile:
    return profiled(dit.INCONTEXT.name, label, loss)


@functools.cache
def audited(paper) -> dict[str, dict]:
    """The findings of a paper's audit by `check law`."""
    return {
        f"{f['check']} {f.get('law') or ' and '.join(f.get('laws', []))}".strip(): f
        for f in laws.audit_folder(paper.PUBLISHED)
    }


@functools.cache
def counted() -> pd.DataFrame:
    """Every backbone's costs at the published size, GMACs rounded as the paper's tables have them."""
    return pd.DataFrame(zoo.table()).set_index("name").assign(share=lambda t: 100 * t.attn_macs / t.macs)


def verdict_table(rows: pd.DataFrame, form: str = ".3f") -> str:
    """Verdicts as a table: what is claimed, what we found with its 95% interval and n, the n that would decide an
    undecided one, what else is to be known."""

    def number(value: float) -> str:
        return f"{value:.3g}" if abs(value) >= 1e5 else f"{value:{form}}"  # FLOPs

    lines = ["", "| | claim | claimed | ours (95%) | n | verdict |", "|---|---|---|---|---|---|"]
    for r in rows.astype(object).where(rows.notna(), None).itertuples():
        ends = f" ({number(r.low)} to {number(r.high)})" if r.low is not None and r.high is not None else ""
        found = "–" if r.ours is None else f"{number(r.ours)}{ends}"
        printed = number(r.paper) if isinstance(r.paper, float) else r.paper or "–"
        enough = f" ({int(r.needs):,} would do)" if r.needs else ""
        said = f"{r.verdict}{f': {r.why}' if r.why else ''}"
        world = getattr(r, "world", "scenes")
        on = "" if world in ("scenes", "–") else f", on {world}"  # a dash: nothing is measured
        lines.append(f"| {r.id} | {r.claim}{on} | {printed} | {found} | {r.n}{enough} | {said} |")
    return "\n".join(lines) + "\n"


def so_far(rows: pd.DataFrame) -> str:
    """`verdict_table` of what has been measured, and how much has not."""
    lacking = rows["why"] == NOTHING
    missing = f"\nNot measured yet: {lacking.sum()} of {len(rows)} comparisons.\n" if lacking.any() else ""
    return ("\n" if lacking.all() else verdict_table(rows[~lacking])) + missing


def summary(rows: pd.DataFrame) -> str:
    """Verdicts in a few words: each claim's, counted where it has several parts; a dash where nothing is measured."""
    lacking, parts = rows["why"] == NOTHING, []
    for id, of in rows[~lacking].groupby("id", sort=False):
        count = Counter(of["verdict"])
        told = [verdict if len(count) == 1 else f"{verdict} ({n})" for verdict, n in count.items()]
        parts.append(f"{id} {', '.join(told)}")
    some = f" ({len(rows) - lacking.sum()} of {len(rows)} parts measured)" if parts and lacking.any() else ""
    return ("; ".join(parts) or "–") + some


def fig03(score: str = of_figures.SCORE) -> pd.DataFrame:
    return of_figures.decide(drawn(scalability.FIG03), of_figures.FIG03, score)


def by_scores(asked: Sequence[of_figures.Claim]) -> pd.DataFrame:
    """Claims of paper S by TIFA and by flip accuracy."""
    return pd.concat([of_figures.decide(drawn(scalability.ALL), asked, score) for score in ("tifa", of_figures.SCORE)])


def paired_table() -> str:
    """TIFA and the contrastive score prompt by prompt."""
    lines = ["", "| score | difference | ours (95%) | prompts | alike within the margin |", "|---|---|---|---|---|"]
    table = metrics.paired(scalability.RESULTS, drawn(scalability.ALL))
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
    return metrics.without_sampling(metrics.joined(read_scores(scalability.RESULTS), every), every.curves)


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


def optimum() -> pd.DataFrame:
    return verdicts_of(claims.optima(incontext()))


def falling() -> pd.DataFrame:
    labels = {"loss": "in-context", claims.VALIDATION: "validation loss"}
    return verdicts_of(claims.losses({y: incontext(y, label) for y, label in labels.items()}))


def bend_of_best() -> str:
    """How the loss's slope changes, of the best size at each budget (its seeds averaged) in place of the parabola's
    vertex."""
    sizes = incontext().table.groupby(["C", "backbone"])[claims.VALIDATION].mean()
    best = sizes.groupby("C").min()
    middle, low, high = laws.fit_power(best.index.to_numpy(float), best.to_numpy()).bend()
    return f"{middle:.3f} a decade ({low:.3f} to {high:.3f})"


@functools.cache
def of_snapshots(metric: str, label: str) -> profiles.Profile:
    """The in-context study under a metric of papers_repro.dit_laws.scores."""
    points = dit.INCONTEXT.table(profiles.gather([dit.INCONTEXT], "tiny", live=False), "tiny")
    found = dit_scores.of_table(points, dit.RESULTS, [metric], "tiny")
    return profiles.fitted(dit.INCONTEXT, dit_scores.wide(points, found), "tiny", label, metric)


def likelihoods() -> pd.DataFrame:
    labels = {"vlb": "bound", "nll": "negative log-likelihood"}
    return verdicts_of(claims.likelihoods({metric: of_snapshots(metric, label) for metric, label in labels.items()}))


def distance() -> profiles.Profile:
    return of_snapshots(DISTANCE, DISTANCE)


def quality() -> pd.DataFrame:
    """D4 and D12: the distance of images falls with compute, and ranks runs as the loss does."""
    return verdicts_of(claims.distance(distance(), incontext().table))


def extrapolated() -> pd.DataFrame:
    """D5: the largest budget held out, of the loss and of the distance, and the far run."""
    beyond = compare.predict(incontext(), dit.FURTHER, profiled(dit.FURTHER.name, "far run"))
    told = compare.as_foretold(beyond, compare.read_foretold(predict.FILE), "tiny")
    return verdicts_of(claims.extrapolation([incontext(), distance()], told, "tiny"))


def of_families() -> list[profiles.Profile]:
    others = {dit.CROSSATTN.name: "cross-attention", dit.ADALN.name: "in-context, adaLN"}
    return [incontext(), *(profiled(*of) for of in others.items())]


def families() -> pd.DataFrame:
    return verdicts_of(claims.families(*of_families()))


def vertices_table() -> str:
    """N_opt and the loss there of each family at each budget, and their exponents; a dash where one was not trained or
    has no law."""
    every = of_families()
    found = [{f"{b.C:.2g}": b for b in p.usable} for p in every]
    head = " | ".join(f"{p.label}: N_opt (95%) | loss there" for p in every)
    lines = ["", f"| C (FLOPs) | {head} |", "|---" * (1 + 2 * len(every)) + "|"]

    def cells(b) -> str:
        if b is None:
            return "– | –"
        ends = f" ({b.low / 1e3:,.0f}k to {b.high / 1e3:,.0f}k)" if b.low else ""
        return f"{b.N_opt / 1e3:,.0f}k{ends} | {b.loss:.4f}"

    lines += [f"| {c} | {' | '.join(cells(of.get(c)) for of in found)} |" for c in found[0]]
    fits = [p.law(name) for p in every for name in ("n_opt", "loss_opt")]
    told = ("–" if fit is None else f"{fit.exponent:.3f} ({fit.low:.3f} to {fit.high:.3f})" for fit in fits)
    return "\n".join([*lines, f"| exponent of C | {' | '.join(told)} |"]) + "\n"


def captions() -> pd.DataFrame:
    """D11: dense against sparse captions."""
    ours = {label: profiled(study.name, label) for label, study in (("dense", dit.DENSE), ("sparse", dit.SPARSE))}

    def found(p: profiles.Profile, metric: str, *on: tuple[str, str]) -> pd.DataFrame:
        return dit_scores.of_table(p.table, dit.RESULTS, [metric], "tiny", on)

    cross = {label: found(p, "val_loss", *(("scenes", c) for c in ours)) for label, p in ours.items()}
    fid = {
        label: profiles.fitted(p.study, dit_scores.wide(p.table, found(p, DISTANCE)), "tiny", label, DISTANCE)
        for label, p in ours.items()
    }
    return verdicts_of(claims.captions(fid, compare.asked(ours, cross)))


def learning_rates() -> pd.DataFrame:
    sweep = dit.LEARNING_RATE.sweep(profiles.gather([dit.LEARNING_RATE], "tiny", live=False, rates=True), "tiny")
    return verdicts_of(claims.rates(sweep, dit.LEARNING_RATE, "tiny"))


def shapes() -> pd.DataFrame:
    return verdicts_of(claims.shapes(profiled(dit.WIDTH_DEPTH.name, "shapes of equal N")))


def shapes_table() -> str:
    """The shapes of equal N, best first: their loss, its seeds averaged, and how far it lies above the best."""
    of = profiled(dit.WIDTH_DEPTH.name, "shapes").table.groupby("backbone")
    table = of.agg(N=("N", "first"), lr=("lr", "first"), seeds=("seed", "nunique"), loss=(claims.VALIDATION, "mean"))
    table = table.sort_values("loss")
    lines = ["", "| shape | N | rate | seeds | validation loss | above the best |", "|---|---|---|---|---|---|"]
    for r in table.itertuples():
        above = f"{r.loss / table['loss'].min() - 1:.1%}"
        lines.append(f"| `{r.Index}` | {r.N / 1e3:.0f}k | {r.lr:g} | {r.seeds} | {r.loss:.4f} | {above} |")
    return "\n".join(lines) + "\n"


def known_floor() -> pd.DataFrame:
    """The fitted irreducible loss of the enumerated world against the one that can be computed."""
    return verdicts_of(claims.known(profiled(dit.ENUMERATED.name, "enumerated"), floor.told(floor.read())))


def exponents_table() -> str:
    """The laws of the in-context study under each way of counting, and under the other losses by the first of them."""
    tables = [profiles.laws([incontext(y)]).assign(loss=title) for y, title in profiles.LOSSES.items()]
    rows = pd.concat([tables[0], *(t[t["counting"] == t["counting"].iloc[0]] for t in tables[1:])])
    lines = ["", "| law ∝ C^ | counting | loss | exponent (95%) | n |", "|---|---|---|---|---|"]
    for r in rows.to_dict("records"):
        ends, loss = f"{r['low']:.3f} to {r['high']:.3f}", r["loss"].removesuffix(" (MSE)")
        lines.append(f"| {r['law']} | {r['counting']} | {loss} | {r['exponent']:.3f} ({ends}) | {r['n']} |")
    return "\n".join(lines) + "\n"


def surface_optima() -> str:
    """Where the surface's optima of the in-context study lie outside the parabolas' intervals."""
    found = incontext().fit.budgets
    out = [b for b in found if b.low and not b.low <= b.surface_N_opt <= b.high]
    told = "; ".join(
        f"{b.surface_N_opt / 1e3:.0f}k and not {b.low / 1e3:.0f}k to {b.high / 1e3:.0f}k at {b.C:.0e}" for b in out
    )
    return f"{len(out)} of {len(found)} budgets{f' ({told})' if out else ''}"


def floor_values() -> str:
    """The lowest loss possible in the enumerated world, without and with the caption."""
    known = floor.read()
    if known is None:
        return "not computed yet"
    row, (without, told) = known.loc["all"], floor.NAMES
    return (
        f"{row[told]:.4f} ± {row[f'± {told}']:.4f} for a model that is told the caption, {row[without]:.4f} ± "
        f"{row[f'± {without}']:.4f} for one that is not (± one standard error over {row['n']:.0f} images)"
    )


def spent() -> str:
    """What the in-context study took, as far as its largest budget."""
    points, curves = incontext().table, profiles.gather([dit.INCONTEXT], "tiny", live=False).curves
    at = points.merge(curves, left_on=["run", "steps"], right_on=["run", "step"])
    hours = at.groupby("run")["seconds"].max() / 3600
    return f"{len(hours)} runs, {hours.sum():.1f} core-hours"


def seeds_table() -> str:
    """How far seeds of one size lie apart, where there are two or more."""
    table = incontext().table
    lines = [
        "",
        "| size | C (FLOPs) | seeds | validation loss | standard deviation of the seeds |",
        "|---|---|---|---|---|",
    ]
    for (size, c), of in table.groupby(["backbone", "C"])["val_loss_averaged"]:
        if len(of) > 1:
            lines.append(f"| `{size}` | {c:.2g} | {len(of)} | {of.mean():.4f} | {of.std(ddof=1) / of.mean():.1%} |")
    return "\n".join(lines) + "\n"


def held_out() -> str:
    """The held-out largest budget in a sentence."""
    return compare.held_out(incontext())[1]


def results_table(study) -> str:
    """The last evaluation of each of the study's committed rows, with the hours of one core it took."""
    rows = drawn(study)
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
    of_figure = metrics.final(scores())[lambda t: t["backbone"].isin(scalability.FIG03.backbones)]
    values = of_figure.query("metric == 'tifa-normalised'")["value"]
    return f"{values.min():.2f} to {values.max():.2f}"


def other_rates() -> str:
    """Of how many sizes of the in-context ladder the smoothed training loss would choose another rate, and what the
    rate in use costs by it."""
    rows = pd.read_csv(dit.RESULTS / "rates.csv")
    rows = rows[rows["backbone"].isin(dit.INCONTEXT.at("tiny").backbones) & (rows["world"] == dit.INCONTEXT.world)]
    costs, sizes = [], rows.groupby("backbone")
    for _, of in sizes:
        used, best = of.loc[of["val_loss"].idxmin()], of.loc[of["loss"].idxmin()]
        if used["lr"] != best["lr"]:
            costs.append(used["loss"] / best["loss"] - 1)
    cost = f", by up to {max(costs):.1%}" if costs else ""
    return f"{len(costs)} of the {len(sizes)} sizes would have another best rate{cost}"


def wider_sweep() -> str:
    """What the sweeps of D10 say of the rates in use, which one narrower sweep each chose: the worst of them."""
    study = dit.LEARNING_RATE
    sweep = study.sweep(profiles.gather([study], "tiny", live=False, rates=True), "tiny")
    own = sweep["backbone"].map({b: study.config(b, "tiny")[0].lr for b in sweep["backbone"].unique()})
    used = sweep[(sweep["lr"] / own - 1).abs() < 1e-3]
    other, worst = used[used["above"] > 0], used.loc[used["above"].idxmax()]
    by = f"by up to {worst['above']:.1%} (`{worst['backbone']}`, seed {worst['seed']})"
    cases = f"{used['backbone'].nunique()} sizes and {used['seed'].nunique()} seeds"
    return f"{cases} another rate is better in {len(other)} of {len(used)} cases, {by}"


def beta2() -> str:
    """The best of the β2 that were tried, where it lies among them, and its lead over the next."""
    table = pd.read_csv(dit.RESULTS / "beta2.csv").sort_values("val_loss_averaged", ignore_index=True)
    best, lead = table["beta2"][0], table["val_loss_averaged"][1] / table["val_loss_averaged"][0] - 1
    where = "the largest that was tried" if best == table["beta2"].max() else "inside those that were tried"
    return f"{best:g}, is {where}, ahead by {lead:.1%}"


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
    rows = scored(committed(), read_scores(scalability.RESULTS)).select(world="scenes", tier="tiny", seed=0)
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
    table = figures.final_table(drawn(scalability.ALL).select(world="scenes").curves)
    told = [
        f"`{r['backbone']}` {r['flip_accuracy ±']:.3f} in flip accuracy, {r['val_loss ±'] / r['val_loss']:.1%} in loss "
        f"(n = {r['seeds']}), so that the difference of two runs has one of {2**0.5 * r['flip_accuracy ±']:.3f}"
        for r in table[table["seeds"] > 1].to_dict("records")
    ]
    return "; ".join(told) or "not known yet"


def hours_a_row() -> str:
    rows = drawn(scalability.FIG03).runs
    if not len(rows):
        return "unmeasured"
    spent = rows["seconds"] / 3600
    return f"{spent.min():.1f} to {spent.max():.1f} hours"


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


def lowest_rank_correlation(of: int = 11) -> float:
    """The lowest over any so many of these UNets: what figure 10 prints are multiples of 1/220, as of 11 models."""
    unets = counted().query("family != 'PixArt'")[["params", "macs"]].to_numpy()
    chosen = unets[list(combinations(range(len(unets)), of))].argsort(axis=1).argsort(axis=1)
    return float(1 - 6 * (np.diff(chosen, axis=2) ** 2).sum(axis=(1, 2)).max() / (of**3 - of))


def precision_range() -> str:
    """How many of the last drawn images of each backbone lie among the real ones."""
    table = metrics.final(scores()).query("metric == 'precision-efficientnet-lite0'")
    return f"{table['value'].min():.1%} to {table['value'].max():.1%} of {table['n'].min():,} images"


def crossing() -> str:
    """Where paper D's FID laws of dense and sparse captions cross, and where their rounded exponents leave room."""
    found = audited(dit)["crossing FID and FID sparse captions"]
    return f"{found['at']:.1e} FLOPs ({found['low']:.1e} to {found['high']:.1e} by the printed digits)"
