"""Results as tables: export, round trip, and what may not be mixed."""

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest

from t2ikit import cli, results, runs
from t2ikit.errors import UserError
from t2ikit.files import read_json, read_lines, write_json, write_lines
from t2ikit.results import combine, distinct, export, finished, one_loss_space, read_committed, read_live, read_run


@pytest.fixture
def folder(trained, tmp_path):
    """A folder of two finished runs and one that was stopped."""
    root = tmp_path / "runs"
    for name, changes in [("a-0", {}), ("b-1", {"backbone": "b", "seed": 1}), ("c-2", {"status": "stopped"})]:
        shutil.copytree(trained, root / name)
        write_json(root / name / "row.json", read_json(root / name / "row.json") | {"run": name} | changes)
    return root


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_is_a_row_and_its_evaluations(trained):
    found = read_run(trained)
    assert len(found.runs) == 1 and found.curves["step"].tolist() == [2, 4]
    entries = read_lines(trained / "log.jsonl")
    assert found.curves["val_loss"].tolist() == [e["val_loss"] for e in entries if "val_loss" in e]
    assert found.curves["loss"].tolist() == [e["loss"] for e in entries if "loss" in e and e["step"] in (2, 4)]
    bins = found.curves[[f"val_loss_bin{k}" for k in range(6)]]
    np.testing.assert_allclose(bins.mean(axis=1), found.curves["val_loss"])
    assert {"flip_color", "flip_shape", "caption_gap_bin0"} <= set(found.curves)


def test_export_and_read_back(folder, tmp_path):
    assert export(finished(folder), tmp_path / "results") == 2
    back, live = read_committed(tmp_path / "results"), read_live([folder / "a-0", folder / "b-1"])
    for kind in ("runs", "curves"):
        ours, theirs = getattr(back, kind), getattr(live, kind)
        assert ours["source"].eq("committed").all() and theirs["source"].eq("live").all()
        assert ours["run"].tolist() == sorted(ours["run"], key=lambda r: (r != "b-1", r))  # by backbone first
        merged = ours.sort_values("run", kind="stable", ignore_index=True)
        pd.testing.assert_frame_equal(
            merged.drop(columns="source"), theirs.drop(columns="source"), rtol=1e-6, check_dtype=False
        )
    configs = sorted(p.name for p in (tmp_path / "results" / "configs").iterdir())
    assert configs == ["a-0.json", "b-1.json"]
    assert read_json(tmp_path / "results" / "configs" / "a-0.json")["segments"][0]["threads"] == 1


def test_of_many_who_export_at_once_none_loses_a_row(trained, tmp_path, monkeypatch):
    """Studies that end in the same minute merge into one table."""
    monkeypatch.setenv("T2IKIT_HOME", str(tmp_path))
    for name in (names := [f"r-{k}" for k in range(6)]):
        shutil.copytree(trained, tmp_path / "runs" / name)
        row = read_json(trained / "row.json") | {"run": name}
        write_json(tmp_path / "runs" / name / "row.json", row)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda name: export([tmp_path / "runs" / name], tmp_path / "results"), names))
    back = read_committed(tmp_path / "results")
    assert sorted(back.runs["run"]) == names and back.curves["run"].nunique() == len(names)


def test_exporting_twice_changes_no_byte(folder, tmp_path):
    export(finished(folder), tmp_path / "results")
    before = contents(tmp_path / "results")
    assert export(finished(folder), tmp_path / "results") == 2
    assert contents(tmp_path / "results") == before


def test_seven_digits_are_read_as_they_were_written(folder, tmp_path):
    """Rows that stay from an earlier export go through the CSV again, and must not drift."""
    export(finished(folder), tmp_path / "results")
    before = contents(tmp_path / "results")
    only = tmp_path / "only"
    shutil.copytree(folder / "a-0", only / "a-0")
    for _ in range(3):
        export(finished(only), tmp_path / "results")
    assert contents(tmp_path / "results") == before


def test_newer_rows_of_a_run_replace_its_older(folder, tmp_path):
    export(finished(folder), tmp_path / "results")
    lines = read_lines(folder / "a-0" / "log.jsonl")
    write_lines(folder / "a-0" / "log.jsonl", [*lines[:-1], lines[-1] | {"caption_gap": 0.125}])
    export(finished(folder), tmp_path / "results")
    curves = read_committed(tmp_path / "results").curves
    assert curves[curves["run"] == "a-0"]["caption_gap"].tolist()[-1] == 0.125
    assert len(curves) == 4


def test_a_training_with_other_numbers_takes_no_committed_row_away(folder, tmp_path, monkeypatch, capsys):
    """On another processor a run ends elsewhere: its new losses stood beside the scores of the old one's images."""
    monkeypatch.setenv("T2IKIT_HOME", str(tmp_path))
    folder.rename(tmp_path / "runs")
    folder, out = tmp_path / "runs", tmp_path / "results"
    export(finished(folder), out)
    before = contents(out)
    lines = read_lines(folder / "a-0" / "log.jsonl")
    again = [{**e, "val_loss": e["val_loss"] * 1.01} if "val_loss" in e else e for e in lines]
    write_lines(folder / "a-0" / "log.jsonl", again)
    row = read_json(folder / "a-0" / "row.json")
    write_json(folder / "a-0" / "row.json", row | {"steps": 8})  # nor one that goes further

    def said(*arguments):
        monkeypatch.setattr(sys, "argv", ["t2ikit", *map(str, arguments)])
        with suppress(SystemExit):
            cli.main()
        return capsys.readouterr().err

    other = f"a-0 was trained again and has other numbers than in {out}"
    err = said("runs", "--export", out)
    assert other in err and f"1 finished runs are in {out}" in err and contents(out) == before
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a ring")
    assert other in said("evaluate", folder / "a-0", "--metrics", "tifa", "--export", out / "scores.csv")
    assert other in said("sample", folder / "a-0", "--prompts", prompts, "--export", out)
    assert contents(out) == before


def test_a_run_that_is_not_evaluated_yet_differs_from_nothing(folder, tmp_path):
    export(finished(folder), tmp_path / "results")
    write_lines(folder / "a-0" / "log.jsonl", [])
    assert results.differing([folder / "a-0"], tmp_path / "results") == []


def test_a_shorter_run_does_not_replace_a_longer_one(folder, tmp_path):
    """A run trained again on another machine to a study's smaller budget took the committed row of the larger away."""
    export(finished(folder), tmp_path / "results")
    before = contents(tmp_path / "results")
    row = read_json(folder / "a-0" / "row.json")
    write_json(folder / "a-0" / "row.json", row | {"steps": 2})
    write_lines(folder / "a-0" / "log.jsonl", read_lines(folder / "a-0" / "log.jsonl")[:-1])
    assert export(finished(folder), tmp_path / "results") == 2
    assert contents(tmp_path / "results") == before


@pytest.mark.parametrize(("off", "steps"), [(1e-5, [2, 3, 4]), (0.01, [2, 3])])
def test_an_evaluation_that_a_second_training_skips_stays_where_both_agree(folder, tmp_path, off, steps):
    """A run of a sweep, evaluated where the sweep ended, lost that row when it was trained anew to the full length."""
    lines = read_lines(folder / "a-0" / "log.jsonl")
    swept = [{**e, "step": 3} if e["step"] == 4 else e for e in lines]
    row = read_json(folder / "a-0" / "row.json")
    write_json(folder / "a-0" / "row.json", row | {"steps": 3})
    write_lines(folder / "a-0" / "log.jsonl", swept)
    export(finished(folder), tmp_path / "results")
    again = [{**e, "val_loss": e["val_loss"] * (1 + off)} if "val_loss" in e else e for e in lines]
    write_json(folder / "a-0" / "row.json", row)
    write_lines(folder / "a-0" / "log.jsonl", again)
    for _ in range(2):
        export(finished(folder), tmp_path / "results")
        curves = read_committed(tmp_path / "results").curves
        assert curves[curves["run"] == "a-0"]["step"].tolist() == steps


def test_a_run_of_tier_paper_leaves_the_others_numbers(folder, tmp_path):
    """Its FLOPs are more than a 64-bit integer holds, and the whole column was of objects, which have no logarithm."""
    huge = 1_480_214_307_667_968_000_000
    row, lines = read_json(folder / "b-1" / "row.json"), read_lines(folder / "b-1" / "log.jsonl")
    write_json(folder / "b-1" / "row.json", row | dict.fromkeys(("C", "flops_exact", "flops_paper"), huge))
    write_lines(folder / "b-1" / "log.jsonl", [e | {"flops_exact": huge, "flops_paper": huge} for e in lines])
    export(finished(folder), tmp_path / "results")
    for rows in (read_live(finished(folder)), read_committed(tmp_path / "results")):
        for frame in (rows.runs, rows.curves):
            assert np.log(frame["flops_exact"]).max() == pytest.approx(np.log(float(huge)), rel=1e-6)
        assert np.isfinite(np.log(rows.runs["C"])).all()


def test_a_folder_that_was_moved_away_is_no_second_run(folder, tmp_path):
    shutil.copytree(folder / "a-0", folder / "a-0-old")
    assert export(finished(folder), tmp_path / "results") == 2
    back = read_committed(tmp_path / "results")
    assert sorted(back.runs["run"]) == ["a-0", "b-1"] and len(back.curves) == 4


def test_a_run_that_is_trained_further_is_exported_when_it_is_done(folder, tmp_path):
    assert export([folder / "a-0", folder / "c-2"], tmp_path / "results") == 1
    assert read_committed(tmp_path / "results").runs["run"].tolist() == ["a-0"]


def test_losses_of_averaged_weights_outlive_a_training_without_them(folder, tmp_path):
    """A longer training that was not asked for a study's points took their numbers away."""
    lines = read_lines(folder / "a-0" / "log.jsonl")
    averaged = [e | {"val_loss_averaged": 0.5 + e["step"]} if "val_loss" in e else e for e in lines]
    write_lines(folder / "a-0" / "log.jsonl", averaged)
    export(finished(folder), tmp_path / "results")
    without = [{k: v for k, v in e.items() if k != "val_loss_averaged"} for e in lines]

    def kept(off):
        again = [e | {"val_loss": e["val_loss"] * (1 + off)} if "val_loss" in e else e for e in without]
        write_lines(folder / "a-0" / "log.jsonl", again)
        export(finished(folder), tmp_path / "results")
        curves = read_committed(tmp_path / "results").curves
        return curves[curves["run"] == "a-0"]["val_loss_averaged"].tolist()

    assert kept(1e-5) == [2.5, 4.5]
    assert kept(0.01) == [2.5, 4.5]  # another training, which takes nothing away


def test_one_damaged_folder_does_not_stop_the_export_of_the_others(tmp_path, folder):
    (folder / "a-0" / "row.json").write_text("{")
    assert [f.name for f in finished(folder)] == ["b-1"]
    assert any("a-0/row.json" in problem for problem in runs.table(folder)[1])


def test_no_finished_run_writes_nothing(tmp_path, folder):
    shutil.rmtree(folder / "a-0")
    shutil.rmtree(folder / "b-1")
    assert export(finished(folder), tmp_path / "results") == 0
    assert not (tmp_path / "results").exists()
    assert export(finished(tmp_path / "none"), tmp_path / "results") == 0


def test_a_hash_of_digits_alone_stays_text(folder, tmp_path):
    for name, space in [("a-0", "012345678901"), ("b-1", "12e345678901")]:
        write_json(folder / name / "row.json", read_json(folder / name / "row.json") | {"loss_space": space})
    export(finished(folder), tmp_path / "results")
    back = read_committed(tmp_path / "results")
    assert set(back.runs["loss_space"]) == set(back.curves["loss_space"]) == {"012345678901", "12e345678901"}
    before = contents(tmp_path / "results")
    export(finished(folder), tmp_path / "results")
    assert contents(tmp_path / "results") == before


def test_two_loss_spaces_in_one_figure_are_refused(folder):
    row = read_json(folder / "b-1" / "row.json")
    one_loss_space(read_live([folder / "a-0", folder / "b-1"]).curves)
    write_json(folder / "b-1" / "row.json", row | {"loss_space": "another"})
    with pytest.raises(
        UserError, match=r"Losses of (a-0 and b-1|b-1 and a-0) are in different spaces .*draw them apart"
    ):
        one_loss_space(read_live([folder / "a-0", folder / "b-1"]).curves)


def test_nothing_yet_is_an_empty_table(tmp_path):
    empty = read_committed(tmp_path)
    assert empty.runs.empty and empty.curves.empty
    one_loss_space(empty.curves)
    assert empty.select(backbone="a", tier=["tiny"]).runs.empty
    assert distinct([empty, empty]).curves.empty


def test_select_keeps_the_rows_asked_for(folder):
    both = combine([read_live([folder / "a-0", folder / "b-1"])])
    assert both.select(seed=1).runs["run"].tolist() == ["b-1"]
    assert both.select(backbone=("b", "none"), tier="smoke").curves["run"].unique().tolist() == ["b-1"]
    assert len(distinct([both, both]).curves) == len(both.curves)


@pytest.mark.parametrize("text", ["", "run,backbone\na,b\n", 'run,step\n"a\n'])
def test_a_damaged_table_is_named(folder, tmp_path, text):
    export(finished(folder), tmp_path / "results")
    (tmp_path / "results" / "curves.csv").write_text(text)
    with pytest.raises(UserError, match=r"curves.csv .*: restore it with git"):
        read_committed(tmp_path / "results")


def test_a_damaged_run_is_named_and_the_results_stay(folder, tmp_path):
    export(finished(folder), tmp_path / "results")
    before = contents(tmp_path / "results")
    (folder / "b-1" / "log.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="log.jsonl, line 1, lacks 'step'"):
        export(finished(folder), tmp_path / "results")
    assert contents(tmp_path / "results") == before


def test_columns_of_a_curve_are_all_there(trained):
    assert set(results.CURVE) <= set(read_run(trained).curves)


def test_the_last_evaluation_of_a_run_is_that_of_its_own_source(trained):
    """A live run that was cut short is a part of the committed one of its name."""
    whole = read_run(trained)
    short = results.Results(whole.runs.assign(steps=2), whole.curves[whole.curves["step"] <= 2])
    both = results.last(combine([combine([whole], "committed"), combine([short], "live")]))
    assert both.set_index("source")["val_loss_se"].to_dict() == {
        "committed": whole.curves["val_loss_se"].iloc[-1],
        "live": short.curves["val_loss_se"].iloc[-1],
    }
