"""The pictograms world: from small packages made here and from real ones through npm; leaks counted; builds killed."""

import hashlib
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import psutil
import pytest

from t2ikit.data import pictograms_build
from t2ikit.data.iconnames import EmojiTable, article, slug, split_tones, words
from t2ikit.data.iconsets import DEFAULT, EMOJIBASE, WHOLE, WHOLE_SETS, parse_set, read_sets
from t2ikit.data.npm import Package, get_package, npm_command
from t2ikit.data.pictograms import Pictograms, get, leaks
from t2ikit.data.shards import read_index, read_shard, read_table, write_table
from t2ikit.data.world import get_world
from t2ikit.errors import UserError
from t2ikit.files import locked, write_json
from t2ikit.study import preset

SCRIPT = "<script>alert(1)</script>"
EMOJI = [
    {"label": "red apple", "hexcode": "1F34E", "tags": ["fruit", "food"], "group": 4},
    {"label": "flag: Côte d’Ivoire", "hexcode": "1F1E8-1F1EE", "tags": ["CI"], "group": 9},
    {
        "label": "waving hand", "hexcode": "1F44B", "tags": ["bye"], "group": 1,
        "skins": [{"label": "waving hand: dark skin tone", "hexcode": "1F44B-1F3FF"}],
    },
]  # fmt: skip
GROUPS = {"1": "people-body", "4": "food-drink", "9": "flags"}
TABLE = EmojiTable(EMOJI, GROUPS)


def shape(n):
    """A drawing that differs from those of other numbers in form and colour."""
    rng = np.random.default_rng(n)
    points = " ".join(f"{x},{y}" for x, y in rng.integers(2, 62, (7, 2)))
    red, green, blue = rng.integers(0, 200, 3)
    return f'<polygon fill="rgb({red},{green},{blue})" points="{points}"/><circle cx="{9 + n % 40}" cy="12" r="7"/>'


def iconset(name, icons, **more):
    drawn = {key: {"body": body} for key, body in icons.items()}
    return {"prefix": name, "width": 64, "height": 64, "icons": drawn, **more}


INFO = {"name": "Toy", "palette": True, "license": {"title": "MIT licence", "spdx": "MIT"}, "category": "Emoji"}


def package(folder, name, files):
    """A tarball as npm makes it, in `folder`, and its `Package`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for path, content in files.items():
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{path}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    made = Package(name, "1.0.0", hashlib.sha256(stream.getvalue()).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / made.filename).write_bytes(stream.getvalue())
    return made


def emojibase(folder):
    return package(folder, "emojibase-data", {"en/data.json": EMOJI, "meta/groups.json": {"groups": GROUPS}})


def toy_set(folder, name, icons, info=INFO, **more):
    return package(folder, name, {"icons.json": iconset(name, icons, **more), "info.json": info})


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A folder with two packages of 60 icons that share half of their names; no network is needed to build it."""
    packages = tmp_path / "world" / "packages"
    monkeypatch.setattr(pictograms_build, "EMOJIBASE", emojibase(packages))
    first = {f"thing-{chr(97 + n // 8)}{chr(97 + n % 8)}": shape(n) for n in range(60)}
    second = {f"thing-{chr(97 + n // 8)}{chr(97 + n % 8)}": shape(n + 30) for n in range(30, 90)}
    odd = {SCRIPT: shape(200), "n" * 4000: shape(201), "---": shape(202), "nothing": "<g/>", "bad": "<path"}
    sets = {"alpha": toy_set(packages, "alpha", first | odd), "beta": toy_set(packages, "beta", second)}
    return tmp_path / "world", sets


def test_a_build_keeps_what_shows_something_and_counts_the_rest(toys):
    folder, sets = toys
    assert get(folder, sets=sets, workers=1, progress=False) == folder
    manifest = json.loads((folder / "manifest.json").read_text())
    alpha = manifest["sets"]["alpha"]
    assert {k: alpha[k] for k in ("icons", "kept", "blank", "invalid", "unnamed")} == {
        "icons": 65, "kept": 63, "blank": 1, "invalid": 1, "unnamed": 1,
    }  # fmt: skip
    assert alpha["licence"] == "MIT" and manifest["packages"]["alpha"]["sha256"] == sets["alpha"].sha256
    assert sum(manifest["counts"].values()) == 62 + 60
    assert not (folder / "parts").exists()


def test_captions_with_markup_or_of_4000_characters_are_text_and_never_paths(toys):
    folder, sets = toys
    get(folder, sets=sets, workers=1, progress=False)
    captions = [s.caption for e in read_index(folder) for s in read_shard(folder / e["url"], e)]
    assert any(SCRIPT in text for text in captions) and max(map(len, captions)) > 4000 and all(captions)
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            assert all(name.partition(".")[0].isdigit() for name in tar.getnames())
    assert all(SCRIPT not in path.name and len(path.name) < 60 for path in folder.rglob("*"))


def test_nothing_of_validation_was_trained_on_and_the_counter_sees_leaks(toys):
    folder, sets = toys
    get(folder, sets=sets, workers=1, progress=False)
    table = read_table(folder / "table.parquet")
    assert leaks(table) == dict.fromkeys(("images", "captions", "concepts", "emoji", "clusters"), 0)
    split = np.array(table["split"].to_pylist())
    assert 0 < (split == "val").mean() <= 0.055
    row = int(np.flatnonzero(split == "val")[0])
    split[np.flatnonzero(split == "train")[0]] = "val"
    for column, key in (("phash", "images"), ("subject", "concepts"), ("cluster", "clusters"), ("name", "captions")):
        values = table[column].to_pylist()
        values[0] = values[row]
        leaky = table.set_column(table.column_names.index(column), column, [values])
        if column == "phash":
            thumbs = table["thumb"].to_pylist()
            thumbs[0] = thumbs[row]
            leaky = leaky.set_column(table.column_names.index("thumb"), "thumb", [thumbs])
        assert leaks(leaky)[key] == 1, key


def test_built_twice_is_built_the_same_and_another_recipe_is_refused(toys, tmp_path):
    folder, sets = toys
    get(folder, sets=sets, workers=1, progress=False)
    other = tmp_path / "other"
    shutil.copytree(folder / "packages", other / "packages")
    get(other, sets=sets, workers=1, progress=False)
    for name in ("index.json", "table.parquet", "manifest.json", "val-00000.tar"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    before = (folder / "manifest.json").stat().st_mtime_ns
    get(folder, sets=sets, progress=False)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds pictograms of other packages"):
        get(folder, sets={"alpha": sets["alpha"]}, progress=False)
    for name in ("val-00000.tar", "table.parquet"):
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"has lost {name}: remove the folder"):
            get(folder, sets=sets, progress=False)


def test_the_world_serves_images_and_captions(toys, monkeypatch):
    folder, sets = toys
    get(folder, sets=sets, workers=1, progress=False)
    world, large = get_world("pictograms", folder=folder), Pictograms(folder, size=128)
    assert world.fingerprint != large.fingerprint and world.fingerprint == Pictograms(folder).fingerprint
    assert world.length("train") + world.length("val") == 122
    index = [2, 0, 2]
    small, big = world.images("train", index), large.images("train", index)
    assert small.shape == (3, 64, 64, 3) and small.dtype == np.uint8 and np.array_equal(small[0], small[2])
    assert np.abs(big.reshape(3, 64, 2, 64, 2, 3).mean((2, 4)) - small).max() <= 0.5
    for density in world.densities:
        assert world.captions("train", index, density) == [
            world.table[density][int(row)].as_py() for row in world.rows("train", index)
        ]
    first = next(read_shard(folder / "val-00000.tar"))
    assert world.captions("val", [0], "name") == [first.caption]
    assert world.flips("val", [0], "name") == ()
    assert world.images("val", []).shape == (0, 64, 64, 3)
    with pytest.raises(UserError, match="outside the val split"):
        world.images("val", [world.length("val")])
    with pytest.raises(UserError, match="Unknown caption density 'dense'"):
        world.captions("val", [0], "dense")
    with pytest.raises(UserError, match="of 48 px are not served"):
        Pictograms(folder, size=48)


def test_the_decoded_cache_is_checked_and_made_anew(toys):
    folder, sets = toys
    get(folder, sets=sets, workers=1, progress=False)
    wanted = Pictograms(folder).images("train", range(20))
    cache = folder / "pixels-64.npy"
    data = bytearray(cache.read_bytes())
    data[-60000:-50000] = bytes(10000)
    cache.write_bytes(data)
    assert np.array_equal(Pictograms(folder).images("train", range(20)), wanted)
    cache.unlink()
    shard = folder / "train-00000.tar"
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"train-00000\.tar is corrupt"):
        Pictograms(folder).images("train", [0])
    assert not list(folder.glob(".pixels*"))


def test_no_folder_and_an_unfinished_one(tmp_path, monkeypatch):
    monkeypatch.setenv("T2IKIT_HOME", str(tmp_path))
    with pytest.raises(UserError, match="run `t2ikit data get pictograms` first"):
        Pictograms()
    (tmp_path / "data/pictograms").mkdir(parents=True)
    write_json(tmp_path / "data/pictograms/manifest.json", dict.fromkeys(pictograms_build.KEYS, {}))
    with pytest.raises(UserError, match="no finished pictograms"):
        Pictograms()
    (tmp_path / "data/pictograms/manifest.json").write_text("{}")
    with pytest.raises(UserError, match="manifest.json lacks 'recipe'"):
        Pictograms()


def test_the_whole_is_a_world_of_its_own(toys, tmp_path, monkeypatch):
    folder, sets = toys
    monkeypatch.setenv("T2IKIT_HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    get(folder.rename(tmp_path / "data" / "pictograms-whole"), sets=sets, workers=1, progress=False)
    world = get_world("pictograms-whole")
    assert world.length("train") + world.length("val") == 122
    assert preset("sd2-c320", "pictograms-whole")[0].captions == "name"
    with pytest.raises(UserError, match="data/pictograms: run `t2ikit data get pictograms` first"):
        get_world("pictograms")


def test_the_fingerprint_changes_with_a_caption_a_picture_and_the_split(toys):
    folder, sets = toys
    get(folder, sets=sets, workers=1, progress=False)
    table, seen = read_table(folder / "table.parquet"), {Pictograms(folder).fingerprint}
    for column, value in (("name", "else"), ("sha256", "0"), ("split", "val")):
        values = [value, *table[column].to_pylist()[1:]]
        write_table(folder / "table.parquet", table.set_column(table.column_names.index(column), column, [values]))
        seen.add(Pictograms(folder).fingerprint)
    assert len(seen) == 4


KILLED = """
import json, sys
from pathlib import Path
from t2ikit.data import pictograms_build
from t2ikit.data.npm import Package
if __name__ == "__main__":
    pins = json.loads(sys.argv[2])
    pictograms_build.EMOJIBASE = Package(*pins["emojibase"])
    sets = {name: Package(*pin) for name, pin in pins["sets"].items()}
    pictograms_build.get(Path(sys.argv[1]), sets=sets, workers=2)
"""


def test_a_killed_build_leaves_no_process_and_goes_on_with_the_next_set(tmp_path):
    folder = tmp_path / "world"
    made = {"alpha": toy_set(folder / "packages", "alpha", {f"a{n}": shape(n) for n in range(20)}),
            "beta": toy_set(folder / "packages", "beta", {f"b{n}": shape(n) * 8 for n in range(600)})}  # fmt: skip
    pins = {"emojibase": list(vars(emojibase(folder / "packages")).values()),
            "sets": {name: list(vars(p).values()) for name, p in made.items()}}  # fmt: skip
    (tmp_path / "build.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "build.py"), str(folder), json.dumps(pins)]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not ((folder / "manifest.json").exists() and psutil.Process(first.pid).children()):
        assert first.poll() is None
        time.sleep(0.02)
    while not (workers := psutil.Process(first.pid).children(recursive=True)):
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["sets"]) == ["alpha"] and not manifest["complete"]
    assert (folder / "parts/alpha.parquet").exists()
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    with pytest.raises(UserError, match="no finished pictograms"):
        Pictograms(folder)
    second = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "beta:" in second.stderr and "alpha:" not in second.stderr
    assert Pictograms(folder).length("train") + Pictograms(folder).length("val") == 620


def test_two_builds_of_one_folder_at_once_are_refused(toys):
    folder, sets = toys
    with locked(folder / ".lock"), pytest.raises(UserError, match="Another process is building"):
        get(folder, sets=sets, progress=False)


def test_a_tarball_that_is_not_the_recorded_one_is_named(toys):
    folder, sets = toys
    path = folder / "packages" / sets["beta"].filename
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"beta-1\.0\.0\.tgz is not beta@1\.0\.0 as recorded"):
        get(folder, sets=sets, workers=1, progress=False)


def test_packages_that_hold_no_icon_set(tmp_path):
    def refuse(name, files, message):
        made = package(tmp_path, name, files)
        with pytest.raises(UserError, match=message):
            list(read_sets([name], tmp_path / made.filename))

    refuse("a", {"other.json": {}}, "has no icon set a")
    refuse("b", {"icons.json": {"icons": []}, "info.json": INFO}, "holds no icon set 'b'")
    refuse("c", {"icons.json": iconset("c", {}), "info.json": INFO | {"palette": False}}, "not in colour")
    refuse("d", {"icons.json": {"icons": {"x": {}}}, "info.json": INFO}, "holds no icon set 'd'")
    (tmp_path / "e.tgz").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"e\.tgz cannot be read"):
        list(read_sets(["e"], tmp_path / "e.tgz"))


def test_npm_is_found_on_path_then_in_the_extra(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    wheel = npm_command()
    assert wheel[0] == sys.executable
    done = subprocess.run([*wheel, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip()[0].isdigit()
    (tmp_path / "npm").write_text("#!/bin/sh\n")
    (tmp_path / "npm").chmod(0o755)
    assert npm_command() == [str(tmp_path / "npm")]


def test_without_npm_and_without_the_extra_one_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"npm .* is not installed: run `pip install 't2ikit\[data\]'`"):
        get(tmp_path / "w", progress=False)


def test_without_a_network_one_sentence_says_so(monkeypatch, tmp_path):
    for name in ("https_proxy", "HTTPS_PROXY", "npm_config_https_proxy", "npm_config_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "cache"))
    with pytest.raises(
        UserError, match=r"^No network: npm could not fetch emojibase-data@[\d.]+ \(ECONNREFUSED\)"
    ) as said:
        get(tmp_path / "w", progress=False)
    assert "\n" not in str(said.value)
    assert list((tmp_path / "w" / "packages").iterdir()) == []


def real(action):
    """`action()`, or a skip where there is no network."""
    try:
        return action()
    except UserError as error:
        if str(error).startswith("No network"):
            pytest.skip(str(error))
        raise


def test_a_version_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UserError, match="does not have emojibase-data@0.0.99"):
        real(lambda: get_package(Package("emojibase-data", "0.0.99", ""), tmp_path))


def test_one_real_set_through_npm(tmp_path):
    sets = {"flat-color-icons": DEFAULT["flat-color-icons"]}
    world = Pictograms(real(lambda: get(tmp_path, sets=sets, progress=False)))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["sets"]["flat-color-icons"]["kept"] == 329 and manifest["packages"].keys() == {
        "emojibase-data", "@iconify-json/flat-color-icons",
    }  # fmt: skip
    assert manifest["leaks"] == leaks(world.table) == dict.fromkeys(manifest["leaks"], 0)
    assert world.length("train") + world.length("val") == 329 and 10 <= world.length("val") <= 18
    assert set(world.table["licence"].to_pylist()) == {"MIT"}
    assert set(world.table["background"].to_pylist()) == {"#ffffff"}
    assert all("flat color style icon of" in text for text in world.captions("val", range(10), "name"))
    corners = world.images("train", range(100))[:, 0, 0]
    assert (corners == 255).all(-1).mean() > 0.9


@pytest.mark.slow
def test_the_default_world(tmp_path):
    world = Pictograms(real(lambda: get(tmp_path, progress=False)))
    assert (world.length("train"), world.length("val")) == (16593, 965)
    assert leaks(world.table) == dict.fromkeys(("images", "captions", "concepts", "emoji", "clusters"), 0)
    assert set(world.table["set"].to_pylist()) == set(DEFAULT)
    for density in world.densities:
        assert len(set(world.table[density].to_pylist())) > 17_500
    emoji = np.mean([code is not None for code in world.table["emoji"].to_pylist()])
    assert emoji > 0.95


def test_the_pins_name_colour_sets_and_no_logos():
    assert 5 <= len(DEFAULT) <= 6 and set(DEFAULT) < set(WHOLE_SETS) and len(set(WHOLE_SETS)) == 30
    assert not {"logos", "devicon", "skill-icons", "vscode-icons", "token-branded"} & set(WHOLE_SETS)
    assert all(len(p.sha256) == 64 for p in (*DEFAULT.values(), WHOLE, EMOJIBASE))
    assert WHOLE.filename == "iconify-json-2.2.535.tgz"


def describe(name, category="Emoji", **more):
    icons = parse_set("toy-set", iconset("toy-set", {name: "<g/>"}), INFO | {"category": category}, more, {})
    return TABLE.describe(icons, name)


@pytest.mark.parametrize(
    ("name", "category", "more", "caption"),
    [
        ("red-apple", "Emoji", {}, "a toy set style icon of a red apple"),
        ("waving-hand-dark-skin-tone", "Emoji", {}, "a toy set style icon of a waving hand, dark skin tone"),
        (
            "kiss-light-skin-tone-dark-skin-tone",
            "Emoji",
            {},
            "a toy set style icon of a kiss, light and dark skin tones",
        ),
        ("flag-for-flag-cote-divoire", "Emoji", {}, "a toy set style icon of a flag of Côte d’Ivoire"),
        ("ci-4x3", "Flags / Maps", {"suffixes": {"4x3": "4x3"}}, "a toy set style icon of a flag of Côte d’Ivoire"),
        ("multiple-file-2", "UI", {}, "a toy set style icon of a multiple file"),
        ("star-flat", "UI", {"suffixes": {"": "Duo", "flat": "Flat"}}, "a toy set flat style icon of a star"),
        ("add-circle-16", "UI", {"suffixes": {"16": "16"}}, "a toy set style icon of an add circle"),
    ],
)
def test_name_captions(name, category, more, caption):
    assert describe(name, category, **more).name_caption == caption


def test_tag_captions_add_tags_and_group_and_say_nothing_twice():
    assert describe("red-apple").tag_caption == "a toy set style icon of a red apple; fruit, food; food and drink"
    assert describe("unheard-of").tag_caption == "a toy set style icon of an unheard of"
    assert describe("star", categories={"NightSky": ["star"]}).tag_caption.endswith("a star; night sky")


def test_words_of_names():
    assert split_tones("judge-dark", toned=True) == ("judge", ["dark"])
    assert split_tones("judge-dark", toned=False) == ("judge-dark", [])
    assert split_tones("man-light-skin-tone-bald", toned=True) == ("man--bald", ["light"])
    assert words("man--bald") == "man bald"
    assert [article(p) for p in ("egg", "jeans", "men running", "2nd place", "glass")] == [
        "an egg", "jeans", "men running", "2nd place", "a glass",
    ]  # fmt: skip
    assert words(f"a\x00b_{SCRIPT}") == f"a b {SCRIPT}"
    assert slug("woman’s hat: St. Barthélemy") == "womans-hat-st-barthelemy"
