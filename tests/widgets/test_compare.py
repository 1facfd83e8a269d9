"""The prompt comparison: what it accepts and sends, and what a reader can do with it in a report and in JupyterLab."""

import base64
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets.embed import dependency_state
from PIL import Image

from t2ikit import report
from t2ikit.errors import UserError
from t2ikit.widgets.compare import Compare, data_uri

EVIL = 'a cube </SCRIPT><img src=x onerror="window.hacked=1"><script>window.hacked=1</script>'


def picture(seed: int, size: int = 64) -> np.ndarray:
    """Three discs on a plain ground, as the scenes of the kit are: uint8 [size, size, 3]."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), rng.integers(150, 256, 3), np.uint8)
    y, x = np.mgrid[:size, :size]
    for _ in range(3):
        cx, cy, r = rng.integers(size // 8, 7 * size // 8, 3) * [1, 1, 0.25]
        image[(x - cx) ** 2 + (y - cy) ** 2 < r * r] = rng.integers(0, 256, 3)
    return image


def comparison(**state) -> Compare:
    prompts = ["a red cube", "two green balls", EVIL, "a blue cone above a red cube"]
    runs = ["sdxl", "pixart", "<b>sd2</b>"]
    images = {run: [picture(10 * k + i) for i in range(len(prompts))] for k, run in enumerate(runs)}
    return Compare(images, prompts, scores={"sdxl": [0.25, 1, None, EVIL], "pixart": {2: 0.123456}}, **state)


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))))


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


# --- what it takes and sends ---


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20), st.sampled_from([None, 3, 4]))
def test_arrays_come_through_to_the_bit(seed, height, width, channels):
    shape = (height, width) if channels is None else (height, width, channels)
    array = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    back = decoded(data_uri(array, "run", 0))
    expected = np.repeat(array[..., None], 3, axis=2) if channels is None else array
    if channels == 4 and (array[..., 3] == 255).all():
        back = np.dstack([back, np.full((height, width), 255, np.uint8)]) if back.shape[2] == 3 else back
    assert np.array_equal(back, expected)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "JPEG", "GIF"])
def test_encoded_images_keep_their_pixels(name):
    buffer = io.BytesIO()
    Image.fromarray(picture(1)).save(buffer, name, **({"lossless": True} if name == "WEBP" else {}))
    uri = data_uri(buffer.getvalue(), "run", 0)
    expected = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")), expected
    )
    assert uri.startswith("data:image/webp" if name in ("PNG", "WEBP") else f"data:image/{name.lower()}")


def test_palette_with_transparency_keeps_it():
    image = Image.new("P", (2, 1), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 1
    assert decoded(data_uri(image, "run", 0)).tolist() == [[[255, 0, 0, 255], [0, 0, 255, 0]]]


def test_state_is_small():
    widget = Compare({run: [picture(i) for i in range(50)] for run in "abcd"}, [f"prompt {i}" for i in range(50)])
    state = widget.get_state()
    assert len(json.dumps(state["images"])) / 200 < 2000  # bytes an image of 64 px; raw it has 12,288
    assert set(state["shown"]) == set("abcd")


@pytest.mark.parametrize(
    ("images", "prompts", "options", "sentence"),
    [
        ({}, ["a"], {}, "There are 0 runs and 1 prompts to compare: give one of each at least."),
        ({"a": []}, [], {}, "There are 1 runs and 0 prompts"),
        ({"a": [picture(0)]}, ["x", "y"], {}, "Run 'a' has 1 images for 2 prompts: give one for each."),
        ({"a": [b"no image"]}, ["x"], {}, "Image 0 of run 'a' is 8 bytes that are no PNG, JPEG, WebP or GIF"),
        ({"a": [np.zeros((4, 4, 3))]}, ["x"], {}, "Image 0 of run 'a' is an array of float64 [4, 4, 3]"),
        ({"a": [np.zeros((3, 8, 8), np.uint8)]}, ["x"], {}, "an array of uint8 [3, 8, 8]"),
        ({"a": ["file.png"]}, ["x"], {}, "Image 0 of run 'a' is a str"),
        ({"a": [png(picture(0))[:200]]}, ["x"], {}, "Image 0 of run 'a' cannot be shown (image file is truncated"),
        ({"a": [np.zeros((1, 16_384), np.uint8)]}, ["x"], {}, "give a whole one of 1 to 16,383 pixels a side."),
        ({"a": [np.zeros((0, 4, 3), np.uint8)]}, ["x"], {}, "Image 0 of run 'a' cannot be shown"),
        ({"a": [Image.new("I;16", (2, 2))]}, ["x"], {}, "has the mode I;16: give one of 8 bits a channel."),
        ({"a": [picture(0)]}, [7], {}, "A prompt is 7 (int): give a string."),
        ({1: [picture(0)]}, ["x"], {}, "A run's label is 1 (int): give a string."),
        ({"a": [picture(0)]}, ["x"], {"scores": {"b": [1]}}, "Unknown run in scores 'b': choose one of a"),
        ({"a": [picture(0)]}, ["x"], {"scores": {"a": [1, 2]}}, "Run 'a' has a score for prompt 1"),
        ({"a": [picture(0)]}, ["x"], {"scores": {"a": [[1]]}}, "Run 'a' has a list as score 0"),
        ({"a": [picture(0)]}, ["x"], {"index": 1}, "There is no prompt 1: give a number from 0 to 0."),
        (
            {"a": [picture(0)]},
            ["x"],
            {"view": "splitt"},
            "Unknown view 'splitt': choose one of side by side, split, blink",
        ),
        ({"a": [picture(0)]}, ["x"], {"view": "split"}, "View 'split' needs two runs and there is one"),
        ({"a": [picture(0)]}, ["x"], {"shown": []}, "`shown` is []: give at least one run."),
        ({"a": [picture(0)]}, ["x"], {"shown": ["b"]}, "Unknown run 'b': choose one of a"),
        ({"a": [picture(0)]}, ["x"], {"pair": ["a"]}, "`pair` is ['a']: give two runs."),
        ({"a": [picture(0)]}, ["x"], {"size": 4}, "`size` is 4: give a width from 16 to 1024 pixels."),
    ],
)
def test_a_mistake_is_one_sentence(images, prompts, options, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        Compare(images, prompts, **options)


def test_a_mistake_later_changes_nothing():
    widget = comparison()
    for name, value in {"index": 4, "view": "grid", "shown": ["sdxl", "x"], "pair": ["sdxl"]}.items():
        before = getattr(widget, name)
        with pytest.raises(UserError):
            setattr(widget, name, value)
        assert getattr(widget, name) == before


def test_scores_are_texts_and_runs_need_not_have_any():
    assert comparison().scores == [["0.25", "1", "", EVIL], ["", "", "0.123", ""], ["", "", "", ""]]


# --- what a reader does with it, in an exported report ---


@pytest.fixture
def page_of(tmp_path, read_offline):
    """Export a notebook that shows the widget, and open it with the network off."""

    def page(widget, times=1, **options):
        view = {"model_id": widget.model_id, "version_major": 2, "version_minor": 0}
        output = nbformat.v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": view})
        node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("w", outputs=[output] * times)])
        state = json.loads(json.dumps(dependency_state([widget], drop_defaults=False), default=str))
        node.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": state, "version_major": 2}}
        nbformat.write(node, tmp_path / "w.ipynb")
        report.export(tmp_path / "w.ipynb", tmp_path / "w.html")
        return read_offline(tmp_path / "w.html", **options)

    return page


def sources(page) -> list[str]:
    """The images on show, all of them decoded."""
    images = page.eval_on_selector_all(".t2i-compare img", "nodes => nodes.map(n => [n.src, n.naturalWidth])")
    assert all(width == 64 for _, width in images)
    return [source for source, _ in images]


def test_side_by_side_any_prompt_any_runs(page_of):
    widget = comparison()
    page = page_of(widget)
    expect = lambda i, runs=(0, 1, 2): [widget.images[k][i] for k in runs]  # noqa: E731
    assert sources(page) == expect(0)
    assert page.locator(".t2i-grid figcaption").all_inner_texts() == ["sdxl\n0.25", "pixart", "<b>sd2</b>"]

    page.get_by_label("Next prompt").click()
    assert sources(page) == expect(1)
    assert page.locator(".t2i-prompt").inner_text() == "two green balls"
    page.get_by_label("Prompt number").fill("3")
    assert sources(page) == expect(2)
    assert page.locator(".t2i-prompt").inner_text() == EVIL
    assert page.locator(".t2i-compare img").first.get_attribute("alt") == f"sdxl: {EVIL}"
    page.get_by_label("pixart").uncheck()
    assert sources(page) == expect(2, (0, 2))
    page.get_by_label("sdxl").uncheck()
    page.get_by_label("<b>sd2</b>").click()  # the last run stays
    assert sources(page) == expect(2, (2,))


def test_keyboard_and_search(page_of):
    widget = comparison()
    page = page_of(widget)
    group = page.get_by_role("group", name=re.compile("Images of 3 runs for 4 prompts"))
    group.focus()
    for key, index in {"ArrowRight": 1, "End": 3, "ArrowLeft": 2, "Home": 0}.items():
        page.keyboard.press(key)
        assert sources(page)[0] == widget.images[0][index]
    page.keyboard.press("ArrowLeft")  # already the first
    assert sources(page)[0] == widget.images[0][0]

    search = page.get_by_role("combobox", name="Find a prompt")
    search.fill("RED cube")
    assert page.get_by_role("option").all_inner_texts() == ["1 a red cube", "4 a blue cone above a red cube"]
    assert search.get_attribute("aria-expanded") == "true"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert sources(page)[0] == widget.images[0][3]
    search.fill("scRIPT")
    page.get_by_role("option").click()
    assert sources(page)[0] == widget.images[0][2]
    search.fill("zebra")
    assert page.get_by_text("No prompt has these words.").is_visible()
    page.keyboard.press("Escape")
    assert page.get_by_role("listbox", name="Prompts").is_hidden()


def test_split_follows_the_pointer_and_the_slider(page_of):
    widget = comparison()
    page = page_of(widget)
    page.get_by_text("split", exact=True).click()
    cut = lambda: page.locator(".t2i-layers").evaluate("n => parseFloat(n.style.getPropertyValue('--cut'))")  # noqa: E731
    assert sources(page) == [widget.images[0][0], widget.images[1][0]]
    assert cut() == 50
    page.get_by_label("Divider between sdxl and pixart").fill("80")
    assert cut() == 80
    assert "80%" in page.locator(".t2i-layers img").nth(1).evaluate("n => getComputedStyle(n).clipPath")
    box = page.locator(".t2i-layers").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 60, steps=4)
    page.mouse.up()
    assert cut() == pytest.approx(25, abs=1)
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60)
    assert cut() == pytest.approx(25, abs=1)
    page.get_by_label("Right run").select_option("<b>sd2</b>")
    page.get_by_label("Swap the two runs").click()
    assert sources(page) == [widget.images[2][0], widget.images[0][0]]


def test_blink_is_off_until_asked(page_of):
    page = page_of(comparison(view="blink"))
    on = lambda: page.locator(".t2i-layers img.t2i-on").get_attribute("alt")  # noqa: E731
    play = page.get_by_role("button", name="Blink")
    assert play.get_attribute("aria-pressed") == "false"
    assert on() == "sdxl: a red cube"
    page.get_by_role("group", name=re.compile("Images of")).focus()
    page.keyboard.press("b")
    assert on() == "pixart: a red cube"
    page.get_by_role("button", name="Switch").click()
    assert on() == "sdxl: a red cube"
    page.get_by_label("Changes a second").fill("3")
    play.click()
    page.locator("img.t2i-on[alt^=pixart]").wait_for()
    page.locator("img.t2i-on[alt^=sdxl]").wait_for()
    play.click()
    assert play.get_attribute("aria-pressed") == "false"


def test_less_motion_is_respected(page_of):
    page = page_of(comparison(view="blink"), reduced_motion="reduce")
    assert page.get_by_role("button", name="Blink").is_disabled()
    assert page.get_by_text("this system asks for less motion").is_visible()
    page.get_by_role("button", name="Switch").click()
    assert page.locator(".t2i-layers img.t2i-on").get_attribute("alt") == "pixart: a red cube"


def test_two_columns_on_a_phone_and_crisp_pixels(page_of):
    page = page_of(comparison(), viewport={"width": 400, "height": 800})
    boxes = page.eval_on_selector_all(".t2i-grid img", "ns => ns.map(n => [n.x, n.y, n.width])")
    assert boxes[0][1] == boxes[1][1] < boxes[2][1]
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    rendering = "() => getComputedStyle(document.querySelector('.t2i-grid img')).imageRendering"
    assert page.evaluate(rendering) == "pixelated"
    page.get_by_label("Pixelated").uncheck()
    assert page.evaluate(rendering) == "auto"


def test_two_views_of_one_widget_move_together(page_of):
    page = page_of(comparison(), times=2)
    page.get_by_label("Next prompt").first.click()
    assert page.locator(".t2i-prompt").all_inner_texts() == ["two green balls"] * 2


def test_one_run_and_one_prompt_show_no_idle_controls(page_of):
    page = page_of(Compare({"a": [picture(0)]}, ["x"]))
    assert len(sources(page)) == 1
    for label in ("Next prompt", "Find a prompt", "View"):
        assert page.get_by_label(label).is_hidden()


# --- live, in JupyterLab ---


@pytest.fixture
def lab(tmp_path):
    """A JupyterLab server of this Python in a folder of its own: yields (url, token, folder, runtime folder)."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    folder, token = tmp_path / "work", "secret"
    folder.mkdir()
    environment = os.environ | {
        "HOME": str(tmp_path),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(240):
            assert server.poll() is None, (tmp_path / "lab.log").read_text()[-2000:]
            try:
                urllib.request.urlopen(f"{url}/api?token={token}").close()
                break
            except urllib.error.URLError:
                time.sleep(0.5)
        yield url, token, folder, tmp_path / "runtime"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_live_in_jupyterlab_both_ways(lab, chromium):
    from jupyter_client import BlockingKernelClient

    url, token, folder, runtime = lab
    source = (
        "import numpy as np\nfrom t2ikit.widgets.compare import Compare\n"
        "images = {run: [np.full((8, 8, 3), 40 * i + k, np.uint8) for i in range(3)]\n"
        "          for k, run in enumerate(['one', 'two'])}\n"
        f"w = Compare(images, ['first', 'second', {EVIL!r}]); w"
    )
    node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source), nbformat.v4.new_code_cell("")])
    node.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(node, folder / "live.ipynb")

    page = chromium.new_context(viewport={"width": 1300, "height": 950}).new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{url}/lab/tree/live.ipynb?token={token}")
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").first.click(timeout=90_000)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status='idle']").wait_for(timeout=90_000)
    page.keyboard.press("Shift+Enter")
    widget = page.locator(".t2i-compare")
    widget.wait_for(timeout=90_000)
    [connection] = runtime.glob("kernel-*.json")
    kernel = BlockingKernelClient(connection_file=str(connection))
    kernel.load_connection_file()
    kernel.start_channels()

    def state():
        reply = kernel.execute_interactive(
            "",
            user_expressions={"s": "(w.index, w.view, w.shown, w.pair)"},
            timeout=30,
            store_history=False,
        )
        return eval(reply["content"]["user_expressions"]["s"]["data"]["text/plain"])

    def until(expected):
        for _ in range(100):
            if (now := state()) == expected:
                return
            time.sleep(0.1)
        raise AssertionError(now)

    cells = page.locator(".jp-Notebook .jp-Cell").count()
    widget.get_by_label("Next prompt").click()
    until((1, "side by side", ["one", "two"], ["one", "two"]))
    widget.focus()
    for key in "ArrowRight", "b", "a", "x":  # the last three are commands of the notebook when it has the focus
        page.keyboard.press(key)
    assert widget.locator(".t2i-prompt").inner_text() == EVIL
    widget.get_by_label("one").uncheck()
    until((2, "side by side", ["two"], ["one", "two"]))
    widget.get_by_text("split", exact=True).click()
    widget.get_by_label("Swap the two runs").click()
    until((2, "split", ["two"], ["two", "one"]))
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells

    kernel.execute_interactive("w.index, w.view = 0, 'blink'", timeout=30)
    page.get_by_role("button", name="Switch").wait_for()
    assert widget.locator(".t2i-prompt").inner_text() == "first"
    assert page.evaluate("window.hacked") is None
    assert errors == []
    kernel.stop_channels()
