"""The figures of papers as batch jobs: execute the notebook of each, export it to one HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from t2ikit import runs
from t2ikit.config import TIERS
from t2ikit.errors import NotebookFailed, UserError, choose
from t2ikit.execution import execute, read, status, status_path, to_stderr
from t2ikit.executors import EXECUTORS, Job
from t2ikit.notebook_parameters import checked, from_text
from t2ikit.papers import find

__all__ = ["NotebookFailed", "execute", "reproduce", "status", "status_path"]


def reproduce(
    figures: Sequence[str],
    tier: str,
    executor: str = "local",
    out: Path | None = None,
    parameters: Mapping[str, object] | None = None,
    *,
    settings: Mapping[str, str] | None = None,
    workers: int = 1,
    timeout: float | None = None,
    sbatch: Mapping[str, str] | None = None,
    log: Callable[[str], None] = to_stderr,
) -> list[Path]:
    """Execute the notebooks of `figures` at `tier` and export each; returns the HTML files, `out`/FIG.html, in order.

    figures: `fig01`, or `scalability/fig01` where two papers have one of that name.
    out: default $T2IKIT_HOME/reports. parameters: given to every notebook, beside `tier`; settings: more of them, as
    typed on a command line: JSON, or text where a notebook takes text.
    sbatch: options for executor slurm, see there.
    workers: notebooks at once. All parameters of all notebooks are checked before the first starts; a failed notebook
    does not stop the others, and is named at the end.
    """
    run = EXECUTORS[choose("executor", executor, EXECUTORS)]
    choose("tier", tier, TIERS)
    if sbatch and executor != "slurm":
        raise UserError(f"Executor {executor} has no sbatch options: leave them out, or use executor slurm.")
    folder = Path(out) if out is not None else runs.home() / "reports"
    jobs = []
    for figure in dict.fromkeys(figures):
        notebook = find(figure)
        node = read(notebook)
        given = {"tier": tier, **(parameters or {}), **from_text(node, settings or {}, notebook.name)}
        plain = checked(node, given, notebook.name)
        stem = folder.resolve() / figure
        jobs.append(Job(figure, str(notebook), f"{stem}.ipynb", f"{stem}.html", plain, timeout))
    for job in jobs:
        if status(Path(job.out)).get("state") == "failed":  # an earlier attempt's words are not this one's
            status_path(Path(job.out)).unlink(missing_ok=True)
    failures = run(jobs, workers, log, **({"sbatch": sbatch} if sbatch else {}))
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        told = "\n".join(f"  {job.name}: {failures[job.name]}" for job in jobs if job.name in failures)
        raise NotebookFailed(f"{len(failures)} of {len(jobs)} notebooks failed:\n{told}")
    return [Path(job.html) for job in jobs]
