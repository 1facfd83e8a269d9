"""Every metric of every image set as rows, each with its interval and with all that decides it; and runs compared.

A row: run, step, metric, value, low, high (95%), n, versus (the run it is compared with, else None), provenance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from t2ikit.encoders import ASSETS
from t2ikit.errors import UserError, choose
from t2ikit.evaluation.measures import CHECKER, Scored, build, measure
from t2ikit.evaluation.scores import Scores
from t2ikit.evaluation.sets import ImageSet, Sampling, image_set, prompts_of, reference_images
from t2ikit.hardware import usable
from t2ikit.laws.intervals import spearman
from t2ikit.metrics.statistics import deviation, differences, equivalent, paired, prompts_needed
from t2ikit.runs import home
from t2ikit.standins import contrastive, vqa

STANDINS = {"tifa": (vqa.NAME, "vqa"), "contrastive": (contrastive.NAME, "contrastive")}
CPU_SIZE = ("tifa", "contrastive", "fidelity", "alignment")
# a metric, and what may or must (True) follow its name after a colon
NAMED = {
    "tifa": ("VQA", False), "contrastive": (None, False), "fidelity": ("FEATURES", False), "alignment": (None, False),
    "likelihood": (None, False), "clip": ("MODEL/WEIGHTS", True), "cmmd": ("MODEL/WEIGHTS", True),
    "imagereward": ("FILE", True), "hpsv2": ("FILE", True),
}  # fmt: skip


def evaluate(
    paths: Sequence[Path],
    metrics: Sequence[str] = (),
    how: Sampling | None = None,
    reference: Path | None = None,
    margin: float | None = None,
    device: str = "cpu",
    sentences: str | None = None,
    say: Callable[[str], None] = print,
    keep: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """Rows of every metric of every run or folder, and where there are several, of each compared with the first.

    metrics: as `forms` lists them; none: all CPU-size ones that a set allows, and `say` tells which it does not.
    reference: a folder of images for fidelity (default: the validation images of the prompts). margin: declared for
    equivalence, in the metrics' own units. keep: called with the rows so far after each metric.
    """
    metrics = list(dict.fromkeys(metrics))
    for name in metrics:
        checked(name)
    if margin is not None and (len(paths) < 2 or not margin > 0):
        raise UserError(f"A margin of {margin:g} is not possible: name at least two runs, and a margin above zero.")
    names = [path.resolve().name for path in paths]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"Two of the paths are called {twice[0]!r}: name each once, or rename a folder.")
    how, runs = how or Sampling(), [path for path in paths if (path / "config.json").exists()]
    if not runs and how != Sampling():
        raise UserError(
            f"{names[0]} holds images that are drawn already: leave out --prompts, --step, --seed, --steps and "
            "--guidance, which say how a run's are drawn."
        )
    usable(device)
    scores, rows = Scores(home() / "cache" / "scores.sqlite"), []
    first: Scored | None = None  # the others' images and networks are let go
    against = reference_images(reference, say) if reference else None
    if runs and against is not None and len(against) != how.prompts:
        raise UserError(
            f"{reference} has {len(against)} images and {how.prompts} prompts are to be drawn: compare sets of one n, "
            f"with --prompts {len(against)}."
        )
    # before hours of drawing
    same_prompts(paths, how)
    made = {name: build(name, device, sentences) for name in metrics}
    for path in paths:
        found = Scored(image_set(path, how, device, say), say)
        for name in metrics or CPU_SIZE:
            if lacks := _lacks(name, found.images, against):
                if metrics:
                    raise UserError(f"{name} of {found.images.name} is not possible: {lacks}.")
                say(f"{name} is left out for {found.images.name}: {lacks}.")
                continue
            say(f"{found.images.name}: {name}")
            if name not in made:
                made[name] = build(name, device, sentences)
            measure(name, made[name], found, scores, against, device)
            keep(rows + found.rows)
        rows += found.rows
        if first is None:
            first = found
        else:
            rows += compare(first, found, margin)
            keep(rows)
    if not rows:
        raise UserError(f"Nothing can be measured of {', '.join(names)}: see above why, or name --metrics that can.")
    return rows


def same_prompts(paths: Sequence[Path], how: Sampling) -> None:
    """UserError unless all are of the prompts of the first, prompt by prompt."""
    prompts = [prompts_of(path, how) for path in paths] if len(paths) > 1 else []
    for path, other in zip(paths[1:], prompts[1:], strict=True):
        if alone := sorted(other.items() ^ prompts[0].items()):
            raise UserError(
                f"{path.resolve().name} has other prompts than {paths[0].resolve().name} ({alone[0][0]!r} is one of "
                f"{len({key for key, _ in alone})}): compare runs of one world and one kind of captions."
            )


def forms() -> list[str]:
    """How metrics are named: NAME, or NAME:WHICH."""
    bare = [name for name, (_, must) in NAMED.items() if not must]
    return bare + [f"{name}:{which}" for name, (which, _) in NAMED.items() if which]


def checked(name: str) -> None:
    """UserError unless `name` is one of `forms`, and its file is there."""
    kind, colon, which = name.partition(":")
    choose("metric", kind, NAMED)
    wanted, must = NAMED[kind]
    if bool(which) != bool(colon) or (which and not wanted) or (must and not which):
        allowed = [form for form in forms() if form.partition(":")[0] == kind]
        raise UserError(f"{name!r} is no metric: write it as {' or '.join(allowed)}.")
    if wanted == "FILE" and not Path(which).is_file():
        raise UserError(f"There is no checkpoint {which}: give {kind}: the path of a file as its authors publish it.")


def _lacks(name: str, images: ImageSet, against: Tensor | None) -> str | None:
    """Why the metric cannot be had of this set; None if it can."""
    kind = name.partition(":")[0]
    if kind == "tifa" and not images.questions:
        return "there are no questions about its prompts (world scenes has them, or questions.json)"
    if name in (*STANDINS, CHECKER):
        if images.images.shape[2:] != (64, 64):
            return "its stand-in reads 64 px alone; choose a model by name, as in tifa:NAME or clip:MODEL/WEIGHTS"
        if name in STANDINS and not (ASSETS / STANDINS[name][0]).exists():
            return f"{STANDINS[name][0]} has no weights; python -m t2ikit.standins.{STANDINS[name][1]} trains it"
    if kind in ("fidelity", "cmmd") and images.truth is None and against is None:
        return "there are no images to compare with; give a folder as --reference"
    if kind in ("alignment", "likelihood") and images.model is None:
        return "it is measured on a run's weights, not on images"
    return None


def compare(first: Scored, second: Scored, margin: float | None) -> list[dict[str, Any]]:
    """Rows of second − first for each metric of prompts; with a margin also whether they are equivalent."""
    made = Scored(second.images)
    for metric in [m for m in second.by_prompt if m in first.by_prompt]:
        a, b = first.by_prompt[metric], second.by_prompt[metric]
        spread = deviation(differences(a, b)) if len(a) > 1 else None
        found = paired(a, b) | {"spread": spread}
        if margin is not None:
            test = equivalent(a, b, margin)
            found |= {k: test[k] for k in ("margin", "p", "equivalent")}
        made.add(metric, found, second.how[metric] | {"first": first.images.provenance})
    return [row | {"versus": first.images.name} for row in made.rows]


def needed(rows: Sequence[dict[str, Any]], difference: float) -> list[str]:
    """A sentence for each metric of prompts: how many of them a true `difference` needs (power 0.8, level 0.95)."""
    out = []
    for row in rows:
        spread = row["provenance"]["metric"].get("spread")
        if spread == 0:
            out.append(f"{row['metric']}: all scores of {row['run']} are equal: they say nothing of how many it takes.")
        elif spread:
            who = f"{row['run']} and {row['versus']}" if row["versus"] else f"{row['run']} and a run unlike it"
            many = f"{prompts_needed(difference, spread):,}"
            out.append(f"{row['metric']}: to find a difference of {difference:g} between {who}, {many} prompts.")
    return out


def flagged(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What is to be known of a number before it is believed: a sentence a flag, with the metrics that have it."""
    of: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for flag in row["provenance"]["metric"].get("flags", ()):
            of.setdefault((row["run"], flag), []).append(row["metric"])
    return [f"{', '.join(dict.fromkeys(metrics))} of {run}: {flag}." for (run, flag), metrics in of.items()]


def correlations(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each number of alignment: its rank correlation with TIFA over the runs that have both, each at the
    last step that has, with four or more of them: whatever rises in training correlates within a run."""
    values = {(r["run"], r["step"], r["metric"]): r["value"] for r in rows if r["versus"] is None}
    out = []
    for metric in ("caption_gap", "information", "flip_accuracy"):
        both = sorted((step or 0, run, step) for run, step, name in values
                      if name == metric and (run, step, "tifa") in values)  # fmt: skip
        last = {run: step for _, run, step in both}
        pairs = [(values[run, step, "tifa"], values[run, step, metric]) for run, step in last.items()]
        if len(pairs) > 3:
            try:
                found = spearman(*np.array(pairs).T)
            except UserError as error:  # all of one are equal
                out.append(f"No rank correlation of {metric} with tifa: {error}")
                continue
            out.append(
                f"Rank correlation of {metric} with tifa over {found['n']} runs: {found['rho']:.3f} "
                f"(p = {found['p']:.2g}, {found['method']})."
            )
    return out
