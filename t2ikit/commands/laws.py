"""Scaling laws and what they say to train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from t2ikit.commands.console import Json, emit, outline, pairs, short
from t2ikit.errors import UserError

app = typer.Typer()
Name = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=THEIRS", help="Which column is C, N, D or loss, as in N=params. Repeatable."),
]


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
def claims(
    ids: Annotated[
        list[str] | None, typer.Argument(help="Claims, as S4 or D2 (default: all).", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """What the committed results say of the papers' claims: reproduced, contradicted or undecided, and by how much.

    A row is a part of a claim. In brackets: the 95% interval. n: seeds, backbones, sizes or budgets, whichever the
    interval is over.
    """
    from t2ikit import papers
    from t2ikit.errors import choose

    rows = papers.claims()
    known = dict.fromkeys(row["id"] for row in rows)
    typed = {id.casefold(): id for id in known}
    wanted = [choose("claim", typed.get(id.casefold(), id), known) for id in ids or known]
    chosen = [row for row in rows if row["id"] in wanted]
    if as_json:
        emit(chosen)
        return
    for row in chosen:
        told = [] if row["paper"] is None else [f"claimed {short(row['paper'])}"]
        if row["ours"] is not None:
            ends = "" if row["low"] is None or row["high"] is None else f" ({row['low']:.4g} to {row['high']:.4g})"
            enough = f" ({row['needs']:,} would do)" if row["needs"] else ""
            told += [f"{row['ours']:.4g}{ends}", f"n = {row['n']}{enough}"]
        told += [row["why"]] if row["why"] else []
        world = f", on {row['world']}" if row["world"] not in (None, "–") else ""
        print(f"{row['id']:<5} {row['verdict']:<12} {row['claim']}{world}: {'; '.join(told)}")


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
