"""How every result of the laws is shown and stored: `to_json` (finite numbers or null), an HTML table, a chart."""

from __future__ import annotations

import dataclasses
import html
import json
import math
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Numbers, lists and dicts that JSON can hold; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def shown(value: Any) -> dict:
    """The fields of a dataclass that its repr shows, by name."""
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.repr}


def finding(check: str, verdict: str, sentence: str, **values: Any) -> dict:
    """One line of an audit. `verdict`: ok, note, warning or fail."""
    return {"check": check, "verdict": verdict, "finding": sentence, **values}


class Result:
    """What a fit returns. Subclasses give `as_dict()` and, in `charts`, a function of the same name as `chart_kind`."""

    chart_kind = ""
    title = ""

    def as_dict(self) -> dict:
        """The contract's JSON as a dict."""
        raise NotImplementedError

    def to_json(self) -> str:
        """One JSON document; numbers finite or null."""
        return json.dumps(plain(self.as_dict()), allow_nan=False, ensure_ascii=False)

    def chart(self):
        """An altair chart with its intervals as bands and the units on its axes."""
        from t2ikit.laws import charts

        return getattr(charts, self.chart_kind)(self)

    def _repr_html_(self) -> str:
        return f"<h4>{html.escape(self.title)}</h4>{_table(plain(self.as_dict()))}"


def _table(value: Any, depth: int = 0) -> str:
    """A value as HTML: a dict as rows, each coefficient with its interval beside it; what lies deep is folded."""
    if isinstance(value, dict):
        intervals = value.get("intervals") if isinstance(value.get("intervals"), dict) else {}
        rows = []
        for key, item in value.items():
            if key == "intervals" and intervals:
                continue
            shown = _table(item, depth + 1)
            if key in intervals:
                shown += f" ({', '.join(_table(end) for end in intervals[key])})"
            if depth and isinstance(item, dict | list) and "<table" in shown:
                shown = f"<details><summary>{len(item)} entries</summary>{shown}</details>"
            rows.append(f"<tr><th style='text-align:left'>{html.escape(key)}</th><td>{shown}</td></tr>")
        return f"<table>{''.join(rows)}</table>"
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            keys = list(dict.fromkeys(key for item in value for key in item))
            head = "".join(f"<th>{html.escape(key)}</th>" for key in keys)
            cells = [[_table(item.get(key, ""), depth + 1) for key in keys] for item in value]
            body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells)
            return f"<table><tr>{head}</tr>{body}</table>"
        return ", ".join(_table(item) for item in value)
    if isinstance(value, float):
        return f"{value:.5g}"
    return html.escape("—" if value is None else str(value))
