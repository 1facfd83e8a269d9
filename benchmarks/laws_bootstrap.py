"""Speed of the batched bootstrap against scipy's L-BFGS-B, one resample at a time, in the same run: writes
docs/laws_bootstrap.json. About two minutes on two cores.

    python benchmarks/laws_bootstrap.py [--peer 25] [--skip-large]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from t2ikit.laws import batch
from t2ikit.laws.intervals import bootstrap_counts

DELTA, RESAMPLES = 1e-3, 4000
OUT = Path(__file__).resolve().parent.parent / "docs" / "laws_bootstrap.json"


def points(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centred log N, log D, log loss of `n` runs of a surface near Besiroglu et al.'s, 0.5% noise; and the truth."""
    rng = np.random.default_rng(seed)
    c = 10 ** rng.uniform(18, 21, n)
    size = 0.07 * np.sqrt(c) * 10 ** rng.uniform(-0.6, 0.6, n)
    x, y = np.log(size), np.log(c / 6 / size)
    truth = np.array([np.log(480) - 0.348 * x.mean(), np.log(2085) - 0.366 * y.mean(), np.log(1.8), 0.348, 0.366])
    x, y = x - x.mean(), y - y.mean()
    return x, y, np.log(batch.predict(truth, x, y)) + 0.005 * rng.standard_normal(n), truth


def objective(theta: np.ndarray, x, y, target, weights) -> float:
    """Σ w·Huber in log-sum-exp form, for the peer."""
    terms = np.stack([theta[0] - theta[3] * x, theta[1] - theta[4] * y, np.full_like(x, theta[2])])
    top = terms.max(0)
    residual = top + np.log(np.exp(terms - top).sum(0)) - target
    psi = np.clip(residual, -DELTA, DELTA)
    return float(np.sum(weights * psi * (residual - 0.5 * psi)))


def with_gradient(theta: np.ndarray, x, y, target, weights) -> tuple[float, np.ndarray]:
    """The same with its analytic gradient: the peer at its best."""
    terms = np.stack([theta[0] - theta[3] * x, theta[1] - theta[4] * y, np.full_like(x, theta[2])])
    top = terms.max(0)
    shares = np.exp(terms - top)
    total = shares.sum(0)
    residual = top + np.log(total) - target
    psi = np.clip(residual, -DELTA, DELTA)
    pull = weights * psi * shares / total
    gradient = np.array([*pull.sum(1), -pull[0] @ x, -pull[1] @ y])
    return float(np.sum(weights * psi * (residual - 0.5 * psi))), gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=int, default=25, help="resamples given to scipy")
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    x, y, target, truth = points(240)
    theta = batch.solve(x, y, target, np.ones(240), truth, tolerance=1e-20).theta[0]
    wall, cpu = time.perf_counter(), time.process_time()
    counts = bootstrap_counts(240, RESAMPLES, 0)
    ours = batch.solve(x, y, target, counts, theta)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    result = {
        "points": 240, "resamples": RESAMPLES, "seconds": wall, "cpu_seconds": cpu,
        "converged": float(ours.converged.mean()), "mean_iterations": float(ours.iterations.mean()),
        "peer": "scipy.optimize.minimize, L-BFGS-B, default tolerances, from the point fit",
    }  # fmt: skip
    for name, function, jac in (("numeric", objective, None), ("analytic", with_gradient, True)):
        start, behind = time.process_time(), []
        for r in range(options.peer):
            fit = minimize(function, theta, args=(x, y, target, counts[r].astype(float)), method="L-BFGS-B", jac=jac)
            behind.append(fit.fun - ours.objective[r])
        each = (time.process_time() - start) / options.peer
        result[f"peer_{name}_gradient"] = {
            "resamples": options.peer, "cpu_seconds_per_resample": each, "times_faster_cpu": each * RESAMPLES / cpu,
            "share_stopped_above_our_objective_by_1e-8": float(np.mean(np.array(behind) > 1e-8)),
            "share_below_our_objective_by_1e-12": float(np.mean(np.array(behind) < -1e-12)),
        }  # fmt: skip
    if not options.skip_large:
        x, y, target, truth = points(10_000)
        theta = batch.solve(x, y, target, np.ones(10_000), truth, tolerance=1e-20).theta[0]
        wall, cpu = time.perf_counter(), time.process_time()
        large = batch.solve(x, y, target, bootstrap_counts(10_000, RESAMPLES, 0), theta)
        result |= {
            "large_points": 10_000, "large_seconds": time.perf_counter() - wall,
            "large_cpu_seconds": time.process_time() - cpu, "large_converged": float(large.converged.mean()),
            "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        }  # fmt: skip
    result |= {"cores": os.cpu_count(), "load_average_at_end": os.getloadavg()[0]}
    print(json.dumps(result, indent=1))
    if not options.dry:
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
