"""A report is read by someone else, offline, later: it must show everything, load nothing, and run no caption."""

import base64
import hashlib
import json
import logging
import re
from html.parser import HTMLParser

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ikit import batch, report, untrusted
from t2ikit.errors import UserError
from t2ikit.report_markdown import MATHML_ATTRIBUTES, Headings, cell_html, math_html, output_html

EVIL = 'a cube </SCRIPT><img src=x onerror="window.hacked=1"><script>window.hacked=1</script><!-- [x](javascript:hack)'
V4 = nbformat.v4
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

CELLS = [
    f"""# Loss against *compute*, $C = 6ND$

The law is $$L(N, D) = E + \\frac{{A}}{{N^\\alpha}} + \\frac{{B}}{{D^\\beta}}$$ with $\\alpha = 0.34$.

| row | caption |
|---|---|
| 1 | {EVIL} |
""",
    "tier: str = 'smoke'\nevil: str = ''",
    """
import altair as alt, numpy as np, pandas as pd
from t2ikit import charts
charts.use()
table = pd.DataFrame({"family": ["SDXL", "PixArt", evil], "loss": [1.5, 1.25, 2.0], "caption": [evil] * 3})
table
""",
    """
base = alt.Chart(table, title=evil).encode(
    x="loss", y=alt.Y("family"), color="caption", tooltip=["caption", "family"], href="caption")
base.mark_point() + base.mark_text(text=evil)
""",
    """
wide = alt.Chart(table.head(2), width=380).mark_bar().encode(x="family", y="loss")
(wide | wide).resolve_scale(y="shared")
""",
    """
rows = pd.DataFrame({"x": range(6), "y": np.arange(6) ** 2.0, "side": list("ababab")})
brush = alt.selection_interval()
slider = alt.binding_range(min=0, max=6, step=1, name="at most ")
most = alt.param(value=6, bind=slider)
points = alt.Chart(rows).mark_point().encode(x="x", y="y", color=alt.condition(brush, "side", alt.value("gray")))
points.add_params(brush, most).transform_filter(alt.datum.x < most)
""",
    """
from t2ikit.widgets.compare import Compare
images = {run: [np.full((8, 8, 3), 60 * k + 9 * i, np.uint8) for i in range(3)] for k, run in enumerate(["one", evil])}
Compare(images, ["first", evil, "third"], scores={"one": [evil, 0.5, 1]})
""",
    """
import anywidget, traitlets
class Bytes(anywidget.AnyWidget):
    _esm = '''export default () => ({ render({ model, el }) {
        el.textContent = "bytes: " + [...new Uint8Array(model.get("nested").data.buffer)].join(" "); } })'''
    nested = traitlets.Dict().tag(sync=True)
Bytes(nested={"data": b"\\x00\\xff<"})
""",
    """
from IPython.display import HTML, Latex, Markdown, SVG, display
import sys
from PIL import Image
display(Markdown("## " + evil + " ![i](/etc/hostname) $x < y$"))
display(HTML(f"<p>{evil}</p><iframe src='http://evil/'></iframe><p onclick='hack()' style='color: red'>kept</p>"))
display(SVG('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>window.hacked=1</script></svg>'))
display(Latex("$\\\\frac{1}{2}$"))
display(Image.fromarray(images["one"][1]))
print("step 1", end="\\r"); print("step 2"); print(evil)
print("progress", file=sys.stderr)
""",
    "import ipywidgets; ipywidgets.IntSlider()",
]


def notebook(*cells) -> nbformat.NotebookNode:
    """Cells are outputs (a mime bundle), or code (text), or nodes."""
    made = []
    for cell in cells:
        if isinstance(cell, str):
            cell = V4.new_code_cell(cell)
        elif not isinstance(cell, nbformat.NotebookNode):
            cell = V4.new_code_cell("show()", outputs=[V4.new_output("display_data", cell)])
        made.append(cell)
    return V4.new_notebook(cells=made)


def exported(folder, node, **options) -> str:
    nbformat.write(node, folder / "page.ipynb")
    size = report.export(folder / "page.ipynb", folder / "page.html", **options)
    assert size == (folder / "page.html").stat().st_size
    return (folder / "page.html").read_text()


LOADING = {"src", "srcset", "poster", "data", "background", "xlink:href"}


def external_loads(page: str) -> list[str]:
    """What a browser would fetch by itself for this markup."""
    found = re.findall(r"""url\(\s*["']?(?!["']?(?:data:|#))[^)]*|@import[^;]*""", page, re.IGNORECASE)
    for tag, attributes in Tags(page).tags:
        for name, value in attributes.items():
            if name in LOADING or (name == "href" and tag != "a"):
                found += [] if (value or "").strip().lower().startswith("data:") else [f"{tag} {name}={value}"]
    return found


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of scripts."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append((dict(attributes), ""))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and not self.scripts[-1][1]:
            self.scripts[-1] = (self.scripts[-1][0], data)
        else:
            self.text += data


# --- the whole way: execute, export, read in a browser with the network off ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    cells = [V4.new_markdown_cell(CELLS[0]), *(V4.new_code_cell(source.strip()) for source in CELLS[1:])]
    cells[1].metadata["tags"] = ["parameters"]
    nbformat.write(V4.new_notebook(cells=cells), folder / "whole.ipynb")
    executed = batch.execute(folder / "whole.ipynb", {"evil": EVIL, "tier": "tiny"}, folder / "out" / "whole.ipynb")
    report.export(executed, folder / "whole.html")
    return folder / "whole.html"


def test_charts_images_math_and_widgets_are_there(whole, read_offline):
    page = read_offline(whole)
    assert page.locator("svg.marks").count() == 3
    assert page.locator("svg.marks .mark-symbol.role-mark path").count() >= 3 + 6
    assert page.locator("svg.marks .mark-rect.role-mark path").count() >= 4
    assert page.locator("svg.marks text", has_text="</SCRIPT><img").count() > 0
    widths = page.evaluate("[...document.images].map(i => i.naturalWidth)")
    assert len(widths) == 2 + 2  # the comparison's, the SVG, the PIL image
    assert all(width > 0 for width in widths)
    assert page.locator("math").count() == 5
    assert page.get_by_text("bytes: 0 255 60").is_visible()
    assert page.get_by_text("An interactive control stood here").is_visible()
    assert page.locator("p.note").count() == 2
    assert page.title() == "Loss against compute, C=6ND"
    for fact in ("tier tiny", "notebook whole.ipynb"):
        assert page.locator(".facts span", has_text=fact).is_visible()


def test_the_comparison_works_without_a_kernel(whole, read_offline):
    page = read_offline(whole)
    source = lambda: page.locator(".t2i-compare img").first.get_attribute("src")  # noqa: E731
    first = source()
    page.get_by_label("Next prompt").click()
    assert source() != first
    assert page.locator(".t2i-prompt").inner_text() == EVIL
    page.get_by_role("checkbox", name=EVIL, exact=True).uncheck()
    assert page.locator(".t2i-compare img").count() == 1
    page.get_by_text("split", exact=True).click()
    before = page.locator(".t2i-layers img").nth(1).evaluate("n => getComputedStyle(n).clipPath")
    page.get_by_label("Divider between").fill("10")
    assert page.locator(".t2i-layers img").nth(1).evaluate("n => getComputedStyle(n).clipPath") != before
    page.get_by_text("blink", exact=True).click()
    page.get_by_role("button", name="Switch").click()
    assert page.locator("img.t2i-on").get_attribute("alt") == f"{EVIL}: {EVIL}"


def test_charts_answer_the_reader(whole, read_offline):
    page = read_offline(whole)
    chart = page.locator("[data-t2i-chart]").nth(2)
    assert chart.locator(".mark-symbol.role-mark path").count() == 6
    chart.locator("input[type=range]").fill("3")
    chart.locator(".mark-symbol.role-mark path").nth(3).wait_for(state="detached")
    assert chart.locator(".mark-symbol.role-mark path").count() == 3
    page.locator("[data-t2i-chart]").first.locator(".mark-text.role-mark text").first.hover()
    tooltip = page.locator("#vg-tooltip-element")
    tooltip.get_by_text("</SCRIPT><img").first.wait_for()
    assert tooltip.locator("img, script").count() == 0


def test_code_is_folded_and_unfolds(whole, read_offline):
    page = read_offline(whole)
    code = page.get_by_text("slider = alt.binding_range")
    assert code.is_hidden()
    page.get_by_role("button", name="Show code").click()
    assert code.is_visible()
    page.get_by_role("button", name="Hide code").click()
    assert code.is_hidden()
    page.locator("details.code summary", has_text="brush").or_(
        page.locator("details.code summary", has_text="rows = pd")
    ).first.click()
    assert code.is_visible()


def test_a_phone_scrolls_down_only(whole, read_offline):
    page = read_offline(whole, viewport={"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    for chart in page.locator("[data-t2i-chart]").all()[1:]:  # the first has text marks that no page is wide enough for
        assert chart.evaluate("n => n.scrollWidth") <= 400
    one, other = page.locator("[data-t2i-chart]").nth(1).locator(".mark-rect.role-mark").all()
    assert one.bounding_box()["y"] < other.bounding_box()["y"]  # side by side on a desk, stacked here
    for width, least in ((840, 0), (1100, 2 * 380)):  # side by side again: a little smaller, then in the author's size
        page.set_viewport_size({"width": width, "height": 800})
        wide = page.locator("[data-t2i-chart]").nth(1)
        for _ in range(100):
            marks = wide.locator(".mark-rect.role-mark")
            tops = marks.evaluate_all("nodes => nodes.map(n => n.getBoundingClientRect().y)")
            drawn = wide.locator("svg.marks").evaluate_all("nodes => nodes.map(n => n.clientWidth)")
            if len(tops) == 2 and tops[0] == tops[1] and least < drawn[0] <= width:
                break
            page.wait_for_timeout(100)
        else:
            raise AssertionError((width, tops, drawn))


def test_the_page_holds_no_foreign_markup(whole):
    page = whole.read_text()
    assert 0.8e6 < len(page) < 2.2e6
    tags = Tags(page)
    names = [name for name, _ in tags.tags]
    assert not set(names) & {"iframe", "object", "embed", "link", "base", "form"}
    for name, attributes in tags.tags:
        assert not [key for key in attributes if key.startswith("on")], (name, attributes)
        assert not (attributes.get("href") or "").lower().startswith("javascript:")
        assert name != "img" or attributes["src"].startswith("data:image/")
    assert EVIL in tags.text  # shown, as text
    assert names.count("meta") == 4
    [policy] = [a["content"] for n, a in tags.tags if a.get("http-equiv") == "Content-Security-Policy"]
    running = [text for attributes, text in tags.scripts if attributes.get("type") != "application/json"]
    digests = {base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running}
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == digests
    assert "unsafe-eval" not in policy and "script-src 'unsafe" not in policy
    for attributes, text in tags.scripts:
        if attributes.get("type") == "application/json":
            assert "<" not in text
            json.loads(text)


def test_a_picture_keeps_what_its_text_says():
    picture = '<img alt="a > b, src=1" src="data:image/png;base64,AAAA">'
    assert untrusted.clean_html(picture)[0] == picture
    assert untrusted.clean_html('<p><img alt="a > b src=" src="https://somewhere/x.png">c</p>')[0] == "<p>c</p>"


def test_a_lock_holds_even_when_another_is_open(tmp_path, chromium):
    """The policy alone: a page whose markup was not cleaned runs and loads nothing of it."""
    page = exported(tmp_path, notebook(V4.new_markdown_cell("text"), "code()"))
    link = "<img src='http://127.0.0.1:9/x.png'><a id=a href='javascript:window.hacked=1'>x</a>"
    hostile = EVIL.replace("<!--", "") + link
    (tmp_path / "open.html").write_text(page.replace("</main>", f"{hostile}</main>"))
    tab = chromium.new_context(offline=True).new_page()
    loads = []
    tab.on("requestfinished", lambda request: loads.append(request.url))
    tab.goto((tmp_path / "open.html").as_uri())
    tab.wait_for_selector("html[data-t2i-ready]", state="attached")
    tab.locator("#a").click()
    assert tab.evaluate("window.hacked") is None
    assert loads == [(tmp_path / "open.html").as_uri()]


# --- what would load from elsewhere ---


@pytest.mark.parametrize(
    "spec",
    [
        {"data": {"url": "https://example.org/a.csv"}, "mark": "point"},
        {"layer": [{"mark": {"type": "image", "url": "//example.org/a.png"}}]},
        {
            "data": {"values": [{"url": "http://example.org/a.png"}]},
            "mark": "image",
            "encoding": {"url": {"field": "url"}},
        },
        {"data": {"url": "data.csv"}, "mark": "point"},
        {"mark": "image", "encoding": {"url": {"value": "http://example.org/a.png"}}},
        {"mark": "image", "encoding": {"url": {"condition": {"test": "1", "value": "//example.org/a.png"}}}},
        {
            "datasets": {"d": [{"u": "data:,"}, {"u": "http://example.org/a.png"}]},
            "hconcat": [{"data": {"name": "d"}, "mark": "image", "encoding": {"url": {"field": "u"}}}],
        },
    ],
)
def test_a_chart_that_loads_is_refused_and_the_old_page_stays(tmp_path, spec):
    (tmp_path / "page.html").write_text("old")
    with pytest.raises(UserError, match="The chart of page, cell 1 would load .*: put the data itself into the chart."):
        exported(tmp_path, notebook({"application/vnd.vegalite.v5+json": spec}))
    assert (tmp_path / "page.html").read_text() == "old"


def test_rows_of_a_chart_may_name_addresses():
    rows = [{"url": "http://example.org/", "picture": "data:image/png;base64,"}]
    spec = {"data": {"values": rows}, "mark": "image", "encoding": {"url": {"field": "picture"}, "x": {"value": 1}}}
    assert untrusted.external_in_chart(spec) == []


@pytest.mark.parametrize(
    "source",
    [
        'import embed from "https://esm.sh/vega-embed";',
        "const x = await import('http://example.org/x.js')",
        "export * from '//cdn/x.js'",
        "import`https://x/y.js`",
    ],
)
def test_a_widget_that_loads_its_code_is_refused(tmp_path, source):
    node = notebook({WIDGET_VIEW: {"model_id": "m1"}})
    state = {"m1": {"model_module": "anywidget", "model_name": "AnyModel", "state": {"_esm": source}}}
    node.metadata["widgets"] = {report.STATE: {"state": state}}
    with pytest.raises(UserError, match="The widget of page, cell 1 would load"):
        exported(tmp_path, node)


# --- untrusted text ---


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.just(EVIL),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("</script>"), inner),
        max_leaves=8,
    )
)
def test_json_in_a_script_cannot_end_it_and_keeps_its_value(value):
    text = untrusted.json_in_script(value)
    assert "<" not in text
    assert json.loads(text) == value


def test_json_in_a_script_has_no_nan():
    assert json.loads(untrusted.json_in_script({"a": [float("nan"), float("inf"), -float("inf"), 1.5]})) == {
        "a": [None, None, None, 1.5]
    }


def test_our_scripts_stay_the_same_program():
    assert untrusted.script('x = "</SCRIPT><!--";') == 'x = "\\x3c/SCRIPT>\\x3c!--";'


@pytest.mark.parametrize(
    "markup",
    [
        EVIL,
        "<svg><style><img src=x onerror=window.hacked=1></style></svg>",
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=hack()&gt;'>",
        "<noscript><p title='</noscript><img src=x onerror=hack()>'>",
        "<scr<script></script>ipt>hack()</script>",
        "<style>p { color: red }</style><style>#T_a { background: url(http://a) }</style><style>#T_a</style>",
        "<style>#T_x{}</style x><a href='jAvascript&colon;hack()'>x</a>",
        "<meta http-equiv=refresh content='0;url=http://a'><base href=//a><form action=//a><input onfocus=hack()>",
        "<div data-t2i-chart id=t2i-code class=x style='position:fixed;background:url(//a)'>",
        "<img src=//a/b.png><img src='data:text/html,x'><a href='data:text/html,x'>x</a>",
        "<!-- unclosed <script>hack()",
    ],
)
def test_cleaned_html_has_nothing_active(markup):
    cleaned, _ = untrusted.clean_html(markup)
    allowed = set(untrusted.TAGS) | {"style"}
    for name, attributes in Tags(cleaned).tags:
        assert name in allowed and name != "script"
        assert not [key for key in attributes if key.startswith(("on", "data-"))], cleaned
        assert (attributes.get("href") or "http").startswith(("http", "mailto"))
        assert name != "img" or attributes["src"].startswith("data:image/")
        assert "id" not in attributes and "url" not in attributes.get("style", "")
    assert external_loads(cleaned) == []


@pytest.mark.parametrize("selectors", ["#T_a, body", "body, #T_a", "#T_a > p, *", "#T_a, #T_b ~ main"])
def test_a_style_of_more_than_tables_is_dropped(selectors):
    assert "display" not in untrusted.clean_html(f"<style>{selectors} {{ display: none }}</style>x")[0]
    assert "display" in untrusted.clean_html("<style>#T_a td, #T_b th.col1 { display: none }</style>x")[0]


def test_a_style_of_tables_lays_nothing_over_the_page():
    styled = "<style>#T_a td { position: fixed; inset: 0; color: red }</style><td style='position: fixed'>x</td>"
    cleaned, _ = untrusted.clean_html(styled)
    assert "color: red" in cleaned and "position" not in cleaned and "inset" not in cleaned


def test_tables_keep_their_look():
    import pandas as pd

    styled = pd.DataFrame({"x": [1, 2], "name": ["<b>", EVIL]}).style.format(escape="html").bar(subset=["x"])
    cleaned, script = untrusted.clean_html(styled.set_uuid("ab").to_html())
    assert "#T_ab_row0_col0" in cleaned and 'id="T_ab_row0_col0"' in cleaned
    assert re.search(r"#T_ab_row1_col0 *\{[^}]*background: linear-gradient\(90deg,[^;}]*100\.0%", cleaned)
    assert not script
    plain, _ = untrusted.clean_html(pd.DataFrame({"x": [EVIL[:40]]})._repr_html_())
    assert '<table class="dataframe"' in plain and "<style" not in plain and "&lt;/SCRIPT&gt;&lt;img" in plain


def test_markdown_cells_keep_a_few_tags_and_outputs_none(tmp_path):
    text = "a<br>b <sup>2</sup> <img src=x onerror=hack()> <details open><summary>s</summary>"
    cell = cell_html(text, {}, tmp_path, "page, cell 1", Headings())
    assert [name for name, _ in Tags(cell).tags] == ["p", "br", "sup", "summary"]
    assert [name for name, _ in Tags(output_html(text, "page, cell 1")).tags] == ["p"]


@pytest.mark.parametrize(
    "text",
    [
        EVIL,
        "```mermaid\n<img src=x onerror=hack()>\n```",
        "```html\n<img src=x>\n```",
        "<div>\n<script>x</script>\n</div>",
        "[x](data:text/html,hack) <javascript:hack()> [y]: javascript:hack()\n\n[y]",
    ],
)
def test_markdown_makes_no_tag_of_a_caption(text):
    for name, attributes in Tags(output_html(text, "here")).tags:
        assert name in ("p", "pre", "div", "span", "code", "a"), name
        assert attributes.get("href") in (None, "#harmful-link")


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{</math><img src=x onerror=hack()>}",
        r"\text{&lt;img src=x&gt; &amp;lt;img src=x&amp;gt;}",
        r"\mathrm{<img src=x>} \operatorname{<b>}",
        r"\href{javascript:hack()}{x} \class{t2i}{y} \style{background:url(//a)}{z}",
        '\\color{red" onclick="hack()}{y}',
        r"\begin{array}{<img>} <script>hack() \end{array}",
        r"\left( <img src=x>",
    ],
)
@pytest.mark.parametrize("display", ["inline", "block"])
def test_math_makes_no_tag_of_a_caption(latex, display):
    for name, attributes in Tags(math_html(latex, display, "here")).tags:
        assert name == "code" or (name.startswith("m") and name != "meta"), name
        assert set(attributes) <= MATHML_ATTRIBUTES


def test_headings_of_outputs_do_not_name_the_page(tmp_path):
    page = exported(
        tmp_path, notebook({"text/markdown": "# Not the title\n## Nor a section"}, V4.new_markdown_cell("# It"))
    )
    assert "<title>It</title>" in page


def test_images_of_markdown_are_embedded_or_named(tmp_path, caplog):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    (tmp_path.parent / "secret.png").write_bytes(b"secret")
    text = "![one](a.png) ![two](../secret.png) ![<b>](https://example.org/x.png)"
    with caplog.at_level(logging.WARNING):
        page = exported(tmp_path, notebook(V4.new_markdown_cell(text), {"text/markdown": "![own](a.png)"}))
    assert [a["src"] for n, a in Tags(page).tags if n == "img"] == ["data:image/png;base64,iVBORw=="]
    assert "[image: &lt;b&gt;]" in page and "[image: two]" in page and "[image: own]" in page
    assert len(caplog.messages) == 3


# --- the page ---


def test_math_is_mathml_and_bad_math_its_source(tmp_path, caplog):
    text = "$a_1$ and\n\n\\begin{align}x &= 1 \\\\ y &= 2\\end{align}\n\n$$\\left($$ costs \\$5"
    with caplog.at_level(logging.WARNING):
        page = exported(tmp_path, notebook(V4.new_markdown_cell(text)))
    assert page.count("<math") == 2
    assert "<code>\\left(</code>" in page and "$5" in page
    assert "is not math that can be shown" in caplog.text


def test_streams_errors_and_tags(tmp_path):
    loud = V4.new_code_cell("loud()", outputs=[
        V4.new_output("stream", name="stdout", text="1%\r50%\r10"),
        V4.new_output("stream", name="stdout", text="0%\ndone\r\n"),
        V4.new_output("stream", name="stderr", text="warned"),
        V4.new_output("error", ename="E", evalue="<b>", traceback=["\x1b[31mE\x1b[0m: <b>"]),
    ])  # fmt: skip
    gone, quiet = V4.new_code_cell("gone()"), V4.new_code_cell("quiet()", outputs=[V4.new_output("stream", text="out")])
    gone.metadata["tags"], quiet.metadata["tags"] = ["remove-cell"], ["hide-input"]
    page = exported(tmp_path, notebook(loud, gone, quiet, "", V4.new_raw_cell("<raw>")))
    assert "<pre>100%\ndone\n</pre>" in page and "50%" not in page
    assert '<details class="log"><summary>log</summary><pre>warned</pre></details>' in page
    assert '<pre class="error"><span class="ansi-red-fg">E</span>: &lt;b&gt;</pre>' in page
    assert "gone" not in page and "quiet" not in page and "<pre>out</pre>" in page and "&lt;raw&gt;" not in page
    assert page.count("<details") == 2


def test_a_progress_bar_leaves_no_trace_and_a_control_a_note(tmp_path):
    view = {"model_id": "m", "version_major": 2, "version_minor": 0}
    bar = {WIDGET_VIEW: view, "text/plain": "runs:   0%|          | 0/4 [00:00<?, ?run/s]"}
    slider = {WIDGET_VIEW: view, "text/plain": "IntSlider(value=0)"}
    page = exported(tmp_path, notebook(bar, slider))
    assert "0%|" not in page and page.count("An interactive control stood here") == 1


def test_show_code_unfolds(tmp_path):
    assert '<details class="code" open>' in exported(tmp_path, notebook("x = 1"), show_code=True)
    assert '<details class="code">' in exported(tmp_path, notebook("x = 1"))


def test_a_page_without_charts_is_small_and_without_a_title_named_after_the_notebook(tmp_path):
    page = exported(tmp_path, notebook({"text/plain": "<3>"}))
    assert len(page) < 40_000
    assert "<title>page</title>" in page and "<h1>page</h1>" in page and "&lt;3&gt;" in page
    assert 'name="viewport"' in page


def test_a_lone_surrogate_does_not_stop_the_export(tmp_path):
    (tmp_path / "page.ipynb").write_text(json.dumps(notebook(V4.new_markdown_cell("x"))).replace('"x"', '"\\ud800"'))
    report.export(tmp_path / "page.ipynb", tmp_path / "page.html")
    assert "?" in (tmp_path / "page.html").read_text()


def test_what_is_no_notebook_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="There is no notebook .*none.ipynb"):
        report.export(tmp_path / "none.ipynb", tmp_path / "x.html")
    for text in ("{", "[]", '"x"', "{}", '{"nbformat": 9, "nbformat_minor": 0, "metadata": {}}', '{"nbformat": "4"}'):
        (tmp_path / "bad.ipynb").write_text(text)
        with pytest.raises(UserError, match="bad.ipynb is not a Jupyter notebook"):
            report.export(tmp_path / "bad.ipynb", tmp_path / "x.html")
        with pytest.raises(UserError, match="bad.ipynb is not a Jupyter notebook"):
            batch.execute(tmp_path / "bad.ipynb", {}, tmp_path / "x.ipynb")
