"""Where batch jobs run: `local` (an OS process a notebook, a few at once) or `slurm` (a job of an array a notebook).

An executor is a function (jobs, workers, log) -> {name of a failed job: its error}; add one to EXECUTORS. It ends in
`run_job` on whatever machine, and reads how that went from the job's status file.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from t2ikit.errors import Busy, NotebookFailed, UserError, need
from t2ikit.execution import execute, status, to_stderr
from t2ikit.processes import side_by_side

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


def slurm(jobs: Sequence[Job], workers: int, log: Log) -> dict[str, Exception]:
    """Submit the jobs as one array, at most `workers` running at once, and wait. Partition, time and GPUs come from the
    cluster's defaults and the SBATCH_* variables of the environment. The logs are in `slurm/` beside the reports."""
    try:
        import submitit
    except ImportError:
        raise need("slurm", "submitit") from None
    if shutil.which("sbatch") is None:
        raise UserError("There is no sbatch here: run on a login node of the cluster, or use executor local.")
    cluster = submitit.SlurmExecutor(folder=Path(jobs[0].html).parent / "slurm", python=sys.executable)
    cluster.update_parameters(job_name="t2ikit", array_parallelism=max(1, workers))
    submitted = cluster.map_array(run_job, jobs)
    log(f"submitted {', '.join(job.job_id for job in submitted)}")
    failures: dict[str, Exception] = {}
    for job, handle in zip(jobs, submitted, strict=True):
        if handle.exception() is not None:  # waits for the job, returns what became of it
            failures[job.name] = _why(job, None, f"{job.name} was not exported: see {handle.paths.stderr}")
    return failures


EXECUTORS: dict[str, Callable[[Sequence[Job], int, Log], dict[str, Exception]]] = {"local": local, "slurm": slurm}
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
