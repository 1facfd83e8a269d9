"""An executed notebook as one HTML file that a colleague reads offline: charts live, the image comparison live, math as
MathML, code folded. An nbconvert exporter with the template in `report_template/`."""

from __future__ import annotations

import base64
import html as markup
import json
import logging
import re
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import TemplateExporter
from nbconvert.filters import ansi2html
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, Preprocessor, TagRemovePreprocessor
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from traitlets.config import Config

from t2ikit import untrusted
from t2ikit.errors import UserError
from t2ikit.execution import first_line, read
from t2ikit.files import write_atomic
from t2ikit.report_markdown import Headings, cell_html, math_html, output_html

TEMPLATE = Path(__file__).with_name("report_template")
WIDGET = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"

log = logging.getLogger(__name__)


def export(notebook: Path, html: Path, *, show_code: bool = False) -> int:
    """Write `notebook` (executed .ipynb) as one page `html` that loads nothing; returns its size in bytes.

    show_code: whether code cells start unfolded; the reader can fold and unfold either way. Cells tagged `remove-cell`
    are left out, and the code of cells tagged `hide-input`. UserError if a chart or a widget would load anything.
    """
    notebook = Path(notebook)
    node = read(notebook)
    exporter = TemplateExporter(
        config=Config({"TagRemovePreprocessor": {"remove_cell_tags": {"remove-cell"}}}),
        template_name=TEMPLATE.name,
        extra_template_basedirs=[str(TEMPLATE.parent)],
        file_extension=".html",
    )
    exporter.register_preprocessor(TagRemovePreprocessor(parent=exporter), enabled=True)
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(parent=exporter), enabled=True)
    exporter.register_preprocessor(_Page(notebook, show_code), enabled=True)
    page, _ = exporter.from_notebook_node(node)
    data = page.encode(errors="replace")
    write_atomic(Path(html), data)
    return len(data)


class _Page(Preprocessor):
    """Turns every cell into the HTML that the template places, and gathers what the page needs around them."""

    def __init__(self, notebook: Path, show_code: bool):
        super().__init__(enabled=True)
        self.folder, self.name, self.show_code = notebook.parent, notebook.stem, show_code

    def preprocess(self, nb: nbformat.NotebookNode, resources: dict) -> tuple[nbformat.NotebookNode, dict]:
        self.states = nb.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
        self.models: set[str] = set()
        self.charts = 0
        headings = Headings()
        for number, cell in enumerate(nb.cells, start=1):
            self.where = f"{self.name}, cell {number}"
            made: dict[str, Any] = {}
            if cell.cell_type == "markdown":
                made["html"] = cell_html(cell.source, cell.get("attachments", {}), self.folder, self.where, headings)
            elif cell.cell_type == "code":
                made["outputs"] = [shown for output in cell.outputs if (shown := self.output(output))]
                if cell.source.strip() and "hide-input" not in cell.metadata.get("tags", []):
                    made["code"] = highlight(cell.source, get_lexer_by_name("ipython3"), HtmlFormatter())
                    made["label"] = first_line(cell.source)
            cell.metadata["t2ikit"] = made
        has_code = any("code" in cell.metadata.t2ikit for cell in nb.cells)
        scripts = [_vega()] if self.charts else []
        if scripts or self.models or has_code:
            scripts.append(untrusted.script((TEMPLATE / "page.js").read_text()))
        title = next((text for level, _, text in headings.found if level == 1), None)
        sections = [(anchor, re.sub(r"</?a\b[^>]*>", "", text)) for level, anchor, text in headings.found if level == 2]
        code_style = HtmlFormatter(style="friendly").get_style_defs(".highlight")
        resources["t2ikit"] = {
            "title": markup.unescape(re.sub(r"<[^>]*>", "", title)) if title else self.name,
            "has_heading": title is not None,
            "contents": sections if len(sections) >= 4 else [],
            "facts": _facts(nb.metadata, self.name),
            "style": (TEMPLATE / "style.css").read_text() + code_style,
            "scripts": scripts,
            "policy": untrusted.policy(scripts),
            "show_code": self.show_code,
            "has_code": has_code,
        }
        return nb, resources

    def output(self, output: nbformat.NotebookNode) -> str:
        """One output as safe HTML: the richest form of it that lives in a page without a kernel."""
        if output.output_type == "stream":
            return _stream(output)
        if output.output_type == "error":
            return f'<pre class="error">{ansi2html(chr(10).join(output.traceback))}</pre>'
        data = output.data
        for mime, show in self.FORMS.items():
            key = next((key for key in data if re.fullmatch(mime, key)), None)
            if key and (shown := show(self, data[key])):
                return shown
        text = data.get("text/plain", "")
        if WIDGET in data:
            progress = re.search(r"\d%\|", text)  # tqdm's bar: of the moment, not of the record
            note = '<p class="note">An interactive control stood here; it needs the notebook and its kernel.</p>'
            return "" if progress else note
        return f"<pre>{markup.escape(text)}</pre>" if text.strip() else ""

    def chart(self, spec: dict) -> str:
        self.charts += 1
        if urls := untrusted.external_in_chart(spec):
            raise UserError(f"The chart of {self.where} would load {urls[0]}: put the data itself into the chart.")
        return f'<div class="chart" data-t2i-chart>{_data(spec)}</div>'

    def widget(self, view: dict) -> str:
        """An anywidget with its saved state; '' for other widgets, which live only with a kernel."""
        identity = view["model_id"]
        saved = self.states.get(identity, {})
        if saved.get("model_module") != "anywidget":
            return ""
        if urls := untrusted.external_in_module(saved["state"].get("_esm", "")):
            raise UserError(f"The widget of {self.where} would load {urls[0]}: use one that brings its own code.")
        name, model = markup.escape(identity), ""
        if identity not in self.models:
            self.models.add(identity)
            buffers = [{"path": buffer["path"], "data": buffer["data"]} for buffer in saved.get("buffers", [])]
            model = f'<div data-t2i-model="{name}" hidden>{_data({"state": saved["state"], "buffers": buffers})}</div>'
        return f'{model}<div class="widget" data-t2i-widget="{name}"></div>'

    def rich_html(self, text: str) -> str:
        cleaned, had_script = untrusted.clean_html(text)
        if had_script:
            log.warning("%s: an HTML output had a script, which the report leaves out", self.where)
            cleaned += '<p class="note">A part of this output needed a script and was left out of the report.</p>'
        return cleaned

    def picture(self, mime: str, encoded: str) -> str:
        source = f"data:{mime};base64,{''.join(encoded.split())}"
        return f'<img alt="Output of {markup.escape(self.where)}" src="{markup.escape(source)}">'

    FORMS = {
        r"application/vnd\.vegalite\.v\d+[.+]json": chart,
        re.escape(WIDGET): widget,
        # as an image an SVG can neither run nor load anything
        r"image/svg\+xml": lambda self, svg: self.picture("image/svg+xml", base64.b64encode(svg.encode()).decode()),
        r"image/png": lambda self, data: self.picture("image/png", data),
        r"image/jpeg": lambda self, data: self.picture("image/jpeg", data),
        r"image/webp": lambda self, data: self.picture("image/webp", data),
        r"text/html": rich_html,
        r"text/markdown": lambda self, text: output_html(text, self.where),
        r"text/latex": lambda self, text: f"<p>{math_html(text.strip().strip('$'), 'block', self.where)}</p>",
    }


def _stream(output: nbformat.NotebookNode) -> str:
    """stdout shown, stderr folded."""
    if not output.text.strip():
        return ""
    shown = f"<pre>{ansi2html(output.text.replace(chr(13), ''))}</pre>"
    return shown if output.name == "stdout" else f'<details class="log"><summary>log</summary>{shown}</details>'


def _data(value: Any) -> str:
    return f'<script type="application/json">{untrusted.json_in_script(value)}</script>'


@cache
def _vega() -> str:
    """Vega, Vega-Lite and vega-embed in a function, for the bundle declares one-letter names at its top level."""
    import vl_convert

    return "(function(){" + untrusted.script(vl_convert.javascript_bundle()) + "})();"


def _facts(metadata: dict, name: str) -> list[tuple[str, str]]:
    """What a reader must know of how the page came to be: notebook, parameters, when, how long."""
    run = metadata.get("papermill", {})
    facts = [("notebook", f"{name}.ipynb")]
    for key, value in run.get("parameters", {}).items():
        facts.append((key, value if isinstance(value, str) else json.dumps(value)))
    if run.get("start_time"):
        facts.append(("run", f"{datetime.fromisoformat(run['start_time']):%Y-%m-%d %H:%M} UTC"))
    if run.get("duration"):
        minutes, seconds = divmod(round(run["duration"]), 60)
        facts.append(("took", f"{minutes} min {seconds} s" if minutes else f"{seconds} s"))
    return facts
