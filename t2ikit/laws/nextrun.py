"""The next best run: which (N, D) within a compute allowance narrows the interval of N_opt at a target budget most: a
c-optimal design (Elfving 1952) on the linearised surface: the variance after a run needs its place, not its outcome."""

from __future__ import annotations

import numpy as np

from t2ikit.errors import UserError
from t2ikit.laws import batch
from t2ikit.laws.intervals import LEVEL, t_quantile
from t2ikit.laws.profile import curvature
from t2ikit.laws.surface import SurfaceFit


def next_runs(
    fit: SurfaceFit,
    *,
    allowance: float,  # FLOPs that one run may cost
    target: float,  # FLOPs at which N_opt is wanted
    top: int = 5,
) -> list[dict]:
    """The `top` runs, best first: N, D, C, and the interval of log N_opt at `target` before and after as factors (1.3:
    from ÷1.3 to ×1.3), for noise as the fit measured it; C = 6ND ≤ allowance.

    Candidates stay within the N, D and D/N seen so far: where the law was not tested, its derivatives are no
    guide, and extremes would be chosen for being extreme. docs/laws_nextrun.md measures what the choice saves, and
    what a law that does not fit takes away from it.
    """
    fit.huber.require_optimum()
    n, d = _grid(fit, allowance)
    cost = 6 * n * d
    variances, dof, before = after_one_more(fit, n, d, target)
    quantile = t_quantile(LEVEL, dof)
    order = np.lexsort([cost, variances])[:top]
    return [
        {"N": float(n[i]), "D": float(d[i]), "C": float(cost[i]),
         "half_width_before": float(np.exp(quantile * np.sqrt(before))),
         "half_width_after": float(np.exp(quantile * np.sqrt(variances[i]))),
         "share_of_variance_left": float(variances[i] / before)}
        for i in order
    ]  # fmt: skip


def after_one_more(fit: SurfaceFit, n: np.ndarray, d: np.ndarray, target: float) -> tuple[np.ndarray, float, float]:
    """Variance of log N_opt(target) after a run at each (n, d), degrees of freedom, and the variance before; the noise
    is taken to be even, so that a new run weighs like an old one."""
    estimate, (x0, y0) = fit.huber, fit.huber.centre
    even = curvature(estimate.curvature.problem, estimate.curvature.theta, estimate.objective, robust=False)
    contrast, problem = estimate.n_opt_slope(target), even.problem
    noise = float(even.pseudo @ even.pseudo) / problem.dof
    fitted, slopes = batch.jacobian(even.theta, problem.x, problem.y)
    scale = np.linalg.norm(even.design) / np.linalg.norm(slopes / fitted[:, None])
    fitted, slopes = batch.jacobian(even.theta, np.log(n) - x0, np.log(d) - y0)
    rows = slopes / fitted[:, None] * scale
    reach = rows @ even.inverse
    gain = (reach @ contrast) ** 2 / (1 + np.einsum("ni,ni->n", reach, rows))
    before = float(contrast @ even.inverse @ contrast)
    return noise * (before - gain), float(problem.dof), noise * before


def _grid(fit: SurfaceFit, allowance: float) -> tuple[np.ndarray, np.ndarray]:
    ratio = fit.D / fit.N
    sizes = np.geomspace(fit.N.min(), fit.N.max(), 25)
    ratios = np.geomspace(ratio.min(), ratio.max(), 25)
    n, m = (grid.ravel() for grid in np.meshgrid(sizes, ratios, indexing="ij"))
    d = np.minimum(n * m, allowance / (6 * n))
    keep = (d >= ratios[0] * n * (1 - 1e-9)) & (d >= fit.D.min() * (1 - 1e-9))
    if not keep.any():
        raise UserError(f"No run near the given points costs at most {allowance:.3g} FLOPs: raise the allowance.")
    return n[keep], d[keep]
