"""Results as tables: finished runs exported to CSV files that git keeps, and read back beside the live ones.

runs.csv       a row a run (t2ikit.runs.row), with its hours
curves.csv     a row an evaluation: run, step, images, FLOPs, validation loss, caption gap, flip accuracy; the training
               loss of the log interval before it, its moving average over the intervals (factor 0.9 a whole one), and
               the validation loss of the averaged weights (`val_loss_averaged`: at a study's points and where a
               training ended)
configs/       the configuration of each run, and its starts: versions, device, threads
scores.csv     what `t2ikit evaluate --export` found of their images: a row a run, step, metric and way of drawing
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from t2ikit.errors import UserError
from t2ikit.evaluation.tables import ROW, read
from t2ikit.files import read_json, read_lines, write_atomic, write_csv, write_json
from t2ikit.laws.curves import smooth
from t2ikit.runs import holder_of, merging, row

CURVE = (
    "step", "images", "flops_exact", "flops_paper", "seconds", "val_loss", "val_loss_se",
    "caption_gap", "caption_gap_se",
    "flip_accuracy", "flip_accuracy_se",
)  # fmt: skip
LARGE = ("D", "C", "C_token", "flops_exact", "flops_paper")  # at tier paper no 64-bit integer holds them
AGREE = 1e-3  # relative: as close as a run's numbers come when it is trained again
OF_RUN = ("run", "backbone", "world", "tier", "seed", "loss_space")
OTHER = (
    "was trained again and has other numbers than in {}, as on another processor: train another seed, or take what is "
    "of it there away first."
)
WAY = ["images.loss_space", "images.prompts", "images.steps"]  # scores of images drawn otherwise do not compare


@dataclass(frozen=True)
class Results:
    """`runs`: a row a run. `curves`: a row an evaluation of a run. Both carry `source`: committed or live."""

    runs: pd.DataFrame
    curves: pd.DataFrame

    def select(self, **values: object) -> Results:
        """The rows whose columns are `values`; a list allows several."""

        def keep(frame: pd.DataFrame) -> pd.DataFrame:
            for column, value in values.items():
                frame = frame[frame[column].isin(value if isinstance(value, (list, tuple)) else [value])]
            return frame

        return Results(keep(self.runs), keep(self.curves))


def read_run(folder: Path) -> Results:
    """A run folder as tables: its row and its evaluations so far."""
    values = row(folder)
    of_run = {k: values[k] for k in OF_RUN}
    entries = read_lines(folder / "log.jsonl", ("step",))
    evaluations = [e for e in entries if "val_loss" in e]
    trained = [e for e in entries if "loss" in e]
    train_loss = {e["step"]: e["loss"] for e in trained}
    spans = np.diff([0, *train_loss])  # steps: an evaluation cuts an interval short
    spans = spans / spans.max(initial=1)
    smoothed = dict(zip(train_loss, smooth(np.array([*train_loss.values()]), spans=spans).tolist(), strict=True))
    curve = []
    for e in evaluations:
        extra = {f"flip_{k}": v for k, v in e["flip_accuracy_by_category"].items()}
        bins = {f"val_loss_bin{i}": v for i, v in enumerate(e["val_loss_by_bin"])}
        losses = {"loss": train_loss.get(e["step"]), "loss_ema": smoothed.get(e["step"])}
        losses["val_loss_averaged"] = e.get("val_loss_averaged")
        gaps = {f"caption_gap_bin{i}": v for i, v in enumerate(e["caption_gap_by_bin"])}
        curve.append(of_run | {k: e[k] for k in CURVE} | losses | extra | bins | gaps)
    return combine([Results(pd.DataFrame([values]), pd.DataFrame(curve))])


def read_live(folders: list[Path]) -> Results:
    """Several run folders as tables, source `live`."""
    return combine([read_run(f) for f in folders], "live")


def read_committed(folder: Path) -> Results:
    """The tables that `export` wrote, source `committed`; empty where there are none yet."""
    if not (folder / "runs.csv").exists():
        return combine([], "committed")
    text = dict.fromkeys((*OF_RUN, "setting"), str) | {"seed": int}  # a hash of digits alone is no number
    tables = []
    for path in (folder / "runs.csv", folder / "curves.csv"):
        try:
            tables.append(pd.read_csv(path, dtype=text))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is not readable as a table ({error}): restore it with git.") from None
        if missing := [c for c in OF_RUN if c not in tables[-1]]:
            raise UserError(f"{path} has no column {missing[0]!r}: restore it with git.")
    return combine([Results(*tables)], "committed")


def combine(parts: list[Results], source: str | None = None) -> Results:
    """All rows of `parts`, stamped with `source` if given."""
    frames = []
    for kind in ("runs", "curves"):
        some = [f for f in (getattr(p, kind) for p in parts) if len(f)]
        frame = (
            pd.concat(some, ignore_index=True)
            if some
            else pd.DataFrame(columns=[*OF_RUN, *(CURVE if kind == "curves" else ()), "source"])
        )
        frame = frame.astype({name: float for name in LARGE if name in frame})
        frames.append(frame.assign(source=source) if source else frame)
    return Results(*frames)


def read_scores(folder: Path) -> pd.DataFrame:
    """The scores of single runs that were exported into `folder` (rows that compare two are left out); empty where
    there are none yet."""
    path = folder / "scores.csv"
    if not path.exists():
        return pd.DataFrame(columns=[*ROW[:-1], "images.guidance", *WAY])
    table = read(path)
    return table[table["versus"].isna()]


def largest_set(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of one way of drawing, in each loss space on the largest set of prompts. (The first 200 different
    captions are simpler than the first 1,000: a simple one is seldom new.)"""
    return _one_way(scores, lambda of: (of["n"].max(), of["run"].nunique()))


def fullest_curves(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores of one way of drawing, in each loss space that in which runs were scored at most steps."""
    return _one_way(
        scores, lambda of: (len(of[["run", "step"]].drop_duplicates()) - of["run"].nunique(), of["n"].max())
    )


def _one_way(scores: pd.DataFrame, rank: Callable[[pd.DataFrame], tuple]) -> pd.DataFrame:
    """The scores whose images were drawn, in each loss space, in the way that ranks highest."""
    best: dict[Any, tuple] = {}
    for way, of in scores.groupby(WAY):
        best[way[0]] = max(best.get(way[0], ((), None)), (rank(of), way), key=lambda pair: pair[0])
    return scores.merge(pd.DataFrame([way for _, way in best.values()], columns=WAY), on=WAY) if best else scores


def scored(
    rows: Results, scores: pd.DataFrame, guidance: float = 7.5,
    chosen: Callable[[pd.DataFrame], pd.DataFrame] = largest_set,
) -> Results:  # fmt: skip
    """`rows` with a column for each metric of images drawn with `guidance` for the `chosen` set of prompts, and
    `METRIC_se`: its 95% interval over prompts as a standard error. Columns of an earlier choice are replaced."""
    table = chosen(scores[np.isclose(scores["images.guidance"].astype(float), guidance)])
    table = table.drop_duplicates(["run", "step", "metric"], keep="last")
    table = table.assign(se=(table["high"] - table["low"]) / (2 * 1.959964))
    wide = table.pivot(index=["run", "step"], columns="metric", values="value")
    wide = wide.join(table.pivot(index=["run", "step"], columns="metric", values="se").add_suffix("_se"))
    wide = wide[wide.columns.difference(CURVE)].reset_index()
    curves = rows.curves.drop(columns=wide.columns.difference(["run", "step"]), errors="ignore")
    return Results(rows.runs, curves.merge(wide, on=["run", "step"], how="left") if len(wide) else rows.curves)


def distinct(parts: list[Results]) -> Results:
    """All rows of `parts`, a run that several of them have once."""
    both = combine(parts)
    return Results(
        both.runs.drop_duplicates(["run", "source"], ignore_index=True),
        both.curves.drop_duplicates(["run", "source", "step"], ignore_index=True),
    )


def write_metrics(path: Path, table: pd.DataFrame) -> None:
    """What a figure shows as JSON: a list of rows, null where a number is missing."""
    write_atomic(path, (table.to_json(orient="records", indent=1, double_precision=8) + "\n").encode())


def last(results: Results) -> pd.DataFrame:
    """A row a run: its last evaluation beside its row, and `flops_per_image`, the exact FLOPs of one image's step."""
    runs = results.runs
    if not len(runs):
        return pd.DataFrame(columns=[*OF_RUN, "N", "flops_per_image"])
    key = ["run", "source"]  # a live run may be a part of a committed one
    ends = results.curves.sort_values("step").groupby(key).tail(1)
    scores = [c for c in ends.columns if c not in runs.columns or c in key]
    together = runs.merge(ends[scores], on=key)
    return together.assign(flops_per_image=together["flops_exact"] / together["images"])


def provenance(results: Results, committed: Path, runs_folder: Path) -> pd.DataFrame:
    """Where each run's numbers come from: id, seed, rate, device, threads, versions, commit, hours; a row a run."""
    rows = []
    for _, r in results.runs.iterrows():
        folder = runs_folder / r["run"]
        config = read_json(
            committed / "configs" / f"{r['run']}.json" if r["source"] == "committed" else folder / "config.json"
        )
        segments = config.get("segments") or read_lines(folder / "segments.jsonl")
        first, versions = segments[0], segments[0]["versions"]
        rows.append(
            {
                "run": r["run"],
                "source": r["source"],
                "seed": r["seed"],
                "images": r["images"],
                "lr": config["config"]["lr"],
                "batch": config["config"]["batch"],
                "precision": config["config"]["precision"],
                "device": first["device"],
                "threads": first["threads"],
                "starts": len(segments),
                "exact resume": r["exact_resume"],
                "hours": round(r["seconds"] / 3600, 3),
                "torch": versions["torch"],
                "diffusers": versions["diffusers"],
                "t2ikit": versions["t2ikit"],
                "commit": (first["commit"] or "")[:12],
                "loss space": r["loss_space"],
            }
        )
    return pd.DataFrame(rows)


def one_loss_space(curves: pd.DataFrame) -> None:
    """Refuse to draw two loss spaces in one figure: their losses are numbers of different things."""
    spaces = curves.groupby("loss_space")["run"].agg("first") if len(curves) else []
    if len(spaces) > 1:
        raise UserError(
            f"Losses of {' and '.join(spaces)} are in different spaces (codec, objective, captions or validation "
            "images differ): "
            f"draw them apart, or compare decoded images."
        )


def finished(root: Path) -> list[Path]:
    """The folders under `root` of runs that are done and that nobody writes to, each under its run's own name (one that
    was moved away has another); `runs.table` names damaged ones."""

    def done(folder: Path) -> bool:
        with contextlib.suppress(UserError):
            return row(folder)["run"] == folder.name and settled(folder)
        return False

    return sorted(p.parent for p in root.glob("*/row.json") if done(p.parent))


def settled(folder: Path) -> bool:
    """Whether the run in `folder` is done, and nobody goes on with it."""
    return row(folder)["status"] == "done" and not holder_of(folder)


def export(folders: Sequence[Path], results: Path) -> int:
    """Merge runs into `results`; returns how many are there now, without those that are being trained further and those
    that are `differing`. A run's newer rows replace its older, unless those go further; see also `_elsewhere`."""
    if not (folders := [f for f in folders if settled(f)]):
        return 0
    with merging(results):
        other = differing(folders, results)
        if not (folders := [f for f in folders if f.name not in other]):
            return 0
        kept = read_committed(results)
        steps = dict(kept.runs.reindex(columns=["run", "steps"]).itertuples(index=False, name=None))
        newer = [f for f in folders if row(f)["steps"] >= steps.get(f.name, 0)]
        fresh = [read_run(f) for f in newer]
        configs = [read_json(f / "config.json") | {"segments": read_lines(f / "segments.jsonl")} for f in newer]
        for folder, config in zip(newer, configs, strict=True):
            write_json(results / "configs" / f"{folder.name}.json", config)
        replaced = {f.name for f in newer}
        for kind in ("runs", "curves"):
            of_both = getattr(kept, kind)
            old = of_both[~of_both["run"].isin(replaced)]
            new = getattr(combine(fresh), kind)
            if kind == "curves" and fresh:
                new = _with_averages(of_both, new)
                old = pd.concat([old, _elsewhere(of_both, new)])
            frame = pd.concat([f for f in (old.drop(columns="source"), new) if len(f)], ignore_index=True)
            by = ["backbone", "world", "tier", "seed", "run"] + (["step"] if kind == "curves" else [])
            write_csv(results / f"{kind}.csv", frame.sort_values(by, kind="stable"))
    return len(folders)


def differing(folders: Sequence[Path], results: Path) -> list[str]:
    """Runs that `results` has of another training, which gave other numbers, as another processor does: what was
    measured of that one's images is not of these weights, and the two never mix."""
    known = read_committed(results)
    again = [f for f in folders if f.name in set(known.runs["run"])]
    off = _off(known.curves, read_live(again).curves) if again else {}
    return [run for run, difference in off.items() if difference > AGREE]


def refuse_differing(folders: Sequence[Path], results: Path) -> None:
    """Before images of runs are scored or drawn for `results`."""
    for run in differing([f for f in folders if (f / "row.json").exists()], results)[:1]:
        raise UserError(f"{run} {OTHER.format(results)}")


def _elsewhere(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Of older evaluations those at steps that the run's new ones skip, as of a run that first ended there and was
    trained again on another machine, as long as both agree within `AGREE` wherever both were made. The seconds stay
    those of the older training."""
    seen = pd.MultiIndex.from_frame(old[["run", "step"]]).isin(pd.MultiIndex.from_frame(new[["run", "step"]]))
    return old[old["run"].isin(_alike(old, new)) & ~seen]


def _with_averages(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """`new` with the averaged weights' losses of older evaluations at the same steps, where it lacks them: only a
    study's points and the ends of trainings have them. Of runs that agree."""
    if "val_loss_averaged" not in old:
        return new
    key = ["run", "loss_space", "step"]
    known = old[old["run"].isin(_alike(old, new))].set_index(key)["val_loss_averaged"]
    found = known.reindex(pd.MultiIndex.from_frame(new[key])).to_numpy()
    return new.assign(val_loss_averaged=new["val_loss_averaged"].astype(float).fillna(pd.Series(found, new.index)))


def _alike(old: pd.DataFrame, new: pd.DataFrame) -> set[str]:
    """The runs whose older and newer evaluations agree within `AGREE` wherever both were made."""
    return {run for run, off in _off(old, new).items() if off <= AGREE}


def _off(old: pd.DataFrame, new: pd.DataFrame) -> dict[str, float]:
    """How far the validation losses of two trainings lie apart at most, relatively, of the runs that both evaluate."""
    both = old.merge(new, on=["run", "loss_space", "step"], suffixes=("", " now"))
    return (both["val_loss now"] / both["val_loss"] - 1).abs().groupby(both["run"]).max().to_dict()
