"""What the Fréchet distance costs at Inception's width, against its peers in one run: `python -m benchmarks.frechet`.

eigvals   the square roots of the eigenvalues of the product of the covariances, as torch-fidelity has it (NumPy, SciPy)
sqrtm     SciPy's matrix square root, as pytorch-fid has it
ours      t2ikit.metrics.fidelity.frechet_distance

They take turns, `--rounds` times. Printed are the medians of wall and processor seconds, our share of the faster of the
two eigvals, and how far apart the distances are. `singular`: fewer images than dimensions. docs/frechet.json keeps it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np
import scipy.linalg
import torch

from t2ikit.metrics.fidelity import frechet_distance


def moments(d: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of n features whose spectrum falls over two decades, as an image network's does."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.geomspace(1, 0.01, d) + rng.standard_normal(d) * 0.1
    return x.mean(0), np.cov(x, rowvar=False)


def with_trace(trace):
    def distance(mu1, cov1, mu2, cov2):
        return float((mu1 - mu2) @ (mu1 - mu2) + np.trace(cov1) + np.trace(cov2) - 2 * trace(cov1 @ cov2))

    return distance


CONTENDERS = {
    "ours": frechet_distance,
    "eigvals_numpy": with_trace(lambda p: np.sqrt(np.linalg.eigvals(p).astype(complex)).real.sum()),
    "eigvals_scipy": with_trace(lambda p: np.sqrt(scipy.linalg.eigvals(p).astype(complex)).real.sum()),
    "sqrtm": with_trace(lambda p: np.trace(scipy.linalg.sqrtm(p)).real),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-sqrtm", action="store_true")
    args = parser.parse_args()
    contenders = {k: f for k, f in CONTENDERS.items() if not (args.without_sqrtm and k == "sqrtm")}
    result = {"width": args.width, "threads": torch.get_num_threads()}
    for kind, n in {"regular": 3 * args.width, "singular": args.width // 2}.items():
        inputs = (*moments(args.width, n, 0), *moments(args.width, n, 1))
        wall, processor, values = ({k: [] for k in contenders} for _ in range(3))
        for _ in range(args.rounds):
            for name, distance in contenders.items():
                start = time.perf_counter(), time.process_time()
                values[name].append(distance(*inputs))
                wall[name].append(time.perf_counter() - start[0])
                processor[name].append(time.process_time() - start[1])
        fastest = [min(p) for p in zip(wall["eigvals_numpy"], wall["eigvals_scipy"], strict=True)]
        result[kind] = {
            "seconds": {k: round(statistics.median(v), 3) for k, v in wall.items()},
            "processor_seconds": {k: round(statistics.median(v), 3) for k, v in processor.items()},
            "ours_over_eigvals": round(statistics.median(a / b for a, b in zip(wall["ours"], fastest, strict=True)), 3),
            "distance": values["ours"][0],
            "largest_difference": max(abs(v[0] - values["ours"][0]) for v in values.values()),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
