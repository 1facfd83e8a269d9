"""Every metric of every image set as rows, each with its interval and with all that decides it; and runs compared.

A row: run, step, metric, value, low, high (95%), n, versus (the run it is compared with, else None), provenance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import stats
from torch import Tensor

from t2ikit.encoders import ASSETS
from t2ikit.errors import UserError, choose
from t2ikit.evaluation.measures import Scored, build, measure
from t2ikit.evaluation.scores import Scores
from t2ikit.evaluation.sets import ImageSet, Sampling, image_set, of_folder
from t2ikit.files import write_atomic
from t2ikit.metrics.statistics import differences, equivalent, paired, prompts_needed
from t2ikit.runs import home
from t2ikit.standins import contrastive, vqa

STANDINS = {"tifa": (vqa.NAME, "vqa"), "contrastive": (contrastive.NAME, "contrastive")}
CPU_SIZE = ("tifa", "contrastive", "fidelity", "alignment")
NAMES = (*CPU_SIZE, "tifa:VQA", "clip:MODEL/WEIGHTS", "imagereward:FILE", "hpsv2:FILE", "fidelity:FEATURES")
KEY = (
    "run", "step", "metric", "versus", "images.seed", "images.steps", "images.guidance", "images.prompts",
    "metric.reference",
)  # fmt: skip
ROW = ("run", "step", "metric", "value", "low", "high", "n", "versus", "provenance")


def evaluate(
    paths: Sequence[Path],
    metrics: Sequence[str] = (),
    how: Sampling | None = None,
    reference: Path | None = None,
    margin: float | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = print,
    keep: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Rows of every metric of every run or folder, and where there are several, of each compared with the first.

    metrics: of `NAMES`; none: all CPU-size ones that a set allows, and `say` tells which it does not. reference: a
    folder of images for fidelity (default: the validation images of the prompts). margin: declared for equivalence, in
    the metrics' own units. keep: called with the rows so far after each set.
    """
    for name in metrics:
        choose("metric", name if ":" not in name else name.partition(":")[0], [n.partition(":")[0] for n in NAMES])
    if margin is not None and len(paths) < 2:
        raise UserError(f"A margin of {margin:g} compares runs: name at least two.")
    scores, made, rows = Scores(home() / "cache" / "scores.sqlite"), {}, []
    scored: list[Scored] = []
    against = of_folder(reference).images if reference else None
    for path in paths:
        found = Scored(image_set(path, how or Sampling(), device, say))
        for name in metrics or CPU_SIZE:
            if lacks := _lacks(name, found.images, against):
                if metrics:
                    raise UserError(f"{name} of {found.images.name} is not possible: {lacks}.")
                say(f"{name} is left out for {found.images.name}: {lacks}.")
                continue
            say(f"{found.images.name}: {name}")
            if name not in made:
                made[name] = build(name, device)
            measure(name, made[name], found, scores, against, device)
        if scored:
            compare(scored[0], found, margin)
        scored.append(found)
        rows += found.rows
        keep(rows)
    return rows


def _lacks(name: str, images: ImageSet, against: Tensor | None) -> str | None:
    """Why the metric cannot be had of this set; None if it can."""
    kind = name.partition(":")[0]
    if kind == "tifa" and not images.questions:
        return "there are no questions about its prompts (world scenes has them, or questions.json)"
    if name in STANDINS:
        if images.images.shape[2:] != (64, 64):
            return "its stand-in reads 64 px alone; choose a model by name, as in tifa:NAME or clip:MODEL/WEIGHTS"
        if not (ASSETS / STANDINS[name][0]).exists():
            return f"{STANDINS[name][0]} has no weights; python -m t2ikit.standins.{STANDINS[name][1]} trains it"
    if kind == "fidelity" and images.truth is None and against is None:
        return "there are no images to compare with; give a folder as --reference"
    if kind == "alignment" and images.model is None:
        return "it is measured on a run's weights, not on images"
    return None


def compare(first: Scored, second: Scored, margin: float | None) -> None:
    """Rows of second − first for each metric of prompts; with a margin also whether they are equivalent."""
    for metric in [m for m in second.by_prompt if m in first.by_prompt]:
        a, b = first.by_prompt[metric], second.by_prompt[metric]
        spread = float(differences(a, b).std(ddof=1)) if len(a) > 1 else None
        found = paired(a, b) | {"spread": spread}
        if margin is not None:
            test = equivalent(a, b, margin)
            found |= {k: test[k] for k in ("margin", "p", "equivalent")}
        second.add(metric, found, {"first": first.images.provenance})
        second.rows[-1]["versus"] = first.images.name


def needed(rows: Sequence[dict[str, Any]], difference: float) -> list[str]:
    """A sentence for each metric of prompts: how many of them a true `difference` needs (power 0.8, level 0.95)."""
    out = []
    for row in rows:
        if spread := row["provenance"]["metric"].get("spread"):
            who = f"{row['run']} and {row['versus']}" if row["versus"] else f"{row['run']} and a run unlike it"
            many = f"{prompts_needed(difference, spread):,}"
            out.append(f"{row['metric']}: to find a difference of {difference:g} between {who}, {many} prompts.")
    return out


def correlations(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each number of alignment: its rank correlation with TIFA over the sets that have both."""
    values = {(r["run"], r["step"], r["metric"]): r["value"] for r in rows if r["versus"] is None}
    out = []
    for metric in ("caption_gap", "information", "flip_accuracy"):
        pairs = [(values[run, step, "tifa"], value) for (run, step, name), value in values.items()
                 if name == metric and (run, step, "tifa") in values]  # fmt: skip
        if len(pairs) > 3:
            found = stats.spearmanr(*zip(*pairs, strict=True))
            out.append(
                f"Rank correlation of {metric} with tifa over {len(pairs)} runs: {found.statistic:.3f} "
                f"(p = {found.pvalue:.2g})."
            )
    return out


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The rows, what decides them in columns of its own: `metric.weights`, `images.guidance` and so on."""
    return pd.DataFrame([{k: row[k] for k in ROW[:-1]} | _flat(row["provenance"]) for row in rows])


def export(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Merge the rows into a CSV file; one of the same run, step, metric and images replaces the older."""
    frames = [table(rows)]
    if path.exists():
        try:
            frames.insert(0, pd.read_csv(path))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not readable as a table ({error}): restore it, or name another file.") from None
    merged = pd.concat(frames, ignore_index=True)
    merged = merged.drop_duplicates([c for c in KEY if c in merged], keep="last")
    write_atomic(path, merged.to_csv(index=False, float_format="%.7g").encode())


def _flat(value: dict[str, Any], head: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, item in value.items():
        out |= _flat(item, f"{head}{key}.") if isinstance(item, dict) else {head + key: item}
    return out
