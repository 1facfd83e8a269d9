"""A committed row is trained again by one command, and a number that is off is seen."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from t2ikit import cli
from t2ikit.errors import UserError
from t2ikit.repeat import SCORES, repeat
from t2ikit.results import export

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture
def committed(trained, home, tmp_path):
    """The configuration of a run in a folder of results."""
    export([shutil.copytree(trained, home / "runs" / trained.name)], tmp_path / "results")
    return tmp_path / "results" / "configs" / f"{trained.name}.json"


def off_by(factor, committed):
    """Change a committed number."""
    path = committed.parent.parent / "curves.csv"
    curves = pd.read_csv(path)
    curves.loc[curves["step"] == 4, "val_loss"] *= factor
    curves.to_csv(path, index=False)


def test_a_row_gives_its_numbers_again(committed, home):
    table = repeat(committed)
    assert set(table["step"]) == {2, 4} and set(table["score"]) <= set(SCORES) and len(table) >= 6
    assert table["off"].max() < 1e-6  # seven digits are kept
    assert [p.name for p in (home / "repeats").iterdir()] == [committed.stem]  # the run itself is left alone
    assert set(repeat(committed, steps=3)["step"]) == {2}


def test_a_configuration_is_found_from_inside_its_folder(committed, home, monkeypatch):
    monkeypatch.chdir(committed.parent)
    assert len(repeat(Path(committed.name), steps=2))


def test_a_number_that_is_off_is_status_1(committed, monkeypatch, capsys):
    off_by(1.01, committed)

    def status(*options):
        monkeypatch.setattr(sys, "argv", ["t2ikit", "repeat", str(committed), *options])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0

    assert status() == 1
    assert "numbers are the same within 0.001; the largest relative difference is 9.9e-03" in capsys.readouterr().out
    assert status("--within", "0.02", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert max(r["off"] for r in rows) == pytest.approx(0.01 / 1.01, rel=1e-3)
    assert status("--steps", "2") == 0
    broken = {"step": [2], "off": [float("nan")], "device": ["a"], "device_again": ["a"]}
    monkeypatch.setattr("t2ikit.repeat.repeat", lambda *_: pd.DataFrame(broken))
    assert status() == 1


def test_another_processor_is_named_and_what_was_found_is_kept(committed, tmp_path, monkeypatch, capsys):
    """Its rounding makes another run of the same configuration; nothing said so."""
    out = tmp_path / "repeats.csv"
    monkeypatch.setattr(sys, "argv", ["t2ikit", "repeat", str(committed), "--export", str(out)])

    def said():
        with suppress(SystemExit):
            cli.main()
        return capsys.readouterr().err

    noted = json.loads(committed.read_text())
    here = noted["segments"][0]["device"]
    committed.write_text(json.dumps(noted | {"segments": [noted["segments"][0] | {"device": "Abacus × 2"}]}))
    assert "rounds otherwise" not in said()  # it did not
    kept = pd.read_csv(out)
    assert set(kept["run"]) == {committed.stem} and set(kept["step"]) == {2, 4}
    assert set(kept["device"]) == {"Abacus × 2"} and set(kept["device_again"]) == {here}
    assert not kept.duplicated(["step", "score"]).any() and kept["off"].max() < 1e-6
    off_by(1.01, committed)
    heard = said()
    assert f"was trained on Abacus × 2, this one on {here}, which rounds otherwise" in heard
    assert "docs/another_processor.md" in heard and (REPOSITORY / "docs" / "another_processor.md").is_file()


NAMED = """import torch
from t2ikit.train.journal import cpu_name, device_name
print(cpu_name(), device_name(torch.device("cpu")), sep="|")"""


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_kernels_of_another_makers_processor_are_noted(tmp_path):
    """With the library of docs/another_processor.md an AMD trains an Intel's rows; its own name stood in their row."""
    page = (REPOSITORY / "docs" / "another_processor.md").read_text()
    (tmp_path / "as_intel.c").write_text(page.split("```c\n")[1].split("```")[0])
    library = tmp_path / "as_intel.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "as_intel.c"], check=True)

    def named(**environment):
        asked = subprocess.run(
            [sys.executable, "-c", NAMED], env=os.environ | environment, capture_output=True, text=True, check=True
        )
        return asked.stdout.strip().split("|")

    processor, plain = named()
    noted = named(LD_PRELOAD=str(library))[1]
    assert plain.startswith(f"{processor} × ") and "MKL" not in plain
    assert noted == plain if "Intel" in processor else noted == f"{plain}, MKL as on Intel"


def test_what_cannot_be_repeated_is_one_sentence(committed, home, monkeypatch, capsys):
    with pytest.raises(UserError, match="was first evaluated at step 2: give as many --steps"):
        repeat(committed, steps=1)
    noted = json.loads(committed.read_text())
    committed.write_text(json.dumps(noted | {"world_fingerprint": "another"}))
    with pytest.raises(UserError, match="The world_fingerprint of .* is not what it was trained with"):
        repeat(committed)
    committed.write_text(json.dumps(noted | {"id": "no-run"}))
    with pytest.raises(UserError, match="has no evaluations of no-run"):
        repeat(committed)
    committed.write_text(json.dumps(noted | {"config": noted["config"] | {"rate": 1}}))
    with pytest.raises(UserError, match=r"is of another version of t2ikit .*'rate'"):
        repeat(committed)
    of_run = next((home / "runs").glob("*/config.json"))
    with pytest.raises(UserError, match="is the configuration of a run that was not exported: give RESULTS/configs"):
        repeat(of_run)
    monkeypatch.setattr(sys, "argv", ["t2ikit", "repeat", "nothing.json"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "There is no file nothing.json: name a committed run as RESULTS/configs/RUN.json" in capsys.readouterr().err
