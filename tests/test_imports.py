"""Imports go down only: a module may import those that stand above it in this list, and light modules load no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import t2ikit

PACKAGE = Path(t2ikit.__file__).parent
# one line a layer; modules of one layer may import each other
LAYERS = [
    ["errors", "processes"],
    ["config", "files", "papers"],
    ["hardware", "runs"],
    ["tensors", "hub"],
    ["laws"],
    ["models"],
    ["objectives", "samplers"],
    ["data"],
    ["encoders"],
    ["cache"],
    ["probe"],
    ["train"],
    ["generate", "floor"],
    ["metrics"],
    ["standins"],
    ["evaluation"],
    ["results"],
    ["samples", "repeat"],
    ["workers"],
    ["study"],
    ["isoflop"],
    ["charts", "figures", "widgets"],
    ["notebook_parameters", "kernel", "execution"],
    ["untrusted", "report_markdown", "report"],
    ["executors", "batch"],
    ["commands"],
    ["cli"],
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def imports(path: Path) -> set[str]:
    """The first name below t2ikit of everything that the file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "t2ikit" else [f"t2ikit.{a.name}" for a in node.names]
        else:
            continue
        found |= {n.split(".")[1] for n in names if n.startswith("t2ikit.")}
        found |= {n.split(".")[0] for n in names if n.startswith("papers_repro")}
    return found


def modules() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p.name != "__init__.py" or p.stat().st_size]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        assert not imports(path)
        return
    assert own in RANK, f"{own} has no layer: give it one"
    above = {n: RANK.get(n) for n in imports(path) - {own}}
    assert "papers_repro" not in above, "the kit does not know the papers"
    wrong = {n for n, rank in above.items() if rank is None or rank > RANK[own]}
    assert not wrong, f"{own} imports {wrong}, which stand below it"


@pytest.mark.parametrize("module", ["config", "hardware", "runs", "laws", "cli", "errors"])
def test_light_modules_load_no_torch(module):
    heavy = ("torch", "diffusers", "transformers", "altair", "pandas")
    code = f"import sys, t2ikit.{module}; print([m for m in {heavy} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"
