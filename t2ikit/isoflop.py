"""isoFLOP studies: budgets × sizes × seeds. The rate is constant, so one training of a size serves all its budgets: it
is evaluated as it passes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from t2ikit.config import Budget, RunConfig
from t2ikit.errors import UserError, choose
from t2ikit.files import write_csv
from t2ikit.models import zoo
from t2ikit.results import Results, combine, read_committed, read_live
from t2ikit.runs import home, merging
from t2ikit.study import preset, trained_as
from t2ikit.workers import train_apart

FACTORS = (0.5, 1.0, 2.0)  # of a size's rate, in its sweep
MEASURED = ("loss", "val_loss", "val_loss_se", "val_loss_averaged", "caption_gap", "caption_gap_se", "flip_accuracy")
RATE_OF = ("tier", "backbone", "world", "captions", "batch", "resolution")  # fields of RunConfig that a rate belongs to


@dataclass(frozen=True)
class Point:
    """One size at one budget of `C` = 6 N D FLOPs: `N` parameters (`N_token`: those that meet every token), `D` tokens,
    in `steps` of `batch` images."""

    backbone: str
    C: float
    N: int
    N_token: int
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
    factors: tuple[float, ...] = FACTORS  # of a size's rate, in its sweep
    passing: tuple[float, ...] = ()  # budgets of other studies: what shares a run is evaluated there on its way


@dataclass(frozen=True)
class IsoFlop:
    """Sizes that are trained along budgets of C = 6 N D FLOPs (paper D's convention, arXiv 2410.08184)."""

    name: str
    title: str
    grids: Mapping[str, Grid]  # by tier
    world: str = "scenes"
    rates: Mapping[tuple, float] = field(default_factory=dict)  # of `read_rates`

    def at(self, tier: str) -> Grid:
        return self.grids[choose("tier", tier, self.grids)]

    def up_to(self, most: float, tier: str) -> IsoFlop:
        """This study without its budgets at `tier` above `most` FLOPs: their runs are the first part of the study's
        own."""
        grid = self.at(tier)
        if not (budgets := tuple(c for c in grid.budgets if c <= most)):
            there = ", ".join(f"{c:g}" for c in grid.budgets)
            raise UserError(
                f"{self.name} has no budget of {most:g} FLOPs or less at tier {tier}: choose among {there}."
            )
        return replace(self, grids=dict(self.grids) | {tier: replace(grid, budgets=budgets)})

    def config(self, backbone: str, tier: str, seed: int = 0, **settings: Any) -> tuple[RunConfig, Budget]:
        """The configuration of one size, with `settings` on top: at the best rate of its sweep; one that was swept on
        another world, or with other captions, batch or resolution, starts from the rate that was best there."""
        config, budget = preset(backbone, self.world, tier, seed=seed, **dict(self.at(tier).settings) | settings)
        of_size = {key: rate for key, rate in self.rates.items() if key[:2] == (tier, backbone)}
        if "lr" in settings or not of_size:
            return config, budget
        return replace(config, lr=of_size.get(_rate_key(config), next(iter(of_size.values())))), budget

    def swept(self, backbone: str, tier: str) -> bool:
        """Whether a sweep in this study's own setting found the size's rate."""
        return _rate_key(self.config(backbone, tier)[0]) in self.rates

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
        steps = round(c / self.after(1, backbone, tier).C)
        return replace(self.after(steps, backbone, tier), C=c)

    def after(self, steps: int, backbone: str, tier: str) -> Point:
        """What so many steps of `backbone` cost."""
        config, _ = self.config(backbone, tier)
        cost = zoo.spec(backbone).at(tier, config.resolution).cost()
        images = steps * config.batch
        tokens, flops = images * cost.tokens, images * cost.flops_train
        compute = 6 * cost.params * tokens
        return Point(backbone, compute, cost.params, cost.params_per_token, tokens, steps, images, flops)

    def runs(
        self, tier: str, seeds: Sequence[int] = (0,), points: Sequence[Point] | None = None
    ) -> list[tuple[RunConfig, Budget]]:
        """One run a size and seed, to its largest budget and evaluated at each (of `points`, default: all), at the
        fewest steps, where a sweep of rates compares it, and at the budgets it passes; the cheapest first."""
        grid, steps = self.at(tier), {}
        for p in sorted(points or self.points(tier), key=lambda p: -p.flops_exact):  # by each size's dearest
            steps.setdefault(p.backbone, []).append(p.steps)
        runs = []
        for seed in seeds:
            for backbone, at in reversed(steps.items()):
                config, budget = self.config(backbone, tier, seed)
                if config.warmup > 0.1 * min(at):
                    raise UserError(
                        f"A warm-up of {config.warmup} steps is more than a tenth of {backbone}'s {min(at)}: set a "
                        "shorter warmup or more least_steps."
                    )
                passed = {self.point(backbone, c, tier).steps for c in grid.passing}
                asked = {grid.least_steps, *at, *(s for s in passed if grid.least_steps <= s <= max(at))}
                runs.append((config, replace(budget, steps=max(at), eval_every=max(at), eval_at=tuple(sorted(asked)))))
        return runs

    def optimum_runs(
        self, results: Results, tier: str, seeds: Sequence[int], y: str = "val_loss_averaged"
    ) -> list[tuple[RunConfig, Budget]]:
        """Runs of other seeds where they tell most: at each budget the size with the lowest measured `y`, trained to
        the largest of its budgets. UserError before every budget has three sizes or more."""
        table = self.table(results, tier).dropna(subset=[y])
        sizes = table.groupby("C")["backbone"].nunique().reindex(self.at(tier).budgets, fill_value=0)
        if (short := sizes[sizes < 3]).size:
            raise UserError(
                f"{self.name} has {short.iloc[0]} sizes at {short.index[0]:g} FLOPs, so its optimum is not known: "
                "train and export the study first."
            )
        mean = table.groupby(["C", "backbone"])[y].mean()
        best = {backbone: c for c, backbone in sorted(mean.groupby("C").idxmin())}  # the largest budget of each
        kept = [p for p in self.points(tier) if p.backbone in best and p.C <= best[p.backbone]]
        return self.runs(tier, seeds, kept)

    def rate_runs(self, tier: str, seeds: Sequence[int] = (0,)) -> list[tuple[RunConfig, Budget]]:
        """The sweep of each size's rate, `factors` × its own, over the fewest steps that a point may have."""
        steps = self.at(tier).least_steps
        sizes = dict.fromkeys(p.backbone for p in self.points(tier))
        runs = []
        for seed, backbone in product(seeds, sizes):
            rate = self.config(backbone, tier)[0].lr
            for factor in self.at(tier).factors:
                config, budget = self.config(backbone, tier, seed, lr=rate * factor)
                runs.append((config, replace(budget, steps=steps, eval_every=steps, eval_at=(steps,))))
        return runs

    def budget_costs(self, tier: str, speeds: Mapping[str, float]) -> pd.DataFrame:
        """A row a budget: its sizes, from the fewest to the most parameters, images and epochs, and hours at each of
        the named `speeds` in FLOP/s (of one size: a budget is the same for all)."""
        points = pd.DataFrame([asdict(p) for p in self.points(tier)])
        rows = []
        for c, of in points.groupby("C"):
            row = {"C": c, "sizes": len(of)} | {f"{name}_hours": c / speed / 3600 for name, speed in speeds.items()}
            for name in ("N", "images", "steps"):
                row |= {f"{name}_from": of[name].min(), f"{name}_to": of[name].max()}
            if pairs := self.at(tier).pairs:
                row |= {"epochs_from": row["images_from"] / pairs, "epochs_to": row["images_to"] / pairs}
            rows.append(row)
        return pd.DataFrame(rows)

    def table(self, results: Results, tier: str) -> pd.DataFrame:
        """The grid's points that have been trained, a row each: the grid's columns, world, seed, run, rate, and what
        was measured there: `loss` (EMA-smoothed training loss), `val_loss` of the raw weights, `val_loss_averaged`,
        `caption_gap`. A run that is committed and live is taken as committed."""
        return self.measured(results, self.points(tier), tier)

    def export_points(self, folder: Path, tier: str) -> Path:
        """Keep `table` of the runs that `folder` holds as points/NAME-TIER.csv there: what `t2ikit fit` reads."""
        path = folder / "points" / f"{self.name}-{tier}.csv"
        table = self.table(read_committed(folder), tier).drop(columns="source").sort_values(["C", "N", "seed"])
        write_csv(path, table)
        return path

    def sweep(self, results: Results, tier: str) -> pd.DataFrame:
        """What a rate sweep has measured, in the same columns, and `above`: the validation loss's relative distance to
        that of the backbone's best rate of the same seed."""
        steps, rates = self.at(tier).least_steps, [c.lr for c, _ in self.rate_runs(tier)]
        points = [self.after(steps, size, tier) for size in dict.fromkeys(p.backbone for p in self.points(tier))]
        table = self.measured(results, points, tier, rates)
        best = table.groupby(["backbone", "seed"])["val_loss"].transform("min")
        table = table.assign(tier=tier, above=table["val_loss"] / best - 1)
        return table.sort_values(["backbone", "lr"], ignore_index=True)

    def measured(
        self, results: Results, points: Sequence[Point], tier: str, rates: Sequence[float] = ()
    ) -> pd.DataFrame:
        """The evaluations of this study's runs at `points`, at its rates or at any of `rates`."""
        own = {b: self.config(b, tier)[0] for b in self.at(tier).backbones}
        runs = results.runs[results.runs["backbone"].isin(own)]
        runs = runs[np.array([trained_as(r, own[r.backbone], rates) for r in runs.itertuples()], bool)]
        loss = {"step": "steps", "loss": "loss_interval", "loss_ema": "loss"}
        settings = runs.reindex(columns=["run", "source", "lr", "batch", "captions", "resolution"])
        curves = results.curves.rename(columns=loss).merge(settings, on=["run", "source"])
        columns = ["world", "seed", "run", "lr", "batch", "captions", "resolution", *MEASURED, "loss_space", "source"]
        curves = curves.reindex(columns=["backbone", "steps", *columns]).astype(
            {"steps": int} | dict.fromkeys(("lr", *MEASURED), float)
        )
        grid = pd.DataFrame([asdict(p) for p in points])
        table = grid.merge(curves, on=["backbone", "steps"]).sort_values("source", kind="stable")
        return table.drop_duplicates(["C", "run"], ignore_index=True)

    def results(
        self, committed: Path, tier: str, seeds: Sequence[int] = (0,), live: bool = True, rates: bool = False
    ) -> Results:
        """The committed rows at `tier`, and the live ones of this study (of its rate sweep), trained where missing."""
        parts = [read_committed(committed).select(tier=tier)]
        if live:
            wanted = self.rate_runs(tier, seeds) if rates else self.runs(tier, seeds)
            parts.append(read_live(train_apart(wanted, home() / "runs")))
        return combine(parts)


def save_rates(path: Path, table: pd.DataFrame) -> None:
    """Keep a `sweep` as CSV, for `read_rates`. Rates that an earlier sweep of as many steps tried stay beside it, the
    same rate and seed is replaced, and so are a size's rows of another length."""
    size, sweep = list(RATE_OF), [*RATE_OF, "steps"]
    table = table[[*size, "seed", "lr", "steps", "val_loss", "loss", "above"]]
    with merging(path):
        if path.exists():
            older = pd.read_csv(path)
            own, same = (older.set_index(k).index.isin(table.set_index(k).index) for k in (size, sweep))
            table = pd.concat([older[~own | same], table]).drop_duplicates([*sweep, "seed", "lr"], keep="last")
        best = table.groupby([*size, "seed"])["val_loss"].transform("min")
        table = table.assign(above=table["val_loss"] / best - 1).sort_values([*size, "seed", "lr"])
        write_csv(path, table)


def read_rates(path: Path) -> dict[tuple, float]:
    """The best rate, by the mean over seeds, of each sweep kept in `path`, by `RATE_OF`: of the rates that most seeds
    have tried; none where there is no file."""
    if not path.exists():
        return {}
    size = list(RATE_OF)
    table = pd.read_csv(path).groupby([*size, "lr"], as_index=False).agg({"val_loss": "mean", "seed": "size"})
    table = table[table["seed"] == table.groupby(size)["seed"].transform("max")]
    best = table.loc[table.groupby(size)["val_loss"].idxmin()]
    return dict(zip(best[size].itertuples(index=False, name=None), best["lr"], strict=True))


def _rate_key(config: RunConfig) -> tuple:
    return tuple(getattr(config, name) for name in RATE_OF)
