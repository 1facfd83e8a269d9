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


def test_weights_count_where_they_can_and_are_refused_where_not(tmp_path):
    """A last point that is far off and hardly counts: in the law, in what is held out, and in no isoFLOP fit."""
    c = np.geomspace(1e15, 1e18, 9)
    loss, weight = 3 * (c / 1e15) ** -0.1, np.r_[np.ones(7), 1e-9, 1]
    loss[7] *= 2
    lines = ["C,loss,weight", *(f"{a!r},{b!r},{w!r}" for a, b, w in np.stack([c, loss, weight], 1).tolist())]
    found = fit_csv(write(tmp_path, "\n".join(lines)), "power")
    assert found["exponent"] == pytest.approx(-0.1, abs=1e-6) and found["hold_out"]["error"] < 1e-6
    raw = fit_csv(write(tmp_path, "\n".join(lines)), "power", residuals="raw")
    assert raw["hold_out"]["error"] < 1e-6
    rows = sweep_csv(tmp_path).read_text().splitlines()
    bad = [f"{row},{1 if k % 6 else 1e-6}" for k, row in enumerate(rows[1:])]
    with pytest.raises(UserError, match="^The column 'weight' takes values from 1e-06 to 1, .*fit `surface`"):
        fit(write(tmp_path, "\n".join([rows[0] + ",weight", *bad])), "isoflop")
    same = write(tmp_path, "\n".join([rows[0] + ",weight", *(f"{row},1" for row in rows[1:])]))
    assert fit(same, "isoflop", resamples=50).n_opt is not None


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
        (GOOD.replace("3.7", "3_7"), "text"),
        (GOOD.replace("3.7", "1e-300"), "unit"),
        (GOOD.replace("3.7", "1e300"), "unit"),
        ("\n".join(GOOD.splitlines()[:5]), "too few for an isoFLOP"),
        (GOOD.replace("e18", "e9"), "C = 6ND gives a median D"),
        ('{"C": 1e18, "N": 1e8, "loss": true}\n' * 2, "text"),
        ("[1, 2]", "where a row should be"),
        ("[1, 2", "not JSON"),
        ('{"C": 1}\n7', "where a row should be"),
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
        fit(write(tmp_path, text), "surface" if sentence in ("unit", "points") or "column" in sentence else "isoflop")
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


def test_failed_runs_are_left_out_and_a_torn_row_is_named(tmp_path):
    for k in range(1, 9):
        row = {"run": f"r{k}", "N": k * 1e8, "D": (9 - k) * 1e9, "val_loss": 4 - k / 10, "status": "done"}
        (tmp_path / f"r{k}").mkdir()
        (tmp_path / f"r{k}" / "row.json").write_text(json.dumps(row | ({"status": "failed"} if k > 6 else {})))
    table = tables.read(tmp_path, ["N", "D", "loss"])
    assert len(table) == 6 and "2 failed run(s) left out" in table.notes
    with pytest.raises(UserError, match="^All 2 runs of table failed"):
        tables.from_rows([row for row in tables.rows(tmp_path) if row["status"] == "failed"], ["N", "loss"])
    (tmp_path / "r3" / "row.json").write_text('{"run": "r3", "N"')
    with pytest.raises(UserError, match="r3/row.json is not readable JSON: restore it"):
        tables.read(tmp_path, ["N", "D", "loss"])


def test_columns_have_units_or_names_of_their_own(tmp_path):
    text = sweep_csv(tmp_path).read_text()
    one = fit_csv(sweep_csv(tmp_path), "surface", resamples=0)
    units = write(tmp_path, text.replace("C,N,loss", "C (FLOPs),N (parameters),loss"), "units.csv")
    assert fit_csv(units, "surface", resamples=0) == one
    rows = [dict(zip(("flop", "model/size", "train/loss"), map(float, line.split(",")), strict=True))
            for line in text.splitlines()[1:]]  # fmt: skip
    names = {"C": "flop", "N": "model/size", "loss": "train/loss"}
    for content in (json.dumps(rows), "\n".join(map(json.dumps, rows))):  # an array, as of `t2ikit runs --json`; lines
        path = write(tmp_path, content, "log.json")
        assert fit_csv(path, "surface", names=names, resamples=0) == one
        with pytest.raises(UserError, match="--name"):
            fit(path, "surface")
        with pytest.raises(UserError, match="'speed' to take for C"):
            fit(path, "surface", names={"C": "speed"})


def test_rounded_losses_are_no_duplicates(tmp_path):
    """Two runs of one budget may print the same loss; only a row with all its cells alike is a run counted twice."""
    text = sweep_csv(tmp_path).read_text().splitlines()
    rounded = [line.rpartition(",")[0] + f",{float(line.rpartition(',')[2]):.2f}" for line in text[1:]]
    path = write(tmp_path, "\n".join([text[0], *rounded]), "rounded.csv")
    assert fit(path, "power").n == 36
    with pytest.raises(UserError, match="1 duplicated"):
        fit(write(tmp_path, "\n".join([text[0], *rounded, rounded[3]]), "twice.csv"), "power")


def test_counted_in_macs_is_noticed(tmp_path):
    header, *rows = sweep_csv(tmp_path, columns=("C", "N", "D", "loss")).read_text().splitlines()
    halved = [f"{float(row.partition(',')[0]) / 2!r},{row.partition(',')[2]}" for row in rows]
    path = write(tmp_path, "\n".join([header, *halved]), "macs.csv")
    for law in ("surface", "isoflop"):
        lines = [line for line in fit(path, law, resamples=0).audit if line["check"] == "C = 6ND"]
        assert lines[0]["ratio"] == pytest.approx(0.5)
    whole = fit(sweep_csv(tmp_path), "isoflop", resamples=0).budgets[2]
    half = fit(path, "isoflop", resamples=0).budgets[2]
    assert (half.N_opt, half.surface_N_opt) == pytest.approx((whole.N_opt, whole.surface_N_opt), rel=1e-6)
    assert half.bias == pytest.approx(whole.bias, rel=1e-6)


def test_losses_of_two_spaces_do_not_compare(tmp_path):
    rows = [{"run": f"r{k}", "N": k * 1e8, "D": 9e9 - k * 1e9, "loss": 4 - k / 10, "loss_space": "ab"[k > 4]}
            for k in range(1, 9)]  # fmt: skip
    with pytest.raises(UserError, match="2 loss spaces"):
        fit(write(tmp_path, json.dumps(rows), "runs.json"), "surface")


def test_logs_of_our_runs_and_of_others(tmp_path):
    """Checkpoints of a folder of runs: N and D from the row, a line without the loss passed over."""
    for k in range(3):
        folder = tmp_path / f"r{k}"
        folder.mkdir()
        row = {"run": f"r{k}", "N": 1e6 * (k + 1), "D": 4e9, "steps": 400, "loss": 0.1}
        lines = [{"step": 0, "val_loss": 1.0}, {"step": 100, "loss": 0.5}, {"step": 200, "val_loss": 0.4 - k / 100},
                 {"step": 400, "val_loss": 0.3 - k / 100}]  # fmt: skip
        (folder / "row.json").write_text(json.dumps(row))
        torn = '{"step": 500, "val' if k else ""  # what a crash leaves of the last line
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + torn)
    table = curves.points(curves.of_runs(tmp_path), reading="last")
    assert table["loss"].tolist() == pytest.approx([0.3, 0.29, 0.28]) and table["D"].tolist() == [4e9] * 3
    both = curves.points(curves.of_runs(tmp_path), reading="last", checkpoints=2)
    assert sorted(set(both["D"])) == [2e9, 4e9] or len(both) == 3  # the first line is where the log time starts
    others = [{"id": "a", "it": s, "train/loss": 3 / s, "params": 1e6, "tok": s * 1e5} for s in (1, 2, 4)]
    names = {"run": "id", "step": "it", "loss": "train/loss", "N": "params", "D": "tok"}
    assert curves.points(others, reading="last", names=names)["loss"].tolist() == [0.75]
    with pytest.raises(UserError, match="no 'run'"):
        curves.points(others, names={key: value for key, value in names.items() if key != "run"})
    with pytest.raises(UserError, match="text"):
        curves.points([others[0] | {"train/loss": "low"}], names=names)


def command(*arguments):
    done = subprocess.run([sys.executable, "-m", "t2ikit.cli", *map(str, arguments)], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def test_command_line(tmp_path):
    """One JSON document on stdout and nothing else there; a mistake is one sentence on stderr and exit code 2."""
    path = sweep_csv(tmp_path)
    code, out, err = command("fit", path, "--law", "isoflop", "--json")
    assert (code, err) == (0, "") and json.loads(out)["law"] == "isoflop"
    named = write(tmp_path, path.read_text().replace("C,N,", "flop,size,"), "named.csv")
    options = ("--name", "C=flop", "--name", "N=size")
    code, out, err = command("plan", "--gpu", "H100", "--count", 8, "--hours", 10, "--points", named, *options,
                             "--allowance", 1e19, "--json")  # fmt: skip
    plan = json.loads(out)
    assert code == 0 and plan["interval"].startswith("95% prediction") and plan["next_runs"][0]["C"] <= 1e19 * 1.0001
    for arguments in (("fit", tmp_path / "none.csv"), ("fit", write(tmp_path, "", "empty.csv")),
                      ("plan", "--gpu", "H100", "--count", 8), ("fit", path, "--name", "C"),
                      ("plan", "--gpu", "H100", "--count", 8, "--hours", 1, "--allowance", 1e19)):  # fmt: skip
        code, out, err = command(*arguments, "--json")
        assert code == 2 and out == "" and err.startswith("t2ikit: ") and err.count("\n") == 1


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


def test_an_interval_cut_in_two_is_smoothed_as_one():
    whole = curves.smooth(np.array([5.0, 3.0, 2.0, 4.0]))
    cut = curves.smooth(np.array([5.0, 3.0, 3.0, 2.0, 4.0]), spans=np.array([1.0, 0.05, 0.95, 1.0, 1.0]))
    assert cut[[0, 2, 3, 4]] == pytest.approx(whole)
    assert abs(cut[1] - whole[0]) < 0.06 * abs(whole[1] - whole[0]) * 2  # one step of twenty hardly moves it
