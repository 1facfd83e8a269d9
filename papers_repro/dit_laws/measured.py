"""What the committed results of paper D say: tables, verdicts, numbers."""

from __future__ import annotations

import functools

import pandas as pd

from papers_repro.dit_laws import claims, compare, floor, predict, profiles, scores, studies
from papers_repro.measured import audited, together
from papers_repro.verdicts import table as verdicts_of
from t2ikit import laws

DISTANCE = "fd-efficientnet-lite0"


@functools.cache
def profiled(name: str, label: str, loss: str = claims.VALIDATION) -> profiles.Profile:
    """The committed rows of an isoFLOP study at tier tiny, fitted."""
    study = studies.STUDIES[name]
    return profiles.profile(study, profiles.gather([study], "tiny", live=False), "tiny", label, loss)


def incontext(loss: str = claims.VALIDATION, label: str = "in-context") -> profiles.Profile:
    return profiled(studies.INCONTEXT.name, label, loss)


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
    points = studies.INCONTEXT.table(profiles.gather([studies.INCONTEXT], "tiny", live=False), "tiny")
    found = scores.of_table(points, studies.RESULTS, [metric], "tiny")
    return profiles.fitted(studies.INCONTEXT, scores.wide(points, found), "tiny", label, metric)


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
    beyond = compare.predict(incontext(), studies.FURTHER, profiled(studies.FURTHER.name, "far run"))
    told = compare.as_foretold(beyond, compare.read_foretold(predict.FILE), "tiny")
    return verdicts_of(claims.extrapolation([incontext(), distance()], told, "tiny"))


def of_families() -> list[profiles.Profile]:
    others = {studies.CROSSATTN.name: "cross-attention", studies.ADALN.name: "in-context, adaLN"}
    return [incontext(), *(profiled(*of) for of in others.items())]


def families() -> pd.DataFrame:
    return verdicts_of(claims.families(*of_families()))


def of_worlds() -> list[profiles.Profile]:
    others = {studies.PICTOGRAMS.name: "pictograms", studies.ENUMERATED.name: "scenes-enumerated"}
    return [incontext(label="scenes"), *(profiled(*of) for of in others.items())]


def of_captions() -> list[profiles.Profile]:
    others = {studies.DENSE.name: "dense", studies.SPARSE.name: "sparse"}
    return [incontext(label="medium"), *(profiled(*of) for of in others.items())]


def on_pictograms() -> pd.DataFrame:
    """D1 and D2 on real pairs."""
    return verdicts_of(claims.optima(profiled(studies.PICTOGRAMS.name, "in-context, on pictograms")))


def vertices_table(every: list[profiles.Profile]) -> str:
    """N_opt and the loss there of each profile at each budget, and their exponents; a dash where one was not trained or
    has no law."""
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
    ours = {
        label: profiled(study.name, label) for label, study in (("dense", studies.DENSE), ("sparse", studies.SPARSE))
    }

    def found(p: profiles.Profile, metric: str, *on: tuple[str, str]) -> pd.DataFrame:
        return scores.of_table(p.table, studies.RESULTS, [metric], "tiny", on)

    cross = {label: found(p, "val_loss", *(("scenes", c) for c in ours)) for label, p in ours.items()}
    fid = {
        label: profiles.fitted(p.study, scores.wide(p.table, found(p, DISTANCE)), "tiny", label, DISTANCE)
        for label, p in ours.items()
    }
    return verdicts_of(claims.captions(fid, compare.asked(ours, cross)))


def learning_rates() -> pd.DataFrame:
    sweep = studies.LEARNING_RATE.sweep(
        profiles.gather([studies.LEARNING_RATE], "tiny", live=False, rates=True), "tiny"
    )
    return verdicts_of(claims.rates(sweep, studies.LEARNING_RATE, "tiny"))


def shapes() -> pd.DataFrame:
    return verdicts_of(claims.shapes(profiled(studies.WIDTH_DEPTH.name, "shapes of equal N")))


def shapes_table() -> str:
    """The shapes of equal N, best first: their loss, its seeds averaged, and how far it lies above the best."""
    of = profiled(studies.WIDTH_DEPTH.name, "shapes").table.groupby("backbone")
    table = of.agg(N=("N", "first"), lr=("lr", "first"), seeds=("seed", "nunique"), loss=(claims.VALIDATION, "mean"))
    table = table.sort_values("loss")
    lines = ["", "| shape | N | rate | seeds | validation loss | above the best |", "|---|---|---|---|---|---|"]
    for r in table.itertuples():
        above = f"{r.loss / table['loss'].min() - 1:.1%}"
        lines.append(f"| `{r.Index}` | {r.N / 1e3:.0f}k | {r.lr:g} | {r.seeds} | {r.loss:.4f} | {above} |")
    return "\n".join(lines) + "\n"


def known_floor() -> pd.DataFrame:
    """The fitted irreducible loss of the enumerated world against the one that can be computed."""
    return verdicts_of(claims.known(profiled(studies.ENUMERATED.name, "enumerated"), floor.told(floor.read())))


def above_floor() -> str:
    """The lowest loss of the enumerated study, beside the floor."""
    best = profiled(studies.ENUMERATED.name, "enumerated").table.sort_values("val_loss_averaged").iloc[0]
    lowest, known = best["val_loss_averaged"], floor.told(floor.read())
    return f"{lowest:.3f} (`{best['backbone']}`, {best['C']:.0e} FLOPs), {lowest / known:.1f} times the floor"


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
    points, curves = incontext().table, profiles.gather([studies.INCONTEXT], "tiny", live=False).curves
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


def other_rates() -> str:
    """Of how many sizes of the in-context ladder the smoothed training loss would choose another rate, and what the
    rate in use costs by it."""
    rows = pd.read_csv(studies.RESULTS / "rates.csv")
    rows = rows[
        rows["backbone"].isin(studies.INCONTEXT.at("tiny").backbones) & (rows["world"] == studies.INCONTEXT.world)
    ]
    costs, sizes = [], rows.groupby("backbone")
    for _, of in sizes:
        used, best = of.loc[of["val_loss"].idxmin()], of.loc[of["loss"].idxmin()]
        if used["lr"] != best["lr"]:
            costs.append(used["loss"] / best["loss"] - 1)
    cost = f", by up to {max(costs):.1%}" if costs else ""
    return f"{len(costs)} of the {len(sizes)} sizes would have another best rate{cost}"


def wider_sweep() -> str:
    """What the sweeps of D10 say of the rates in use, which one narrower sweep each chose: the worst of them."""
    study = studies.LEARNING_RATE
    sweep = study.sweep(profiles.gather([study], "tiny", live=False, rates=True), "tiny")
    own = sweep["backbone"].map({b: study.config(b, "tiny")[0].lr for b in sweep["backbone"].unique()})
    used = sweep[(sweep["lr"] / own - 1).abs() < 1e-3]
    other, worst = used[used["above"] > 0], used.loc[used["above"].idxmax()]
    by = f"by up to {worst['above']:.1%} (`{worst['backbone']}`, seed {worst['seed']})"
    cases = f"{used['backbone'].nunique()} sizes and {used['seed'].nunique()} seeds"
    return f"{cases} another rate is better in {len(other)} of {len(used)} cases, {by}"


def beta2() -> str:
    """The best of the β2 that were tried, where it lies among them, and its lead over the next."""
    table = pd.read_csv(studies.RESULTS / "beta2.csv").sort_values("val_loss_averaged", ignore_index=True)
    best, lead = table["beta2"][0], table["val_loss_averaged"][1] / table["val_loss_averaged"][0] - 1
    where = "the largest that was tried" if best == table["beta2"].max() else "inside those that were tried"
    return f"{best:g}, is {where}, ahead by {lead:.1%}"


def crossing() -> str:
    """Where paper D's FID laws of dense and sparse captions cross, and where their rounded exponents leave room."""
    found = audited(studies.PUBLISHED)["crossing FID and FID sparse captions"]
    return f"{found['at']:.1e} FLOPs ({found['low']:.1e} to {found['high']:.1e} by the printed digits)"


def of_the_print() -> pd.DataFrame:
    """D13 to D15, for which nothing is trained."""
    audit = laws.audit_folder(studies.PUBLISHED)
    return verdicts_of(claims.of_the_print(audit) + claims.of_printed_captions(audit))


def same_form() -> pd.DataFrame:
    """D7 to D9: other backbones, and twice the resolution."""
    labels = {
        "D7": {studies.MMDIT.name: "MM-DiT", studies.FLUX.name: "FLUX"},
        "D8": {studies.PIXART.name: "PixArt"},
        "D9": {studies.LARGER.name: "twice the resolution"},
    }
    rows = [r for id, of in labels.items() for r in claims.same_form(id, [profiled(*study) for study in of.items()])]
    return verdicts_of(rows)


def every_claim() -> pd.DataFrame:
    """The verdicts on all claims of the paper that have been asked."""
    asked = (
        optimum, on_pictograms, falling, likelihoods, quality, extrapolated, families, same_form, learning_rates,
        captions, of_the_print, shapes, known_floor,
    )  # fmt: skip
    return together(ask() for ask in asked)


def printed_tokens() -> str:
    """The tokens that the printed laws give the 3B model (D15)."""
    return f"{audited(studies.PUBLISHED)['statement D15a']['computed'] / 1e9:.0f}B"
