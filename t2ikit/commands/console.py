"""What commands share: pairs that were typed, news on stderr, tables and documents on stdout."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from t2ikit.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]


def pairs(settings: list[str], option: str = "--set") -> dict[str, str]:
    """`["key=value", …]` as a dictionary."""
    for text in settings:
        if "=" not in text:
            raise UserError(f"{option} {text!r} has no value: write it as {option} key=value.")
    return dict(text.split("=", 1) for text in settings)


def say(message: str) -> None:
    """News for people: stderr, so that stdout stays what was asked for."""
    print(message, file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    print(json.dumps(value, indent=1, allow_nan=False))


def outline(value: dict[str, Any], indent: str = "") -> None:
    """A nested dictionary as indented lines, numbers to five digits; of an audit's findings the sentence."""
    for key, item in value.items():
        if isinstance(item, dict):
            print(f"{indent}{key}")
            outline(item, indent + "  ")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            print(f"{indent}{key}")
            for row in item:
                text = (
                    f"{row['verdict']}: {row['finding']}"
                    if "finding" in row
                    else ", ".join(f"{k} {short(v)}" for k, v in row.items())
                )
                print(f"{indent}  {text}")
        else:
            print(f"{indent}{key:<28}{short(item)}")


def short(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(short, value)) + "]"
    return "–" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)
