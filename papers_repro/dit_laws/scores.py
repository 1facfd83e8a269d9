"""Scores for which a model is built again from a snapshot: bound, likelihood, distance, loss on other validation sets.

All of the averaged weights. `python -m papers_repro.dit_laws.scores STUDY --tier tiny --metric vlb` scores the live
runs of a study where its budgets end and keeps the rows in results/scores.csv.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from torch import nn
from tqdm.auto import tqdm

from t2ikit import cli
from t2ikit.data.world import World, get_world
from t2ikit.encoders import image_codec, text_encoder
from t2ikit.errors import UserError, choose
from t2ikit.files import append_line, read_json, read_lines, write_csv
from t2ikit.generate import config_of, generate, load_run
from t2ikit.objectives import DDPM, RectifiedFlow
from t2ikit.probe import Probe, make_probe
from t2ikit.results import finished, read_live, refuse_differing
from t2ikit.runs import home, merging
from t2ikit.train.setup import Parts

FILE = "scores.csv"
COLUMNS = ["run", "step", "metric", "world", "captions", "value", "se", "n"]
IMAGES = {"smoke": 16}  # by tier; elsewhere as many as the validation loss has
CHAIN, SAMPLER = 64, 25  # timesteps of the bound (at most), Euler's steps
UNITS = {
    "vlb": "Variational bound (nats/dimension)",
    "nll": "Negative log-likelihood (nats/dimension)",
    "fd-efficientnet-lite0": "FD (EfficientNet-Lite0 features)",
    "val_loss": "Validation loss (MSE)",
}
Score = dict[str, Any]  # value, se (None for one number of a whole set), n images


def bound(parts: Parts, model: nn.Module, probe: Probe) -> Score:
    """DDPM's bound at LDM's schedule along `chain`, without the discretised last step."""
    from t2ikit.metrics.likelihood import chain, noise_of_flow, variational_bound

    alphas = DDPM().alphas_cumprod
    noise = noise_of_flow(model, alphas, probe.true)
    return _mean(variational_bound(noise, probe.x0, alphas, chain(alphas, CHAIN)).total)


def likelihood(parts: Parts, model: nn.Module, probe: Probe) -> Score:
    """−log p of the latents by the flow's ODE."""
    from t2ikit.metrics.likelihood import flow_log_likelihood, velocity_of

    log_p = flow_log_likelihood(velocity_of(model.requires_grad_(False), probe.true), probe.x0)
    return _mean(-log_p.numpy() / probe.x0[0].numel())


def distance(parts: Parts, model: nn.Module, probe: Probe) -> Score:
    """FD of images sampled for validation captions, without guidance, to those captions' own images."""
    from t2ikit.metrics.fidelity import frechet

    n, config = len(probe.x0), parts.config
    prompts = parts.world.captions("val", np.arange(n), config.captions)
    made = generate(parts, model, prompts, steps=SAMPLER, guidance=1.0, progress=False)
    found = frechet(_moments(made), _reference(config.world, config.resolution, n))
    return {"value": found["value"], "se": None, "n": n}


def validation(parts: Parts, model: nn.Module, probe: Probe) -> Score:
    found = probe.loss(model, parts.objective)
    return {"value": found["val_loss"], "se": found["val_loss_se"], "n": found["n"]}


# of parts whose world and captions are the validation set's that is asked
METRICS: dict[str, Callable[[Parts, nn.Module, Probe], Score]] = {
    "vlb": bound, "nll": likelihood, "fd-efficientnet-lite0": distance, "val_loss": validation,
}  # fmt: skip


def of_snapshot(
    folder: Path, step: int, metrics: Sequence[str], on: Sequence[tuple[str, str]] = (), n: int | None = None
) -> list[Score]:
    """Rows of `COLUMNS`: each metric on each validation set (world, captions) of `on` (none: the run's own).

    What has been scored is kept beside the run. n: images (default: as many as the run's validation loss has).
    """
    for metric in metrics:
        choose("metric", metric, METRICS)
    kept = {_key(r): r for r in read_lines(folder / "scores.jsonl", COLUMNS)}
    config = config_of(path := folder / "config.json", read_json(path, ("config",))["config"])
    loaded, rows = None, []
    for world, captions in on or [(None, None)]:
        for metric in metrics:
            where = {"world": world or config.world, "captions": captions or config.captions}
            there = _world(where["world"], config.resolution)
            images = min(n or config.probe_images, there.length("val"))
            row = {"run": folder.name, "step": step, "metric": metric} | where | {"n": images}
            if _key(row) not in kept:
                parts, model = loaded = loaded or load_run(folder, step, averaged=True)
                if not isinstance(parts.objective, RectifiedFlow):
                    raise UserError(f"{folder.name} is trained by {config.objective}: choose runs of a rectified flow.")
                probe = _probe(*where.values(), config.resolution, config.codec, config.text, row["n"])
                asked = replace(parts, config=replace(config, **where), world=there)
                kept[_key(row)] = row | METRICS[metric](asked, model, probe)
                append_line(folder / "scores.jsonl", kept[_key(row)])
            rows.append(kept[_key(row)])
    return rows


def of_table(
    table: pd.DataFrame, committed: Path, metrics: Sequence[str], tier: str, on: Sequence[tuple[str, str]] = (),
    images: int | None = None,
) -> pd.DataFrame:  # fmt: skip
    """The points of a study's `table` with their scores, a row a point, metric and validation set: live points are
    scored where they have not been (on `images`; None: the tier's number), committed ones read from
    `committed`/scores.csv."""
    live = table[table["source"] == "live"]
    rows = []
    for point in tqdm(list(live.itertuples()), desc="scores", unit="snapshot", mininterval=1.0, disable=live.empty):
        rows += of_snapshot(home() / "runs" / point.run, point.steps, metrics, on, images or IMAGES.get(tier))
    found = pd.concat([f for f in (pd.DataFrame(rows), read(committed)) if len(f)] or [pd.DataFrame(columns=COLUMNS)])
    found = found[found["metric"].isin(metrics)].drop_duplicates(["run", "step", "metric", "world", "captions"])
    found = found.rename(columns={"step": "steps", "world": "on_world", "captions": "on_captions"})
    scored = table.merge(found.astype({"steps": int}), on=["run", "steps"])
    if on:
        return scored.merge(pd.DataFrame(on, columns=["on_world", "on_captions"]), on=["on_world", "on_captions"])
    return scored[(scored["on_world"] == scored["world"]) & (scored["on_captions"] == scored["captions"])]


def read(folder: Path) -> pd.DataFrame:
    """The committed scores; empty where there are none."""
    path = folder / FILE
    return pd.read_csv(path, dtype={"run": str}) if path.exists() else pd.DataFrame(columns=COLUMNS)


def wide(table: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """`table` with a column a metric of `scores`."""
    if scores.empty:
        return table
    columns = scores.pivot_table(index=["run", "steps"], columns="metric", values="value").reset_index()
    return table.merge(columns, on=["run", "steps"], how="left", suffixes=("", "_scored"))


def _mean(values: np.ndarray) -> Score:
    return {"value": float(values.mean()), "se": float(values.std(ddof=1) / len(values) ** 0.5), "n": len(values)}


def _key(row: Score) -> tuple:
    return tuple(row[k] for k in ("step", "metric", "world", "captions", "n"))


@lru_cache(maxsize=4)
def _world(name: str, size: int) -> World:
    return get_world(name, size=size)


@lru_cache(maxsize=4)
def _probe(world: str, captions: str, size: int, codec: str, text: str, n: int) -> Probe:
    return make_probe(_world(world, size), captions, image_codec(codec), text_encoder(text), n)


@lru_cache(maxsize=4)
def _reference(world: str, size: int, n: int) -> Any:
    """Moments of the first n validation images."""
    return _moments(_world(world, size).images("val", np.arange(n)))


def _moments(images: np.ndarray) -> Any:
    from t2ikit.metrics.fidelity import Moments

    return Moments.batch(_features()(torch.from_numpy(images).permute(0, 3, 1, 2)))


@lru_cache(maxsize=1)
def _features() -> Any:
    from t2ikit.metrics.features import features

    return features("efficientnet-lite0")


def main(
    study: Annotated[str, typer.Argument(help="An isoFLOP study of paper D.")],
    tier: str = "tiny",
    metric: Annotated[list[str] | None, typer.Option(help="vlb, nll, val_loss, fd-… Repeatable; none: all.")] = None,
    on: Annotated[list[str] | None, typer.Option(help="Other validation sets, as WORLD/CAPTIONS. Repeatable.")] = None,
    images: Annotated[
        int | None, typer.Option(help="Validation images (default: as many as the validation loss has).", min=2)
    ] = None,
) -> None:
    from papers_repro.dit_laws.studies import RESULTS, STUDIES

    chosen = STUDIES[choose("study", study, STUDIES)]
    points = chosen.table(read_live(finished(home() / "runs")), tier)
    refuse_differing([home() / "runs" / run for run in points["run"].unique()], RESULTS)
    sets = [tuple(choose_set(text)) for text in on or []]
    new = of_table(points, RESULTS, metric or list(METRICS), tier, sets, images)
    new = new.drop(columns=["world", "captions"])
    new = new.rename(columns={"steps": "step", "on_world": "world", "on_captions": "captions"})[COLUMNS]
    with merging(RESULTS / FILE):
        both = pd.concat([read(RESULTS), new]).drop_duplicates(COLUMNS[:5], keep="last")
        both = both.astype({"value": float, "se": float}).sort_values(COLUMNS[:5])
        write_csv(RESULTS / FILE, both)
    print(f"{len(new)} scores of {study} are in {RESULTS / FILE}.")


def choose_set(text: str) -> list[str]:
    """`WORLD/CAPTIONS` in two."""
    if text.count("/") != 1:
        raise UserError(f"{text!r} names no validation set: write it as WORLD/CAPTIONS, scenes/dense.")
    return text.split("/")


if __name__ == "__main__":
    cli.command(main)
