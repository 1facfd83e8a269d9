"""What a notebook's cell tagged `parameters` allows: names, types, defaults. Checked before a kernel starts, because
papermill only warns of an unknown name and passes the string "true" where a flag was meant."""

from __future__ import annotations

import ast
import contextlib
import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from t2ikit.errors import UserError

_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (float, int),
    "str": (str,),
    "Path": (str,),
    "list": (list,),
    "tuple": (list,),
    "set": (list,),
    "dict": (dict,),
    "None": (type(None),),
}
_SHELL_OR_MAGIC = re.compile(r"^\s*[%!].*$", re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """One name of the parameters cell: type names in `kinds`, a Literal's in `values`; both empty: anything goes."""

    name: str
    kinds: tuple[str, ...] = ()
    values: tuple[object, ...] = ()

    @property
    def type(self) -> str:
        return " or ".join([*self.kinds, *map(repr, self.values)]) or "any"

    def accepts(self, value: object) -> bool:
        if not self.kinds and not self.values:
            return True
        if any(type(value) is type(allowed) and value == allowed for allowed in self.values):
            return True
        # bool is a subclass of int, yet True is no number of steps
        return any(
            isinstance(value, _KINDS[kind]) and (kind == "bool" or not isinstance(value, bool)) for kind in self.kinds
        )


def declared(notebook: Mapping[str, Any], name: str) -> dict[str, Parameter]:
    """The parameters of a notebook (nbformat 4 node) by name; empty without a cell tagged `parameters`.

    Read with ast rather than papermill.inspect_notebook, which sees neither defaults over several lines nor unions.
    """
    cells = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if not cells:
        return {}
    try:
        body = ast.parse(_SHELL_OR_MAGIC.sub("", cells[0]["source"])).body
    except SyntaxError as error:
        raise UserError(f"The parameters cell of {name} is not valid Python (line {error.lineno}): mend it.") from None
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = _annotated(node.target.id, node.annotation) or _inferred(node.target.id, node.value)
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    found[target.id] = _inferred(target.id, node.value)
    return found


def checked(notebook: Mapping[str, Any], parameters: Mapping[str, object], name: str) -> dict[str, Any]:
    """`parameters` as plain JSON-like values, or a UserError that names the bad one and lists those allowed."""
    allowed = declared(notebook, name)
    if parameters and not allowed:
        raise UserError(
            f"{name} has no cell tagged 'parameters', so it cannot take {', '.join(map(repr, parameters))}: "
            "add the tag to the cell that sets the defaults."
        )
    plain = {}
    for key, value in parameters.items():
        if key not in allowed:
            listing = ", ".join(f"{p.name} ({p.type})" for p in allowed.values())
            close = difflib.get_close_matches(str(key), allowed, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise UserError(f"{name} has no parameter {key!r}: choose one of {listing}{hint}")
        plain[key] = as_plain(value, key)
        if not allowed[key].accepts(plain[key]):
            raise UserError(
                f"Parameter {key!r} of {name} is {value!r} ({type(value).__name__}): give {allowed[key].type}."
            )
    return plain


def from_text(notebook: Mapping[str, Any], settings: Mapping[str, str], name: str) -> dict[str, Any]:
    """Values typed on a command line: text where the parameter takes text, else JSON; `checked` judges the result.

    So `steps=3` is a number for an int, `flag=true` a flag, and `version=3.10` stays "3.10" for a str.
    """
    allowed = declared(notebook, name)
    values: dict[str, Any] = {}
    for key, text in settings.items():
        values[key] = text
        if key in allowed and not ("str" in allowed[key].kinds or text in allowed[key].values):
            with contextlib.suppress(json.JSONDecodeError):  # a bare word is a text, and wrong if none is allowed
                values[key] = json.loads(text)
    return values


def as_plain(value: object, key: str) -> Any:
    """NumPy scalars and arrays, paths, tuples and sets as what a literal can say; anything else raises UserError."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if hasattr(value, "tolist"):  # a NumPy scalar or array, without importing NumPy
        return as_plain(value.tolist(), key)
    if isinstance(value, PathLike):
        return str(value)
    if isinstance(value, list | tuple):
        return [as_plain(item, key) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((as_plain(item, key) for item in value), key=repr)
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {k: as_plain(item, key) for k, item in value.items()}
    raise UserError(
        f"Parameter {key!r} is a {type(value).__name__}, which a notebook cannot be given: "
        "use a number, a string, a flag, a list or a dict with string keys."
    )


def _annotated(name: str, annotation: ast.expr) -> Parameter | None:
    """The parameter as its annotation has it; None where the annotation says nothing we can check."""
    kinds: list[str] = []
    values: list[object] = []

    def read(node: ast.expr) -> bool:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return read(ast.parse(node.value, mode="eval").body)
        if isinstance(node, ast.Constant) and node.value is None:
            kinds.append("None")
            return True
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return read(node.left) and read(node.right)
        if isinstance(node, ast.Attribute):
            return read(ast.Name(node.attr))
        if isinstance(node, ast.Name) and node.id in _KINDS:
            kinds.append(node.id)
            return True
        if isinstance(node, ast.Subscript):
            items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            match ast.unparse(node.value).split(".")[-1]:
                case "Optional":
                    kinds.append("None")
                    return read(node.slice)
                case "Union":
                    return all([read(item) for item in items])
                case "Literal":
                    values.extend(ast.literal_eval(item) for item in items)
                    return True
                case _:
                    return read(node.value)
        return False

    return Parameter(name, tuple(dict.fromkeys(kinds)), tuple(values)) if read(annotation) else None


def _inferred(name: str, default: ast.expr | None) -> Parameter:
    try:
        value = ast.literal_eval(default) if default is not None else None
    except ValueError:
        return Parameter(name)
    return Parameter(name) if value is None else Parameter(name, (type(value).__name__,))
