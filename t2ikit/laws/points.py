"""The points of a fit: positive columns of one length in an order that no shuffling of rows changes, and clusters."""

from __future__ import annotations

import numpy as np

from t2ikit.errors import UserError

LINE = 0.9995  # a correlation of log N with log D from which on their terms cannot be told apart
LARGEST = 1e30  # beyond this, or below its reciprocal, no unit is meant and squares overflow


def prepare(
    columns: dict[str, np.ndarray | None],  # by name, [n] each; None stays None
    law: str = "a law",
    least: int = 1,  # points, and runs where they are given
    *,
    weights: np.ndarray | None = None,  # [n] relative precisions; None = equal
    runs: np.ndarray | None = None,  # [n] labels; the points of one run are one cluster
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray | None]:
    """The columns, the weights, and cluster labels 0 … G-1 (None where each point is a run of its own), all sorted.

    UserError for lengths that differ, values that are not positive numbers, and fewer points or runs than `least`.
    """
    arrays = {name: np.asarray(v, float).ravel() for name, v in columns.items() if v is not None}
    n = len(next(iter(arrays.values())))
    arrays["weights"] = np.ones(n) if weights is None else np.asarray(weights, float).ravel()
    lengths = {name: len(values) for name, values in arrays.items()} | ({} if runs is None else {"runs": len(runs)})
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise UserError(f"The columns differ in length ({sizes}): give one value a point in each.")
    for name, values in arrays.items():
        wrong = values[~((values > 0) & (values >= 1 / LARGEST) & (values <= LARGEST))]
        if len(wrong):
            why = f"beyond {LARGEST:g} or its reciprocal: choose another unit" if wrong[0] > 0 else "not positive: mend"
            raise UserError(f"{name} holds {wrong[0]:g}, which is {why} or drop that point.")
    if n < least:
        raise UserError(f"{n} points are too few for {law}: give at least {least}.")
    labels = np.zeros(n, int) if runs is None else np.unique(np.asarray(runs).astype(str), return_inverse=True)[1]
    *kept, w = arrays.values()
    order = np.lexsort([labels, w, *reversed(kept)])
    groups = len(np.unique(labels))
    clusters = None if runs is None or groups == n else np.unique(labels[order], return_inverse=True)[1]
    if clusters is not None and groups < least:
        raise UserError(f"The {n} points come from {groups} run(s), each one cluster: {law} needs {least} runs.")
    return [arrays[name][order] if name in arrays else None for name in columns], w[order], clusters


def told_apart(n: np.ndarray, d: np.ndarray, terms: str) -> None:
    """UserError where log N and log D lie on one line, so that the two `terms` of a law fit each other's part."""
    if abs(np.corrcoef(np.log(n), np.log(d))[0, 1]) > LINE:
        raise UserError(f"log N and log D lie on one line, so that {terms} cannot be told apart: add "
                        "runs with other ratios of tokens to parameters.")  # fmt: skip
