"""What a paper's text says around its laws, recomputed: tokens for a model, epochs over a data set, speed-ups, compute.
Rows of `published/statements.csv`; each kind is one line of arithmetic."""

from __future__ import annotations

import csv
from pathlib import Path

from t2ikit.errors import UserError, choose
from t2ikit.hardware import gpu_hours
from t2ikit.laws.audit import PrintedLaw, last_digit
from t2ikit.laws.result import finding

IMAGE_TOKENS = 256  # 256 px, VAE / 8, patches of 2
TEXT_TOKENS = (0, 77, 120)  # image tokens alone, CLIP, T5
KINDS = {
    "at_most": lambda left, right, n_law, d_law: left * right,
    "ratio": lambda left, right, n_law, d_law: left / right,
    "equal": lambda left, right, n_law, d_law: left,
    "heads": lambda left, right, n_law, d_law: left / right,
    "epochs": lambda left, right, n_law, d_law: left / right,
    "compute": lambda left, right, n_law, d_law: 6 * left * right,
    "tokens_at": lambda left, right, n_law, d_law: d_law.at((left / n_law.a) ** (1 / n_law.b)),
    "params_at": lambda left, right, n_law, d_law: n_law.at(left),
}


def audit_statements(folder: Path, laws: list[PrintedLaw]) -> list[dict]:
    """Each statement with what it comes to: contradicted where the difference exceeds its printed digits (for token
    counts, said to be approximate, 5%)."""
    path = folder / "statements.csv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return [_statement(row, laws) for row in csv.DictReader(lines)]


def _statement(row: dict, laws: list[PrintedLaw]) -> dict:
    kind, printed, left = choose("kind of statement", row["kind"], KINDS), float(row["printed"]), float(row["left"])
    n_law, d_law = (next((law for law in laws if law.quantity == name), None) for name in ("N_opt", "D_opt"))
    for name in {"tokens_at": ("N_opt", "D_opt"), "params_at": ("N_opt",)}.get(kind, ()):
        if (law := {"N_opt": n_law, "D_opt": d_law}[name]) is None or law.a is None:
            raise UserError(f"Statement {row['id']} ({kind}) needs the law of {name} with its coefficient: "
                            "add it to laws.csv, or drop the statement.")  # fmt: skip
    value = KINDS[kind](left, float(row["right"] or "nan"), n_law, d_law)
    if kind == "at_most":
        holds = value <= printed
    elif kind == "tokens_at":
        holds = abs(value / printed - 1) <= 0.05
    elif kind == "params_at":
        low, high = n_law.rounded(left)
        holds = low <= printed <= high
    else:
        holds = abs(value - printed) <= last_digit(row["printed"]) / 2 * (1 + 1e-9)
    return finding(
        f"statement {row['id']}", "ok" if holds else "fail",
        f"{row['statement']} ({row['where']}): computed {value:.4g}, printed {printed:.4g} {row['unit']}; it "
        f"{'holds' if holds else 'is contradicted'}.", computed=value, printed=printed)  # fmt: skip


def audit_epochs(folder: Path, laws: list[PrintedLaw]) -> list[dict]:
    """Passes over the training pairs that each printed budget implies, with and without text tokens, and GPU hours."""
    path = folder / "iso_flop.csv"
    d_law = next((law for law in laws if law.quantity == "D_opt" and law.a is not None), None)
    if not path.exists() or d_law is None:
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        facts = {row["fact"]: row["value"] for row in csv.DictReader(lines)}
    pairs = float(facts["training pairs"])
    budgets = [float(c) for c in facts["compute budgets"].split(",")]
    budgets += [float(value) for fact, value in facts.items() if fact.startswith("extrapolation budget")]
    found = []
    for c in budgets:
        tokens, hours = d_law.at(c), gpu_hours(c, "H100", mfu=0.4)
        images = {text: tokens / (IMAGE_TOKENS + text) for text in TEXT_TOKENS}
        passes = {text: count / pairs for text, count in images.items()}
        low, high = (end / IMAGE_TOKENS / pairs for end in d_law.rounded(c))
        found.append(finding(
            "epochs", "note" if passes[0] <= 1 else "warning",
            f"C = {c:.2g} FLOPs means {tokens:.3g} tokens: {images[0]:.3g} images, {passes[0]:.3g} passes over "
            f"{pairs:.3g} pairs, counting image tokens alone (rounding: {low:.3g} to {high:.3g}); {passes[120]:.3g} to "
            f"{passes[77]:.3g} passes with 120 or 77 text tokens; {hours:.3g} H100 hours at an MFU of 0.4.",
            C=c, tokens=tokens, epochs=passes, images=images, gpu_hours=hours))  # fmt: skip
    return found
