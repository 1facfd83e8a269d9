"""The command line: `t2ikit --help`. Each command imports what it needs, so that light ones start in under a second."""

from __future__ import annotations

import json
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
data_app = typer.Typer(help="Get, describe and curate worlds of image-text pairs.", no_args_is_help=True)
app.add_typer(data_app, name="data")

CLICK_ERROR: type = typer.BadParameter.__mro__[2]  # ClickException, of click or of the copy of it in newer typers
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]


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
    sys.exit(code)


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
    as_json: Json = False,
) -> None:
    """List every named backbone with its parameters, GMACs and training FLOPs."""
    from t2ikit.models import zoo

    rows = zoo.table(tier)
    if as_json:
        return emit(rows)
    print(f"{'name':<20}{'family':<9}{'params':>10}{'GMACs':>9}{'attn GMACs':>12}{'attn %':>8}{'GFLOPs/step':>13}")
    for r in rows:
        print(
            f"{r['name']:<20}{r['family']:<9}{r['params'] / 1e6:>9.2f}M{r['macs'] / 1e9:>9.4g}"
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
    world: Annotated[str, typer.Argument(help="scenes (nothing to get: it is computed) or pictograms.")],
    out: Annotated[Path | None, typer.Option(help="Folder to build in (default: $T2IKIT_HOME/data/WORLD).")] = None,
    whole: Annotated[
        bool, typer.Option(help="pictograms: all 40,000 and more colour icons, not the default 17,000.")
    ] = False,
) -> None:
    """Get a world. Interrupted, it goes on when run again."""
    from t2ikit.errors import choose

    if choose("world", world, ("scenes", "pictograms")) == "scenes":
        return say("scenes is computed from its seed: there is nothing to get.")
    from t2ikit.data import pictograms

    print(pictograms.get(out, whole=whole))


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="A backbone of `t2ikit models`.")],
    world: Annotated[str, typer.Option(help="scenes or pictograms.")] = "scenes",
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


def pairs(settings: list[str]) -> dict[str, str]:
    """`["key=value", …]` as a dictionary."""
    for text in settings:
        if "=" not in text:
            raise UserError(f"--set {text!r} has no value: write it as --set key=value.")
    return dict(text.split("=", 1) for text in settings)


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
        from t2ikit.results import export as merge

        say(f"{merge(folder or home() / 'runs', export)} finished runs are in {export}.")
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
            help="CSV or JSON lines with columns C (FLOPs), N (parameters), D (tokens), loss; or a folder of runs."
        ),
    ],
    law: Annotated[str, typer.Option(help="power, isoflop or surface.")] = "power",
    x: Annotated[str | None, typer.Option(help="Column of the predictor of a power law (default: C).")] = None,
    y: Annotated[str | None, typer.Option(help="Column of what is predicted (default: loss).")] = None,
    run: Annotated[
        str | None, typer.Option(help="Column that says which points share a training: they are one cluster.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit a scaling law to a table of runs: coefficients, intervals, hold-out, audit."""
    from t2ikit import laws

    found = laws.fit_csv(points, law, x, y, run=run)
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
    as_json: Json = False,
) -> None:
    """What to train on a budget: N, D, images, steps, expected loss, and how far beyond the law's own range that is."""
    from t2ikit import laws
    from t2ikit.laws.result import plain

    if (hours is None) == (loss is None):
        raise UserError("Give either --hours (what does the budget buy?) or --loss (what budget does the loss need?).")
    used = laws.fit(points, "surface") if points else None
    options = dict(mfu=mfu, law=used, dataset_images=images, text_tokens=text_tokens, batch=batch)
    made = (
        laws.make_plan(gpu, count, hours, **options)
        if hours is not None
        else laws.budget_for(loss, gpu, count, **options)
    )
    emit(plain(made.as_dict())) if as_json else outline(plain(made.as_dict()))


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
    steps: Annotated[int, typer.Option(help="DDIM steps, two forward passes each.")] = 50,
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
def reproduce(
    figures: Annotated[
        list[str], typer.Argument(help="Figures: fig03, fig04, … or paper/figure where two papers have one.")
    ],
    tier: Annotated[str, typer.Option(help="smoke, tiny, small or paper.")] = "tiny",
    executor: Annotated[str, typer.Option(help="local or slurm.")] = "local",
    out: Annotated[Path | None, typer.Option(help="Folder for the reports (default: $T2IKIT_HOME/reports).")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the notebook, as JSON or text. Repeatable."),
    ] = None,
) -> None:
    """Execute the notebooks of figures and export each as one HTML file that works offline."""
    from t2ikit import batch

    for path in batch.reproduce(figures, tier, executor, out, settings=pairs(parameters or [])):
        print(path)


if __name__ == "__main__":
    main()
