"""The run folder: where it is, the lease, and the table of runs."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from t2ikit import runs
from t2ikit.errors import Busy, UserError
from t2ikit.files import locked, read_json, write_json
from t2ikit.runs import Lease, holder_of, leased, merging, table

ROW = dict.fromkeys(runs.ROW_KEYS, 1) | {"status": "done"}


def make_run(folder, **row):
    write_json(folder / "config.json", {"id": folder.name, "config": {}})
    write_json(folder / "row.json", ROW | {"run": folder.name} | row)
    return folder


def lease_of(folder, **changes):
    """Write a lease as another process would have."""
    write_json(
        folder / "lease.json", {"host": "elsewhere", "pid": 1, "born": 0.0, "token": "t", "beat": time.time()} | changes
    )


def test_home_is_the_environments_then_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setenv("T2IKIT_HOME", str(tmp_path / "x"))
    assert runs.home() == tmp_path / "x"
    monkeypatch.setenv("T2IKIT_HOME", "")
    assert (runs.home() / "pyproject.toml").exists() or runs.home().name == ".t2ikit"


def test_a_relative_home_would_be_another_in_each_folder(monkeypatch):
    monkeypatch.setenv("T2IKIT_HOME", "here")
    with pytest.raises(UserError, match="T2IKIT_HOME is 'here', a relative path: give one that begins with / or ~"):
        runs.home()
    monkeypatch.setenv("T2IKIT_HOME", "~/there")
    assert runs.home() == Path.home().resolve() / "there"


# the lease


def test_one_holder_at_a_time_in_one_process(tmp_path):
    with leased(tmp_path), pytest.raises(Busy, match=rf"is being trained by process {os.getpid()} on "):
        Lease(tmp_path).acquire()
    with leased(tmp_path):
        pass
    assert holder_of(tmp_path) is None


HOLD = """
import sys, time
from pathlib import Path
from t2ikit.runs import leased

with leased(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_another_process_is_busy_and_a_dead_ones_lease_is_taken_over(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "ready\n"
    with pytest.raises(Busy, match=f"process {child.pid} "):
        Lease(tmp_path).acquire()
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert holder_of(tmp_path) is None  # dead, a zombie that nobody has waited for
    Lease(tmp_path).acquire()
    child.communicate()


def test_a_pid_that_was_given_to_another_process_is_not_the_holder(tmp_path):
    import socket

    lease_of(tmp_path, host=socket.gethostname(), pid=os.getpid(), born=psutil.Process().create_time() - 100)
    assert holder_of(tmp_path) is None


def test_a_lease_of_another_host_lives_as_long_as_its_heartbeat(tmp_path):
    lease_of(tmp_path)
    with pytest.raises(Busy, match="process 1 on elsewhere"):
        Lease(tmp_path).acquire()
    lease_of(tmp_path, beat=time.time() - runs.LEASE_SECONDS - 1)
    Lease(tmp_path).acquire()


@pytest.fixture
def written(monkeypatch):
    """Set at each write of a lease, whose heart beats a hundred times a second."""
    event = threading.Event()

    def write(*args):
        write_json(*args)
        event.set()

    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(runs, "write_json", write)
    return event


def test_a_long_step_keeps_its_lease(tmp_path, written):
    with leased(tmp_path):
        first = read_json(tmp_path / "lease.json")["beat"]
        for _ in range(2):  # the first may be told of a write before
            written.clear()
            assert written.wait(60)
        assert read_json(tmp_path / "lease.json")["beat"] > first


def test_a_heart_outlives_a_disk_that_hiccups(tmp_path, monkeypatch, written):
    """An NFS server that does not answer once: flock fails, and the next beat comes all the same."""
    refused, flock, over = [], fcntl.flock, threading.Event()

    def hiccup(*args):
        if len(refused) < 3:
            refused.append(args)
            raise OSError(errno.ENOLCK, "No locks available")
        over.set()
        return flock(*args)

    with leased(tmp_path):
        first = read_json(tmp_path / "lease.json")["beat"]
        monkeypatch.setattr(fcntl, "flock", hiccup)
        assert over.wait(60) and len(refused) == 3
        for _ in range(2):
            written.clear()
            assert written.wait(60)
        assert read_json(tmp_path / "lease.json")["beat"] > first


def test_a_disk_without_locks_is_one_sentence(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(UserError, match=r"cannot be locked \(Function not implemented\): its file system has no flock"):
        Lease(tmp_path).acquire()


def test_those_who_merge_a_table_meet_whatever_home_they_have(tmp_path, monkeypatch):
    for name in ("one", "other"):
        monkeypatch.setenv("T2IKIT_HOME", str(tmp_path / name))
        with merging(tmp_path / "rows.csv"), pytest.raises(Busy, match="held"):
            with locked(tmp_path / ".rows.csv.lock", "held"):
                pass


def test_a_writer_whose_lease_was_taken_stops_and_leaves_the_takers(tmp_path):
    with leased(tmp_path) as lease:
        lease_of(tmp_path)
        with pytest.raises(Busy, match="has taken over"):
            lease.check()
        with pytest.raises(Busy, match="has taken over"):
            lease.beat()
    assert read_json(tmp_path / "lease.json")["host"] == "elsewhere"


def test_of_many_takers_one_wins(tmp_path):
    start, won, lost = threading.Barrier(8), [], []

    def take():
        lease = Lease(tmp_path)
        start.wait()
        try:
            lease.acquire()
            won.append(lease)
        except Busy:
            lost.append(lease)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].check()


@pytest.mark.parametrize("text", ["", '{"host": "a', "{}", "[]"])
def test_a_damaged_lease_is_named(tmp_path, text):
    (tmp_path / "lease.json").write_text(text)
    with pytest.raises(UserError, match="lease.json"):
        Lease(tmp_path).acquire()
    with pytest.raises(UserError, match="lease.json"):
        holder_of(tmp_path)


def test_taking_the_lease_clears_what_a_killed_writer_left(tmp_path):
    (tmp_path / "snapshots").mkdir()
    left = [
        tmp_path / ".checkpoint-1.safetensors.12.abc.tmp",
        tmp_path / "snapshots" / ".step-1.safetensors.12.abc.tmp",
    ]
    for path in left:
        path.write_bytes(b"half")
    (tmp_path / "row.json").write_text("{}")
    (tmp_path / "images").mkdir()
    (drawn := tmp_path / "images" / ".0001.png.13.abc.tmp").write_bytes(b"half")  # by another process, which goes on
    with leased(tmp_path):
        assert not any(path.exists() for path in left)
        assert (tmp_path / "row.json").exists() and drawn.exists()


# the table


def test_a_row_tells_its_status_as_of_now(tmp_path):
    run = make_run(tmp_path / "a", status="running")
    assert runs.row(run)["status"] == "stopped"
    with leased(run):
        assert runs.row(run)["status"] == "running"
    assert runs.row(make_run(tmp_path / "b", status="failed"))["status"] == "failed"


def test_a_folder_that_is_no_run_is_a_sentence_beside_the_others(tmp_path):
    make_run(tmp_path / "good")
    (make_run(tmp_path / "cut") / "row.json").write_text('{"run": ')
    (make_run(tmp_path / "bare") / "config.json").unlink()
    (tmp_path / ".hidden").mkdir()
    rows, problems = table(tmp_path)
    assert [r["run"] for r in rows] == ["good"]
    assert len(problems) == 2
    assert "bare/config.json is missing" in problems[0]
    assert "cut/row.json is not readable" in problems[1]


def test_a_run_that_is_just_being_started_is_not_called_damaged(tmp_path):
    write_json(tmp_path / "a" / "config.json", {"id": "a", "config": {}})
    with leased(tmp_path / "a"):
        assert table(tmp_path) == ([], [f"a is being started by process {os.getpid()} on {socket.gethostname()}."])
    assert "a/row.json is missing" in table(tmp_path)[1][0]


def test_a_missing_folder_of_runs_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="There is no folder"):
        table(tmp_path / "none")
