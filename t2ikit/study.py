"""Studies: the grid of runs that a figure needs, and the only place that starts missing runs.

Figures that share runs share their cost: a run is found by its id, whoever asked for it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from t2ikit.config import Budget, RunConfig, override
from t2ikit.data.world import world_class
from t2ikit.errors import UserError, choose
from t2ikit.models import zoo
from t2ikit.results import Results, combine, read_committed, read_live, read_scores, scored
from t2ikit.runs import home
from t2ikit.workers import train_apart

# tier → settings of every run of paper S's system at that size, see `preset`
PRESETS: dict[str, dict[str, Any]] = {
    "smoke": dict(batch=8, warmup=2, steps=6, log_every=2, eval_every=3, threads=1, probe_images=16),
    "tiny": dict(batch=64, warmup=100, steps=1600, log_every=20, eval_every=160, threads=1, lr=1e-3),
    "small": dict(
        batch=256, warmup=500, steps=8000, log_every=50, eval_every=800, text="minilm-256", lr=3e-4, precision="bf16",
    ),
    "paper": dict(
        batch=2048, warmup=10_000, steps=600_000, log_every=100, eval_every=25_000, lr=8e-5, precision="bf16",
        compile=True, resolution=256, codec="sdxl", text="openclip-h", checkpoint_seconds=1800,
    ),
}  # fmt: skip
# columns that say whether a run is a study's, beside its rate
SAME = ("world", "tier", "batch", "captions", "codec", "precision", "resolution", "objective", "setting")


def preset(backbone: str, world: str = "scenes", tier: str = "tiny", **settings: Any) -> tuple[RunConfig, Budget]:
    """The configuration of paper S's setting at `tier`, with `settings` (fields of RunConfig or Budget) on top.

    smoke: seconds, for tests. tiny: 102,400 images of 64 px in 1,600 steps on one thread, so that a run's numbers do
    not depend on the machine's cores and several runs go side by side, in fp32: on a CPU with AMX bf16 is 1.2 times as
    fast for wide UNets and slower for narrow ones (docs/precision.json), and rows of one study share one precision. As
    in paper S all backbones have one rate, here 1e-3: papers_repro/README.md has a sweep and what happened at 3e-3.
    small: 2M images of 64 px, minutes on one GPU. paper: the published setting, 600,000 steps of 2,048 images of 256 px
    at 8e-5 after 10,000 steps of warm-up.
    """
    choose("tier", tier, PRESETS)
    settings = PRESETS[tier] | default_captions(world) | settings
    return override(RunConfig(backbone, world, tier), Budget(), settings)


def default_captions(world: str) -> dict[str, str]:
    """The caption density that a world is trained with unless another is asked for."""
    return {"captions": world_class(world).density}


def trained_as(row: Any, config: RunConfig, rates: Sequence[float] = ()) -> bool:
    """Whether a row of the table of runs was trained as `config` says, at its rate or at one of `rates`; what a row of
    an older version does not tell is taken to be so."""

    def same(key: str) -> bool:
        value = getattr(row, key, None)
        return value is None or value != value or value == getattr(config, key)

    rate = np.isclose(row.lr, rates or [config.lr], rtol=1e-5).any()  # CSV keeps seven digits
    return bool(rate) and all(map(same, SAME))


def costs(runs: Sequence[tuple[RunConfig, Budget]], speed: float) -> pd.DataFrame:
    """What runs will cost, a row each: images, exact FLOPs, and hours at `speed` FLOP/s."""
    rows = []
    for config, budget in runs:
        images = config.batch * budget.steps
        flops = zoo.spec(config.backbone).at(config.tier, config.resolution).cost().flops_train * images
        of_run = {"backbone": config.backbone, "seed": config.seed, "lr": config.lr, "steps": budget.steps}
        rows.append(of_run | {"images": images, "flops_exact": flops, "hours": flops / speed / 3600})
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Study:
    """Backbones × seeds on one world: the rows that a figure draws."""

    name: str
    title: str
    backbones: tuple[str, ...]
    world: str = "scenes"
    settings: dict[str, Any] = field(default_factory=dict)

    def runs(self, tier: str, seeds: Sequence[int] = (0,), **settings: Any) -> list[tuple[RunConfig, Budget]]:
        """One configuration a backbone and seed."""
        merged = self.settings | settings
        return [preset(b, self.world, tier, seed=s, **merged) for s in seeds for b in self.backbones]

    def results(
        self,
        committed: Path,
        tier: str,
        seeds: Sequence[int] = (0,),
        images: int | None = None,
        live: bool = True,
        world: str | None = None,
        root: Path | None = None,
    ) -> Results:
        """The committed rows of this study's setting at `tier`, of all worlds and seeds, and beside them the live
        ones, trained first where they are missing.

        `images` shortens the live runs (None: the tier's own length): at constant rate they are the first part of the
        same runs.
        `world`: of the live runs (default: the study's).
        """
        study = replace(self, world=world or self.world)
        rows = scored(read_committed(committed), read_scores(committed)).select(backbone=self.backbones, tier=tier)
        parts = [rows.select(run=[r.run for r in rows.runs.itertuples() if self.is_setting_of(r)])]
        if live:
            length = {}
            if images is not None:
                config, budget = preset(self.backbones[0], study.world, tier, **self.settings)
                batch, steps = config.batch, min(budget.steps, images // config.batch)
                if steps < 1:
                    raise UserError(
                        f"images = {images} is less than a batch of tier {tier}, {batch}: give {batch} or more, or 0 "
                        "for all that the tier trains."
                    )
                # half the batch a pass: two workers and the notebook's kernel stay under 4 GB
                length = {"steps": steps, "eval_every": -(-steps // 2), "micro_batch": -(-batch // 2)}
            parts.append(read_live(study.train(tier, seeds, root, **length)))
        return combine(parts)

    def is_setting_of(self, row: Any) -> bool:
        """Whether the run of this row of the table was trained as the study trains, and to the end: sweeps of the rate
        are not."""
        config, budget = preset(row.backbone, row.world, row.tier, **self.settings)
        return trained_as(row, config) and row.steps >= budget.steps

    def train(
        self,
        tier: str,
        seeds: Sequence[int] = (0,),
        root: Path | None = None,
        workers: int | None = None,
        **settings: Any,
    ) -> list[Path]:
        """Train what is missing and return all run folders; see `train_apart`."""
        return train_apart(self.runs(tier, seeds, **settings), root or home() / "runs", workers)
