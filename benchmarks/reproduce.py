"""What a newcomer waits and needs for the first figure: `python -m benchmarks.reproduce`.

Clones the checkout's last commit, runs `make reproduce` there with an empty HOME, installation and data included, and
prints wall time and peak memory as seen every other second: of all its processes together (PSS, which counts shared
pages once) and of the largest one (RSS). docs/reproduce.json keeps what it printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from t2ikit.train.journal import cpu_name

ROOT = Path(__file__).resolve().parent.parent
EVERY = 2.0  # seconds between two looks at the memory, which the looked at pay for


def memory(process: psutil.Process) -> tuple[int, int]:
    """PSS of the process tree and RSS of its largest member, in bytes."""
    seen = []
    for member in [process, *process.children(recursive=True)]:
        try:
            seen.append(member.memory_full_info())
        except psutil.NoSuchProcess:
            continue
    return sum(m.pss for m in seen), max((m.rss for m in seen), default=0)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone, house = Path(folder, "clone"), Path(folder, "home")
        house.mkdir()
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=clone, check=True, capture_output=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("T2IKIT_", "VIRTUAL_ENV"))}
        began, together, largest = time.monotonic(), 0, 0
        child = psutil.Popen(["make", "reproduce"], cwd=clone, env=kept | {"HOME": str(house)}, stdout=sys.stderr)
        while child.poll() is None:
            try:
                now = memory(child)
            except psutil.NoSuchProcess:
                break
            together, largest = max(together, now[0]), max(largest, now[1])
            time.sleep(EVERY)
        minutes = (time.monotonic() - began) / 60
        if child.wait() != 0:
            raise SystemExit(f"make reproduce ended with status {child.returncode}.")
        size = (clone / "reports" / "fig03.html").stat().st_size
    row = {
        "commit": commit.stdout.decode().strip(),
        "device": f"{cpu_name()} × {psutil.cpu_count()}",
        "minutes": round(minutes, 1),
        "peak_gb_all_processes": round(together / 1e9, 2),
        "peak_gb_largest_process": round(largest / 1e9, 2),
        "report_mb": round(size / 1e6, 1),
    }
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
