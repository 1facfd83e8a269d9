"""Where batch jobs run: `local` (an OS process a notebook, a few at once) or `slurm` (a job of an array a notebook).

An executor is a function (jobs, workers, log, options of its own) -> {name of a failed job: its error}; add one to
EXECUTORS. It ends in `run_job` on whatever machine, and reads how that went from the job's status file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from t2ikit.errors import Busy, NotebookFailed, UserError, need
from t2ikit.execution import execute, status, to_stderr
from t2ikit.processes import STOPS, catching, leave, side_by_side, until

RESTARTS = 20  # of a Slurm job whose time was up
WARNING = 180  # seconds before a Slurm job's time is up: longer than a kernel has for its checkpoint
Log = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One notebook to execute and export: all an executor needs, and plain enough to send to another process.

    name: the figure. notebook, out: .ipynb. html: the report. timeout: seconds a cell, None for no limit.
    """

    name: str
    notebook: str
    out: str
    html: str
    parameters: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None


def run_job(job: Job, log: Log = to_stderr) -> str:
    """Execute and export one job in this process; returns the HTML file."""
    from t2ikit import report

    executed = execute(Path(job.notebook), job.parameters, Path(job.out), log=log, timeout=job.timeout)
    size = report.export(executed, Path(job.html))
    log(f"{job.name}: {job.html} ({size / 1e6:.1f} MB)")
    return job.html


def local(jobs: Sequence[Job], workers: int, log: Log) -> dict[str, Exception]:
    """Run `workers` jobs at once. A signal to this process reaches every kernel; then this process ends."""
    commands = [[sys.executable, "-m", "t2ikit.executors", json.dumps(asdict(job))] for job in jobs]
    failures: dict[str, Exception] = {}
    for ended in side_by_side(commands, workers, log):
        for number, child in ended.items():
            if child.code:
                said = child.last or f"{jobs[number].name}: its process ended without a word"
                failures[jobs[number].name] = _why(jobs[number], _KINDS.get(child.code), said)
    return failures


def slurm(jobs: Sequence[Job], workers: int, log: Log, sbatch: Mapping[str, str] | None = None) -> dict[str, Exception]:
    """Submit the jobs as one array, at most `workers` running at once, and wait. The logs are in `slurm/` beside the
    reports.

    sbatch: its options by their long names, such as time, partition, gpus, ahead of the SBATCH_* variables of the
    environment; all else is as these and the cluster's defaults have it. A job whose time is up writes its checkpoints
    and is queued again; it is told three to four minutes before.
    """
    try:
        import submitit
        from submitit.core.utils import FailedJobError
        from submitit.helpers import as_completed
    except ImportError:
        raise need("slurm", "submitit") from None
    if shutil.which("sbatch") is None:
        raise UserError("There is no sbatch here: run on a login node of the cluster, or use executor local.")
    options = {"signal": f"TERM@{WARNING}", "requeue": True} | dict(sbatch or {})
    cluster = submitit.SlurmExecutor(folder=Path(jobs[0].html).parent / "slurm", python=sys.executable)
    cluster.update_parameters(
        job_name="t2ikit",
        array_parallelism=max(1, workers),
        time=None,  # submitit's default would be five minutes
        additional_parameters=options,
    )
    variables = {"SBATCH_" + ("TIMELIMIT" if key == "time" else key.upper().replace("-", "_")) for key in options}
    unset = {name: os.environ.pop(name) for name in variables & set(os.environ)}  # they would win
    try:
        submitted = cluster.map_array(_on_node, jobs)
    except FailedJobError as error:
        said = [line for line in str(error).splitlines() if line.strip() and not line.startswith("Try ")]
        why = said[-1].removeprefix("sbatch: ").removeprefix("error: ") if said else "it gave no reason"
        raise UserError(f"sbatch refused the jobs: {why.rstrip('.')}.") from error
    finally:
        os.environ.update(unset)
    log(f"submitted {', '.join(job.job_id for job in submitted)}")
    failures: dict[str, Exception] = {}
    of = {handle.job_id: job for job, handle in zip(jobs, submitted, strict=True)}
    for number, handle in enumerate(as_completed(submitted), 1):
        job, ended = of[handle.job_id], "done"
        if handle.exception() is not None:
            unsaid = f"{job.name} was not exported: see {handle.paths.stderr}"
            failures[job.name] = ended = _why(job, None, unsaid)
        log(f"{number} of {len(jobs)}: {job.name}: {ended}")
    return failures


def _on_node(job: Job) -> str:
    """`run_job` inside a Slurm job. Told that the job's time is nearly up, it has the job queued again, and the next
    start goes on from the checkpoints. A job that was cancelled runs no more by then, and a preempted one is queued by
    Slurm."""
    import submitit

    starts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    try:
        with catching(leave, *STOPS):
            if starts:  # its last node may have died, and the status there says so when its heart has been still
                until(lambda: status(Path(job.out)).get("state") != "running")
            return run_job(job)
    except SystemExit:
        number = submitit.JobEnvironment().job_id  # of this one: an array's own number means all of its jobs
        asked = subprocess.run(["squeue", "--noheader", "--jobs", number, "--format", "%T"], capture_output=True)
        if asked.stdout.strip() != b"RUNNING" or starts >= RESTARTS:
            raise NotebookFailed(f"{job.name} was stopped, after {starts} restarts.") from None
        to_stderr(f"{job.name}: queued again")
        subprocess.run(["scontrol", "requeue", number], check=True)
        raise


EXECUTORS: dict[str, Callable[..., dict[str, Exception]]] = {"local": local, "slurm": slurm}
_KINDS: dict[int, type[Exception]] = {2: UserError, 75: Busy}  # by the exit code of a child


def _why(job: Job, kind: type[Exception] | None, last_words: str) -> Exception:
    """Why a job ended badly, in the words of its status file, or its own last ones if it was executed well."""
    state = status(Path(job.out))
    if state.get("state") != "failed":
        return (kind or NotebookFailed)(last_words)
    return (kind or (UserError if state["kind"] == "user" else NotebookFailed))(state["error"])


def _main() -> int:
    """The child process of `local`: a job as JSON in its only argument."""
    job = Job(**json.loads(sys.argv[1]))
    try:
        run_job(job)
    except (UserError, NotebookFailed) as error:
        print(f"{job.name}: {error}", file=sys.stderr)
        return next((code for code, kind in _KINDS.items() if type(error) is kind), 1)
    return 0


if __name__ == "__main__":
    sys.exit(_main())
