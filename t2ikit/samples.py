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

KEYS = ("run", "prompts")  # of the JSON file beside a sheet


def sample(
    folder: Path, prompts: Sequence[str], step: int | None = None, seed: int = 0, steps: int = 50, guidance: float = 7.5
) -> Path:
    """The sheet, in the run's folder, of `prompts` drawn from its raw weights of `step` (default: the last).

    Asked again for the same, it is returned as it is.
    """
    from t2ikit.generate import generate, load_run, snapshots

    known = snapshots(folder)
    step = known[-1] if step is None and known else step
    how = {"step": step, "seed": seed, "steps": steps, "guidance": guidance, "prompts": list(prompts)}
    path = folder / "samples" / f"{digest(how)}.webp"
    if not path.exists():
        parts, model = load_run(folder, step)
        images = generate(parts, model, prompts, seed, steps, guidance)
        write_json(path.with_suffix(".json"), {"run": folder.name, **how})
        write_atomic(path, sheet(images))
    return path


def sheet(images: np.ndarray) -> bytes:
    """uint8 [n, R, R, 3] → one lossless WebP, n images in a row."""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(images), axis=1)).save(buffer, "WEBP", lossless=True, method=6)
    return buffer.getvalue()


def read_sheet(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """How a sheet was made, and its images, uint8 [R, R, 3] each."""
    how = read_json(path.with_suffix(".json"), KEYS)
    try:
        pixels = np.asarray(Image.open(path).convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path} cannot be read as an image ({error}): restore it, or sample again.") from None
    n = len(how["prompts"])
    if pixels.shape[1] != n * pixels.shape[0]:
        raise UserError(
            f"{path} is {pixels.shape[1]} × {pixels.shape[0]} px, not {n} square images in a row: sample the run again."
        )
    return how, [pixels[:, i * pixels.shape[0] : (i + 1) * pixels.shape[0]] for i in range(n)]


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
