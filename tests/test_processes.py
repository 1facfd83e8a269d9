"""Commands side by side: how each ended, and no child left behind."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from t2ikit.processes import STOPS, Ended, catching, cores, side_by_side

PYTHON = [sys.executable, "-c"]


def test_each_is_told_and_ends_in_its_way():
    lines = []
    codes = ["print('out')", "import sys; sys.stderr.write('a\\n bar: 1%\\r bar: 2%\\n\\n'); sys.exit(3)"]
    ended = {}
    for some in side_by_side([[*PYTHON, code] for code in codes], 2, lines.append, {"LANG": "C"}):
        ended |= some
    assert ended == {0: Ended(0, "out\n", ""), 1: Ended(3, "", "bar: 2%")}
    assert lines == ["a", " bar: 1%", " bar: 2%", ""]


def test_an_error_of_whoever_asks_leaves_no_child_behind(tmp_path):
    sleeps = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(ZeroDivisionError):
        for ended in side_by_side([[*PYTHON, "1"], [*PYTHON, sleeps], [*PYTHON, sleeps]], 2):
            if ended:
                while not (tmp_path / "pid").exists():
                    pass
                raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize("signum", STOPS)
def test_a_signal_reaches_the_children_and_is_waited_out(tmp_path, signum, until):
    """SIGUSR1, as `sbatch --signal` sends, killed the parent alone: its children went on."""
    waits = f"""
import os, pathlib, signal, sys, time
def save(*_):
    pathlib.Path({str(tmp_path / "saved")!r}).touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path({str(tmp_path / "ready")!r}).touch()
parent = os.getppid()
while os.getppid() == parent:
    time.sleep(0.05)"""
    parent = "import sys\nfrom t2ikit.processes import side_by_side\nlist(side_by_side([sys.argv[1:]], 1))"
    process = subprocess.Popen([*PYTHON, parent, *PYTHON, waits], stderr=subprocess.DEVNULL)
    until((tmp_path / "ready").exists)
    process.send_signal(signum)
    process.wait()
    assert (tmp_path / "saved").exists()
    assert process.returncode == (-signal.SIGINT if signum == signal.SIGINT else 143)


def test_handlers_are_put_back_and_only_the_main_thread_has_them():
    before, caught = signal.getsignal(signal.SIGUSR1), []
    with catching(caught.append, signal.SIGUSR1):
        os.kill(os.getpid(), signal.SIGUSR1)
        assert caught == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) is before
    with catching(caught.append, signal.SIGUSR1):
        thread = threading.Thread(target=lambda: catching(print, signal.SIGUSR1).__enter__())
        thread.start()
        thread.join()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_cores_are_those_the_process_may_use():
    before = os.sched_getaffinity(0)
    assert cores() == len(before)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)
