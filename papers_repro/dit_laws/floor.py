"""The known floor of the world `scenes-enumerated`: `python -m papers_repro.dit_laws.floor` keeps that of tier tiny as
results/floor.csv, minutes of one core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from papers_repro.dit_laws import studies
from t2ikit.files import write_csv
from t2ikit.isoflop import IsoFlop

FILE = studies.RESULTS / "floor.csv"
NAMES = ("not told the caption", "told the caption")


def known_floor(study: IsoFlop, tier: str) -> pd.DataFrame:
    """The lowest possible validation loss on the study's own probe: mean ± standard error over its images; a row a
    timestep bin, then all."""
    from t2ikit import floor
    from t2ikit.probe import make_probe, standard_error
    from t2ikit.train.setup import resolve

    parts = resolve(study.config(study.at(tier).backbones[0], tier)[0])
    probe = make_probe(parts.world, parts.config.captions, parts.codec, parts.text, parts.config.probe_images)
    found = floor.on_probe(parts, probe)  # [images, bins, conditions]
    images = np.arange(len(found))
    rows: dict[str, dict[str, Any]] = {}
    for bin, values in [*((f"bin {b}", found[:, b]) for b in range(found.shape[1])), ("all", found.mean(1))]:
        rows[bin] = {"n": len(images)}
        for k, name in enumerate(NAMES):
            rows[bin] |= {name: values[:, k].mean(), f"± {name}": standard_error(values[:, k], images)}
    return pd.DataFrame(rows).T


def told(known: pd.DataFrame | None) -> float | None:
    """The floor of a model that is told the caption; None where none is known."""
    return None if known is None else float(known.loc["all", NAMES[1]])


def read(path: Path = FILE) -> pd.DataFrame | None:
    """`known_floor` as it was kept; None where it was not."""
    return pd.read_csv(path, index_col=0) if path.exists() else None


if __name__ == "__main__":
    write_csv(FILE, known_floor(studies.ENUMERATED, "tiny"), index=True)
