"""Markdown of a notebook as HTML for a report: math as MathML, images embedded, raw HTML shown as the text it is."""

from __future__ import annotations

import html
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

from latex2mathml.converter import convert_to_element
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

BARE_TAGS = "b br code del details dfn em hr i ins kbd mark q s small strong sub summary sup u wbr".split()
MATHML_ATTRIBUTES = set(
    """xmlns display displaystyle mathvariant mathcolor mathsize scriptlevel stretchy fence form separator accent
    accentunder largeop movablelimits symmetric lspace rspace minsize maxsize width height depth voffset
    linethickness notation rowspacing columnspacing rowalign columnalign rowlines columnlines columnspan
    rowspan""".split()
)

log = logging.getLogger(__name__)


@dataclass
class Headings:
    """The headings of a page in order: (level, anchor, text as HTML)."""

    found: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, level: int, text: str) -> str:
        self.found.append((level, f"section-{len(self.found) + 1}", text))
        return self.found[-1][1]


def cell_html(source: str, attachments: dict, folder: Path, where: str, headings: Headings) -> str:
    """A Markdown cell: the author's text, which may use BARE_TAGS and images beside the notebook in `folder`."""
    renderer = _Renderer(where, attachments=attachments, path=str(folder), embed_images=True)
    renderer.headings = headings
    return MarkdownWithMath(renderer=renderer).render(source)


def output_html(source: str, where: str) -> str:
    """A Markdown output, which may hold captions: no raw HTML, no file read, no heading in the contents."""
    return MarkdownWithMath(renderer=_Renderer(where)).render(source)


def math_html(latex: str, display: str, where: str) -> str:
    """LaTeX (without its dollars) as MathML; display: "inline" or "block"."""
    try:
        tree = convert_to_element(latex.strip(), display=display)
    except Exception as error:  # its parser raises many kinds; a formula shown as its source is still readable
        log.warning("%s: %r is not math that can be shown (%s)", where, latex.strip(), type(error).__name__)
        return f"<code>{html.escape(latex.strip())}</code>"
    # latex2mathml.convert would unescape its whole output, and so make tags of what stands in \\text{...}
    for element in tree.iter():
        element.text = html.unescape(element.text) if element.text else None
        for name in set(element.attrib) - MATHML_ATTRIBUTES:
            del element.attrib[name]
    return tostring(tree, encoding="unicode")


class _Renderer(IPythonRenderer):
    headings: Headings | None = None

    def __init__(self, where: str, **options: Any):
        super().__init__(escape=True, allow_harmful_protocols=False, exclude_anchor_links=True, **options)
        self.where = where

    def raw(self, markup: str) -> str:
        """Raw HTML as text; in cells the tags of BARE_TAGS without attributes stay tags."""
        text = html.escape(markup)
        if self.headings is None:
            return text
        return re.sub(rf"&lt;(/?(?:{'|'.join(BARE_TAGS)}))\s*/?&gt;", r"<\1>", text, flags=re.IGNORECASE)

    def block_html(self, html: str) -> str:
        return f"<div>{self.raw(html)}</div>\n"

    def inline_html(self, html: str) -> str:
        return self.raw(html)

    def block_mermaidjs(self, code: str) -> str:
        return f"<pre>{html.escape(code)}</pre>\n"

    def heading(self, text: str, level: int, **_: Any) -> str:
        if self.headings is None:
            return f"<h{level}>{text}</h{level}>\n"
        return f'<h{level} id="{self.headings.add(level, text)}">{text}</h{level}>\n'

    def image(self, text: str, url: str, title: str | None = None) -> str:
        source = self._embed_image_or_attachment(url)
        if not source.lower().startswith("data:image/"):
            log.warning("%s: the image %r is not beside the notebook: the report shows its name", self.where, url)
            return f"<em>[image: {html.escape(html.unescape(text or url))}]</em>"
        return f'<img src="{html.escape(source)}" alt="{html.escape(html.unescape(text))}">'

    def inline_math(self, body: str) -> str:
        return math_html(body, "inline", self.where)

    def block_math(self, body: str) -> str:
        return math_html(body, "block", self.where)

    def latex_environment(self, name: str, body: str) -> str:
        return math_html(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block", self.where)
