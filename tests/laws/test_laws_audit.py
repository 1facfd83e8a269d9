"""The audit finds by itself what the two papers' printed laws cannot mean, and the planner says what it assumes."""

import importlib.resources
import math

import pytest

from t2ikit import hardware
from t2ikit.errors import UserError
from t2ikit.laws import audit_folder, budget_for, fit_surface, make_plan, plan
from t2ikit.laws.audit import PrintedLaw, audit_law, audit_laws, last_digit, possible_readings

PAPERS = importlib.resources.files("papers_repro")
N_LAW = PrintedLaw("TIFA", "N parameters", "M parameters", "0.77", "0.11", 420, 4070, 0.82, 0.84, 11)


def findings(paper, check):
    return [line for line in audit_folder(str(PAPERS / paper / "published")) if line["check"] == check]


def test_paper_s_n_law_cannot_hold_as_printed():
    failed = [line for line in findings("scalability", "range") if line["verdict"] == "fail"]
    assert [line["law"] for line in failed] == ["TIFA(N)"]
    assert "cannot hold as printed" in failed[0]["finding"]
    assert failed[0]["low"] == pytest.approx(0.77 * 420**0.11) and failed[0]["high"] > 1.9
    readings = {r["reading"]: r for r in failed[0]["readings"]}
    billions = readings["N in billions of parameters"]
    assert (round(billions["low"], 2), round(billions["high"], 2)) == (0.70, 0.90) and not billions["as_plotted"]
    slip = readings["exponent 0.011"]
    assert (round(slip["low"], 2), round(slip["high"], 2)) == (0.82, 0.84) and slip["as_plotted"]


def test_readings_follow_from_the_numbers():
    """Another law, with the same slip, gets the same treatment; a possible law gets none."""
    other = PrintedLaw("CLIP", "N parameters", "M parameters", "0.20", "0.3", 100, 1000)
    assert audit_law(other)[0]["verdict"] == "fail"
    assert any("billions" in r["reading"] for r in possible_readings(other))
    fine = PrintedLaw("TIFA", "N parameters", "M parameters", "0.77", "0.011", 420, 4070)
    assert audit_law(fine)[0]["verdict"] == "ok"


def test_dense_and_sparse_laws_cross_inside_their_range():
    crossing = next(line for line in findings("dit_laws", "crossing") if line["laws"] == ["FID", "FID sparse captions"])
    assert crossing["at"] == pytest.approx(1.8e18, rel=0.02) and crossing["inside"]
    assert "below it FID sparse captions is the better one" in crossing["finding"]
    assert crossing["low"] < 3e17 and crossing["high"] > 1e19  # three printed digits place it to two decades


def test_crossings_outside_the_range_do_not_fail():
    one = PrintedLaw("FID", "C", "FLOPs", "100", "-0.20", 1e17, 1e19)
    other = PrintedLaw("FID b", "C", "FLOPs", "90", "-0.10", 1e17, 1e19)
    line = audit_laws([one, other])[-1]
    assert line["check"] == "crossing" and not line["inside"] and line["verdict"] == "ok"
    assert line["at"] == pytest.approx((100 / 90) ** 10)


def test_tokens_said_against_tokens_of_the_law():
    said = {line["check"]: line for line in audit_folder(str(PAPERS / "dit_laws" / "published"))}
    assert said["statement D15a"]["computed"] == pytest.approx(620e9, rel=0.01)
    assert all(said[f"statement {name}"]["verdict"] == "fail" for name in ("D15a", "D15b", "D15c", "D15d"))
    assert said["statement D15e"]["verdict"] == "ok"  # 958.3M parameters follow from the law


def test_epochs_with_and_without_text_tokens():
    line = next(line for line in findings("dit_laws", "epochs") if line["C"] == 1.5e21)
    assert 9 < line["epochs"][0] < 10
    assert round(line["epochs"][120], 1) == 6.4 and round(line["epochs"][77], 1) == 7.3
    assert line["gpu_hours"] == pytest.approx(1.5e21 / (989.4e12 * 0.4 * 3600))


def test_statements_of_paper_s():
    lines = audit_folder(str(PAPERS / "scalability" / "published"))
    lines = [line for line in lines if line["check"].startswith("statement")]
    said = {line["check"].removeprefix("statement "): line["verdict"] for line in lines}
    assert said == {name: "fail" for name in ("S34a", "S34b", "S34c", "S34d", "S34e")} | {
        name: "ok" for name in ("S34f", "S34g", "S34h", "S34i")}  # fmt: skip


def test_rounding_of_digits():
    assert (last_digit("0.47"), last_digit("2.2566e6"), last_digit("-0.0273")) == pytest.approx((0.01, 100, 1e-4))
    law = PrintedLaw("TIFA", "C", "GFLOPs", "0.47", "0.02", 1e11, 1e12)
    exponent_alone = 1e12**0.005 - 1  # ± 15% at 1e12
    assert exponent_alone == pytest.approx(0.148, abs=0.001)
    low, high = law.rounded(1e12)
    assert high / law.at(1e12) - 1 == pytest.approx((1 + exponent_alone) * (0.475 / 0.47) - 1)


def test_n_and_d_laws_agree_with_six_nd():
    (line,) = findings("dit_laws", "C = 6ND")
    assert line["verdict"] == "ok" and line["product"] == pytest.approx(1.009, abs=1e-3)


def test_three_points_are_pointed_out():
    assert any("p of 0.33" in line["finding"] for line in findings("scalability", "points"))


def test_plan_contract_and_arithmetic():
    found = plan("H100", 64, 168, dataset_images=108e6)
    keys = {"N", "D", "loss", "low", "high", "images", "steps", "gpu_hours", "decades_beyond"}
    assert keys <= set(found)
    c = 64 * 168 * 3600 * 989.4e12 * 0.4
    assert found["C"] == pytest.approx(c) and found["gpu_hours"] == pytest.approx(64 * 168)
    assert found["N"] == pytest.approx(0.0009 * c**0.5681, rel=1e-6)
    assert found["loss"] == pytest.approx(2.3943 * c**-0.0273)
    assert found["low"] < found["loss"] < found["high"]
    assert found["decades_beyond"] == pytest.approx(math.log10(c / 6e18))
    assert found["images"] == round(found["D"] / 333) or abs(found["images"] - found["D"] / 333) < 1
    assert found["interval"].startswith("rounding of the printed digits alone")
    assert found["epochs"] == pytest.approx(found["images"] / 108e6, rel=1e-6)
    assert any(line["check"] == "extrapolation" for line in found["audit"])


def test_inside_the_range_nothing_is_extrapolated():
    found = plan("A100", 1, 1)
    assert found["decades_beyond"] == 0 and not any(line["check"] == "extrapolation" for line in found["audit"])


def surface():
    import numpy as np

    c = np.repeat(np.logspace(18, 21, 6), 5)
    n = 0.07 * np.sqrt(c) * np.tile(np.logspace(-0.6, 0.6, 5), 6)
    d = c / 6 / n
    loss = (1.8 + 480 / n**0.348 + 2085 / d**0.366) * np.exp(0.002 * np.random.default_rng(0).standard_normal(30))
    return fit_surface(n, d, loss, resamples=0)


def test_plan_from_a_fit_and_back():
    law = surface()
    there = make_plan("H100", 8, 100, law=law)
    back = budget_for(there.values["loss"], "H100", 8, law=law)
    assert back.values["C"] == pytest.approx(there.values["C"], rel=1e-6)
    assert back.values["hours"] == pytest.approx(100, rel=1e-6)
    assert back.values["C_low"] < back.values["C"]
    wrong = there.values["wrong_by_2x_in_N"]
    assert all(0 < wrong[side]["compute_wasted"] < 1 and wrong[side]["loss_increase"] > 0 for side in wrong)
    assert there.values["N"] * there.values["D"] * 6 == pytest.approx(there.values["C"], rel=1e-6)
    assert "FLOPs" in there.chart().to_json() and "loss" in there._repr_html_()
    with pytest.raises(UserError, match="floor"):
        budget_for(1.0, "H100", 8, law=law)


def test_a_loss_that_rises_with_size_has_no_plan():
    import numpy as np

    rng = np.random.default_rng(1)
    n, d = 10 ** rng.uniform(7, 10, 30), 10 ** rng.uniform(9, 12, 30)
    with pytest.raises(UserError, match="no optimum"):
        make_plan("H100", 8, 100, law=fit_surface(n, d, 1.8 + n**0.1 / 10 + 2000 / d**0.37, resamples=0))


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        (("H1000", 8, 1), {}, "did you mean 'H100'"),
        (("H100", 0, 1), {}, "count"),
        (("H100", 8, -1), {}, "hours"),
        (("H100", 8, float("nan")), {}, "hours"),
        (("H100", 8, 1e300), {}, "8 GPUs for 1e\\+300 hours give inf FLOPs"),
        (("H100", 8, 1e-30), {}, "no budget to plan"),
        (("H100", 8, 1), {"mfu": 1.5}, "MFU"),
        (("H100", 8, 1), {"mfu": 0}, "MFU"),
        (("H100", 8, 1), {"dataset_images": 0}, "dataset_images"),
        (("H100", 8, 1), {"text_tokens": -1}, "text_tokens"),
    ],
)
def test_plan_refuses(arguments, options, sentence):
    with pytest.raises(UserError, match=sentence):
        plan(*arguments, **options)


@pytest.mark.parametrize("loss", [1e-9, 50.0])
def test_a_loss_out_of_reach_is_refused(loss):
    with pytest.raises(UserError, match="choose a target nearer to 0.735"):
        budget_for(loss, "H100", 8)


def test_gpus_have_sources():
    assert hardware.gpu("a100").memory == 80e9 and hardware.gpu("h100").peak == 989.4e12
    assert all(gpu.source and gpu.peak > 1e13 and gpu.memory >= 1.6e10 for gpu in hardware.GPUS.values())


def test_measured_peak_is_a_rate():
    assert 1e8 < hardware.gemm_peak("fp32", device="cpu", size=128, seconds=0.01) < 1e15
    with pytest.raises(UserError, match="bf16"):
        hardware.gemm_peak("int3")


def test_exponents_without_coefficients_agree_with_6nd_or_do_not():
    found = {}
    for exponent in ("0.50", "0.46"):
        laws = [PrintedLaw("N_opt", "C", "FLOPs", "", "0.50", 1e18, 1e21),
                PrintedLaw("D_opt", "C", "FLOPs", "", exponent, 1e18, 1e21)]  # fmt: skip
        found[exponent] = next(line for line in audit_laws(laws) if line["check"] == "C = 6ND")
    assert found["0.50"]["verdict"] == "ok" and found["0.46"]["verdict"] == "fail"


def test_nearly_parallel_laws_and_two_points_are_findings():
    one = PrintedLaw("loss", "C", "FLOPs", "2.4", "-0.028", 1e17, 1e20, points=2)
    other = PrintedLaw("loss b", "C", "FLOPs", "5.1", "-0.029", 1e17, 1e20)
    found = audit_laws([one, other])
    assert next(line for line in found if line["check"] == "crossing")["inside"] is False
    assert next(line for line in found if line["check"] == "points")["p"] == 1.0


def test_a_law_without_its_range_and_a_statement_without_its_law_are_refused(tmp_path):
    head = "quantity,predictor,predictor_unit,coefficient,exponent,low,high\n"
    (tmp_path / "laws.csv").write_text(head + "loss,C,FLOPs,2.4,-0.028,1e17,\n")
    with pytest.raises(UserError, match="laws.csv, line 2: high is empty"):
        audit_folder(tmp_path)
    for bad, named in (
        ("2.4,-0.028,unknown,1e20", "low is 'unknown'"),
        ("2.4,-0.027 ± 0.001,1,2", "exponent is '-0.02"),
    ):
        (tmp_path / "laws.csv").write_text(head + f"loss,C,FLOPs,{bad}\n")
        with pytest.raises(UserError, match=f"laws.csv, line 2: {named}"):
            audit_folder(tmp_path)
    (tmp_path / "laws.csv").write_text(head + "loss,C,FLOPs,2.4,-0.028,1e17,1e20\n")
    (tmp_path / "statements.csv").write_text(
        "id,kind,statement,where,left,right,printed,unit\nx,params_at,a model,text,1e20,,1e9,\n"
    )
    with pytest.raises(UserError, match="Statement x .params_at. needs the law of N_opt"):
        audit_folder(tmp_path)
