"""Backbones, worlds, runs and studies: what is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from t2ikit.commands.console import Json, emit, pairs, say
from t2ikit.errors import UserError

if TYPE_CHECKING:
    from t2ikit.isoflop import IsoFlop

app = typer.Typer()
data_app = typer.Typer(help="Worlds of image-text pairs.", no_args_is_help=True)
app.add_typer(data_app, name="data")


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

    print(folder := pictograms.get(out, whole or world == "pictograms-whole"))
    if out is not None:
        say(f"Runs look for it in $T2IKIT_HOME/data: link {folder} there by the world's name.")


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="A backbone of `t2ikit models`, or a rung such as incontext-d4-w128.")],
    world: Annotated[
        str, typer.Option(help="scenes, scenes-enumerated, scenes-single, pictograms or pictograms-whole.")
    ] = "scenes",
    tier: Annotated[
        str,
        typer.Option(help="smoke (seconds), tiny (a CPU, about an hour), small (a GPU, minutes), paper (a cluster)."),
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
    from t2ikit.train.folder import is_done, run_folder
    from t2ikit.train.loop import train as run
    from t2ikit.train.setup import resolve

    parts = resolve(config)
    if is_done(run_folder(parts, runs), budget.steps):
        say(f"{parts.id} is done: it has {budget.steps} steps or more; --set steps=… extends it.")
    print(run(config, budget, runs, parts))


@app.command()
def repeat(
    config: Annotated[Path, typer.Argument(help="A committed run: RESULTS/configs/RUN.json.")],
    steps: Annotated[int | None, typer.Option(help="Train so many steps at most (default: all of them).")] = None,
    within: Annotated[float, typer.Option(help="Relative difference up to which a number is the same.")] = 1e-3,
    runs: Annotated[Path | None, typer.Option(help="Folder to train in (default: $T2IKIT_HOME/repeats).")] = None,
    export: Annotated[Path | None, typer.Option(help="Also merge what was found into this CSV file.")] = None,
    as_json: Json = False,
) -> None:
    """Train a committed run again and hold its numbers against the committed ones. Status 1 if one is off, as it will
    be on another kind of processor: that rounds otherwise, and training makes another run of it, as another seed
    does."""
    from t2ikit import repeat as again

    if not config.is_file():
        raise UserError(f"There is no file {config}: name a committed run as RESULTS/configs/RUN.json.")
    table = again.repeat(config, steps, runs)
    off = table[~(table["off"] <= within)]  # NaN is off
    if export:
        again.keep(export, config.resolve().stem, table)
    if as_json:
        emit(table.to_dict("records"))
    else:
        shown = table.drop(columns=["device", "device_again"])
        print(shown.to_string(index=False, formatters={"off": "{:.1e}".format}))
        print(
            f"{len(table) - len(off)} of {len(table)} numbers are the same within {within:g}; the largest relative "
            f"difference is {table['off'].max():.1e} (tables keep seven digits)."
        )
    was, here = table[["device", "device_again"]].iloc[0]
    if len(off):
        if was != here:
            say(
                f"The committed run was trained on {was}, this one on {here}, which rounds otherwise: the same numbers "
                "to 1e-3 can be expected of the first steps alone; docs/another_processor.md of the repository says "
                "how an AMD gives an Intel's."
            )
        raise typer.Exit(1)


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
    up_to: Annotated[
        float | None, typer.Option(help="isoFLOP studies: only the budgets of at most so many FLOPs.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the grid and its cost, and train nothing.")] = False,
    gpu: Annotated[
        str | None,
        typer.Option(help="GPU whose hours are given (default: this machine, by its GEMM peak; at paper H100, H200)."),
    ] = None,
    mfu: Annotated[float, typer.Option(help="Model FLOPs utilisation, an assumption.")] = 0.4,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at once (default: what the cores hold; 1 with a GPU).")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="With --rates: the CSV file that keeps the sweep.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Also merge the finished runs into this folder of results; with --dry-run, those so far."),
    ] = None,
) -> None:
    """Train what a study is missing, several runs side by side. Stopped, it goes on when run again."""
    from t2ikit import results
    from t2ikit.errors import choose
    from t2ikit.isoflop import IsoFlop, save_rates
    from t2ikit.papers import studies
    from t2ikit.runs import home
    from t2ikit.workers import train_apart, trained

    known = studies()
    if name is None:
        for each in known.values():
            print(f"{each.name:<36}{each.title}")
        return
    chosen = known[choose("study", name, known)]
    along_budgets = isinstance(chosen, IsoFlop)
    if (rates or optimum or up_to is not None) and not along_budgets:
        raise UserError(f"{name} is no isoFLOP study: leave --rates, --optimum and --up-to out.")
    if rates and optimum:
        raise UserError("A sweep of rates has no optimum: give either --rates or --optimum.")
    if save and not rates:
        raise UserError("--save keeps a sweep of rates: give --rates too, or --export to keep runs.")
    numbers, whole = whole_numbers(seeds), chosen
    if up_to is not None:
        chosen = chosen.up_to(up_to, tier)
    if rates:
        wanted = chosen.rate_runs(tier, numbers)
    elif optimum:
        wanted = chosen.optimum_runs(results.read_committed(optimum), tier, numbers)
    else:
        wanted = chosen.runs(tier, numbers)
    print_costs(wanted, chosen if along_budgets and not (rates or optimum) else None, tier, gpu, mfu)
    if dry_run and not export:
        return
    root = home() / "runs"
    folders = trained(wanted, root, say) if dry_run else train_apart(wanted, root, workers)
    if export:
        say_differing(folders, export)
        say(f"{results.export(folders, export)} of {len(wanted)} runs, those trained here, are in {export}.")
        if folders and along_budgets and not rates:
            say(f"The study's points are in {whole.export_points(export, tier)}.")
    if dry_run:
        return
    for folder in folders:
        print(folder)
    if rates:
        table = chosen.sweep(results.read_live(folders), tier)
        print(table[["backbone", "seed", "lr", "val_loss", "above"]].to_string(index=False))
        if save:
            save_rates(save, table)


def say_differing(folders: list[Path], export: Path) -> None:
    """Name the runs that an export leaves as they are there."""
    from t2ikit import results

    for run in results.differing(folders, export):
        say(f"{run} {results.OTHER.format(export)}")


def whole_numbers(seeds: str) -> list[int]:
    """`"0,1,2"` as numbers, each once."""
    try:
        return list(dict.fromkeys(int(seed) for seed in seeds.split(",")))
    except ValueError:
        raise UserError(f"--seeds {seeds!r} are no whole numbers: write them as --seeds 0,1,2.") from None


def print_costs(wanted: list, by_budget: IsoFlop | None, tier: str, gpu: str | None, mfu: float) -> None:
    """What the runs cost, and above it each budget of `by_budget`, in hours of a GPU or of this machine."""
    from t2ikit import hardware
    from t2ikit.study import costs

    hardware.utilisation(mfu)
    gpus = [gpu] if gpu else ["H100", "H200"] if tier == "paper" else []
    speeds = {name: hardware.gpu(name).peak * mfu for name in gpus} or {"own": hardware.gemm_peak("fp32") * mfu}
    say(
        f"Hours are of one {' or '.join(gpus) or 'machine like this'} at an MFU of {mfu:g}: a budget's by C = 6 N D, a "
        "run's by its exact FLOPs."
    )
    if by_budget:
        print(by_budget.budget_costs(tier, speeds).to_string(index=False, float_format="{:.4g}".format), "\n")
    of_runs = costs(wanted, next(iter(speeds.values())))
    print(of_runs.to_string(index=False, float_format="{:.4g}".format))
    print(f"{len(of_runs)} runs, {of_runs['hours'].sum():.4g} hours in all.")


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

        done = results.finished(folder or home() / "runs")
        say_differing(done, export)
        say(f"{results.export(done, export)} finished runs are in {export}.")
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
