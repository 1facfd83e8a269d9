"""Notebooks as jobs: parameters are checked before anything runs, and no way of dying leaves a status that lies."""

import json
import os
import select
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import nbformat
import numpy as np
import pytest

from t2ikit import batch, executors, processes, runs
from t2ikit.errors import Busy, UserError
from t2ikit.notebook_parameters import Parameter, as_plain, checked, declared, from_text

V4 = nbformat.v4
PARAMETERS = "tier: str = 'smoke'\nsteps: int = 3\nrate: float = 1e-3\nflag = False\nnames: list[str] | None = None"


def write(path: Path, *sources: str, parameters: str | None = PARAMETERS) -> Path:
    """A notebook with a title, a parameters cell (unless None) and these code cells."""
    cells = [V4.new_markdown_cell("# A title"), *map(V4.new_code_cell, sources)]
    if parameters is not None:
        cells.insert(1, V4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(V4.new_notebook(cells=cells), path)
    return path


def outputs(path: Path) -> list[str]:
    """The text of every output of an executed notebook."""
    return [output.get("text", "") for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", [])]


# --- parameters ---


def read_parameters(source: str) -> dict[str, Parameter]:
    return declared(V4.new_notebook(cells=[V4.new_code_cell(source, metadata={"tags": ["parameters"]})]), "n.ipynb")


@pytest.mark.parametrize(
    ("source", "good", "bad"),
    [
        ("x: int = 1", [2, -1], [True, 2.0, "2", None]),
        ("x: float = 1", [2, 2.5], [True, "2", None]),
        ("x: bool = True", [False], [0, 1, "true"]),
        ("x = False", [True], [1, "true"]),
        ("x = 1", [2], [2.5, True]),
        ("x = 'a'", ["b", ""], [1, None]),
        ("x: str | None = None", ["b", None], [1]),
        ("x: Optional[int] = None", [3, None], ["3"]),
        ("x: typing.Union[int, str] = 1", [3, "a"], [[1]]),
        ("x: 'int | None' = None", [3, None], ["3"]),
        ("x: list[int] = [1]", [[2], []], [2, {"a": 1}]),
        ("x: dict[str, int] = {}", [{"a": 1}], [[1]]),
        ("x: Literal['a', 'b'] = 'a'", ["b"], ["c", 1]),
        ("x: Literal[1, 2] | None = 1", [2, None], ["1", 3]),
        ("x: Path = '.'", ["/a"], [1]),
        ("x: Backbone = None", ["anything", 1, None], []),
        ("x = None", ["anything", 1], []),
        ("x = {\n    'a': 1,\n    'b': 2,\n}", [{"c": 3}], [1]),
        ("%matplotlib inline\n!ls\nx = y = 3", [4], ["4"]),
    ],
)
def test_a_cell_says_what_it_takes(source, good, bad):
    parameter = read_parameters(source)["x"]
    assert [value for value in good if not parameter.accepts(value)] == []
    assert [value for value in bad if parameter.accepts(value)] == []


def test_a_cell_declares_all_its_names_and_nothing_else():
    source = "import os\na: int = 1  # one\nb, c = 1, 2\nd = e = 2\nif a:\n    f = 3"
    assert list(read_parameters(source)) == ["a", "d", "e"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.arange(3), [0, 1, 2]),
        (np.str_("a"), "a"),
        (Path("/a/b"), "/a/b"),
        ((1, (2, 3)), [1, [2, 3]]),
        ({3, 1}, [1, 3]),
        ({"a": (np.int8(1),)}, {"a": [1]}),
        (None, None),
    ],
)
def test_values_become_plain(value, plain):
    result = as_plain(value, "x")
    assert result == plain
    assert json.loads(json.dumps(result)) == plain
    assert type(result) is type(plain)


def test_what_is_typed_is_read_by_the_type_of_the_parameter(tmp_path):
    cell = PARAMETERS + "\nversion: str = ''\nmode: Literal['1', 2] = 2\nany_value = None\npath: str | None = None"
    node = nbformat.read(write(tmp_path / "n.ipynb", parameters=cell), 4)
    typed = {"steps": "3", "rate": "1e-4", "flag": "true", "version": "3.10", "names": '["a"]', "path": "null"}
    expected = {"steps": 3, "rate": 1e-4, "flag": True, "version": "3.10", "names": ["a"], "path": "null"}
    assert checked(node, from_text(node, typed, "n.ipynb"), "n.ipynb") == expected
    assert from_text(node, {"mode": "1", "any_value": "tiny"}, "n.ipynb") == {"mode": "1", "any_value": "tiny"}
    assert from_text(node, {"mode": "2", "any_value": "0.5"}, "n.ipynb") == {"mode": 2, "any_value": 0.5}
    for key, text in {"steps": "many", "flag": "yes", "rate": '"1"', "unknown": "1"}.items():
        with pytest.raises(UserError):
            checked(node, from_text(node, {key: text}, "n.ipynb"), "n.ipynb")


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"tierr": "tiny"}, "Unknown parameter of n.ipynb 'tierr': choose one of tier, steps, rate, flag, names; did"),
        ({"stepss": 1}, "did you mean 'steps'?"),
        ({"steps": "3"}, "Parameter 'steps' of n.ipynb is '3' (str): give int."),
        ({"flag": "true"}, "Parameter 'flag' of n.ipynb is 'true' (str): give bool."),
        ({"names": 1}, "Parameter 'names' of n.ipynb is 1 (int): give list[str] | None."),
        ({"names": ["a", 2]}, "Parameter 'names' of n.ipynb is ['a', 2] (list): give list[str] | None."),
        ({"names": [object()]}, "Parameter 'names' is a list, which a notebook cannot be given"),
    ],
)
def test_a_wrong_parameter_is_one_sentence_and_nothing_starts(tmp_path, parameters, sentence):
    with pytest.raises(UserError) as error:
        batch.execute(write(tmp_path / "n.ipynb", "1"), parameters, tmp_path / "out" / "n.ipynb")
    assert sentence in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_notebook_without_the_tag_takes_no_parameters(tmp_path):
    with pytest.raises(UserError, match="n.ipynb has no cell tagged 'parameters', so it cannot take 'tier'"):
        batch.execute(write(tmp_path / "n.ipynb", "1", parameters=None), {"tier": "x"}, tmp_path / "o.ipynb")
    with pytest.raises(UserError, match=r"The parameters cell of n.ipynb is not valid Python \(line 1\)"):
        checked(nbformat.read(write(tmp_path / "n.ipynb", parameters="x = = 1"), 4), {"x": 1}, "n.ipynb")


# --- one notebook ---


def test_parameters_arrive_this_python_runs_and_the_status_says_done(tmp_path, monkeypatch):
    foreign = tmp_path / "data" / "kernels" / "python3"  # a user's own kernelspec of the same name
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["/bin/false"], "display_name": "other", "language": "python"}')
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    source = write(
        tmp_path / "n.ipynb",
        "import sys, os; print(sys.executable, os.getcwd())",
        "print(repr((tier, steps, rate, flag, names)))",
    )
    lines = []
    given = {"tier": "ti\"n'y\n$", "steps": np.int64(5), "rate": 2, "flag": np.bool_(True), "names": ("a", Path("b"))}
    out = batch.execute(source, given, tmp_path / "out" / "n.ipynb", log=lines.append)
    assert out == tmp_path / "out" / "n.ipynb"
    assert outputs(out)[0].split() == [sys.executable, str(tmp_path / "out")]
    assert outputs(out)[1].strip() == repr(("ti\"n'y\n$", 5, 2, True, ["a", "b"]))
    assert lines[0] == "n: cell 1 of 4: tier: str = 'smoke'"
    assert lines[3] == "n: cell 4 of 4: print(repr((tier, steps, rate, flag, names)))"
    state = json.loads((tmp_path / "out" / "n.status.json").read_text())
    assert state == batch.status(out)
    assert (state["state"], state["cell"], state["cells"], state["error"]) == ("done", 4, 4, None)
    assert state["parameters"] == {"tier": "ti\"n'y\n$", "steps": 5, "rate": 2, "flag": True, "names": ["a", "b"]}
    assert state["started"] <= state["ended"]
    assert sorted(path.name for path in out.parent.iterdir()) == [".n.status.json.lock", "n.ipynb", "n.status.json"]


def test_the_failing_cell_is_named_and_what_ran_is_kept(tmp_path):
    source = write(tmp_path / "n.ipynb", "print('before')", "\n# why\nfit = 1 / 0", "print('after')")
    with pytest.raises(batch.NotebookFailed) as error:
        batch.execute(source, {}, tmp_path / "o.ipynb")
    sentence = "n.ipynb stopped at cell 3 of 4 (fit = 1 / 0): ZeroDivisionError: division by zero"
    assert str(error.value) == f"{sentence}. The outputs so far are in {tmp_path / 'o.ipynb'}."
    state = batch.status(tmp_path / "o.ipynb")
    assert (state["state"], state["cell"], state["error"], state["kind"]) == ("failed", 3, sentence, "cell")
    assert "before\n" in outputs(tmp_path / "o.ipynb") and "after\n" not in outputs(tmp_path / "o.ipynb")
    cells = nbformat.read(tmp_path / "o.ipynb", 4).cells
    assert [cell.metadata.papermill.status for cell in cells if cell.cell_type == "code"] == [
        "completed", "completed", "failed", "pending",
    ]  # fmt: skip


def test_a_notebook_is_not_its_own_output(tmp_path):
    source = write(tmp_path / "n.ipynb", "1")
    with pytest.raises(UserError, match="would be overwritten by its own outputs"):
        batch.execute(source, {}, tmp_path / "x" / ".." / "n.ipynb")


def test_infinity_arrives_and_the_status_stays_json(tmp_path):
    out = batch.execute(write(tmp_path / "n.ipynb", "print(rate)"), {"rate": float("inf")}, tmp_path / "o.ipynb")
    assert "inf\n" in outputs(out)
    text = batch.status_path(out).read_text()
    assert json.loads(text, parse_constant=pytest.fail)["parameters"] == {"rate": None}


@pytest.mark.parametrize("kind", [UserError, Busy])
def test_a_user_error_in_a_cell_stays_one(tmp_path, kind):
    source = write(tmp_path / "n.ipynb", f"from t2ikit.errors import {kind.__name__} as E\nraise E('Choose a tier.')")
    with pytest.raises(kind, match="n.ipynb stopped at cell 2 of 2 .*: Choose a tier. The outputs") as error:
        batch.execute(source, {}, tmp_path / "o.ipynb")
    assert type(error.value) is kind


def test_a_killed_kernel_is_a_failure(tmp_path):
    source = write(tmp_path / "n.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "1")
    with pytest.raises(batch.NotebookFailed, match=r"cell 2 of 3 \(import os, signal\): the kernel was killed by"):
        batch.execute(source, {}, tmp_path / "o.ipynb")
    assert batch.status(tmp_path / "o.ipynb")["state"] == "failed"
    assert nbformat.read(tmp_path / "o.ipynb", 4).cells[2].metadata.papermill.status == "failed"


def test_a_kernel_that_leaves_is_a_failure(tmp_path):
    with pytest.raises(batch.NotebookFailed, match="the kernel ended with exit code 7"):
        batch.execute(write(tmp_path / "n.ipynb", "import os; os._exit(7)"), {}, tmp_path / "o.ipynb")


def test_a_cell_has_its_time(tmp_path):
    with pytest.raises(batch.NotebookFailed, match="the cell took more than 1 seconds"):
        batch.execute(write(tmp_path / "n.ipynb", "import time; time.sleep(99)"), {}, tmp_path / "o.ipynb", timeout=1)


def test_a_kernel_that_does_not_start_is_tried_twice(tmp_path, monkeypatch):
    from ipykernel import kernelspec

    from t2ikit import kernel

    starts = tmp_path / "starts"
    real = kernelspec.make_ipkernel_cmd()
    script = f'echo x >> {starts}; [ $(wc -l < {starts}) -ge $0 ] || exit 1; exec "$@"'

    def after(n: int) -> dict:
        return kernelspec.get_kernel_dict() | {"argv": ["/bin/sh", "-c", script, str(n), *real]}

    monkeypatch.setattr(kernel, "get_kernel_dict", lambda: after(2))
    batch.execute(write(tmp_path / "n.ipynb", "1"), {}, tmp_path / "o.ipynb")
    assert starts.read_text() == "x\nx\n"
    starts.write_text("")
    monkeypatch.setattr(kernel, "get_kernel_dict", lambda: after(3))
    with pytest.raises(batch.NotebookFailed, match="n.ipynb stopped: the kernel did not start twice"):
        batch.execute(write(tmp_path / "n.ipynb", "1"), {}, tmp_path / "o.ipynb")
    assert starts.read_text() == "x\nx\n"


# --- signals and kills ---

WAITS = "open('waiting', 'w').close()\nimport time\nfor _ in range(600):\n    time.sleep(0.1)"
CHECKPOINTS = """import signal, sys
def checkpoint(*_):
    open('checkpoint', 'w').write('saved')
    sys.exit(143)
signal.signal(signal.SIGTERM, checkpoint)"""


@pytest.fixture
def child(until):
    """Starts a process that executes a notebook, and returns it once its waiting cell has begun."""

    def start(source: Path, out: Path) -> subprocess.Popen:
        code = "import sys\nfrom t2ikit import batch\nbatch.execute(sys.argv[1], {}, sys.argv[2])"
        process = subprocess.Popen([sys.executable, "-c", code, source, out], stderr=subprocess.PIPE, text=True)
        until((out.parent / "waiting").exists)
        return process

    return start


RETURNS = [
    CHECKPOINTS.replace("sys.exit(143)", "global stop; stop = True"),
    f"stop = False\n{WAITS}\n    if stop: break",
]


@pytest.mark.parametrize(
    ("signum", "sources"),
    [
        pytest.param(signal.SIGTERM, [CHECKPOINTS, WAITS], id="checkpoint"),
        pytest.param(signal.SIGINT, [WAITS], id="interrupt"),
        pytest.param(signal.SIGTERM, [WAITS], id="no handler", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, [*RETURNS, "print('never')"], id="the cell returns", marks=pytest.mark.slow),
    ],
)
def test_a_signal_reaches_the_kernel_and_the_status(tmp_path, child, signum, sources):
    out = tmp_path / "out" / "o.ipynb"
    process = child(write(tmp_path / "n.ipynb", *sources), out)
    with pytest.raises(Busy, match=f"is being written by process {process.pid} on .*: wait for it"):
        batch.execute(tmp_path / "n.ipynb", {}, out)
    process.send_signal(signum)
    process.send_signal(signum)  # as from a terminal, whose Ctrl-C reaches this process and its parent
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    name = signal.Signals(signum).name
    assert f"n: {name} passed on to the kernel" in told
    state = batch.status(out)
    waiting = 2 + next(i for i, source in enumerate(sources) if "waiting" in source)
    assert (state["state"], state["kind"], state["cell"]) == ("failed", "signal", waiting)
    assert state["error"].endswith(f"stopped by {name}")
    assert "never\n" not in outputs(out)
    assert (out.parent / "checkpoint").exists() == ("def checkpoint" in sources[0])


@pytest.mark.slow
def test_asking_again_kills_a_kernel_that_does_not_listen(tmp_path, child, until):
    out = tmp_path / "out" / "o.ipynb"
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"
    process = child(write(tmp_path / "n.ipynb", deaf, WAITS), out)
    process.send_signal(signal.SIGTERM)
    until(lambda: batch.status(out)["kind"] == "signal")
    assert batch.status(out)["error"] == "SIGTERM: the kernel may write its checkpoint"
    with pytest.raises(Busy, match="is being written by process"):  # its kernel still works there
        batch.execute(tmp_path / "n.ipynb", {}, out)
    time.sleep(3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert batch.status(out)["error"].endswith("stopped by SIGTERM")


def test_a_killed_executor_does_not_leave_running(tmp_path, child):
    out = tmp_path / "out" / "o.ipynb"
    process = child(write(tmp_path / "n.ipynb", WAITS), out)
    assert batch.status(out)["state"] == "running"
    process.kill()
    process.wait()
    state = batch.status(out)
    assert (state["state"], state["kind"], state["error"]) == (
        "failed",
        "killed",
        f"process {process.pid} is gone: it was killed",
    )
    assert json.loads(batch.status_path(out).read_text())["state"] == "running"
    whole = batch.status_path(out).read_text()
    for damaged in (whole[:50], "{}"):
        batch.status_path(out).write_text(damaged)
        with pytest.raises(UserError, match="o.status.json .*: restore it from a backup, or delete it and run again"):
            batch.execute(write(tmp_path / "n.ipynb", "1"), {}, out)
    batch.status_path(out).write_text(whole)
    batch.execute(write(tmp_path / "n.ipynb", "1"), {}, out)  # and the place is free again
    assert batch.status(out)["state"] == "done"


def test_a_notebook_on_a_node_that_died_is_free_when_its_heart_no_longer_beats(tmp_path):
    out = batch.execute(source := write(tmp_path / "n.ipynb", "1"), {}, tmp_path / "out" / "o.ipynb")
    value = json.loads(batch.status_path(out).read_text()) | {"state": "running", "host": "elsewhere", "pid": 1}
    batch.status_path(out).write_text(json.dumps(value | {"beat": time.time() - runs.LEASE_SECONDS / 2}))
    with pytest.raises(Busy, match="by process 1 on elsewhere: wait for it"):
        batch.execute(source, {}, out)
    batch.status_path(out).write_text(json.dumps(value | {"beat": time.time() - runs.LEASE_SECONDS - 1}))
    assert batch.status(out)["kind"] == "killed"
    batch.execute(source, {}, out)
    assert batch.status(out)["state"] == "done"


def test_a_long_cell_has_a_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.01)
    waits = (
        "import json, time\n"
        "seen = set()\n"
        "while len(seen) < 3:\n"
        "    seen.add(json.load(open('o.status.json'))['beat'])\n"
        "    time.sleep(0.01)"
    )
    out = batch.execute(write(tmp_path / "n.ipynb", waits), {}, tmp_path / "out" / "o.ipynb", timeout=60)
    assert batch.status(out)["state"] == "done"


def test_of_two_that_start_at_once_one_executes(tmp_path):
    """Both ask before either may write that it runs."""
    source, out = write(tmp_path / "n.ipynb", WAITS), tmp_path / "out" / "o.ipynb"
    code = (
        "import sys\nfrom t2ikit import batch, execution, runs\nalone, says = runs.merging, execution._Status.write\n"
        "def asks(path):\n"
        "    print('asks', flush=True)\n"
        "    return alone(path)\n"
        "def slowly(record, **changes):\n"
        "    print('looked', flush=True), sys.stdin.readline(), says(record, **changes)\n"
        "runs.merging, execution._Status.write = asks, slowly\n"
        "batch.execute(sys.argv[1], {}, sys.argv[2])"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "bufsize": 0}
    both = [subprocess.Popen([sys.executable, "-c", code, source, out], **pipes) for _ in range(2)]
    try:
        assert [process.stdout.readline() for process in both] == [b"asks\n"] * 2
        first = both[[p.stdout for p in both].index(select.select([p.stdout for p in both], [], [])[0][0])]
        (second,) = [process for process in both if process is not first]
        assert first.stdout.readline() == b"looked\n"
        assert not select.select([second.stdout], [], [], 2)[0]  # it waits, and looks when the first has written
        first.stdin.write(b"\n" * 100)
        assert b"Busy" in second.communicate(timeout=60)[1]
        assert batch.status(out)["pid"] == first.pid
        first.terminate()
        first.communicate(timeout=60)
    finally:
        for process in both:
            process.kill()


# --- figures of papers ---


@pytest.fixture
def papers(install_paper, tmp_path, monkeypatch):
    """Two installed papers; both have a fig90."""
    source = "print('{}', tier, steps)\nif steps == 13: raise ValueError(1)"
    for paper, figures in {"alpha": ["fig90", "fig91"], "beta": ["fig90"]}.items():
        folder = install_paper(paper)
        for figure in figures:
            write(folder / f"{figure}.ipynb", source.format(paper))
    write(tmp_path / "site" / "paper_alpha_of_test" / "fig92.ipynb", "1", parameters="tier = 'smoke'")
    monkeypatch.setenv("T2IKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "site"


def test_reproduce_executes_and_exports_at_home(papers, tmp_path):
    lines: list[str] = []
    made = batch.reproduce(
        ["fig91", "beta/fig90", "fig91"], "tiny", settings={"steps": "4"}, workers=2, log=lines.append
    )
    reports = tmp_path / "home" / "reports"
    assert made == [reports / "fig91.html", reports / "beta" / "fig90.html"]
    assert "<pre>alpha tiny 4\n</pre>" in made[0].read_text()
    assert "<pre>beta tiny 4\n</pre>" in made[1].read_text()
    assert batch.status(reports / "fig91.ipynb")["parameters"] == {"tier": "tiny", "steps": 4}
    assert batch.status(reports / "fig91.ipynb")["pid"] != os.getpid()
    assert any(line.startswith("fig91: cell 3 of 3: print('alpha'") for line in lines)
    assert any(line.startswith(f"fig91: {made[0]} (0.0 MB)") for line in lines)


def test_an_earlier_failure_is_not_this_ones(papers, tmp_path, monkeypatch):
    """A job may die before it has written anything: a full disk, or cancelled in the queue."""
    with pytest.raises(batch.NotebookFailed, match="ValueError: 1"):
        batch.reproduce(["fig91"], "tiny", out=tmp_path, parameters={"steps": 13}, log=lambda _: None)
    died = lambda jobs, *_: {job.name: executors._why(job, None, "the disk is full") for job in jobs}  # noqa: E731
    monkeypatch.setitem(executors.EXECUTORS, "local", died)
    with pytest.raises(batch.NotebookFailed, match="^the disk is full$"):
        batch.reproduce(["fig91"], "tiny", out=tmp_path, log=lambda _: None)


def test_one_failure_keeps_the_others(papers, tmp_path):
    write(papers / "paper_beta_of_test" / "fig90.ipynb", "print(steps)")
    options = {"out": tmp_path / "r", "parameters": {"steps": 13}, "log": lambda _: None}
    with pytest.raises(batch.NotebookFailed, match=r"fig91.ipynb stopped at cell 3 of 3 .*: ValueError: 1"):
        batch.reproduce(["fig91", "beta/fig90"], "tiny", workers=2, **options)
    assert not (tmp_path / "r" / "fig91.html").exists()
    assert (tmp_path / "r" / "beta" / "fig90.html").exists()
    with pytest.raises(batch.NotebookFailed) as error:
        batch.reproduce(["alpha/fig90", "fig91"], "tiny", workers=2, **options)
    assert str(error.value).startswith("2 of 2 notebooks failed:\n  alpha/fig90: fig90.ipynb stopped at cell 3 of 3")


def test_what_cannot_be_exported_is_said_in_its_words(papers, tmp_path):
    chart = {"application/vnd.vegalite.v5+json": {"data": {"url": "https://example.org"}, "mark": "point"}}
    source = f"from IPython.display import display\ndisplay({chart}, raw=True)"
    write(papers / "paper_alpha_of_test" / "fig91.ipynb", source)
    with pytest.raises(UserError, match="fig91: The chart of fig91, cell 4 would load https://example.org: put"):
        batch.reproduce(["fig91"], "tiny", out=tmp_path / "r", log=lambda _: None)
    assert batch.status(tmp_path / "r" / "fig91.ipynb")["state"] == "done"


def test_everything_is_checked_before_anything_starts(papers, tmp_path):
    for figures, options, sentence in [
        (["fig91", "fig92"], {"parameters": {"steps": 1}}, "Unknown parameter of fig92.ipynb 'steps'"),
        (["fig91", "fig99"], {}, "Unknown figure 'fig99'"),
        (["fig91"], {"executor": "pbs"}, "Unknown executor 'pbs': choose one of local, slurm"),
    ]:
        with pytest.raises(UserError, match=sentence):
            batch.reproduce(figures, "tiny", out=tmp_path / "r", **options)
    assert not (tmp_path / "r").exists()


def test_a_signal_stops_all_children(papers, tmp_path, until):
    for paper in ("alpha", "beta"):
        write(papers / f"paper_{paper}_of_test" / "fig90.ipynb", CHECKPOINTS, WAITS)
    code = (
        "from pathlib import Path\nfrom t2ikit import batch\n"
        f"batch.reproduce(['alpha/fig90', 'beta/fig90', 'fig91'], 'tiny', out=Path({str(tmp_path / 'r')!r}), workers=2)"
    )
    environment = os.environ | {"PYTHONPATH": str(papers)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    folders = [tmp_path / "r" / paper for paper in ("alpha", "beta")]
    until(lambda: all((folder / "waiting").exists() for folder in folders))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    for folder in folders:
        assert (folder / "checkpoint").read_text() == "saved"
        assert batch.status(folder / "fig90.ipynb")["error"].endswith("stopped by SIGTERM")
    assert batch.status(tmp_path / "r" / "fig91.ipynb") == {}


def test_slurm_says_what_it_lacks(papers, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="There is no sbatch here: run on a login node"):
        batch.reproduce(["fig91"], "tiny", executor="slurm", out=tmp_path / "r")
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"submitit is not installed: run `pip install 't2ikit\[slurm\]'`"):
        batch.reproduce(["fig91"], "tiny", executor="slurm", out=tmp_path / "r")


def test_a_job_whose_node_died_waits_for_its_heart_and_starts_again(tmp_path, monkeypatch):
    """Slurm queues it again after some minutes, before the status may be disbelieved."""
    source = write(tmp_path / "n.ipynb", "1")
    out = batch.execute(source, {}, tmp_path / "o.ipynb")
    value = json.loads(batch.status_path(out).read_text()) | {"state": "running", "host": "elsewhere", "pid": 1}
    batch.status_path(out).write_text(json.dumps(value | {"beat": time.time()}))
    waited = []

    def wait(seconds):
        waited.append(seconds)
        batch.status_path(out).write_text(json.dumps(value | {"beat": 0.0}))

    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job = executors.Job("o", str(source), str(out), str(tmp_path / "o.html"))
    with monkeypatch.context() as patch:
        patch.setattr(processes, "time", types.SimpleNamespace(sleep=wait))
        executors._on_node(job)
    assert waited == [processes.LOOK] and batch.status(out)["state"] == "done" and (tmp_path / "o.html").exists()


def test_a_job_is_plain_enough_for_another_machine(tmp_path):
    import pickle

    job = executors.Job("a", "/n.ipynb", "/o.ipynb", "/o.html", {"tier": "tiny", "x": [1, None]}, 5.0)
    assert executors.Job(**json.loads(json.dumps(vars(job)))) == job
    assert pickle.loads(pickle.dumps((executors.run_job, job)))[1] == job


def test_importing_batch_is_light():
    heavy = ["torch", "papermill", "nbconvert", "altair", "numpy"]
    code = f"import sys, t2ikit.batch; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
