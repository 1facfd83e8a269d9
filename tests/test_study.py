"""Presets, and studies that train what is missing in processes of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from t2ikit import files, processes, runs, workers
from t2ikit.data import world
from t2ikit.errors import UserError
from t2ikit.results import export, finished, read_committed
from t2ikit.study import PRESETS, Study, preset
from t2ikit.train.folder import run_folder
from t2ikit.train.setup import resolve
from t2ikit.workers import command, train_apart


def test_paper_s_setting_is_the_published_one():
    config, budget = preset("sdxl-c320", tier="paper")
    assert (config.batch, config.lr, config.warmup, budget.steps, config.resolution) == (
        2048,
        8e-5,
        10_000,
        600_000,
        256,
    )
    assert (config.objective, config.precision, config.text) == ("ddpm-eps", "bf16", "openclip-h")


def test_tiny_sees_at_least_100_000_images_and_is_evaluated_ten_times():
    config, budget = preset("sd2-c320")
    assert config.batch * budget.steps >= 100_000
    assert budget.steps // budget.eval_every >= 10


def test_backbones_of_tiny_share_one_rate_and_it_can_be_set():
    assert {preset(b)[0].lr for b in ("sdxl-c128", "sd2-c320", "sdxl-c384", "sd2-c512", "pixart-h1024-d56")} == {1e-3}
    assert preset("sd2-c320", lr=3e-3)[0].lr == 3e-3 and preset("sd2-c320", tier="paper")[0].lr == 8e-5


@pytest.mark.parametrize("tier", PRESETS)
def test_settings_come_on_top(tier):
    config, budget = preset("sd2-c320", tier=tier, seed=7, steps=3)
    assert (config.seed, budget.steps, config.tier) == (7, 3, tier)


def test_unknown_names_are_named():
    with pytest.raises(UserError, match="Unknown tier 'huge'"):
        preset("sd2-c320", tier="huge")
    with pytest.raises(UserError, match="Unknown world 'laion'"):
        preset("sd2-c320", world="laion")


@pytest.mark.parametrize("images", [-5, 7])
def test_fewer_images_than_a_batch_are_no_live_run(home, tmp_path, images):
    study = Study("s", "of a test", ("sd2-c320",))
    with pytest.raises(UserError, match=f"images = {images} is less than a batch of tier smoke, 8: give 8 or more"):
        study.results(tmp_path, "smoke", images=images)


def test_a_world_says_which_captions_it_is_trained_with(monkeypatch):
    monkeypatch.setitem(world.WORLDS, "mine", (__name__, "Mine"))
    assert [preset("sd2-c320", w)[0].captions for w in ("scenes", "pictograms", "mine")] == ["medium", "name", "said"]


class Mine(world.World):
    densities, density = ("seen", "said"), "said"


def test_the_command_line_of_a_run_says_every_setting():
    config, budget = preset("sd2-c320", tier="smoke", seed=3, betas=(0.9, 0.95))
    line = command(config, budget, runs.home())
    settings = dict(part.split("=", 1) for before, part in zip(line, line[1:], strict=False) if before == "--set")
    assert preset("sd2-c320", "scenes", "smoke", **settings) == (config, budget)


STUDY = Study("two", "Two backbones", ("sd2-c320", "sdxl-td2"), settings={"steps": 2, "eval_every": 2})


def test_a_study_trains_what_is_missing_once(home, monkeypatch):
    first = STUDY.train("smoke", workers=2)
    times = [(f / "row.json").stat().st_mtime_ns for f in first]
    assert [runs.row(f)["status"] for f in first] == ["done", "done"]
    assert [runs.row(f)["backbone"] for f in first] == list(STUDY.backbones)
    monkeypatch.setattr(workers, "side_by_side", lambda *_, **__: pytest.fail("a process was started"))
    assert STUDY.train("smoke", workers=2) == first
    assert [(f / "row.json").stat().st_mtime_ns for f in first] == times
    both = STUDY.results(home / "nothing", "smoke", images=10**6, live=True)  # shortens, never lengthens
    assert set(both.runs["source"]) == {"live"} and both.runs["steps"].tolist() == [2, 2]


def test_a_figure_leaves_out_the_committed_runs_of_a_rate_sweep(home, tmp_path):
    swept = [preset("sd2-c320", tier="smoke", steps=2, eval_every=2, lr=lr) for lr in (1e-3, 3e-4)]
    short = preset("sdxl-td2", tier="smoke", steps=1, eval_every=1)  # at the figure's rate, and not to its end
    train_apart([*swept, short], home / "runs", workers=2)
    export(finished(home / "runs"), tmp_path)
    assert sorted(read_committed(tmp_path).runs["lr"]) == [3e-4, 1e-3, 1e-3]
    drawn = STUDY.results(tmp_path, "smoke", live=False)
    assert list(drawn.runs["lr"]) == [1e-3] and set(drawn.curves["run"]) == set(drawn.runs["run"])


def test_a_studys_finished_runs_alone_are_exported(home, tmp_path, monkeypatch):
    """While it trains, too: a dry run exports what is done so far, and nothing that another study left behind."""
    from typer.testing import CliRunner

    from t2ikit import cli, papers

    monkeypatch.setattr(papers, "studies", lambda: {"two": STUDY})
    train_apart([STUDY.runs("smoke")[0], preset("sd2-c320", tier="smoke", steps=2, lr=3e-4)], home / "runs", workers=2)
    line = ["study", "two", "--tier", "smoke", "--dry-run", "--gpu", "H100", "--export", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, line)
    assert done.exit_code == 0 and "1 of 2 runs, those trained here, are in" in done.stderr
    assert read_committed(tmp_path / "out").runs["lr"].tolist() == [STUDY.runs("smoke")[0][0].lr]
    damaged = run_folder(resolve(STUDY.runs("smoke")[1][0]), home / "runs")
    damaged.mkdir()
    for name in ("config.json", "row.json"):
        (damaged / name).write_text("{")
    again = CliRunner().invoke(cli.app, line[:-1] + [str(tmp_path / "again")])
    assert "1 of 2 runs, those trained here" in again.stderr and "(seed 0) is passed over: " in again.stderr
    assert f"{damaged / 'config.json'} is not readable JSON" in again.stderr


def test_a_run_that_fails_is_named_and_the_others_are_kept(home):
    good = STUDY.runs("smoke")[0]
    bad = [preset("sd2-c320", tier="smoke", codec="local-dir:nowhere", steps=2, seed=s) for s in (0, 1)]
    with pytest.raises(UserError) as error:
        train_apart([good, *bad], home / "runs", workers=3)
    assert str(error.value) == (
        "2 of 3 runs failed, the others are kept: sd2-c320 (seed 0), sd2-c320 (seed 1): There is no folder 'nowhere': "
        "give the folder of a model as local-dir:FOLDER."
    )
    assert [r["status"] for r in runs.table(home / "runs")[0]] == ["done"]


def test_a_run_that_another_process_trains_is_waited_for(home, monkeypatch):
    """Two figures that share a backbone, side by side: the second takes the run up when the first has let it go."""
    config, budget = STUDY.runs("smoke")[0]
    lease, waited = runs.Lease(run_folder(resolve(config), home / "runs")), []
    lease.acquire()

    def wait(seconds):
        waited.append(seconds)
        lease.release()

    monkeypatch.setattr(processes.time, "sleep", wait)
    (folder,) = train_apart([(config, budget)], home / "runs", workers=1)
    assert waited == [processes.LOOK] and files.read_json(folder / "row.json")["status"] == "done"


def test_who_waits_for_another_process_can_be_stopped(home):
    (home / "held").mkdir(parents=True)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from t2ikit import processes, workers\n"
        "sleep = processes.time.sleep\n"
        "processes.time.sleep = lambda seconds: (print('waits', flush=True), sleep(seconds))\n"
        "workers.wait_for_one([Path(sys.argv[1])])"
    )
    with runs.leased(home / "held"):
        process = subprocess.Popen([sys.executable, "-c", code, str(home / "held")], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "waits\n"
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_killed_run_says_what_killed_it(home, monkeypatch):
    monkeypatch.setattr(workers, "command", lambda *_: ["sh", "-c", "echo half done >&2; kill -KILL $$"])
    with pytest.raises(UserError, match="it was killed by SIGKILL, often for want of memory"):
        train_apart([STUDY.runs("smoke")[0]], home / "runs", workers=1)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_children_which_checkpoint(home, signum):
    """Ctrl-C as a terminal sends it: to the whole process group, children too."""
    code = (
        "from t2ikit.study import Study\n"
        "long = Study('long', 'One that goes on', ('sd2-c320',), settings={'steps': 100000, 'eval_every': 100000})\n"
        "long.train('smoke')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not any(p.stat().st_size for p in (home / "runs").glob("*/log.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.2)
    (os.killpg if signum == signal.SIGINT else os.kill)(process.pid, signum)
    assert process.wait(timeout=120) in (128 + signum, -signum)
    (row,) = runs.table(home / "runs")[0]
    assert row["status"] == "stopped"
    (folder,) = (home / "runs").iterdir()
    assert files.read_json(folder / "checkpoint.json")["step"] == row["steps"] > 0


def test_a_notebooks_kernel_does_not_load_torch():
    """It would be half a GB beside the runs that it waits for."""
    code = (
        "import sys\n"
        "import t2ikit.figures, t2ikit.samples, t2ikit.study, t2ikit.widgets.compare\n"
        "from t2ikit.workers import has_gpu\n"
        "has_gpu()\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
