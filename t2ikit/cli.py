"""The command line: `t2ikit --help`. Each command imports what it needs, so that light ones start in under a second."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from t2ikit.errors import Busy, NotebookFailed, UserError

app = typer.Typer(
    help="Decide which text-to-image diffusion model to train, on which data, for how long, before paying for GPUs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Worlds of image-text pairs.", no_args_is_help=True)
app.add_typer(data_app, name="data")

CLICK_ERROR: type = typer.BadParameter.__mro__[2]  # ClickException, of click or of the copy of it in newer typers
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Name = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=THEIRS", help="Which column is C, N, D or loss, as in N=params. Repeatable."),
]


def main() -> None:
    """Run the CLI: exit 0, 2 for a user error, 75 if another process trains the run, 143 after SIGTERM."""
    try:
        code = app(standalone_mode=False)
    except Busy as error:
        code = fail(error, 75)
    except UserError as error:
        code = fail(error, 2)
    except NotebookFailed as error:
        code = fail(error, 1)
    except CLICK_ERROR as error:
        code = fail(error.format_message(), 2)
    except (typer.Abort, KeyboardInterrupt):
        code = fail("Interrupted: run the same command again to go on.", 130)
    finally:
        drop_unread()
    sys.exit(code)


def drop_unread() -> None:
    """Flush stdout, into nothing if its reader has stopped (`| head`): at exit Python would complain of it."""
    try:
        sys.__stdout__.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def fail(message: object, code: int) -> int:
    print(f"t2ikit: {message}", file=sys.stderr)
    return code


def say(message: str) -> None:
    """News for people: stderr, so that stdout stays what was asked for."""
    print(message, file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))


@app.command()
def models(
    tier: Annotated[str, typer.Option(help="Size to count at: smoke, tiny, small or paper.")] = "paper",
    ladder: Annotated[
        str | None,
        typer.Option(help="A ladder's rungs instead: incontext, incontext-adaln, crossattn, mmdit, flux or pixart."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List every published backbone with its parameters, GMACs and training FLOPs.

    A rung of a ladder is LADDER-dDEPTH-wWIDTH, with any depth and any width of whole heads: incontext-d4-w128.
    """
    from t2ikit.models import zoo
    from t2ikit.models.ladder import rungs

    rows = zoo.table(tier, rungs(ladder) if ladder else zoo.names())
    if as_json:
        return emit(rows)
    print(f"{'name':<24}{'family':<17}{'params':>10}{'GMACs':>9}{'attn GMACs':>12}{'attn %':>8}{'GFLOPs/step':>13}")
    for r in rows:
        print(
            f"{r['name']:<24}{r['family']:<17}{r['params'] / 1e6:>9.2f}M{r['macs'] / 1e9:>9.4g}"
            f"{r['attn_macs'] / 1e9:>12.4g}"
            f"{100 * r['attn_macs'] / r['macs']:>8.0f}{r['flops_train'] / 1e9:>13.5g}"
        )
    print(
        "\nGMACs: Linear and Conv layers of one forward pass (the papers' convention). GFLOPs/step: one sample "
        "forward and backward,"
    )
    print("attention products included, 2 FLOPs a MAC, 3 × forward.")


@data_app.command("get")
def data_get(
    world: Annotated[str, typer.Argument(help="pictograms or pictograms-whole; the scenes are computed.")],
    out: Annotated[Path | None, typer.Option(help="Folder to build in (default: $T2IKIT_HOME/data/WORLD).")] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="All 40,000 and more colour icons, not 17,000: the world pictograms-whole.")
    ] = False,
) -> None:
    """Get a world. Interrupted, it goes on when run again."""
    from t2ikit.data.world import WORLDS
    from t2ikit.errors import choose

    if not choose("world", world, WORLDS).startswith("pictograms"):
        return say(f"{world} is computed from its seed: there is nothing to get.")
    from t2ikit.data import pictograms

    print(pictograms.get(out, whole or world == "pictograms-whole"))


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="A backbone of `t2ikit models`, or a rung such as incontext-d4-w128.")],
    world: Annotated[
        str, typer.Option(help="scenes, scenes-enumerated, scenes-single, pictograms or pictograms-whole.")
    ] = "scenes",
    tier: Annotated[
        str,
        typer.Option(help="smoke (seconds), tiny (a CPU, under an hour), small (a GPU, minutes), paper (a cluster)."),
    ] = "tiny",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any field of the configuration: seed=1, steps=400, lr=3e-4 … Repeatable.",
        ),
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder for run folders (default: $T2IKIT_HOME/runs).")] = None,
) -> None:
    """Train one backbone. Run again, it resumes, or says that it is done. The run folder is on the last line."""
    from t2ikit.study import preset

    config, budget = preset(**{"backbone": name, "world": world, "tier": tier} | pairs(settings or []))
    from t2ikit.train.loop import is_done, run_folder
    from t2ikit.train.loop import train as run
    from t2ikit.train.setup import resolve

    parts = resolve(config)
    if is_done(run_folder(parts, runs), budget.steps):
        say(f"{parts.id} is done: it has {budget.steps} steps or more; --set steps=… extends it.")
    print(run(config, budget, runs, parts))


def pairs(settings: list[str], option: str = "--set") -> dict[str, str]:
    """`["key=value", …]` as a dictionary."""
    for text in settings:
        if "=" not in text:
            raise UserError(f"{option} {text!r} has no value: write it as {option} key=value.")
    return dict(text.split("=", 1) for text in settings)


@app.command()
def study(
    name: Annotated[str | None, typer.Argument(help="A study of a paper (none: list them).")] = None,
    tier: Annotated[str, typer.Option(help="smoke, tiny, small or paper.")] = "tiny",
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "0",
    rates: Annotated[
        bool, typer.Option("--rates", help="isoFLOP studies: sweep each size's rate instead, {½, 1, 2} × its own.")
    ] = False,
    optimum: Annotated[
        Path | None,
        typer.Option(
            help="isoFLOP studies, for more seeds: at each budget only the size that is best in this folder of results."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the grid and its cost, and train nothing.")] = False,
    gpu: Annotated[
        str | None,
        typer.Option(help="GPU whose hours are given (default: this machine, by its GEMM peak; at paper H100, H200)."),
    ] = None,
    mfu: Annotated[float, typer.Option(help="Model FLOPs utilisation, an assumption.")] = 0.4,
    save: Annotated[Path | None, typer.Option(help="With --rates: the CSV file that keeps the sweep.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Also merge the finished runs into this folder of results; with --dry-run, those so far."),
    ] = None,
) -> None:
    """Train what a study is missing, several runs side by side. Stopped, it goes on when run again."""
    from t2ikit import hardware, results
    from t2ikit.batch import studies
    from t2ikit.errors import choose
    from t2ikit.isoflop import save_rates
    from t2ikit.runs import home
    from t2ikit.study import costs
    from t2ikit.workers import train_apart, trained

    known = studies()
    if name is None:
        for each in known.values():
            print(f"{each.name:<36}{each.title}")
        return
    chosen = known[choose("study", name, known)]
    try:
        numbers = list(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError:
        raise UserError(f"--seeds {seeds!r} are no whole numbers: write them as --seeds 0,1,2.") from None
    if (rates or optimum) and not hasattr(chosen, "rate_runs"):
        raise UserError(f"{name} is no isoFLOP study: leave --rates and --optimum out.")
    if rates and optimum:
        raise UserError("A sweep of rates has no optimum: give either --rates or --optimum.")
    if save and not rates:
        raise UserError("--save keeps a sweep of rates: give --rates too, or --export to keep runs.")
    if not 0 < mfu <= 1:
        raise UserError(f"A model FLOPs utilisation of {mfu:g} is not possible: choose a share above 0, up to 1.")
    if rates:
        wanted = chosen.rate_runs(tier, numbers)
    elif optimum:
        wanted = chosen.optimum_runs(results.read_committed(optimum), tier, numbers)
    else:
        wanted = chosen.runs(tier, numbers)
    gpus = [gpu] if gpu else ["H100", "H200"] if tier == "paper" else []
    speeds = {name: hardware.gpu(name).peak * mfu for name in gpus} or {"own": hardware.gemm_peak("fp32") * mfu}
    of_runs = costs(wanted, next(iter(speeds.values())))
    say(
        f"Hours are of one {' or '.join(gpus) or 'machine like this'} at an MFU of {mfu:g}: a budget's by C = 6 N D, a "
        "run's by its exact FLOPs."
    )
    if hasattr(chosen, "budget_costs") and not (rates or optimum):
        print(chosen.budget_costs(tier, speeds).to_string(index=False, float_format="{:.4g}".format), "\n")
    print(of_runs.to_string(index=False, float_format="{:.4g}".format))
    print(f"{len(of_runs)} runs, {of_runs['hours'].sum():.4g} hours in all.")
    if dry_run and not export:
        return
    root = home() / "runs"
    folders = [f for f in trained(wanted, root) if f] if dry_run else train_apart(wanted, root)
    if export:
        say(f"{results.export(folders, export)} of {len(wanted)} runs are in {export}.")
        if folders and hasattr(chosen, "export_points") and not rates:
            say(f"The study's points are in {chosen.export_points(export, tier)}.")
    if dry_run:
        return
    for folder in folders:
        print(folder)
    if rates:
        table = chosen.sweep(results.read_live(folders), tier)
        print(table[["backbone", "seed", "lr", "val_loss", "above"]].to_string(index=False))
        if save:
            save_rates(save, table)


@app.command()
def runs(
    folder: Annotated[Path | None, typer.Argument(help="Folder of run folders (default: $T2IKIT_HOME/runs).")] = None,
    as_json: Json = False,
    export: Annotated[
        Path | None, typer.Option(help="Also merge finished runs into this folder of results (CSV, configurations).")
    ] = None,
) -> None:
    """List the runs, one row a run."""
    from t2ikit.runs import home, table

    rows, problems = table(folder)
    for problem in problems:
        say(problem)
    if export:
        from t2ikit import results

        say(f"{results.export(results.finished(folder or home() / 'runs'), export)} finished runs are in {export}.")
    if as_json:
        return emit(rows)
    if not rows:
        return say("No runs yet: `t2ikit train --help` says how to start one.")
    columns = ("run", "world", "tier", "seed", "steps", "images", "loss", "val_loss", "status")
    cells = [
        ["–" if (v := r[c]) is None else f"{v:.4f}" if isinstance(v, float) else str(v) for c in columns] for r in rows
    ]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in [columns, *cells]:
        print("  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip())


@app.command()
def fit(
    points: Annotated[
        Path,
        typer.Argument(
            help="CSV, JSON or JSON lines with C (FLOPs), N (parameters), D (tokens), loss; or a folder of runs."
        ),
    ],
    law: Annotated[str, typer.Option(help="power, isoflop or surface.")] = "power",
    x: Annotated[str | None, typer.Option(help="Column of the predictor of a power law (default: C).")] = None,
    y: Annotated[str | None, typer.Option(help="Column of what is predicted (default: loss).")] = None,
    run: Annotated[
        str | None, typer.Option(help="Column that says which points share a training: they are one cluster.")
    ] = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Fit a scaling law to a table of runs: coefficients, intervals, hold-out, audit."""
    from t2ikit import laws

    found = laws.fit_csv(points, law, x, y, run=run, names=pairs(name or [], "--name"))
    emit(found) if as_json else outline(found)


@app.command()
def plan(
    gpu: Annotated[str, typer.Option(help="H100, H200, A100, … (an unknown one lists them).")],
    count: Annotated[int, typer.Option(help="How many GPUs.")],
    hours: Annotated[float | None, typer.Option(help="For how long; or give --loss.")] = None,
    loss: Annotated[float | None, typer.Option(help="The reverse: the smallest budget that reaches this loss.")] = None,
    mfu: Annotated[float, typer.Option(help="Model FLOPs utilisation, an assumption.")] = 0.4,
    points: Annotated[
        Path | None, typer.Option(help="Fit the law to this table of runs (default: paper D's printed laws).")
    ] = None,
    images: Annotated[float | None, typer.Option(help="Pairs in your data set, for the epochs.")] = None,
    text_tokens: Annotated[
        int, typer.Option(help="Text tokens joined to the image tokens; 0 for cross-attention.")
    ] = 77,
    batch: Annotated[int, typer.Option(help="Images a step.")] = 1024,
    allowance: Annotated[
        float | None, typer.Option(help="With --points: which next runs of at most so many FLOPs fix N_opt best.")
    ] = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """What to train on a budget: N, D, images, steps, expected loss, and how far beyond the law's own range that is."""
    from t2ikit import laws
    from t2ikit.laws.result import plain

    if (hours is None) == (loss is None):
        raise UserError("Give either --hours (what does the budget buy?) or --loss (what budget does the loss need?).")
    if allowance is not None and not points:
        raise UserError("--allowance needs --points: the next best run is chosen for a table of runs.")
    used = laws.fit(points, "surface", names=pairs(name or [], "--name")) if points else None
    options = dict(mfu=mfu, law=used, dataset_images=images, text_tokens=text_tokens, batch=batch)
    made = (
        laws.make_plan(gpu, count, hours, **options)
        if hours is not None
        else laws.budget_for(loss, gpu, count, **options)
    )
    values = made.as_dict()
    if allowance is not None:
        values = values | {"next_runs": laws.next_runs(used, allowance=allowance, target=values["C"])}
    emit(plain(values)) if as_json else outline(plain(values))


def outline(value: dict[str, Any], indent: str = "") -> None:
    """A nested dictionary as indented lines, numbers to five digits; of an audit's findings the sentence."""
    for key, item in value.items():
        if isinstance(item, dict):
            print(f"{indent}{key}")
            outline(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            print(f"{indent}{key}")
            for row in item:
                text = (
                    f"{row['verdict']}: {row['finding']}"
                    if "finding" in row
                    else ", ".join(f"{k} {short(v)}" for k, v in row.items())
                )
                print(f"{indent}  {text}")
        else:
            print(f"{indent}{key:<28}{short(item)}")


def short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(short, value)) + "]"
    return "–" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


@app.command()
def sample(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, as `t2ikit train` prints them.")],
    prompts: Annotated[Path, typer.Option(help="Text file, a prompt a line.")],
    step: Annotated[int | None, typer.Option(help="Which snapshot (default: the last).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the starting noise.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of the sampler, two forward passes each.")] = 50,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 7.5,
    export: Annotated[Path | None, typer.Option(help="Also copy the sheets into this folder of results.")] = None,
) -> None:
    """Draw prompts from trained runs: one sheet of images a run, its path on stdout."""
    from t2ikit import samples

    if not prompts.exists():
        raise UserError(f"There is no file {prompts}: give a text file with a prompt a line.")
    try:
        texts = [line for line in prompts.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{prompts} is not readable as UTF-8 text: give a text file with a prompt a line.") from None
    sheets = [samples.sample(run, texts, step, seed, steps, guidance) for run in runs]
    if export:
        samples.commit(sheets, export)
    for path in sheets:
        print(path)


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders with prompts.json and images.")],
    metrics: Annotated[
        str | None,
        typer.Option(
            help="With commas between: tifa, contrastive, fidelity, alignment (the default: those at CPU size), "
            "likelihood, tifa:VQA, clip:MODEL/WEIGHTS, cmmd:MODEL/WEIGHTS, imagereward:FILE, hpsv2:FILE, "
            "fidelity:FEATURES."
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(help="How many validation captions to draw.")] = 1000,
    step: Annotated[int | None, typer.Option(help="Which snapshot (default: the last).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the starting noise.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of the sampler.")] = 50,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 7.5,
    reference: Annotated[
        Path | None, typer.Option(help="Images for fidelity (default: the prompts' own of validation).")
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Test runs for equivalence to the first within ± this, in a metric's units.")
    ] = None,
    difference: Annotated[float, typer.Option(help="Say how many prompts a difference of this size needs.")] = 0.02,
    export: Annotated[Path | None, typer.Option(help="Also merge the rows into this CSV file.")] = None,
    sentences: Annotated[
        str | None,
        typer.Option(
            help="TIFA's sentence encoder, minilm or a hub's OWNER/MODEL (default: its authors' beside a published VQA "
            "model, minilm beside our own)."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda …")] = "cpu",
    as_json: Json = False,
) -> None:
    """Score images with intervals over prompts; of several runs each is compared with the first. Again, it goes on."""
    from t2ikit.evaluation import harness, tables
    from t2ikit.evaluation.sets import Sampling

    chosen = [name for name in (metrics or "").split(",") if name]
    if difference == 0 or not math.isfinite(difference):
        raise UserError(f"A difference of {difference:g} needs no prompts: give a number other than zero.")
    if export and export.exists():
        tables.read(export)  # before hours of scoring, not after
    keep = (lambda rows: tables.export(export, rows)) if export else (lambda rows: None)
    how = Sampling(prompts, step, seed, steps, guidance)
    rows = harness.evaluate(runs, chosen, how, reference, margin, device, sentences, say, keep)
    if as_json:
        return emit(rows)
    columns = ["run", "step", "metric", "value", "low", "high", "n", "versus"]
    print(tables.table(rows)[columns].to_string(index=False, float_format="{:.4f}".format, na_rep="–"))
    for sentence in harness.needed(rows, difference) + harness.correlations(rows):
        print(sentence)


@app.command()
def reproduce(
    figures: Annotated[
        list[str], typer.Argument(help="Figures: fig03, fig04, … or paper/figure where two papers have one.")
    ],
    tier: Annotated[str, typer.Option(help="smoke, tiny, small or paper.")] = "tiny",
    executor: Annotated[str, typer.Option(help="local or slurm.")] = "local",
    workers: Annotated[int, typer.Option(help="Notebooks at once.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the reports (default: $T2IKIT_HOME/reports).")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the notebook, as JSON or text. Repeatable."),
    ] = None,
) -> None:
    """Execute the notebooks of figures and export each as one HTML file that works offline."""
    from t2ikit import batch

    for path in batch.reproduce(figures, tier, executor, out, settings=pairs(parameters or []), workers=workers):
        print(path)


if __name__ == "__main__":
    main()
