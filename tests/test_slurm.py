"""Notebooks as jobs of a real Slurm of one node, started here; skipped where Slurm and munge are not installed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import psutil
import pytest

from t2ikit import batch
from t2ikit.errors import UserError

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("slurmctld", "slurmd", "munged"))), reason="needs Slurm: apt-get install slurm-wlm munge"
)
V4 = nbformat.v4
DAEMONS = ("slurmd", "slurmctld", "munged")
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={root}/munge.socket
SlurmctldPort=26817
SlurmdPort=26818
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
PlugStackConfig=/dev/null
ReturnToService=2
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory, until):
    """A cluster of this machine alone, without accounting, control groups or anything left behind."""
    root, host = tmp_path_factory.mktemp("slurm"), socket.gethostname().split(".")[0]
    root.chmod(0o755)
    for folder in ("state", "spool"):
        (root / folder).mkdir()
    (root / "munge.key").write_bytes(os.urandom(128))
    (root / "munge.key").chmod(0o600)
    config = root / "slurm.conf"
    config.write_text(CONFIG.format(root=root, host=host, user=psutil.Process().username()))
    before, os.environ["SLURM_CONF"] = os.environ.get("SLURM_CONF"), str(config)
    munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munge.log"}
    options = [f"--{key}={root / name}" for key, name in (munge | {"seed-file": "munge.seed"}).items()]
    try:
        subprocess.run(["munged", "--force", *options], check=True)
        subprocess.run(["slurmctld"], check=True)
        subprocess.run(["slurmd", "-N", host], check=True)
        until(lambda: subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout == "idle\n")
        yield root
    finally:
        for daemon in DAEMONS:
            pid = root / f"{daemon}.pid"
            with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
                process = psutil.Process(int(pid.read_text()))
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


@pytest.fixture
def figure(monkeypatch, tmp_path):
    """Makes a notebook of these cells the figure that is asked for."""

    def make(*sources: str) -> Path:
        cells = [V4.new_code_cell("tier: str = 'smoke'", metadata={"tags": ["parameters"]})]
        path = tmp_path / "fig90.ipynb"
        nbformat.write(V4.new_notebook(cells=[*cells, *map(V4.new_code_cell, sources)]), path)
        return path

    monkeypatch.setattr(batch, "find", lambda _: tmp_path / "fig90.ipynb")
    return make


def test_a_notebook_runs_as_a_job(slurm, figure, tmp_path, monkeypatch, capsys):
    figure("import os", "print(1 / 0 if tier == 'small' else 'in ' + os.environ['SLURM_JOB_NAME'])")
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")  # sbatch would believe it rather than the options in a script
    (report,) = batch.reproduce(["fig90"], "tiny", "slurm", tmp_path / "r", sbatch={"partition": "all"})
    assert capsys.readouterr().err.endswith("1 of 1: fig90: done\n")
    assert "in t2ikit" in report.read_text() and os.environ["SBATCH_PARTITION"] == "nowhere"
    monkeypatch.delenv("SBATCH_PARTITION")
    with pytest.raises(batch.NotebookFailed, match=r"fig90.ipynb stopped at cell 4 of 4 .*ZeroDivisionError"):
        batch.reproduce(["fig90"], "small", "slurm", tmp_path / "r")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"partition": "nowhere"}, ".*[Ii]nvalid partition name specified"),
        ({"tyme": "1"}, "unrecognized option '--tyme=1'"),
    ],
)
def test_what_sbatch_refuses_is_one_sentence(slurm, figure, tmp_path, options, said):
    figure("1")
    with pytest.raises(UserError, match=f"^sbatch refused the jobs: {said}"):
        batch.reproduce(["fig90"], "tiny", "slurm", tmp_path / "r", sbatch=options)


def test_a_job_that_is_cancelled_is_not_queued_again(slurm, figure, tmp_path, until):
    figure("open('waiting', 'w').close()\nimport time\nfor _ in range(600):\n    time.sleep(0.1)")
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(batch.reproduce, ["fig90"], "tiny", "slurm", tmp_path / "r")
        until((tmp_path / "r" / "waiting").exists)
        subprocess.run(["scancel", "--name", "t2ikit"], check=True)
        with pytest.raises(batch.NotebookFailed, match="fig90.ipynb stopped at cell .*: stopped by SIGTERM"):
            asked.result(timeout=120)
    until(lambda: not subprocess.run(["squeue", "-h"], capture_output=True, check=True).stdout)  # nor pending


@pytest.mark.slow
def test_a_job_whose_time_is_up_is_queued_again_and_goes_on(slurm, figure, tmp_path):
    """It alone, and not the array's other jobs, though the array's last job has its number. Slurm waits two minutes
    before it starts a job again."""
    figure(
        "import os, signal, sys, time\n"
        "def checkpoint(*_):\n"
        "    open('checkpoint', 'w').close()\n"
        "    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, checkpoint)\n"
        "task = os.environ['SLURM_ARRAY_TASK_ID']\n"
        "print('start', task, file=open('starts', 'a'))\n"
        "while task == '1' and not os.path.exists('checkpoint'):\n"
        "    time.sleep(0.1)\n"
        "print('went on', os.environ.get('SLURM_RESTART_COUNT'))"
    )
    options = {"time": "1", "signal": "TERM@50"}
    reports = batch.reproduce(["fig90", "fig91"], "tiny", "slurm", tmp_path / "r", sbatch=options)
    assert "went on None" in reports[0].read_text() and "went on 1" in reports[1].read_text()
    assert sorted((tmp_path / "r" / "starts").read_text().splitlines()) == ["start 0", "start 1", "start 1"]
