"""Paper S's notebooks, each executed at tier smoke through the command line, and its committed results held to their
files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from papers_repro.scalability import studies
from t2ikit import results
from t2ikit.models import zoo


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """All figures of the paper at smoke, in one home: they share runs."""
    home = tmp_path_factory.mktemp("home")
    names = ["fig03", "fig04", "fig05", "fig06"]
    line = [sys.executable, "-m", "t2ikit.cli", "reproduce", *names, "--tier", "smoke"]
    settings = ["--set", "world=scenes", "--set", "images=0", "--set", "live=true"]
    import os

    done = subprocess.run(line + settings, env=os.environ | {"T2IKIT_HOME": str(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    paths = [Path(p) for p in done.stdout.split()]
    assert [p.stem for p in paths] == names
    return home, dict(zip(names, paths, strict=True))


def test_figures_share_runs(reports):
    home, _ = reports
    wanted = {b for name in dir(studies) if name.startswith("FIG") for b in getattr(studies, name).backbones}
    assert sorted(json.loads((f / "row.json").read_text())["backbone"] for f in (home / "runs").iterdir()) == sorted(
        wanted
    )


@pytest.mark.parametrize("name", ["fig03", "fig04", "fig06"])
def test_each_figure_measures_every_backbone(reports, name):
    home, _ = reports
    rows = json.loads((home / "reports" / f"{name}-smoke.metrics.json").read_text())
    wanted = {b for s in dir(studies) if s.startswith(name.upper()) for b in getattr(studies, s).backbones}
    assert {r["backbone"] for r in rows if r["source"] == "live"} == wanted
    assert all(0 < r["val_loss"] < 2 and 0 <= r["flip_accuracy"] <= 1 for r in rows)


@pytest.mark.parametrize("name", ["fig03", "fig04", "fig05", "fig06"])
def test_each_report_is_whole_offline(reports, read_offline, name):
    page = read_offline(reports[1][name])
    if name == "fig05":
        assert page.locator("img").count() > 16
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    else:
        assert page.locator("svg.marks").count() > 1
    assert "sd2-c320" in page.content()


@pytest.mark.parametrize("study", [n for n in dir(studies) if n.startswith("FIG")])
def test_studies_name_backbones_that_exist(study):
    for backbone in getattr(studies, study).backbones:
        assert zoo.spec(backbone).name == backbone


def test_a_backbone_has_one_colour_in_the_panels_of_figure_4():
    places = [set(enumerate(study.backbones)) for study in (studies.FIG04A, studies.FIG04B, studies.FIG04C)]
    places = set.union(*places)
    shared = {b for study in (studies.FIG04B, studies.FIG04C) for b in study.backbones}
    assert all(sum(b == name for _, name in places) == 1 for b in shared), sorted(places)


COMMITTED = results.read_committed(studies.RESULTS)


@pytest.mark.parametrize("run", COMMITTED.runs["run"] if len(COMMITTED.runs) else [])
def test_a_committed_run_has_its_configuration_and_its_curve(run):
    config = json.loads((studies.RESULTS / "configs" / f"{run}.json").read_text())
    (row,) = COMMITTED.runs[COMMITTED.runs["run"] == run].to_dict("records")
    curve = COMMITTED.curves[COMMITTED.curves["run"] == run]
    assert config["id"] == run and config["config"]["seed"] == row["seed"]
    assert config["segments"] and row["status"] == "done"
    last = curve[curve["step"] == row["steps"]]
    assert last["val_loss"].tolist() == pytest.approx([row["val_loss"]])
    spec = zoo.spec(row["backbone"]).at(row["tier"])
    assert spec.cost().params == row["N"]
    assert row["flops_exact"] == pytest.approx(spec.cost().flops_train * row["images"])
