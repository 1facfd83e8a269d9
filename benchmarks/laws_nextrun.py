"""Does the next best run save runs? Points of a finished sweep are dropped and chosen back one at a time; counted is
how many give the interval of N_opt that the full grid gives. Writes docs/laws_nextrun.json. Minutes on one core.

    OMP_NUM_THREADS=1 python benchmarks/laws_nextrun.py
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from t2ikit.errors import UserError
from t2ikit.laws.nextrun import after_one_more
from t2ikit.laws.surface import fit_surface

ROOT = Path(__file__).resolve().parent.parent
START, CLOSE = 9, 1.05  # runs to start from; an interval counts as the full grid's within 5%


def width(n, d, loss, target: float) -> float:
    """Ratio of the ends of N_opt's 95% interval at `target` FLOPs, in decades; inf where the points do not fix it."""
    try:
        low, high = fit_surface(n, d, loss, resamples=0).huber.n_opt_interval(target)
        return float(np.log10(high / low)) if low > 0 and np.isfinite(high) else np.inf
    except UserError:
        return np.inf


def start(n: np.ndarray, d: np.ndarray, rng: np.random.Generator) -> list[int]:
    """A first small design: the cheapest runs that vary N and D apart, three sizes at three lengths."""
    cheap = np.argsort(n * d)[: max(START * 2, len(n) // 2)]
    return sorted(rng.choice(cheap, START, replace=False).tolist())


def sweep(n, d, loss, target: float, rng: np.random.Generator) -> dict:
    """Widths along the chosen order and, at two thirds of the runs, of a random subset with the same start."""
    first, goal = start(n, d, rng), width(n, d, loss, target)
    chosen, widths = list(first), []
    two_thirds = int(np.floor(2 * len(n) / 3))
    while True:
        widths.append(width(n[chosen], d[chosen], loss[chosen], target))
        if len(chosen) == two_thirds:
            spent = float(np.sum(n[chosen] * d[chosen]) / np.sum(n * d))
        rest = [i for i in range(len(n)) if i not in chosen]
        if not rest:
            break
        pick = int(rng.integers(len(rest)))
        if np.isfinite(widths[-1]):  # before that the runs do not fix a surface: then any run will do
            fit = fit_surface(n[chosen], d[chosen], loss[chosen], resamples=0)
            pick = int(np.argmin(after_one_more(fit, n[rest], d[rest], target)[0]))
        chosen.append(rest[pick])
    others = [i for i in range(len(n)) if i not in first]
    random = first + rng.permutation(others)[: two_thirds - START].tolist()
    reached = next(k for k, value in enumerate(widths) if value <= CLOSE * goal) + START
    return {"runs_to_reach": reached / len(n), "chosen": widths[two_thirds - START] / goal, "flops_chosen": spent,
            "random": width(n[random], d[random], loss[random], target) / goal}  # fmt: skip


def language_models() -> dict[str, tuple]:
    with (ROOT / "tests" / "data_files" / "mlfoundations_scaling_c4val.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    found = {}
    for name in sorted({row["dataset"] for row in rows}):
        some = [row for row in rows if row["dataset"] == name]
        found[name] = tuple(np.array([float(r[k]) for r in some]) for k in ("params", "tokens", "loss_c4_val"))
    return found


def simulated(seed: int) -> tuple:
    """A grid of six budgets and six sizes on a surface near Besiroglu et al.'s, 0.5% noise."""
    c = np.repeat(np.logspace(18, 21, 6), 6)
    n = 0.07 * np.sqrt(c) * np.tile(np.logspace(-0.6, 0.6, 6), 6)
    d = c / 6 / n
    noise = np.exp(0.005 * np.random.default_rng(seed).standard_normal(36))
    return n, d, (1.8 + 480 / n**0.348 + 2085 / d**0.366) * noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    tables = language_models() | {f"simulated {seed}": simulated(seed) for seed in range(3)}
    results = []
    for name, (n, d, loss) in tables.items():
        target = 10 * float((6 * n * d).max())
        repeats = [sweep(n, d, loss, target, np.random.default_rng(seed)) for seed in range(options.repeats)]
        middle = {key: float(np.median([one[key] for one in repeats])) for key in repeats[0]}
        results.append({
            "sweep": name, "runs_of_the_grid": len(n), "target_flops": target,
            "share_of_runs_to_reach_the_grids_interval": middle["runs_to_reach"],
            "width_at_two_thirds_chosen": middle["chosen"], "width_at_two_thirds_random": middle["random"],
            "share_of_flops_at_two_thirds_chosen": middle["flops_chosen"],
        })  # fmt: skip
        print(json.dumps(results[-1]), flush=True)
    met = sum(row["share_of_runs_to_reach_the_grids_interval"] <= 2 / 3 for row in results)
    summary = {"goal": f"width (decades) of N_opt's 95% interval at 10 x the largest budget, {CLOSE} x the grid's",
               "repeats": options.repeats, "statistic": "median over repeats (random first runs)",
               "sweeps_within_two_thirds": met, "sweeps": results}  # fmt: skip
    if not options.dry:
        (ROOT / "docs").mkdir(exist_ok=True)
        (ROOT / "docs" / "laws_nextrun.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
