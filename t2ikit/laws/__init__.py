"""Scaling laws with honest intervals: fit a table of runs, audit a printed law, plan a budget. numpy and scipy only.

from t2ikit import laws
laws.fit("points.csv", "surface").chart()
laws.plan("H100", 64, 168)
"""

from __future__ import annotations

from t2ikit.laws.audit import audit_folder, read_laws
from t2ikit.laws.budget import budget_for, make_plan, plan
from t2ikit.laws.frontier import fit_frontier, pareto
from t2ikit.laws.holdout import hold_out_largest, leave_one_model_out
from t2ikit.laws.isoflop import fit_isoflop
from t2ikit.laws.nextrun import next_runs
from t2ikit.laws.overtrained import fit_overtrained
from t2ikit.laws.power import fit_power
from t2ikit.laws.read import LAWS, fit, fit_csv, fit_table
from t2ikit.laws.surface import fit_surface

__all__ = [
    "LAWS", "audit_folder", "budget_for", "fit", "fit_csv", "fit_frontier", "fit_isoflop", "fit_overtrained",
    "fit_power", "fit_surface", "fit_table", "hold_out_largest", "leave_one_model_out", "make_plan", "next_runs",
    "pareto", "plan", "read_laws",
]  # fmt: skip
