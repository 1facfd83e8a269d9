"""Files: the old bytes or the new ones, and a sentence for what is wrong with them."""

import os
import subprocess
import sys
import time

import pandas as pd
import pytest

from t2ikit import files
from t2ikit.errors import UserError
from t2ikit.files import read_json, read_lines, write_atomic, write_csv, write_json
from t2ikit.runs import Lease

REWRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from t2ikit.files import write_atomic

for size in itertools.count():
    write_atomic(Path(sys.argv[1]), bytes([size % 251]) * 200_000)
    if not size:
        print("ready", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_old_or_new_bytes(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"\xff" * 200_000)
    for delay in (0.0, 0.003, 0.01, 0.03):
        child = subprocess.Popen([sys.executable, "-c", REWRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.02 + delay)
        child.kill()
        child.communicate()
        data = path.read_bytes()
        assert len(data) == 200_000 and len(set(data)) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a file system of our own needs root: cannot fill a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_leaves_the_old_file_and_says_so(small_disk):
    path = small_disk / "file"
    write_atomic(path, b"old")
    with pytest.raises(
        UserError, match=r"The disk is full: file \(2.0 MB\) was not written and what was there is kept"
    ):
        write_atomic(path, bytes(2_000_000))
    assert path.read_bytes() == b"old"
    assert [p.name for p in small_disk.iterdir()] == ["file"]
    write_atomic(path, bytes(500_000))
    with pytest.raises(UserError, match="The disk is full: log.jsonl"):
        for _ in range(100):
            files.append_line(small_disk / "log.jsonl", {"x": "y" * 30_000})
    read_lines(small_disk / "log.jsonl")  # the line that was cut short is left out


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written.*set T2IKIT_HOME"):
        write_json(tmp_path / "file" / "runs" / "row.json", {})
    with pytest.raises(UserError, match="cannot be written"):
        Lease(tmp_path / "file" / "run").acquire()


def test_json_that_is_no_json_or_lacks_a_key_is_named(tmp_path):
    path = tmp_path / "row.json"
    for text in ("", '{"run": ', "\xff", "nonsense"):
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(UserError, match="row.json is not readable JSON"):
            read_json(path)
    for text in ("[]", "null", "3", '{"steps": 1}'):
        path.write_text(text)
        with pytest.raises(UserError, match="row.json lacks 'run'"):
            read_json(path, ("run", "steps"))
    with pytest.raises(UserError, match="is missing"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path)


def test_lines_leave_out_a_cut_end_and_name_what_is_broken(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [r["step"] for r in read_lines(path, ("step",))] == [1, 2]
    path.write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"log.jsonl, line 2, is not JSON"):
        read_lines(path)
    for broken in ("5", "[]", "{}"):
        path.write_text(f'{{"step": 1}}\n{broken}\n')
        with pytest.raises(UserError, match="line 2, lacks 'step'"):
            read_lines(path, ("step",))
    assert read_lines(tmp_path / "none") == []


def test_a_line_after_a_cut_end_takes_its_place(tmp_path):
    path = tmp_path / "log.jsonl"
    for text, kept in (('{"a": 1}\n{"a": ', [{"a": 1}]), ('{"a', []), ("", []), ('{"a": 1}\n', [{"a": 1}])):
        path.write_text(text)
        files.append_line(path, {"b": 2})
        assert files.read_lines(path) == [*kept, {"b": 2}]


def test_tables_have_seven_digits_but_whole_numbers_keep_theirs(tmp_path):
    """pandas holds the seed as a float, for one row has none."""
    table = pd.DataFrame({
        "seed": [20240402, None, 20240403], "C": [3e12, 1e14, None], "loss": [0.123456789, 1.0, float("inf")],
    })  # fmt: skip
    write_csv(tmp_path / "a.csv", table)
    lines = ["seed,C,loss", "20240402,3e+12,0.1234568", ",1e+14,1", "20240403,,inf"]
    assert (tmp_path / "a.csv").read_text().splitlines() == lines
    assert table["seed"].dtype == float  # the caller's own
    # as rows of a world without flips make it
    write_csv(tmp_path / "b.csv", pd.DataFrame({"flips": pd.Series([0.5978494623655914, None], dtype=object)}))
    assert (tmp_path / "b.csv").read_text().splitlines() == ["flips", "0.5978495", '""']
    # as the claims' column of what the paper says has it
    write_csv(tmp_path / "c.csv", pd.DataFrame({"id": list("abc"), "paper": ["< 0", 0.2261950531005082, None]}))
    assert (tmp_path / "c.csv").read_text().splitlines() == ["id,paper", "a,< 0", "b,0.2261951", "c,"]
