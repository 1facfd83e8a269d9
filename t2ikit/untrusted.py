"""Captions, prompts and everything made from them are text by strangers: what a report does before it shows them.

Three locks, each enough against script: markup is cleaned here, data travels as JSON that no tag can end, and the
page's Content-Security-Policy lets only the scripts run whose hash it lists.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

TAGS = """a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3
h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td
tfoot th thead tr u ul var wbr""".split()
CSS = """background background-color border border-bottom border-collapse border-color border-left border-right
border-spacing border-style border-top border-width color display float font-family font-size font-style
font-variant-numeric font-weight height letter-spacing line-height list-style-type margin margin-bottom margin-left
margin-right margin-top max-height max-width min-height min-width opacity overflow overflow-x padding padding-bottom
padding-left padding-right padding-top text-align text-decoration text-indent text-transform vertical-align white-space
width word-break grid-template-columns gap flex flex-wrap image-rendering""".split()
_ANYWHERE = set("class title colspan rowspan scope align width height alt start open".split())
_STYLE = re.compile(r"<style\b[^>]*>(.*?)</style\s*>", re.IGNORECASE | re.DOTALL)
_SCRIPT = re.compile(r"<script\b.*?(?:</script\s*>|\Z)", re.IGNORECASE | re.DOTALL)
# pandas' Styler gives its tables ids that start with T_; possessive, so that hostile styles take no longer than others
_STYLED = r"\s*+#T_[\w#.:()\s-]*+"
_STYLER = re.compile(rf"(?:{_STYLED}(?:,{_STYLED})*+\{{[^{{}}]*+\}})*+\s*+")
_BLOCK = re.compile(r"\{([^{}]*)\}")
_IMG, _QUOTED = re.compile(r'<img(?:[^>"]|"[^"]*")*>'), re.compile(r'"[^"]*"')  # as bleach writes them
_IMPORT = re.compile(r"""(?:\bfrom\s*|\bimport\s*\(?\s*)["'`]((?:https?:)?//[^"'`]+)""")


def json_in_script(value: Any) -> str:
    """JSON for a `<script type="application/json">`: no `<` is left to end it, NaN and infinities become null."""
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    return json.dumps(finite, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def script(source: str) -> str:
    """Our own JavaScript, fit to stand inside `<script>`: `</script` and `<!--` may only occur in its strings."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", source, flags=re.IGNORECASE)


def policy(scripts: list[str]) -> str:
    """The Content-Security-Policy of a page whose inline scripts are exactly these: no network, no other script."""
    digests = [base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() for source in scripts]
    return "; ".join([
        "default-src 'none'",
        " ".join(["script-src", *(f"'sha256-{digest}'" for digest in digests), "blob:"]),
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "font-src data:",
        "media-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ])  # fmt: skip


def clean_html(markup: str) -> tuple[str, bool]:
    """An HTML output reduced to text, tables, data images and plain style, and whether a script had to go."""
    import bleach
    from bleach.css_sanitizer import CSSSanitizer

    css = CSSSanitizer(allowed_css_properties=CSS)
    styles = [style for style in _STYLE.findall(markup) if _only_styler(style)]
    styles = [_BLOCK.sub(lambda block: f"{{{css.sanitize_css(block[1])}}}", style) for style in styles]
    body, scripts = _SCRIPT.subn("", _STYLE.sub("", markup))
    cleaned = bleach.clean(
        body,
        tags=set(TAGS),
        attributes=_allowed,
        protocols={"http", "https", "mailto", "data"},
        strip=True,
        css_sanitizer=css,
    )
    cleaned = _IMG.sub(lambda img: img[0] if " src=" in _QUOTED.sub('""', img[0]) else "", cleaned)  # loads elsewhere
    return "".join(f"<style>{style}</style>" for style in styles) + cleaned, scripts > 0


def external_in_chart(spec: Any) -> list[str]:
    """Addresses a Vega-Lite specification would load: data, topologies, images, also what a channel takes from rows."""
    parts = list(_parts(spec))
    urls = [part["url"] for part in parts if "url" in part]
    channels = [part for url in urls for part in _parts(url)]
    fields = {str(channel["field"]) for channel in channels if "field" in channel}
    tables = [table for part in parts for table in (part.get("values"), *dict(part.get("datasets") or {}).values())]
    rows = [row for table in tables if isinstance(table, list) for row in table if isinstance(row, dict)]
    named = [*urls, *(c.get("value") for c in channels), *(row.get(name) for row in rows for name in fields)]
    return [url for url in named if isinstance(url, str) and not url.lower().startswith("data:")]


def _parts(spec: Any) -> Iterator[dict[str, Any]]:
    """The objects of a specification; rows of data are none of them."""
    if isinstance(spec, dict):
        yield spec
        spec = [value for key, value in spec.items() if key not in ("values", "datasets")]
    if isinstance(spec, list):
        for value in spec:
            yield from _parts(value)


def external_in_module(source: str) -> list[str]:
    """Addresses an ES module imports from."""
    return _IMPORT.findall(source)


def _only_styler(style: str) -> bool:
    calm = not re.search(r"[<\\@]|url\s*\(|expression", style, re.IGNORECASE)
    return calm and _STYLER.fullmatch(style) is not None


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag == "img" and value.lower().startswith("data:image/")
    if name == "href":
        return tag == "a" and value.lower().startswith(("http://", "https://", "mailto:"))
    if name == "id":
        return value.startswith("T_")
    if name == "style":
        return not re.search(r"url\s*\(|\\", value, re.IGNORECASE)
    return name in _ANYWHERE
