"""What a notebook's cell tagged `parameters` allows: names, types, defaults. Checked before a kernel starts, because
papermill only warns of an unknown name and passes the string "true" where a flag was meant."""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from t2ikit.errors import UserError, choose

_NAMES = {**vars(builtins), **vars(typing), "typing": typing, "Path": Path}  # what an annotation may be made of
_SHELL_OR_MAGIC = re.compile(r"^\s*[%!].*$", re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """One name of the parameters cell: its type, as an object and as the cell writes it. Any: anything goes."""

    type: Any = Any
    written: str = "Any"

    def accepts(self, value: object) -> bool:
        """Whether a plain value is of the type; strictly: True is no number of steps, "3" neither."""
        try:
            TypeAdapter(self.type).validate_json(json.dumps(value), strict=True)
        except ValidationError:
            return False
        return True


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
            found[node.target.id] = _annotated(ast.unparse(node.annotation)) or _inferred(node.value)
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            found |= dict.fromkeys(names, _inferred(node.value))
    return found


def checked(notebook: Mapping[str, Any], parameters: Mapping[str, object], name: str) -> dict[str, Any]:
    """`parameters` as plain JSON-like values, or a UserError that names the bad one and what is allowed."""
    allowed = declared(notebook, name)
    if parameters and not allowed:
        raise UserError(
            f"{name} has no cell tagged 'parameters', so it cannot take {', '.join(map(repr, parameters))}: "
            "add the tag to the cell that sets the defaults."
        )
    plain = {}
    for key, value in parameters.items():
        parameter = allowed[choose(f"parameter of {name}", key, allowed)]
        plain[key] = as_plain(value, key)
        if not parameter.accepts(plain[key]):
            kind = type(value).__name__
            raise UserError(f"Parameter {key!r} of {name} is {value!r} ({kind}): give {parameter.written}.")
    return plain


def from_text(notebook: Mapping[str, Any], settings: Mapping[str, str], name: str) -> dict[str, Any]:
    """Values typed on a command line: text where the parameter takes text, else JSON; `checked` judges the result.

    So `steps=3` is a number for an int, `flag=true` a flag, and `version=3.10` stays "3.10" for a str.
    """
    allowed = declared(notebook, name)
    values: dict[str, Any] = dict(settings)
    for key, text in settings.items():
        if key in allowed and (allowed[key].type is Any or not allowed[key].accepts(text)):
            with contextlib.suppress(json.JSONDecodeError):  # a bare word is a text, and wrong if none is allowed
                values[key] = json.loads(text)
    return values


def as_plain(value: object, key: str) -> Any:
    """NumPy scalars and arrays, paths, tuples and sets as what a literal can say; a UserError for other objects."""
    try:
        return to_jsonable_python(value, fallback=lambda array: array.tolist())
    except (PydanticSerializationError, AttributeError):
        raise UserError(
            f"Parameter {key!r} is a {type(value).__name__}, which a notebook cannot be given: "
            "use a number, a string, a flag, a list or a dict."
        ) from None


def _annotated(written: str) -> Parameter | None:
    """The parameter as its annotation has it; None where the annotation says nothing that can be checked."""
    try:
        kind = eval(written, _NAMES)  # as the notebook itself will
        while isinstance(kind, str):
            kind = eval(kind, _NAMES)
        TypeAdapter(kind)
    except (NameError, AttributeError, TypeError, SyntaxError, PydanticUserError):
        return None
    return Parameter(kind, written)


def _inferred(default: ast.expr | None) -> Parameter:
    try:
        value = ast.literal_eval(default) if default is not None else None
    except ValueError:
        value = None
    return Parameter() if value is None else Parameter(type(value), type(value).__name__)
