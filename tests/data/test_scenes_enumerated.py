"""The enumerated world: no scene twice, none missing, one set for both splits, captions that say no more than is so."""

import hashlib
from collections import Counter
from math import comb, perm

import numpy as np
import pytest

from t2ikit.data.scenes import Scenes
from t2ikit.data.scenes_captions import CATEGORIES, describes
from t2ikit.data.scenes_enumerated import VOCABULARY, ScenesEnumerated
from t2ikit.data.world import get_world
from t2ikit.errors import UserError
from t2ikit.study import preset

WORLD = get_world("scenes-enumerated")
SMALL = ScenesEnumerated(colors=3, shapes=2, backgrounds=1)


def size(colors, shapes, sizes, backgrounds):
    """One thing on 9 cells, and two of other colours and shapes on a pair of them."""
    one = 9 * colors * shapes * sizes
    return backgrounds * (one + comb(9, 2) * perm(colors, 2) * perm(shapes, 2) * sizes**2)


def test_every_scene_is_there_once():
    assert WORLD.length("train") == WORLD.length("val") == size(6, 3, 2, 2) == 52_488
    graphs = WORLD._every
    rows = (graphs.color, graphs.shape, graphs.size, graphs.formation, graphs.background[:, None])
    assert len(np.unique(np.concatenate(rows, 1), axis=0)) == 52_488
    assert not graphs.offset.any()
    used = {"colors": graphs.color, "shapes": graphs.shape, "sizes": graphs.size, "backgrounds": graphs.background}
    assert all(values.min() == 0 and values.max() == VOCABULARY[name] - 1 for name, values in used.items())


@pytest.mark.parametrize("world", [SMALL, pytest.param(WORLD, marks=pytest.mark.slow)], ids=["small", "whole"])
def test_no_two_images_are_alike(world):
    n = world.length("train")
    assert (
        len({image.tobytes() for k in range(0, n, 512) for image in world.images("train", range(n)[k : k + 512])}) == n
    )


def test_both_splits_are_the_set_in_one_order():
    index = [0, 5, 52_487]
    assert (WORLD.images("train", index) == WORLD.images("val", index)).all()
    for density in WORLD.densities:
        assert WORLD.captions("train", index, density) == WORLD.captions("val", index, density)
    assert WORLD.split_fingerprint("train") != WORLD.split_fingerprint("val")


def test_the_order_is_as_good_as_random():
    graphs, first = WORLD._every, slice(0, 2048)
    for values in (
        graphs.color[:, 0],
        graphs.shape[:, 0],
        graphs.size[:, 0],
        graphs.background,
        graphs.formation[:, 0],
    ):
        share, whole = (np.bincount(v, minlength=9) / len(v) for v in (values[first], values))
        assert (np.abs(share - whole) < 5 * np.sqrt(whole * (1 - whole) / 2048) + 1e-12).all()


@pytest.mark.parametrize(
    "density, scenes", [("sparse", {8640: 6, 216: 3}), ("medium", {144: 180, 72: 360, 36: 18}), ("dense", {1: 52_488})]
)
def test_how_many_scenes_share_a_caption(density, scenes):
    captions = Counter(WORLD.captions("train", range(52_488), density))
    assert Counter(captions.values()) == scenes


@pytest.mark.parametrize("density", WORLD.densities)
def test_captions_are_true_and_flips_are_false(density):
    index = range(300)
    captions, flips = WORLD.captions("val", index, density), WORLD.flips("val", index, density)
    for scene, said in zip(WORLD.scenes("val", index), WORLD.descriptions("val", index, density), strict=True):
        assert describes(scene, said) and len(said.phrases) == len(scene.things)
    assert all(f.true_caption == c != f.flipped_caption for c, fs in zip(captions, flips, strict=True) for f in fs)
    seen = {f.category for fs in flips for f in fs}
    said_of = {"sparse": {"shape"}, "medium": {"color", "shape", "spatial"}, "dense": set(CATEGORIES) - {"counting"}}
    assert seen == said_of[density]


def test_a_caption_depends_on_the_scene_alone():
    """Not on where it stands in the order: then the wording would tell scenes apart that are alike in what is said."""
    other = ScenesEnumerated(colors=3, shapes=2, backgrounds=1, seed=1)
    n = SMALL.length("train")
    for density in SMALL.densities:
        first, second = (
            dict(zip(w.scenes("train", range(n)), w.captions("train", range(n), density), strict=True))
            for w in (SMALL, other)
        )
        assert first == second
    assert SMALL.scene("train", 0) != other.scene("train", 0)


def test_scenes_and_captions_are_golden():
    """Another hash is another world: raise ENUMERATION."""
    assert WORLD.fingerprint == "49255482fce6"
    assert hashlib.sha256(WORLD.images("train", range(64)).tobytes()).hexdigest()[:16] == "8741e23b115f31b2"
    assert [WORLD.captions("train", [3], density)[0] for density in WORLD.densities] == [
        "a circle and a triangle",
        "a blue circle right of a purple triangle",
        "a large blue circle at top right and a small purple triangle at bottom left on gray",
    ]


def test_fingerprints_tell_worlds_apart():
    worlds = [WORLD, SMALL, ScenesEnumerated(seed=1), ScenesEnumerated(things=1), Scenes(**VOCABULARY, jitter=0.0)]
    assert len({w.fingerprint for w in worlds}) == len(worlds)
    assert ScenesEnumerated().fingerprint == WORLD.fingerprint


def test_it_is_a_world_by_name_and_trained_on_medium_captions():
    config, _ = preset("incontext-d2-w32", "scenes-enumerated", "smoke")
    assert (config.world, config.captions) == ("scenes-enumerated", "medium")
    for option in ("train", "jitter", "caption_noise"):
        with pytest.raises(UserError, match=f"Unknown option of scenes-enumerated '{option}'"):
            get_world("scenes-enumerated", **{option: 1})
    with pytest.raises(UserError, match="Unknown split"):
        WORLD.length("test")
    with pytest.raises(UserError, match="outside the val split of scenes-enumerated"):
        WORLD.images("val", [52_488])
