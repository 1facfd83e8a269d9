"""Several runs at once, each in a process of its own: `t2ikit train` started by the study, one bar for all of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm.auto import tqdm

from t2ikit import files, runs
from t2ikit.config import Budget, RunConfig, canonical
from t2ikit.errors import UserError
from t2ikit.processes import cores, killed, side_by_side, until

BUSY = 75  # the exit code of a run that another process trains


def command(config: RunConfig, budget: Budget, root: Path) -> list[str]:
    """The command line that trains `config`."""
    values = asdict(config) | asdict(budget)
    name, world, tier = (values.pop(key) for key in ("backbone", "world", "tier"))
    line = [sys.executable, "-m", "t2ikit.cli", "train", name, "--world", world, "--tier", tier, "--runs", str(root)]
    for key, value in values.items():
        line += ["--set", f"{key}={value if isinstance(value, str) else canonical(value)}"]
    return line


def has_gpu() -> bool:
    """Whether torch sees one; asked in a process of its own, for torch would take half a GB of a notebook's kernel."""
    question = "import torch; raise SystemExit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", question]).returncode == 0


@dataclass(frozen=True)
class Found:
    """What there is of a run: its folder (None where the configuration is wrong), whether it is complete, and what is
    wrong with it."""

    folder: Path | None
    done: bool
    wrong: str = ""


def trained(
    wanted: Sequence[tuple[RunConfig, Budget]], root: Path, say: Callable[[str], object] = lambda _: None
) -> list[Path]:
    """The folders of those of `wanted` that are complete; `say` is told what is wrong with others."""
    every = found(wanted, root)
    for (config, _), run in zip(wanted, every, strict=True):
        if run.wrong:
            say(f"{config.backbone} (seed {config.seed}) is passed over: {run.wrong}")
    return [run.folder for run in every if run.folder and run.done]


def found(wanted: Sequence[tuple[RunConfig, Budget]], root: Path) -> list[Found]:
    """What there is of each of `wanted`; asked in a process of its own too, unless there are no runs yet."""
    if not root.is_dir():
        return [Found(None, False)] * len(wanted)
    question = json.dumps([(asdict(config), asdict(budget)) for config, budget in wanted])
    line = [sys.executable, "-m", "t2ikit.workers", str(root)]
    asked = subprocess.run(line, input=question, capture_output=True, text=True)
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
        raise UserError(f"What is trained in {root} cannot be told: {said.rstrip('.')}.")
    return [Found(Path(folder) if folder else None, done, wrong) for folder, done, wrong in json.loads(asked.stdout)]


def answer(question: str, root: Path) -> str:
    """What `found` asks, answered."""
    from t2ikit.train.folder import check_evaluated, check_folder, is_done, run_folder
    from t2ikit.train.setup import resolve

    told = []
    for config, budget in json.loads(question):
        folder, done, wrong = None, False, ""
        try:
            parts, budget = resolve(RunConfig(**config)), Budget(**budget)
            folder = run_folder(parts, root)
            check_folder(folder, parts)
            check_evaluated(folder, budget)
            done = is_done(folder, budget.steps)
        except UserError as error:
            wrong = str(error)
        told.append((folder and str(folder), done, wrong))
    return json.dumps(told)


def wait_for_one(folders: Sequence[Path]) -> None:
    """Return when one of `folders`, or more, is trained by no process."""

    def held(folder: Path) -> bool:
        with contextlib.suppress(UserError):  # a lease that cannot be read: whoever asks to train there will say so
            return runs.holder_of(folder) is not None
        return False

    until(lambda: not (folders and all(map(held, folders))))


def train_apart(wanted: Sequence[tuple[RunConfig, Budget]], root: Path, workers: int | None = None) -> list[Path]:
    """Train all of `wanted`, `workers` at a time (default: on a machine without GPU as many as this process's cores
    hold, a run's threads each; with one, 1); returns the run folders in order. Stopped, it goes on when called again.

    One process finds what is trained already, and none is started for it. A run that another process trains is waited
    for and taken up from there. A run that fails does not stop the others; at the end a UserError names each with the
    last thing it said, and what several said once. SIGTERM and Ctrl-C are handed on: every child checkpoints before
    this process ends.
    """
    folders = {k: run.folder for k, run in enumerate(found(wanted, root)) if run.folder and run.done}
    missing = [k for k in range(len(wanted)) if k not in folders]
    if not missing:
        return [folders[k] for k in range(len(wanted))]
    threads = max((budget.threads for _, budget in wanted), default=0)
    if workers is None:
        workers = 1 if not threads or has_gpu() else max(1, cores() // threads)
    environment = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    names = [f"{config.backbone} (seed {config.seed})" for config, _ in wanted]
    failed: dict[str, list[str]] = {}  # what was said last: who said it
    start = time.monotonic()
    with tqdm(total=len(wanted), initial=len(folders), desc="runs", unit="run") as bar:
        while missing:
            commands, waiting, elsewhere = [command(*wanted[k], root) for k in missing], list(missing), []
            for ended in side_by_side(commands, workers, environment=environment):
                for place, child in ended.items():
                    waiting.remove(number := missing[place])
                    if child.code == BUSY:
                        elsewhere.append(number)
                        continue
                    if child.code:
                        said = child.last.removeprefix("t2ikit: ") or f"exit code {child.code}"
                        said = f"it was {killed(child.code)}" if child.code < 0 else said
                        failed.setdefault(said, []).append(names[number])
                    else:
                        folders[number] = Path(child.printed.strip())
                        row = files.read_json(folders[number] / "row.json", runs.ROW_KEYS)
                        after = time.monotonic() - start
                        bar.write(f"{row['run']}: {row['steps']} steps, loss {row['loss']:.4f}, after {after:.0f} s")
                    bar.update()
                bar.set_postfix_str(", ".join(wanted[number][0].backbone for number in waiting[:workers]))
            missing = sorted(elsewhere)
            if missing:
                bar.set_postfix_str(f"waiting for another process that trains {', '.join(names[k] for k in missing)}")
                wait_for_one([run.folder for run in found([wanted[k] for k in missing], root) if run.folder])
    if failed:
        told = "; ".join(f"{', '.join(sorted(who))}: {said.rstrip('.')}" for said, who in failed.items())
        count = sum(map(len, failed.values()))
        raise UserError(f"{count} of {len(wanted)} runs failed, the others are kept: {told}.")
    return [folders[number] for number in range(len(wanted))]


if __name__ == "__main__":
    print(answer(sys.stdin.read(), Path(sys.argv[1])))
