"""The command line: one sentence and exit code 2, one JSON document, and light commands that start light."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from t2ikit import cli, files, runs


@pytest.fixture
def call(monkeypatch, capsys):
    """`code, out, err = call("train", "x")` in this process."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["t2ikit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err

    return run


def settings(**values):
    return [part for k, v in values.items() for part in ("--set", f"{k}={v}")]


SMOKE = {"batch": 2, "probe_images": 3, "steps": 4, "log_every": 1, "eval_every": 2}


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["runs", "--nonsense"], "No such option"),
        (["train"], "Missing argument"),
        (["train", "sd2-c320", "--set"], "requires an argument"),
        (["train", "sd2-c320", "--set", "seed"], "--set 'seed' has no value: write it as --set key=value"),
        (["train", "sd2-c321"], "Unknown backbone 'sd2-c321'"),
        (
            ["train", "sd2-c320", "--world", "scene"],
            "Unknown world 'scene': choose one of scenes, scenes-enumerated, scenes-single, "
            "pictograms, pictograms-whole; did you mean 'scenes'?",
        ),
        (["train", "sd2-c320", "--tier", "big"], "Unknown tier 'big'"),
        (["train", "sd2-c320", "--set", "lr=nan"], "lr = 'nan' is not a number"),
        (["train", "sd2-c320", "--set", "lr=5"], "lr = 5.0 is out of range: give a number from 1e-08 to 1"),
        (["train", "sd2-c320", "--set", "seed=true"], "seed = True is not a whole number"),
        (["train", "sd2-c320", "--set", "steps=1e3"], "steps = 1000.0 is not a whole number"),
        (["train", "sd2-c320", "--set", "betas=[1]"], "betas = [1] is not a pair of numbers"),
        (["train", "sd2-c320", "--set", "learning_rate=1"], "Unknown setting 'learning_rate'"),
        (["train", "sd2-c320", "--set", "codec=a\nb"], "Unknown image codec 'a\\nb'"),
        (["train", "sd2-c320", "--set", "tier=big"], "Unknown tier 'big'"),
        (["models", "--tier", "big", "--json"], "Unknown tier 'big'"),
        (["runs", "/nonexistent/runs", "--json"], "There is no folder /nonexistent/runs"),
        (["data", "get", "clouds"], "Unknown world 'clouds'"),
        (["data", "get", "pictograms", "--out", "/dev/null/x"], "x/.lock cannot be written (Not a directory)"),
    ],
)
def test_a_users_error_is_one_line_and_two(call, home, arguments, said):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert said in err and err.startswith("t2ikit: ") and err.count("\n") == 1


def test_help_and_no_arguments_are_no_errors():
    for arguments in ([], ["--help"], ["train", "--help"]):
        said = subprocess.run(
            [sys.executable, "-m", "t2ikit.cli", *arguments], capture_output=True, text=True, check=False
        )
        assert "Usage" in said.stdout + said.stderr and "Traceback" not in said.stderr
        assert said.returncode == 0 or not arguments


def test_a_terminal_without_a_sign_is_shown_its_code():
    said = subprocess.run(
        [sys.executable, "-m", "t2ikit.cli", "claims", "D2"],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert r"N_opt \u221d C" in said.stdout


def test_models_prints_one_document(call):
    code, out, err = call("models", "--json")
    rows = json.loads(out)
    assert code == 0 and err == "" and len(rows) == 21
    assert set(rows[0]) == {"name", "family", "params", "macs", "attn_macs", "flops_train"}


def test_train_prints_the_folder_last_then_says_that_it_is_done(call, home, codec, trained):
    arguments = [
        "train",
        "pixart-h1024-d28",
        "--tier",
        "smoke",
        "--runs",
        home / "elsewhere",
        *settings(codec=codec, **SMOKE),
    ]
    code, out, err = call(*arguments)
    assert code == 0
    folder = home / "elsewhere" / trained.name
    assert out == f"{folder}\n" and folder.is_dir()
    code, out, err = call(*arguments)
    assert (code, out) == (0, f"{folder}\n")
    assert err == f"t2ikit: {err[8:]}" or "is done: it has 4 steps or more" in err
    again = {p.name: p.read_bytes() for p in (folder / "snapshots").iterdir()}
    assert again == {p.name: p.read_bytes() for p in (trained / "snapshots").iterdir()}


def test_settings_reach_tier_and_world_as_the_options_do(call, home, codec, trained):
    shutil.copytree(trained, home / "runs" / trained.name)
    code, out, _ = call("train", "sd2-c320", *settings(backbone="pixart-h1024-d28", tier="smoke", codec=codec, **SMOKE))
    assert (code, out) == (0, f"{home / 'runs' / trained.name}\n")


def test_runs_as_json_is_one_document_and_bad_folders_are_told_aside(call, home, trained):
    shutil.copytree(trained, home / "runs" / trained.name)
    (home / "runs" / "half").mkdir()
    code, out, err = call("runs", "--json")
    rows = json.loads(out)
    assert code == 0 and [r["run"] for r in rows] == [trained.name] and set(runs.ROW_KEYS) <= set(rows[0])
    assert err.count("\n") == 1 and "half/config.json is missing" in err
    code, out, _ = call("runs")
    assert out.splitlines()[0].split() == [
        "run",
        "world",
        "tier",
        "seed",
        "steps",
        "images",
        "loss",
        "val_loss",
        "status",
    ]
    assert out.splitlines()[1].split()[-1] == "done"


def test_claims_are_told_by_id_as_text_and_as_json(call):
    code, out, _ = call("claims", "d2", "S7")
    assert code == 0 and {line.split()[0] for line in out.splitlines()} == {"D2", "S7"}
    assert re.search(
        r"^D2    \w+ +in-context: N_opt ∝ C\^0.5681 .*: claimed 0.5681; 0\.\d+ \(0\.\d+ to 0\.\d+\); n = ", out
    )
    assert "sdxl-c128 is ahead of sd2-c320 at equal steps (tifa), on scenes: claimed > 0; " in out
    code, out, _ = call("claims", "D2", "--json")
    assert code == 0 and {row["id"] for row in json.loads(out)} == {"D2"}
    code, out, err = call("claims", "S99")
    assert (code, out) == (2, "") and err.startswith("t2ikit: Unknown claim 'S99': choose one of ")


def test_runs_can_be_exported(call, home, trained, tmp_path):
    shutil.copytree(trained, home / "runs" / trained.name)
    code, _, err = call("runs", "--export", tmp_path / "results", "--json")
    assert code == 0 and "1 finished runs are in" in err
    assert (tmp_path / "results" / "curves.csv").exists()


def test_sample_draws_a_sheet_a_run(call, home, trained, tmp_path):
    folder = shutil.copytree(trained, home / "runs" / trained.name)
    (tmp_path / "prompts.txt").write_text("a red circle\n\n<script>alert(1)</script>\n")
    code, out, _ = call("sample", folder, "--prompts", tmp_path / "prompts.txt", "--steps", 2)
    assert code == 0
    from PIL import Image

    assert Image.open(out.strip()).size == (128, 64)


def test_sample_refuses_in_one_sentence(call, home, trained, tmp_path):
    empty, binary, good = tmp_path / "empty.txt", tmp_path / "binary.txt", tmp_path / "good.txt"
    empty.write_text("\n\n")
    binary.write_bytes(b"\xff\xfe\x00")
    good.write_text("a\n")
    for prompts, run, said in [
        (tmp_path / "none.txt", trained, "There is no file"),
        (empty, trained, "A prompt is empty, or there is none"),
        (binary, trained, "not readable as UTF-8"),
        (good, tmp_path / "no-run", "There is no run folder"),
    ]:
        code, out, err = call("sample", run, "--prompts", prompts)
        assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    for option, value, said in [
        ("--guidance", "nan", "A guidance scale of nan is not possible"),
        ("--steps", 0, "0 sampler steps are not possible: choose 1 to 10000"),
        ("--device", "abacus", "The device 'abacus' cannot be used"),
        ("--device", "meta", "The device 'meta' cannot be used"),
    ]:
        code, out, err = call("sample", trained, "--prompts", good, option, value)
        assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_a_home_that_cannot_be_written_to_is_one_sentence(call, home, monkeypatch, codec):
    (home / "file").write_text("")
    monkeypatch.setenv("T2IKIT_HOME", str(home / "file"))
    code, out, err = call("train", "pixart-h1024-d28", "--tier", "smoke", *settings(codec=codec, **SMOKE))
    assert (code, out) == (2, "")
    assert "cannot be written" in err and "set T2IKIT_HOME" in err and err.count("\n") == 1


def test_a_bug_of_ours_is_not_dressed_up_as_the_users(monkeypatch):
    monkeypatch.setattr(runs, "table", lambda root: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["t2ikit", "runs"])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize("rows", [1, 5000])
def test_a_reader_that_stops_early_is_no_error(tmp_path, rows):
    """Whether it has gone when the first bytes are written, or when the last are flushed."""
    code = "import sys; from t2ikit import cli, runs; runs.table = lambda _: ([{'run': 'x' * 80}] * %d, []); cli.main()"
    (tmp_path / "runs.py").write_text(code % rows)
    command = f"(sleep 1; {sys.executable} {tmp_path / 'runs.py'} runs --json) | true"
    said = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert said.stderr == ""


@pytest.mark.parametrize("command", [["runs", "--json"], ["claims", "--json"], ["--help"]])
def test_light_commands_load_no_torch(home, trained, command):
    shutil.copytree(trained, home / "runs" / trained.name)
    code = f"""
import sys
sys.argv = ["t2ikit", *{command!r}]
import t2ikit.cli
try:
    t2ikit.cli.main()
finally:
    print([m for m in ("torch", "diffusers", "transformers", "pandas", "altair") if m in sys.modules], file=sys.stderr)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stderr.strip() == "[]"


def test_the_command_from_start_to_sigterm_and_on(home, codec, trained):
    """The installed command in a process of its own: 75 while another trains, 143 on SIGTERM, a clean terminal."""
    command = [sys.executable, "-m", "t2ikit.cli", "train", "pixart-h1024-d28", "--tier", "smoke"]
    command += settings(codec=codec, **SMOKE | {"steps": 100_000, "eval_every": 100_000})
    first = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder, deadline = home / "runs" / trained.name, time.monotonic() + 240
    while not (folder / "log.jsonl").exists() or len(files.read_lines(folder / "log.jsonl")) < 3:
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 75 and second.stdout == ""
    assert second.stderr.count("\n") == 1 and f"is being trained by process {first.pid}" in second.stderr
    os.kill(first.pid, signal.SIGTERM)
    out, err = first.communicate(timeout=120)
    assert first.returncode == 143 and out == ""
    assert all(line.strip() == "" or trained.name in line for line in err.replace("\r", "\n").splitlines()), err
    assert runs.row(folder)["status"] == "stopped"
