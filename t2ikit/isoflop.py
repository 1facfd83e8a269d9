"""isoFLOP studies: budgets × sizes × seeds. The rate is constant, so one training of a size serves all its budgets: it
is evaluated as it passes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from t2ikit.config import Budget, RunConfig
from t2ikit.errors import UserError, choose
from t2ikit.models import zoo
from t2ikit.results import Results
from t2ikit.study import preset

FACTORS = (0.5, 1.0, 2.0)  # of a size's rate, in its sweep


@dataclass(frozen=True)
class Point:
    """One size at one budget of `C` = 6 N D FLOPs: `N` parameters, `D` tokens, in `steps` of `batch` images."""

    backbone: str
    C: float
    N: int
    D: int
    steps: int
    images: int
    flops_exact: int


@dataclass(frozen=True)
class Grid:
    """What a study covers at one tier.

    A size is left out of a budget that buys it fewer than `least_steps` (it would not have left its warm-up, and fakes
    the parabola's right arm) or more than `most_steps`.
    """

    backbones: tuple[str, ...]
    budgets: tuple[float, ...]  # C in FLOPs
    settings: Mapping[str, Any]  # fields of RunConfig and Budget on top of the tier's
    least_steps: int = 1000
    most_steps: int = 100_000
    pairs: float | None = None  # in the data set, for the epochs


@dataclass(frozen=True)
class IsoFlop:
    """Sizes that are trained along budgets of C = 6 N D FLOPs (paper D's convention, arXiv 2410.08184)."""

    name: str
    title: str
    grids: Mapping[str, Grid]  # by tier
    world: str = "scenes"
    rates: Mapping[str, float] = field(default_factory=dict)  # backbone → rate, where a sweep found one

    def at(self, tier: str) -> Grid:
        return self.grids[choose("tier", tier, self.grids)]

    def config(self, backbone: str, tier: str, seed: int = 0, **settings: Any) -> tuple[RunConfig, Budget]:
        """The configuration of one size, with `settings` on top."""
        rate = {"lr": self.rates[backbone]} if backbone in self.rates else {}
        return preset(backbone, self.world, tier, seed=seed, **dict(self.at(tier).settings) | rate | settings)

    def points(self, tier: str) -> list[Point]:
        """All points, budget by budget; UserError if a budget has none."""
        grid, points = self.at(tier), []
        for c in grid.budgets:
            of_budget = [self.point(backbone, c, tier) for backbone in grid.backbones]
            kept = [p for p in of_budget if grid.least_steps <= p.steps <= grid.most_steps]
            if not kept:
                fewest, most = (f(of_budget, key=lambda p: p.steps) for f in (min, max))
                raise UserError(
                    f"A budget of {c:g} FLOPs buys {fewest.steps:,} steps ({fewest.backbone}) to {most.steps:,} "
                    f"({most.backbone}), none within {grid.least_steps:,} to {grid.most_steps:,}: choose another "
                    "budget, batch or size."
                )
            points += kept
        return points

    def point(self, backbone: str, c: float, tier: str) -> Point:
        """What `c` FLOPs buy of `backbone`, in whole steps."""
        batch, cost = self.config(backbone, tier)[0].batch, zoo.spec(backbone).at(tier).cost()
        steps = round(c / (6 * cost.params * cost.tokens * batch))
        images = steps * batch
        return Point(backbone, c, cost.params, images * cost.tokens, steps, images, images * cost.flops_train)

    def runs(self, tier: str, seeds: Sequence[int] = (0,)) -> list[tuple[RunConfig, Budget]]:
        """One run a size and seed, to its largest budget and evaluated at each; the cheapest first."""
        steps: dict[str, list[int]] = {}
        for p in sorted(self.points(tier), key=lambda p: p.flops_exact):
            steps.setdefault(p.backbone, []).append(p.steps)
        runs = []
        for seed in seeds:
            for backbone, at in steps.items():
                config, budget = self.config(backbone, tier, seed)
                if config.warmup > 0.1 * min(at):
                    raise UserError(
                        f"A warm-up of {config.warmup} steps is more than a tenth of {backbone}'s {min(at)}: set a "
                        "shorter warmup or more least_steps."
                    )
                runs.append((config, replace(budget, steps=max(at), eval_every=max(at), eval_at=tuple(at))))
        return runs

    def rate_runs(self, tier: str, seed: int = 0) -> list[tuple[RunConfig, Budget]]:
        """The sweep of each size's rate, {½, 1, 2} × its own, over the fewest steps that a point may have."""
        steps = self.at(tier).least_steps
        sizes = dict.fromkeys(p.backbone for p in self.points(tier))
        runs = []
        for backbone in sizes:
            rate = self.config(backbone, tier)[0].lr
            for factor in FACTORS:
                config, budget = self.config(backbone, tier, seed, lr=rate * factor)
                runs.append((config, replace(budget, steps=steps, eval_every=steps)))
        return runs

    def budget_costs(self, tier: str, speed: float) -> pd.DataFrame:
        """A row a budget: its sizes, from the fewest to the most parameters, images and epochs, and hours at `speed`
        FLOP/s (of one size: a budget is the same for all)."""
        points = pd.DataFrame([asdict(p) for p in self.points(tier)])
        rows = []
        for c, of in points.groupby("C"):
            row = {"C": c, "sizes": len(of), "hours": c / speed / 3600}
            for name in ("N", "images", "steps"):
                row |= {f"{name}_from": of[name].min(), f"{name}_to": of[name].max()}
            if pairs := self.at(tier).pairs:
                row |= {"epochs_from": row["images_from"] / pairs, "epochs_to": row["images_to"] / pairs}
            rows.append(row)
        return pd.DataFrame(rows)

    def table(self, results: Results, tier: str) -> pd.DataFrame:
        """The grid's points that have been trained, a row each: the grid's columns, world, seed, run, rate, and what
        was measured there: `loss` (EMA-smoothed training loss), `val_loss`, `caption_gap` and their errors."""
        measured = results.curves.merge(results.runs[["run", "lr", "batch", "source"]], on=["run", "source"])
        measured = measured.rename(columns={"step": "steps", "loss": "loss_interval", "loss_ema": "loss"})
        grid = pd.DataFrame([asdict(p) for p in self.points(tier)])
        rates = {b: self.config(b, tier)[0].lr for b in self.at(tier).backbones}
        measured = measured[
            (measured["world"] == self.world)
            & (measured["tier"] == tier)
            & (measured["lr"] == measured["backbone"].map(rates))
        ]
        columns = ["world", "seed", "run", "lr", "batch", "loss", "val_loss", "val_loss_se", "caption_gap", "source"]
        return grid.merge(measured[["backbone", "steps", *columns]], on=["backbone", "steps"])


def best_rates(results: Results, step: int) -> pd.DataFrame:
    """Of a rate sweep the losses at `step`: backbone, lr, loss, and `above`, the relative distance to the backbone's
    best rate."""
    at = results.curves[results.curves["step"] == step].merge(results.runs[["run", "lr"]], on="run")
    table = at[["backbone", "lr", "val_loss", "loss_ema"]].sort_values(["backbone", "lr"], ignore_index=True)
    return table.assign(above=table["val_loss"] / table.groupby("backbone")["val_loss"].transform("min") - 1)


def save_rates(path: Path, table: pd.DataFrame) -> None:
    """Keep the sweep as CSV, for `read_rates`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, float_format="%.7g")


def read_rates(path: Path) -> dict[str, float]:
    """Each backbone's best rate of the sweep kept in `path`; none where there is no such file."""
    if not path.exists():
        return {}
    table = pd.read_csv(path)
    best = table.loc[table.groupby("backbone")["val_loss"].idxmin()]
    return dict(zip(best["backbone"], best["lr"], strict=True))
