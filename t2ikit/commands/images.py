"""What runs draw: sheets, scores, figures."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated

import typer

from t2ikit.commands.console import Json, emit, pairs, say
from t2ikit.errors import UserError

app = typer.Typer()
Device = Annotated[str, typer.Option(help="cpu, cuda …")]


@app.command()
def sample(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, as `t2ikit train` prints them.")],
    prompts: Annotated[Path, typer.Option(help="Text file, a prompt a line.")],
    step: Annotated[int | None, typer.Option(help="Which snapshot (default: the last).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the starting noise.")] = 0,
    steps: Annotated[int, typer.Option(help="Steps of the sampler, two forward passes each.")] = 50,
    guidance: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1 is none.")] = 7.5,
    export: Annotated[Path | None, typer.Option(help="Also copy the sheets into this folder of results.")] = None,
    device: Device = "cpu",
) -> None:
    """Draw prompts from trained runs: one sheet of images a run, its path on stdout."""
    from t2ikit import results, samples

    if export:
        results.refuse_differing(runs, export)
    if not prompts.exists():
        raise UserError(f"There is no file {prompts}: give a text file with a prompt a line.")
    try:
        texts = [line for line in prompts.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise UserError(f"{prompts} is not readable as UTF-8 text: give a text file with a prompt a line.") from None
    sheets = [samples.sample(run, texts, step, seed, steps, guidance, device) for run in runs]
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
            "likelihood, tifa:VQA (or tifa:checker), clip:MODEL/WEIGHTS, cmmd:MODEL/WEIGHTS, imagereward:FILE, "
            "hpsv2:FILE, fidelity:FEATURES."
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(help="How many validation captions to draw.")] = 1000,
    step: Annotated[
        str | None, typer.Option(help="Which snapshots, with commas between, or all (default: the last).")
    ] = None,
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
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Score images with intervals over prompts; of several runs each is compared with the first. Again, it goes on."""
    from t2ikit import results
    from t2ikit.evaluation import harness, tables
    from t2ikit.evaluation.sets import Sampling, snapshots_of

    chosen = [name.strip() for name in (metrics or "").split(",") if name.strip()]
    if difference == 0 or not math.isfinite(difference):
        raise UserError(f"A difference of {difference:g} needs no prompts: give a number other than zero.")
    if export:  # before hours of scoring, not after
        results.refuse_differing(runs, export.parent)
        if export.exists():
            tables.read(export)
        elif not os.access(folder := next(p for p in export.absolute().parents if p.exists()), os.W_OK):
            raise UserError(f"{folder} cannot be written to: choose another --export.")
    keep = (lambda rows: tables.export(export, rows)) if export else (lambda rows: None)
    rows, last = [], []
    for at in snapshots_of(runs, step):
        how = Sampling(prompts, at, seed, steps, guidance)
        rows += (last := harness.evaluate(runs, chosen, how, reference, margin, device, sentences, say, keep))
    if as_json:
        return emit(rows)
    columns = ["run", "step", "metric", "value", "low", "high", "n", "versus"]
    print(tables.table(rows)[columns].to_string(index=False, float_format="{:.4f}".format, na_rep="–"))
    for sentence in harness.flagged(rows) + harness.needed(last, difference) + harness.correlations(rows):
        print(sentence)


@app.command()
def reproduce(
    figures: Annotated[
        list[str], typer.Argument(help="Figures: fig03, fig04, … or paper/figure where two papers have one.")
    ],
    tier: Annotated[str, typer.Option(help="smoke, tiny, small or paper.")] = "tiny",
    executor: Annotated[str, typer.Option(help="local or slurm.")] = "local",
    workers: Annotated[int, typer.Option(min=1, help="Notebooks at once.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Folder for the reports (default: $T2IKIT_HOME/reports).")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the notebook, as JSON or text. Repeatable."),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="With slurm, an option of sbatch: time=12:00:00, gpus=1. Repeatable."),
    ] = None,
) -> None:
    """Execute the notebooks of figures and export each as one HTML file that works offline."""
    from t2ikit import batch

    given = {"settings": pairs(parameters or []), "sbatch": pairs(sbatch or [], "--sbatch")}
    for path in batch.reproduce(figures, tier, executor, out, **given, workers=workers):
        print(path)
