"""Files in, contract out: what `t2ikit fit` prints, and one sentence for each way a table can be wrong."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ikit.errors import UserError
from t2ikit.laws import curves, fit, fit_csv, tables
from t2ikit.laws.intervals import spearman

DATA = Path(__file__).parent.parent / "data_files"


def write(folder, text, name="points.csv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def sweep_csv(folder, *, columns=("C", "N", "loss"), noise=0.002):
    c = np.repeat([1e17, 3e17, 6e17, 1e18, 3e18, 6e18], 6)
    n = 0.0009 * c**0.5681 * np.tile(np.logspace(-0.6, 0.6, 6), 6)
    d = c / 6 / n
    loss = (0.3 + 12 / n**0.3 + 160 / d**0.33) * np.exp(noise * np.random.default_rng(0).standard_normal(36))
    table = {"C": c, "N": n, "D": d, "loss": loss}
    lines = [",".join(columns)] + [",".join(repr(float(table[k][i])) for k in columns) for i in range(36)]
    return write(folder, "\n".join(lines))


def finite(value):
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def test_power_contract(tmp_path):
    found = fit_csv(sweep_csv(tmp_path), "power")
    assert {"law", "coefficient", "exponent", "offset", "low", "high", "n", "audit"} <= set(found)
    assert found["law"] == "power" and found["n"] == 36 and found["offset"] is None
    assert found["low"] < found["exponent"] < found["high"]
    assert found["x"] == "C (FLOPs)"


def test_surface_contract(tmp_path):
    found = fit_csv(sweep_csv(tmp_path), "surface", resamples=100)
    assert {"law", "n", "huber", "vpnls", "allocation", "hold_out", "audit"} <= set(found)
    for estimate in (found["huber"], found["vpnls"]):
        assert {"A", "B", "E", "alpha", "beta", "objective", "intervals"} <= set(estimate)
        assert len(estimate["intervals"]["alpha"]) == 2
    assert found["allocation"]["a"] + found["allocation"]["b"] == pytest.approx(1)
    assert finite(found) and json.loads(json.dumps(found, allow_nan=False)) == found
    assert any("filled in by C = 6ND" in line["finding"] for line in found["audit"])
    assert any(line["check"] == "hold-out" for line in found["audit"])


def test_isoflop_contract(tmp_path):
    found = fit_csv(sweep_csv(tmp_path), "isoflop", resamples=50)
    assert {"law", "budgets", "N_opt", "D_opt", "surface", "audit"} <= set(found)
    assert len(found["budgets"]) == 6
    assert {"C", "N_opt", "low", "high", "flags"} <= set(found["budgets"][0])
    assert {"coefficient", "exponent", "low", "high"} <= set(found["N_opt"])
    assert finite(found)


@pytest.mark.parametrize("columns", [("C", "N", "loss"), ("C", "D", "loss"), ("N", "D", "loss")])
def test_two_of_three_give_the_third(tmp_path, columns):
    table = tables.read(sweep_csv(tmp_path, columns=columns), ["C", "N", "D", "loss"])
    assert table["C"] == pytest.approx(6 * table["N"] * table["D"])


@pytest.mark.parametrize("law", ["power", "surface", "isoflop"])
def test_order_of_rows_changes_no_digit(tmp_path, law):
    path = sweep_csv(tmp_path)
    header, *rows = path.read_text().splitlines()
    mixed = write(tmp_path, "\n".join([header, *np.random.default_rng(2).permutation(rows)]), "mixed.csv")
    assert fit_csv(path, law) == fit_csv(mixed, law)


GOOD = "C,N,loss\n" + "".join(f"{k}e18,{k}e8,{4 - k / 10}\n" for k in range(1, 9))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (GOOD.replace("3.7", "nan"), "NaN"),
        (GOOD.replace("3.7", ""), "empty or NaN"),
        (GOOD.replace("3.7", "-3.7"), "negative"),
        (GOOD.replace("3.7", "0"), "zero"),
        (GOOD.replace("3.7", "inf"), "infinite"),
        (GOOD.replace("3.7", "low"), "text"),
        (GOOD + "8e18,8e8,3.2\n", "duplicated"),
        ("loss\n1\n2\n3\n", "one column"),
        ("C,N,loss\n", "no rows"),
        ("", "empty"),
        ("C,C,loss\n1,2,3\n", "two columns"),
        (GOOD + "1e18,1e8\n", "line 10"),
        (GOOD.replace("loss", "speed"), "no column 'loss'"),
        (GOOD.replace("C,N", "C,width"), "no column"),
        (GOOD.replace("e18", "e9"), "unit"),
        (GOOD.replace("e8,", "e2,"), "FLOPs = GFLOPs|thousands"),
        ("\n".join(GOOD.splitlines()[:5]), "points"),
    ],
)
def test_one_sentence_for_each_mistake(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        fit(write(tmp_path, text), "surface" if "unit" in sentence or "column" in sentence else "isoflop"
            if "points" not in sentence else "surface")  # fmt: skip
    assert "\n" not in str(caught.value)


def test_unknown_law_file_and_axes(tmp_path):
    path = sweep_csv(tmp_path)
    for call, sentence in (
        (lambda: fit(path, "cubic"), "power, isoflop, surface"),
        (lambda: fit(tmp_path / "none.csv", "power"), "does not exist"),
        (lambda: fit(path, "power", x="width"), "no column 'width'"),
        (lambda: fit(path, "surface", x="C"), "power law"),
        (lambda: fit(path, "power", x="loss"), "two columns"),
    ):
        with pytest.raises(UserError, match=sentence):
            call()


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet="C,N;loss\n\t\"'0123456789e.-xµ", max_size=120))
def test_no_file_raises_anything_else(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("fuzz"), text)
    for law in ("power", "surface", "isoflop"):
        try:
            fit_csv(path, law)
        except UserError as error:
            assert "\n" not in str(error).replace(repr(text), "")


def test_json_lines_and_run_folders(tmp_path):
    rows = [{"run": f"r{k}", "N": k * 1e8, "D": (9 - k) * 1e9, "val_loss": 4 - k / 10} for k in range(1, 9)]
    lines = write(tmp_path, "\n".join(map(json.dumps, rows)), "log.jsonl")
    for k, row in enumerate(rows):
        (tmp_path / "runs" / f"r{k}").mkdir(parents=True)
        (tmp_path / "runs" / f"r{k}" / "row.json").write_text(json.dumps(row))
    one, other = (tables.read(source, ["N", "D", "loss"]) for source in (lines, tmp_path / "runs"))
    assert one["loss"].tolist() == other["loss"].tolist()
    with pytest.raises(UserError, match="line 1"):
        tables.read(write(tmp_path, "{broken", "bad.jsonl"), ["C", "loss"])
    with pytest.raises(UserError, match="no runs"):
        tables.read(tmp_path / "runs" / "r1", ["C", "loss"])


def test_runs_column_clusters_by_itself(tmp_path):
    text = "run,C,loss\n" + "".join(f"r{k},{k + 1}e{17 + j},{4 - k / 10 - j / 3}\n" for k in range(6) for j in range(3))
    found = fit_csv(write(tmp_path, text), "power")
    assert found["interval_method"].startswith("CR2")


def test_published_fid_against_compute():
    """DiT: corr(log GFLOPs, FID) = -0.9298; LDM: FID ∝ GFLOPs^-0.0489 with Spearman -1 (their GFLOPs are MACs)."""
    table = tables.read(DATA / "dit_table4_fid400k.csv", ["gflops_forward", "fid50k_400k_noguid"])
    correlation = np.corrcoef(np.log(table["gflops_forward"]), table["fid50k_400k_noguid"])[0, 1]
    assert round(correlation, 4) == -0.9298
    law = fit(DATA / "ldm_2404.01367_table1.csv", "power", x="gflops", y="fid")
    assert round(law.exponent, 4) == -0.0489
    assert spearman(law.x, law.y)["rho"] == pytest.approx(-1)


def test_curves_drop_warm_up_and_smooth():
    rows = [{"run": r, "step": s, "loss": 5 / s**0.3 + (9 if s <= 10 else 0), "N": n, "D": s * 1e5}
            for r, n in (("a", 1e6), ("b", 4e6)) for s in range(1, 201)]  # fmt: skip
    table = curves.points(rows, warmup=10)
    assert len(table) == 2 and table.runs is None and table["C"] == pytest.approx(6 * table["N"] * table["D"])
    last = curves.points(rows, warmup=10, reading="last")
    assert last["loss"] == pytest.approx(5 / 200**0.3)
    assert (table["loss"] > last["loss"]).all()
    several = curves.points(rows, warmup=10, checkpoints=6)
    assert len(several) == 12 and len(set(several.runs)) == 2 and several["steps"].min() > 10
    wrong = [({"warmup": 500}, "warm-up"), ({"reading": "mean"}, "ema"), ({"checkpoints": 0}, "checkpoints")]
    for change, sentence in wrong:
        with pytest.raises(UserError, match=sentence):
            curves.points(rows, **change)
    decayed = [row | {"rate": 1e-4 * (1 - row["step"] / 400)} for row in rows]
    with pytest.raises(UserError, match="rate"):
        curves.points(decayed, checkpoints=3)
    curves.points(decayed)


def test_smoothing_of_a_constant_is_that_constant():
    assert curves.smooth(np.full(30, 2.5)) == pytest.approx(2.5)
    assert curves.smooth(np.array([1.0, 2.0, 4.0]), 0.0) == pytest.approx([1, 2, 4])


def test_laws_start_without_torch_and_pandas():
    code = "import sys, t2ikit.laws, t2ikit.hardware; print({'torch', 'pandas', 'altair'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("law", ["power", "surface", "isoflop"])
def test_results_show_themselves(tmp_path, law):
    found = fit(sweep_csv(tmp_path), law)
    spec = found.chart().to_dict()
    text = json.dumps(spec)
    assert ("FLOPs" in text) if law != "isoflop" else ("N (parameters)" in text)
    assert "low" in text  # the band, or the vertices' intervals
    assert found._repr_html_().startswith("<h4>")
    json.loads(found.to_json())
