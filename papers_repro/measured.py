"""Verdicts as text and as one table, and what both papers share of what is told."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from papers_repro.verdicts import NOTHING
from t2ikit import laws
from t2ikit.papers import COLUMNS, NUMBERS

ROOT = Path(__file__).resolve().parent.parent
REPEATS = ROOT / "papers_repro" / "repeats.csv"


@functools.cache
def audited(published: Path) -> dict[str, dict]:
    """The findings of the audit of a paper's published numbers, by `check law`."""
    return {
        f"{f['check']} {f.get('law') or ' and '.join(f.get('laws', []))}".strip(): f
        for f in laws.audit_folder(published)
    }


def verdict_table(rows: pd.DataFrame, form: str = ".3f") -> str:
    """Verdicts as a table: what is claimed, what we found with its 95% interval and n, the n that would decide an
    undecided one, what else is to be known."""

    def number(value: float) -> str:
        return f"{value:.3g}" if abs(value) >= 1e5 else f"{value:{form}}"  # FLOPs

    lines = ["", "| | claim | claimed | ours (95%) | n | verdict |", "|---|---|---|---|---|---|"]
    for r in rows.astype(object).where(rows.notna(), None).itertuples():
        ends = f" ({number(r.low)} to {number(r.high)})" if r.low is not None and r.high is not None else ""
        found = "–" if r.ours is None else f"{number(r.ours)}{ends}"
        printed = number(r.paper) if isinstance(r.paper, float) else r.paper or "–"
        enough = f" ({int(r.needs):,} would do)" if r.needs else ""
        said = f"{r.verdict}{f': {r.why}' if r.why else ''}"
        world = getattr(r, "world", None) or "scenes"
        on = "" if world in ("scenes", "–") else f", on {world}"  # a dash: nothing is measured
        lines.append(f"| {r.id} | {r.claim}{on} | {printed} | {found} | {r.n}{enough} | {said} |")
    return "\n".join(lines) + "\n"


def together(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Verdicts as one table by the claims' numbers, its numbers in columns of numbers, for `t2ikit claims`."""
    every = pd.concat(tables).reindex(columns=COLUMNS)
    every = every.sort_values("id", key=lambda ids: ids.str.extract(r"(\d+)")[0].astype(float), kind="stable")
    return every.astype({key: "Int64" if kind is int else kind for key, kind in NUMBERS.items()})


def so_far(rows: pd.DataFrame) -> str:
    """`verdict_table` of what has been measured, and how much has not."""
    lacking = rows["why"] == NOTHING
    missing = f"\nNot measured yet: {lacking.sum()} of {len(rows)} comparisons.\n" if lacking.any() else ""
    return ("\n" if lacking.all() else verdict_table(rows[~lacking])) + missing


def summary(rows: pd.DataFrame) -> str:
    """Verdicts in a few words: each claim's, counted where it has several parts; a dash where nothing is measured."""
    lacking, parts = rows["why"] == NOTHING, []
    for id, of in rows[~lacking].groupby("id", sort=False):
        count = Counter(of["verdict"])
        told = [verdict if len(count) == 1 else f"{verdict} ({n})" for verdict, n in count.items()]
        parts.append(f"{id} {', '.join(told)}")
    some = f" ({len(rows) - lacking.sum()} of {len(rows)} parts measured)" if parts and lacking.any() else ""
    return ("; ".join(parts) or "–") + some


def decided(rows: pd.DataFrame) -> str:
    """`verdict_table` of what is not undecided."""
    return verdict_table(rows[rows["verdict"] != "undecided"])


def count_of(rows: pd.DataFrame) -> str:
    """How many verdicts there are of each kind, in words."""
    n = Counter(rows["verdict"])
    return f"{n['reproduced']} reproduced, {n['contradicted']} contradicted, {n['undecided']} undecided"


def repeats_table() -> str:
    """Rows that `t2ikit repeat --export papers_repro/repeats.csv` trained again: how many of their losses, gaps and
    flips came again, by the two processors."""
    lines = ["", "| trained on | again on | rows | steps at most | numbers | off by more than 1e-3 | furthest off |"]
    lines.append("|---" * 7 + "|")
    for (was, again), of in pd.read_csv(REPEATS).groupby(["device", "device_again"]):
        counts = f"{of['run'].nunique()} | {of['step'].max():,} | {len(of):,} | {(~(of['off'] <= 1e-3)).sum()}"
        lines.append(f"| {was} | {again} | {counts} | {of['off'].max():.1e} |")
    return "\n".join(lines) + "\n"


def first_figure() -> str:
    """What `make reproduce` takes, as benchmarks.reproduce measured it."""
    of = json.loads((ROOT / "docs" / "reproduce.json").read_text())
    return (
        f"{of['minutes']:.0f} minutes from a fresh clone, installation included, and {of['peak_gb_all_processes']:.1f} "
        f"GB of memory for all its processes together ({of['device']} cores)"
    )
