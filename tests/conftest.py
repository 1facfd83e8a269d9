"""What several tests share: a home of their own, a small codec, runs of the smoke tier, and a real Chromium.

T2IKIT_NO_BROWSER=1 skips the tests of what readers see.
"""

import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from t2ikit.papers import GROUP

# golden losses, and two threads on a busy machine take many times longer than one
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]


@pytest.fixture(scope="session")
def until():
    """`until(condition)` returns once a real process has got there, and fails after two minutes."""

    def wait(condition):
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "what was waited for did not come"
            time.sleep(0.005)

    return wait


@pytest.fixture
def install_paper(tmp_path, monkeypatch):
    """`install_paper("alpha")` installs an empty paper beside the kit's own, with real metadata: its folder."""

    def install(paper):
        package = f"paper_{paper}_of_test"
        monkeypatch.delitem(sys.modules, package, raising=False)
        folder, info = tmp_path / "site" / package, tmp_path / "site" / f"{package}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n{paper} = {package}\n")
        return folder

    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return install


@pytest.fixture
def chromium():
    """A playwright Browser. One a test: its event loop would stand in the way of a kernel started later."""
    if os.environ.get("T2IKIT_NO_BROWSER") == "1":
        pytest.skip("T2IKIT_NO_BROWSER=1")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        installed = [found for name in NAMES if (found := shutil.which(name))]
        path = installed[0] if installed else playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.fail(
                "No Chromium was found: run `apt-get install chromium` or `playwright install chromium`, "
                "or set T2IKIT_NO_BROWSER=1 to skip the tests that need one.",
                pytrace=False,
            )
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def read_offline(chromium):
    """Open a report with the network off: `page = read_offline(path)`; afterwards nothing may have gone wrong in it."""
    opened = []

    def read(path, **options):
        context = chromium.new_context(offline=True, **{"viewport": {"width": 1100, "height": 900}, **options})
        context.set_default_timeout(120_000)  # a busy machine is no fault of the page's
        page = context.new_page()
        page.wrong = []
        page.on("request", lambda request: page.wrong.append(request.url) if _outside(request.url) else None)
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda message: page.wrong.append(message.text) if message.type == "error" else None)
        page.goto(Path(path).as_uri())
        page.wait_for_selector("html[data-t2i-ready]", state="attached")
        opened.append(page)
        return page

    yield read
    for page in opened:
        assert page.wrong == []
        assert page.evaluate("window.hacked") is None


def _outside(url: str) -> bool:
    return not url.startswith(("file:", "data:", "blob:"))


@pytest.fixture(scope="session")
def save_codec():
    """`save_codec(folder, seed=0, …)`: an AutoencoderKL of three levels in diffusers' format; returns the folder."""
    import torch
    from diffusers import AutoencoderKL

    def save(folder, seed=0, **config):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 3,
                up_block_types=("UpDecoderBlock2D",) * 3,
                block_out_channels=(4, 4, 4),
                latent_channels=4,
                norm_num_groups=2,
                mid_block_add_attention=False,
                **config,
            )
        vae.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def codec(tmp_path_factory, save_codec):
    """The name of a small untrained codec, its weights drawn from a fixed seed."""
    return f"local-dir:{save_codec(tmp_path_factory.mktemp('codec'))}"


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory):
    """Encoded shards, made once for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def home(tmp_path, monkeypatch, shared_cache):
    """An empty T2IKIT_HOME, its cache shared."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "cache").symlink_to(shared_cache)
    monkeypatch.setenv("T2IKIT_HOME", str(folder))
    return folder


@pytest.fixture
def smoke(home, codec):
    """`smoke(key=value, …)`: configuration and budget of a run of a second a step at most."""
    from t2ikit.study import preset

    def make(backbone="pixart-h1024-d28", **settings):
        small = {
            "codec": codec,
            "batch": 2,
            "probe_images": 2,
            "steps": 4,
            "log_every": 1,
            "eval_every": 100,
            "threads": 1,
        }
        return preset(backbone, "scenes", "smoke", **small | settings)

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory, shared_cache, codec):
    """A finished smoke run of four steps, evaluated at 2 and 4. Not to be written to."""
    from t2ikit.study import preset
    from t2ikit.train.loop import train

    root = tmp_path_factory.mktemp("trained")
    (root / "cache").symlink_to(shared_cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2IKIT_HOME", str(root))
        settings = {"codec": codec, "batch": 2, "probe_images": 3, "steps": 4, "log_every": 1, "eval_every": 2}
        return train(*preset("pixart-h1024-d28", "scenes", "smoke", **settings))
