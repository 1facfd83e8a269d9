"""Audit of printed laws: does y = a·x^b stay in the possible range of its metric over its own predictors, what do its
rounded digits leave open, where do two laws of one paper cross, do they agree with each other and with the text, and
how many epochs do their tokens mean? Every finding follows from the numbers of a CSV; none is written down before."""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path

from t2ikit.errors import UserError
from t2ikit.laws.intervals import spearman
from t2ikit.laws.result import finding

METRIC_RANGE = {"TIFA": (0.0, 1.0), "CLIP": (-1.0, 1.0), "FID": (0.0, math.inf), "loss": (0.0, math.inf),
                "N_opt": (0.0, math.inf), "D_opt": (0.0, math.inf)}  # fmt: skip
NUMBERS = ("low", "high", "plot_low", "plot_high", "points")
NEEDED = ("quantity", "predictor", "predictor_unit", "exponent", "low", "high")  # columns of laws.csv
LOWER_IS_BETTER = ("FID", "loss")
PREFIXES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
SPOKEN = {"": "single units", "K": "thousands", "M": "millions", "G": "billions", "T": "trillions"}


@dataclass(frozen=True)
class PrintedLaw:
    """A row of `published/laws.csv`: coefficient and exponent as printed, `low` to `high` the predictors fitted on."""

    quantity: str
    predictor: str
    unit: str
    coefficient: str
    exponent: str
    low: float
    high: float
    plot_low: float | None = None
    plot_high: float | None = None
    points: float | None = None

    @property
    def name(self) -> str:
        return f"{self.quantity}({self.predictor.split()[0]})"

    @property
    def metric(self) -> str:
        return self.quantity.split()[0]

    @property
    def a(self) -> float | None:
        return float(self.coefficient) if self.coefficient else None

    @property
    def b(self) -> float:
        return float(self.exponent)

    def at(self, x: float) -> float:
        return self.a * x**self.b

    def rounded(self, x: float) -> tuple[float, float]:
        """Smallest and largest value at `x` that the printed digits allow."""
        da, db = last_digit(self.coefficient) / 2, last_digit(self.exponent) / 2
        values = [(self.a + i * da) * x ** (self.b + j * db) for i in (-1, 1) for j in (-1, 1)]
        return min(values), max(values)


def last_digit(printed: str) -> float:
    """The place value of the last printed digit: 0.01 for "0.47", 100 for "2.2566e6"."""
    mantissa, _, power = printed.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(power or 0) - decimals)


def read_laws(path: str | Path) -> list[PrintedLaw]:
    """The laws of a CSV with columns quantity, predictor, predictor_unit, coefficient, exponent, low, high, …"""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: give the laws.csv of a paper's published/ folder.")
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(lines)]
    for number, row in enumerate(rows, 2):
        if lacking := [name for name in NEEDED if row.get(name) is None]:
            needed = ", ".join(NEEDED)
            raise UserError(f"{path}, line {number}: {lacking[0]} is empty or no column; a law needs {needed}.")
        for name in NUMBERS:
            try:
                row[name] = None if row.get(name) is None else float(row[name])
            except ValueError:
                raise UserError(f"{path}, line {number}: {name} is {row[name]!r}: give a number, or nothing.") from None
        for name in ("coefficient", "exponent"):  # as printed, whose digits tell how it was rounded
            try:
                float(row.get(name) or 0)
            except ValueError:
                raise UserError(f"{path}, line {number}: {name} is {row[name]!r}: give a plain number.") from None
    return [
        PrintedLaw(row["quantity"], row["predictor"], row["predictor_unit"], row.get("coefficient") or "",
                   row["exponent"], *(row[name] for name in NUMBERS))
        for row in rows
    ]  # fmt: skip


def audit_folder(folder: str | Path) -> list[dict]:
    """All findings on a paper's `published/` folder: laws.csv, and iso_flop.csv and statements.csv where they are."""
    from t2ikit.laws.statements import audit_epochs, audit_statements

    folder = Path(folder)
    laws = read_laws(folder / "laws.csv")
    return audit_laws(laws) + audit_epochs(folder, laws) + audit_statements(folder, laws)


def audit_laws(laws: list[PrintedLaw]) -> list[dict]:
    """Findings on each law and on each pair of laws of one paper."""
    found = [line for law in laws for line in audit_law(law)]
    for one, other in itertools.combinations(laws, 2):
        if one.metric == other.metric and one.predictor == other.predictor:
            found.append(_crossing(one, other))
        if {one.quantity, other.quantity} == {"N_opt", "D_opt"}:
            found.append(_six_nd(*sorted((one, other), key=lambda law: law.quantity, reverse=True)))
    return found


def audit_law(law: PrintedLaw) -> list[dict]:
    """Range, digits, counting convention and number of points of one law."""
    if law.a is None:
        return [finding("completeness", "warning", f"{law.name}: an exponent without a coefficient predicts nothing "
                        f"and cannot be compared; printed digits leave it ± {last_digit(law.exponent) / 2:g}.",
                        law=law.name)]  # fmt: skip
    low, high = law.rounded(law.high)
    spread = max(high / law.at(law.high), law.at(law.high) / low) - 1
    found = [_range(law), finding(
        "digits", "warning" if spread > 0.05 else "ok",
        f"{law.name}: the printed digits {law.coefficient} and {law.exponent} leave {law.metric} open by "
        f"± {100 * spread:.2g}% at {law.predictor.split()[0]} = {law.high:.3g} {law.unit}.",
        law=law.name, relative=spread)]  # fmt: skip
    if law.predictor.startswith("C"):
        shift = 2**law.b - 1
        found.append(finding(
            "MAC or FLOP", "note",
            f"{law.name}: counting multiply-accumulates as one operation instead of two moves {law.metric} by "
            f"{100 * abs(shift):.2g}% at equal training.", law=law.name, relative=shift))  # fmt: skip
    if law.points is not None and law.points < 5:
        order = range(int(law.points))
        p = spearman(order, order)["p"] if len(order) > 2 else 1.0  # any two points are in order
        found.append(finding(
            "points", "warning",
            f"{law.name}: {law.points:.0f} points; a perfect rank correlation of so few has a two-sided p of {p:.2f}, "
            "and a fit needs five or more.", law=law.name, p=p))  # fmt: skip
    return found


def _range(law: PrintedLaw) -> dict:
    least, most = METRIC_RANGE.get(law.metric, (-math.inf, math.inf))
    low, high = sorted((law.at(law.low), law.at(law.high)))
    over = f"{law.low:.4g} to {law.high:.4g} {law.unit}"
    values = {"law": law.name, "low": low, "high": high}
    if least <= low and high <= most:
        return finding("range", "ok", f"{law.name} gives {low:.3g} to {high:.3g} over {over}: possible.", **values)
    bounds = [end for x in (law.low, law.high) for end in law.rounded(x)]
    hopeless = min(bounds) > most or max(bounds) < least
    readings = possible_readings(law)
    text = "; ".join(
        f"{r['reading']} ({r['low']:.3g} to {r['high']:.3g}{', as plotted' if r['as_plotted'] else ''})"
        for r in readings
    )
    verdict = "cannot hold as printed" if hopeless else "leaves the possible range within its own predictors"
    return finding(
        "range", "fail",
        f"{law.name} = {law.coefficient}·x^{law.exponent} gives {low:.3g} to {high:.3g} over {over}, and {law.metric} "
        f"lies in [{least:g}, {most:g}]: it {verdict}. Readings that can hold: {text or 'none found'}.",
        readings=readings, **values)  # fmt: skip


def possible_readings(law: PrintedLaw) -> list[dict]:
    """One-slip changes of a printed law that keep it in its metric's range: unit of the predictor, a digit of the
    exponent or of the coefficient, a sign. `as_plotted`: the plotted values lie within what rounding leaves open."""
    least, most = METRIC_RANGE[law.metric]
    prefix = law.unit[0] if law.unit[:1] in PREFIXES and law.unit[1:2] in (" ", "F") else ""
    candidates = {}
    for other, size in PREFIXES.items():
        if other != prefix:
            scale, reading = PREFIXES[prefix] / size, f"{law.predictor.split()[0]} in {SPOKEN[other]} of "
            candidates[reading + law.unit[len(prefix) :].strip()] = replace(
                law, low=law.low * scale, high=law.high * scale
            )
    for what in ("exponent", "coefficient"):
        for changed in _slips(getattr(law, what)):
            candidates[f"{what} {changed}"] = replace(law, **{what: changed})
    found = []
    for reading, changed in candidates.items():
        ends = changed.at(changed.low), changed.at(changed.high)
        if not all(least <= value <= most for value in ends):
            continue
        plotted, distance = False, None
        if law.plot_low is not None:
            seen, slack = (law.plot_low, law.plot_high), 0.005  # the plot is read to two digits
            distance = max(abs(value - goal) for value, goal in zip(ends, seen, strict=True))
            allowed = [changed.rounded(x) for x in (changed.low, changed.high)]
            close = all(lo - slack <= goal <= hi + slack for (lo, hi), goal in zip(allowed, seen, strict=True))
            plotted = close and distance < max(seen[1] - seen[0], 2 * slack)
        found.append({"reading": reading, "low": min(ends), "high": max(ends), "rises": ends[1] > ends[0],
                      "as_plotted": plotted, "distance": distance})  # fmt: skip
    return sorted(found, key=lambda r: (not r["as_plotted"], r["distance"] or 0.0, r["reading"]))


def _slips(printed: str) -> list[str]:
    """Misprints of one place: the decimal point moved, a digit dropped to zero, the sign lost."""
    value = float(printed)
    digits = len(printed.partition(".")[2])
    slips = [f"{value / 10:.{digits + 1}f}", f"{value * 10:.{max(digits - 1, 0)}f}", f"{-value:.{digits}f}"]
    for i, character in enumerate(printed):
        if character in "123456789":
            slips.append(printed[:i] + "0" + printed[i + 1 :])
    return [slip for slip in dict.fromkeys(slips) if float(slip) not in (0.0, value)]


def _crossing(one: PrintedLaw, other: PrintedLaw) -> dict:
    pair = [one.quantity, other.quantity]
    names = " and ".join(pair)
    if one.a is None or other.a is None:
        return finding("crossing", "note", f"{names}: a coefficient is missing, so where they cross cannot be placed; "
                       f"the exponents differ by {abs(one.b - other.b):.3g}.", laws=pair)  # fmt: skip
    if one.b == other.b:
        return finding("crossing", "ok", f"{names} run parallel.", laws=pair)
    log_ratio, gap = math.log(one.a / other.a), other.b - one.b
    at, blur = _exp(log_ratio / gap), (last_digit(one.exponent) + last_digit(other.exponent)) / 2
    ends = [0.0, math.inf]
    if abs(gap) > blur:
        ends = sorted(_exp(log_ratio / g) for g in (gap - blur, gap + blur))
    low, high = max(one.low, other.low), min(one.high, other.high)
    inside = low <= at <= high
    lower, higher = (one, other) if one.at(at / 10) < other.at(at / 10) else (other, one)
    better = lower if one.metric in LOWER_IS_BETTER else higher
    return finding(
        "crossing", "fail" if inside else "ok",
        f"{names} cross at {one.predictor.split()[0]} = {at:.2g} {one.unit}, {'inside' if inside else 'outside'} the "
        f"range {low:.2g} to {high:.2g}: below it {better.quantity} is the better one. Rounded exponents put the "
        f"crossing anywhere from {ends[0]:.1e} to {ends[1]:.1e}.",
        laws=pair, at=at, low=ends[0], high=ends[1] if math.isfinite(ends[1]) else None, inside=inside)  # fmt: skip


def _exp(x: float) -> float:
    return math.exp(max(-700.0, min(x, 700.0)))


def _six_nd(n_law: PrintedLaw, d_law: PrintedLaw) -> dict:
    total, slope = n_law.b + d_law.b, (last_digit(n_law.exponent) + last_digit(d_law.exponent)) / 2
    agree, words = abs(total - 1) <= slope, {True: "consistent within", False: "inconsistent beyond"}
    if n_law.a is None or d_law.a is None:
        return finding("C = 6ND", "ok" if agree else "fail", f"N_opt·D_opt ∝ C^{total:.4f}: {words[agree]} the printed "
                       "digits of the exponents; a coefficient is missing.", exponents=total)  # fmt: skip
    product = 6 * n_law.a * d_law.a
    slack = last_digit(n_law.coefficient) / 2 / n_law.a + last_digit(d_law.coefficient) / 2 / d_law.a
    agree = agree and abs(product - 1) <= slack
    return finding(
        "C = 6ND", "ok" if agree else "fail",
        f"6·N_opt·D_opt = {product:.4f}·C^{total:.4f}: {words[agree]} the "
        f"printed digits (the coefficient {n_law.coefficient} alone leaves ± {100 * slack:.2g}%; {d_law.coefficient} "
        f"implies {1 / (6 * d_law.a):.6f}).", product=product, exponents=total)  # fmt: skip
