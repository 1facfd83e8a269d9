"""The over-training form of Gadre et al. 2024 (arXiv 2403.08540): L = α·N^b + β·6^(b/2)·(M·N)^b + E, M = D/N tokens a
parameter: the surface with equal exponents, fitted to a handful of small runs to predict large, over-trained ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2ikit.errors import UserError
from t2ikit.laws.points import prepare, told_apart
from t2ikit.laws.result import Result, shown


@dataclass(frozen=True)
class OvertrainedFit(Result):
    """Coefficients in the authors' notation; `sse` is the sum of squared raw residuals."""

    alpha: float
    beta: float
    b: float
    E: float
    sse: float
    n: int
    title = "L = α·N^b + β·6^(b/2)·(M·N)^b + E (N parameters, M tokens a parameter)"

    def predict(self, n: np.ndarray | float, d: np.ndarray | float) -> np.ndarray:
        """Loss at `n` parameters and `d` tokens (M·N = d)."""
        n, d = np.asarray(n, float), np.asarray(d, float)
        return self.alpha * n**self.b + self.beta * 6 ** (self.b / 2) * d**self.b + self.E

    def as_dict(self) -> dict:
        return {"law": "overtrained", "form": self.title} | shown(self)


def fit_overtrained(N: np.ndarray, D: np.ndarray, loss: np.ndarray) -> OvertrainedFit:
    """Least squares on raw losses by variable projection: α, β, E are linear once b is fixed; b by Brent's method after
    a grid. N parameters, D tokens, [n] each; UserError for fewer than five points (four parameters),
    and where N and D do not vary independently: α·N^b and β·(M·N)^b would share their part at will."""
    from scipy.optimize import minimize_scalar

    (N, D, loss), _, _ = prepare({"N": N, "D": D, "loss": loss}, "the over-training form", 5)
    for name, values in (("N", N), ("D", D)):
        if np.ptp(np.log(values)) < 1e-6:
            raise UserError(f"{name} takes one value: its term cannot be told from E; add runs of another {name}.")
    told_apart(N, D, "the terms of N and D")

    def project(b: float) -> tuple[float, np.ndarray]:
        design = np.stack([(N / N[0]) ** b, (D / D[0]) ** b, np.ones_like(N)], 1)
        solution = np.linalg.lstsq(design, loss, rcond=None)[0]
        return float(np.sum((design @ solution - loss) ** 2)), solution

    grid = np.concatenate([np.linspace(-1.5, -0.02, 297), np.linspace(0.02, 0.5, 49)])
    near = int(np.argmin([project(b)[0] for b in grid]))
    bounds = grid[max(near - 1, 0)], grid[min(near + 1, len(grid) - 1)]
    b = float(minimize_scalar(lambda b: project(b)[0], bounds=bounds, method="bounded", options={"xatol": 1e-10}).x)
    sse, (alpha, beta, floor) = project(b)
    return OvertrainedFit(
        float(alpha / N[0] ** b), float(beta / D[0] ** b / 6 ** (b / 2)), b, float(floor), sse, len(N)
    )
