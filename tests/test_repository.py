"""The repository's own promises: one source of truth for dependencies, notebooks without outputs, a README that tells
the truth."""

import json
import re
import tomllib
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from PIL import Image

from benchmarks import metrics_page
from papers_repro import readme
from t2ikit.files import write_csv

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted([*ROOT.glob("papers_repro/**/*.ipynb"), *ROOT.glob("notebooks/*.ipynb")])


def requirements() -> list[Requirement]:
    extras = [r for name, group in PROJECT["optional-dependencies"].items() if name != "all" for r in group]
    return [Requirement(r) for r in [*PROJECT["dependencies"], *extras]]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_environment_installs_what_pyproject_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    *plain, pip = environment["dependencies"]
    specs = {Requirement(s).name: Requirement(s) for s in plain}
    assert specs["python"].specifier == SpecifierSet(PROJECT["requires-python"])
    assert "pip" in specs
    editable = pip["pip"][-1]
    extras = re.fullmatch(r"-e \.\[(.+)\]", editable)[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    assert pip["pip"][:-1] == ["-c constraints.txt"]


def test_constraints_name_every_direct_dependency_at_a_version_it_allows():
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            (specifier,) = pin.specifier
            assert specifier.operator == "==", line
            pinned[canonical(pin.name)] = specifier.version
    for requirement in requirements():
        assert requirement.specifier.contains(pinned[canonical(requirement.name)]), requirement


def test_the_extra_all_is_every_extra_but_dev():
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert Requirement(everything).extras == set(PROJECT["optional-dependencies"]) - {"all", "dev"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_hold_no_outputs_and_have_parameters(path):
    notebook = json.loads(path.read_text())
    nbformat.validate(notebook)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(c["outputs"] or c["execution_count"] for c in code)
    assert sum("parameters" in c["metadata"].get("tags", []) for c in code) == 1


def test_committed_files_name_no_machine_and_no_registry():
    import subprocess

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    text = {".py", ".md", ".toml", ".yml", ".txt", ".json", ".csv", ".ipynb", ".js", ".css", ""}
    bad = re.compile(r"/(?:root|home/[a-z]+|Users/[a-z]+)/|--(?:extra-)?index-url|\"resolved\": \"http")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.exists() and path.suffix in text and path != Path(__file__):
            found = bad.search(path.read_text(errors="ignore"))
            assert not found, f"{name}: {found[0]}"


def test_the_readmes_python_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(code, {})


def test_the_readmes_commands_and_files_exist():
    import typer

    from t2ikit import cli

    known = typer.main.get_command(cli.app).commands
    assert set(re.findall(r"^\| `t2ikit ([a-z]+)", README, re.MULTILINE)) <= set(known)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE)) <= set(targets)
    for path in re.findall(r"`((?:t2ikit|papers_repro|tests)/[^` ]*)`", README):
        assert any(ROOT.glob(path.rstrip("/"))), path


@pytest.mark.parametrize("path", readme.FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_readmes_numbers_are_those_of_the_committed_results(path):
    text = path.read_text()
    assert readme.fill(text) == text, "run `python -m papers_repro.readme`"


@pytest.mark.parametrize("path", readme.CLAIMS)
def test_the_claims_that_are_printed_are_those_of_the_committed_results(path, tmp_path):
    write_csv(tmp_path / "claims.csv", readme.CLAIMS[path]())
    pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(tmp_path / "claims.csv"), rtol=1e-5)


def test_a_wrong_number_would_be_seen():
    text = (ROOT / "papers_repro" / "README.md").read_text()
    assert readme.fill(text.replace("<!--=rho-->0.979<!--/-->", "<!--=rho-->0.900<!--/-->")) == text


def test_the_picture_shows_the_committed_rows():
    if not len(readme.scalability.drawn(readme.studies.FIG03).runs):
        assert not readme.PICTURE.exists()
        return
    assert Image.open(readme.PICTURE).text["source"] == readme.source(), "run `python -m papers_repro.readme`"


def test_the_page_of_the_metrics_says_what_was_measured():
    found = json.loads((ROOT / "docs" / "metrics.json").read_text())
    assert metrics_page.page(found) == metrics_page.PAGE.read_text(), "run `python -m benchmarks.metrics_page --page`"
