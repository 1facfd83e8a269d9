"""Sheets of samples: the images of a run for a list of prompts, as one lossless picture beside a JSON file that says
how they were made."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from t2ikit.config import digest
from t2ikit.errors import UserError
from t2ikit.files import read_json, write_atomic, write_json
from t2ikit.hardware import usable

KEYS = ("run", "prompts")  # of the JSON file beside a sheet
COLUMNS, LIMIT = 16, 16_383  # images in a row of a sheet, if they fit; pixels of a WebP's side


def sample(
    folder: Path,
    prompts: Sequence[str],
    step: int | None = None,
    seed: int = 0,
    steps: int = 50,
    guidance: float = 7.5,
    device: str = "cpu",
) -> Path:
    """The sheet, in the run's folder, of `prompts` drawn from its raw weights of `step` (default: the last).

    Asked again for the same, it is returned as it is.
    """
    from t2ikit.generate import generate, load_run, snapshots
    from t2ikit.samplers import possible

    possible("sampler", steps, guidance)
    known = snapshots(folder)
    step = known[-1] if step is None and known else step
    how = {"step": step, "seed": seed, "steps": steps, "guidance": guidance, "prompts": list(prompts)}
    path = folder / "samples" / f"{digest(how)}.webp"
    if not path.exists():
        usable(device)
        parts, model = load_run(folder, step)
        columns = columns_of(len(prompts), size := parts.config.resolution)
        if len(prompts) > (most := columns * (LIMIT // size)):
            raise UserError(f"{len(prompts)} prompts of {size} px do not fit one sheet: give at most {most} at a time.")
        images = generate(parts, model, prompts, seed, steps, guidance, device=device)
        data = sheet(images)
        write_json(path.with_suffix(".json"), {"run": folder.name, **how, "columns": columns})
        write_atomic(path, data)
    return path


def columns_of(n: int, size: int) -> int:
    """How many of `n` images of `size` px stand in a row of a sheet."""
    return max(1, min(n, COLUMNS, LIMIT // size))


def sheet(images: np.ndarray) -> bytes:
    """uint8 [n, R, R, 3] → one lossless WebP, row by row; what the last row has left is black."""
    n, size = images.shape[:2]
    columns = columns_of(n, size)
    rows = -(-n // columns)
    filled = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    filled[:n] = images
    pixels = filled.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, method=6)
    return buffer.getvalue()


def read_sheet(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """How a sheet was made, and its images, uint8 [R, R, 3] each."""
    how = read_json(path.with_suffix(".json"), KEYS)
    try:
        pixels = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}): restore it, or sample again.") from None
    n = len(how["prompts"])
    columns = max(1, how.get("columns", n))  # older sheets are one row
    rows = max(1, -(-n // columns))
    size = pixels.shape[0] // rows
    if pixels.shape != (rows * size, columns * size, 3):
        raise UserError(
            f"{path} is {pixels.shape[1]} × {pixels.shape[0]} px, not {n} square images, {columns} in a row: sample "
            "the run again."
        )
    images = pixels.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, size, 3)
    return how, list(images[:n])


def commit(sheets: Iterable[Path], results: Path) -> None:
    """Copy sheets to `results/samples/RUN.webp`, where git keeps them."""
    for path in sheets:
        how = read_json(path.with_suffix(".json"), KEYS)
        write_json(results / "samples" / f"{how['run']}.json", how)
        write_atomic(results / "samples" / f"{how['run']}.webp", path.read_bytes())


def committed(results: Path, runs: pd.DataFrame) -> tuple[list[str], dict[str, list[np.ndarray]]]:
    """The prompts, one list for all, and the images of each committed run that has a sheet, by `backbone, seed`."""
    prompts: list[str] = []
    images = {}
    for _, r in runs[runs["source"] == "committed"].iterrows():
        path = results / "samples" / f"{r['run']}.webp"
        if path.exists():
            how, images[f"{r['backbone']}, seed {r['seed']}"] = read_sheet(path)
            if prompts and how["prompts"] != prompts:
                raise UserError(f"{path} has other prompts than the sheets before it: sample all runs with one list.")
            prompts = how["prompts"]
    return prompts, images
