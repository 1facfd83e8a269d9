"""The planner: GPUs and hours (or a target loss) to FLOPs, N, D, images, steps, epochs and an expected loss; what being
wrong by 2× in N costs; and by how many orders of magnitude the law is stretched."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field

import numpy as np

from t2ikit import papers
from t2ikit.errors import UserError
from t2ikit.hardware import canonical_name, gpu, gpu_hours
from t2ikit.laws.audit import PrintedLaw, read_laws
from t2ikit.laws.intervals import exp
from t2ikit.laws.result import Result, finding
from t2ikit.laws.surface import SurfaceFit

FLOPS = (1e3, 1e40)  # budgets outside are mistakes


@dataclass(frozen=True)
class FittedLaw:
    """What the planner needs of a fitted surface."""

    fit: SurfaceFit
    source = "surface fitted to the given points (Huber)"
    interval_holds = "95% prediction of one new run: uncertainty of the law and noise of a run, if the law holds there"

    def __post_init__(self) -> None:
        self.fit.huber.require_optimum()

    @property
    def range(self) -> tuple[float, float]:
        c = 6 * self.fit.N * self.fit.D
        return float(c.min()), float(c.max())

    def optimum(self, c: float) -> tuple[float, float]:
        n = float(self.fit.huber.n_opt(c))
        return n, c / (6 * n)

    def loss(self, c: float) -> float:
        return float(self.fit.huber.predict(*self.optimum(c)))

    def interval(self, c: float, *, new_run: bool) -> tuple[float, float]:
        return self.fit.huber.prediction_interval(*self.optimum(c), new_run=new_run)

    def budget(self, loss: float) -> float:
        """FLOPs at which the optimal model reaches `loss`."""
        from scipy.optimize import brentq

        floor, top = self.fit.huber.E, 60 * math.log(10)
        if loss <= floor:
            raise UserError(f"A loss of {loss:g} is not above the law's floor E = {floor:.4g}: no budget reaches it.")
        if not self.loss(math.exp(top)) < loss < self.loss(1.0):
            return math.inf if loss < self.loss(1.0) else 0.0
        return math.exp(brentq(lambda u: self.loss(math.exp(u)) - loss, 0.0, top, xtol=1e-13, rtol=1e-15))

    def wrong(self, c: float) -> dict:
        """Loss at half and at twice the optimal N with D = C/6N, and the share of the budget thrown away."""
        n, best = self.optimum(c)[0], self.loss(c)
        out = {}
        for name, factor in (("half_N", 0.5), ("double_N", 2.0)):
            loss = float(self.fit.huber.predict(n * factor, c / (6 * n * factor)))
            out[name] = {"loss": loss, "loss_increase": loss - best, "compute_wasted": 1 - self.budget(loss) / c}
        return out

    def findings(self, c: float) -> list[dict]:
        return [line for line in self.fit.audit if line["verdict"] == "warning"]


@dataclass(frozen=True)
class PrintedLaws:
    """The same of three printed laws: N_opt(C), D_opt(C), loss(C)."""

    n_law: PrintedLaw
    d_law: PrintedLaw
    loss_law: PrintedLaw
    range: tuple[float, float]
    source = "printed laws of arXiv 2410.08184 (in-context diffusion transformers, rectified flow, 256 px)"
    interval_holds = "rounding of the printed digits alone: neither the noise of a run nor the uncertainty of the fit"

    def optimum(self, c: float) -> tuple[float, float]:
        return self.n_law.at(c), self.d_law.at(c)

    def loss(self, c: float) -> float:
        return self.loss_law.at(c)

    def interval(self, c: float, *, new_run: bool) -> tuple[float, float]:
        return self.loss_law.rounded(c)

    def budget(self, loss: float) -> float:
        return exp(math.log(loss / self.loss_law.a) / self.loss_law.b)

    def wrong(self, c: float) -> None:
        return None

    def findings(self, c: float) -> list[dict]:
        n, d = self.optimum(c)
        return [finding(
            "interval", "warning",
            "The paper prints no residuals: low and high are the rounding of its digits, not a prediction interval, "
            f"and the cost of a wrong N is unknown; N and D as printed give 6ND = {6 * n * d / c:.3f} C.")]  # fmt: skip


def printed_laws() -> PrintedLaws:
    """Paper D's laws as shipped with its reproduction."""
    installed = dict(papers.folders())
    if "dit_laws" not in installed:
        raise UserError("The published laws are not installed: reinstall t2ikit, or give a CSV of your own points.")
    folder = installed["dit_laws"] / "published"
    laws = {law.quantity: law for law in read_laws(folder / "laws.csv")}
    with (folder / "iso_flop.csv").open(encoding="utf-8", newline="") as lines:
        facts = {row["fact"]: row["value"] for row in csv.DictReader(lines)}
    fitted_on = [float(c) for c in facts["compute budgets"].split(",")]
    return PrintedLaws(laws["N_opt"], laws["D_opt"], laws["loss"], (min(fitted_on), max(fitted_on)))


@dataclass(frozen=True)
class Plan(Result):
    """A budget and what it buys. `values` is the JSON of `t2ikit plan`."""

    values: dict
    law: FittedLaw | PrintedLaws = field(repr=False)
    chart_kind = "plan"
    title = "Plan: C in FLOPs, N in parameters, D in tokens"

    def as_dict(self) -> dict:
        return self.values


def make_plan(
    gpu_name: str,
    count: int,
    hours: float,
    *,
    mfu: float = 0.4,  # model FLOPs utilisation, an assumption that is printed
    law: SurfaceFit | None = None,  # None: paper D's printed laws
    **data,  # of `_values`: dataset_images, image_tokens, text_tokens, batch
) -> Plan:
    """What to train on `count` GPUs for `hours`: C = count·hours·3600·peak·MFU = 6ND at the law's optimum."""
    _positive(count=count, hours=hours)
    c = count * hours / gpu_hours(1.0, gpu_name, mfu=mfu)
    if not FLOPS[0] < c < FLOPS[1]:
        raise UserError(f"{count:g} GPUs for {hours:g} hours give {c:.3g} FLOPs: that is no budget to plan.")
    used = printed_laws() if law is None else FittedLaw(law)
    return Plan(_values(used, c, gpu_name, count, mfu, **data), used)


def budget_for(
    loss: float,  # target
    gpu_name: str,
    count: int,
    *,
    mfu: float = 0.4,
    law: SurfaceFit | None = None,
    **data,
) -> Plan:
    """The reverse: the smallest budget whose optimal model reaches `loss`, with the interval of that budget (`C_low`,
    `C_high`; None where the law's band never reaches the loss) and the hours on `count` GPUs."""
    _positive(loss=loss, count=count)
    used = printed_laws() if law is None else FittedLaw(law)
    c = used.budget(loss)
    if not FLOPS[0] < c < FLOPS[1]:
        near = used.loss(used.range[1])
        raise UserError(f"A loss of {loss:g} needs {c:.3g} FLOPs by this law: choose a target nearer to {near:.4g}.")
    values = _values(used, c, gpu_name, count, mfu, **data)
    low, high = (_crossing(lambda x, end=end: used.interval(x, new_run=False)[end], loss, c) for end in (0, 1))
    return Plan(values | {"target_loss": float(loss), "C_low": low, "C_high": high,
                          "hours": values["gpu_hours"] / count}, used)  # fmt: skip


def plan(gpu: str, count: int, hours: float, mfu: float = 0.4, **options) -> dict:
    """`make_plan` as the dict of `t2ikit plan --json`."""
    return make_plan(gpu, count, hours, mfu=mfu, **options).as_dict()


def _values(
    used: FittedLaw | PrintedLaws,
    c: float,
    gpu_name: str,
    count: int,
    mfu: float,
    *,
    dataset_images: float | None = None,  # pairs in the data set, for the epochs
    image_tokens: int = 256,  # a 256 px image: VAE / 8, patches of 2
    text_tokens: int = 77,  # joined to the image tokens (in-context); 0 for cross-attention
    batch: int = 1024,  # images a step
) -> dict:
    _positive(image_tokens=image_tokens, batch=batch)
    if text_tokens < 0:
        raise UserError(f"text_tokens = {text_tokens} is negative: give 0 where text does not join the image tokens.")
    n, d = used.optimum(c)
    low, high = used.interval(c, new_run=True)
    images = d / (image_tokens + text_tokens)
    beyond = max(0.0, math.log10(c / used.range[1]), math.log10(used.range[0] / c))
    epochs = None
    if dataset_images is not None:
        _positive(dataset_images=dataset_images)
        epochs = images / dataset_images
    return {
        "N": round(n), "D": round(d), "loss": used.loss(c), "low": low, "high": high, "interval": used.interval_holds,
        "images": round(images), "steps": max(1, round(images / batch)), "gpu_hours": gpu_hours(c, gpu_name, mfu=mfu),
        "decades_beyond": beyond, "C": c, "gpu": canonical_name(gpu_name), "count": count, "mfu": mfu,
        "peak_flops_per_second": gpu(gpu_name).peak, "peak_source": gpu(gpu_name).source, "batch_images": batch,
        "tokens_per_image": image_tokens + text_tokens, "images_without_text_tokens": round(d / image_tokens),
        "epochs": epochs, "dataset_images": dataset_images, "wrong_by_2x_in_N": used.wrong(c), "law": used.source,
        "law_range_flops": list(used.range), "audit": _notes(used, c, beyond, epochs, mfu),
    }  # fmt: skip


def _notes(used: FittedLaw | PrintedLaws, c: float, beyond: float, epochs: float | None, mfu: float) -> list[dict]:
    low, high = used.range
    notes = [finding("MFU", "note", f"{100 * mfu:g}% of the dense peak is an assumption: measure it on ten steps.")]
    if beyond > 0:
        notes.append(finding(
            "extrapolation", "warning",
            f"C = {c:.2e} FLOPs lies {beyond:.2f} orders of magnitude {'beyond' if c > high else 'below'} the law's "
            f"points ({low:.1e} to {high:.1e}): the interval holds only if the law does.", decades=beyond))  # fmt: skip
    if epochs is not None and epochs > 4:
        notes.append(finding(
            "epochs", "warning",
            f"{epochs:.1f} passes over the data: laws of fresh data overrate repeats beyond four (arXiv "
            "2305.16264)."))  # fmt: skip
    return notes + used.findings(c)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (isinstance(value, int | float | np.number) and math.isfinite(value) and value > 0):
            raise UserError(f"{name} = {value!r} is not a positive number: give one.")


def _crossing(band, goal: float, near: float) -> float | None:
    """Where one end of the law's band reaches the goal, searched six decades to both sides of `near`."""
    grid = near * 10 ** np.linspace(-6, 6, 241)
    values = np.array([band(x) for x in grid])
    under = np.flatnonzero(values <= goal)
    if not len(under) or under[0] == 0:
        return None
    i = under[0]
    share = (values[i - 1] - goal) / (values[i - 1] - values[i])
    return float(grid[i - 1] * (grid[i] / grid[i - 1]) ** share)
