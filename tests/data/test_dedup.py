"""Near-duplicates and the leak-free split, against brute force and on pictures drawn here."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ikit.data.dedup import colour_difference, groups, near_duplicates
from t2ikit.data.render import Icon, encode, is_blank, rasterise, render_one, thumbnail
from t2ikit.data.split import components, concept, hold_out, stems

SHAPE = '<path fill="{}" d="M20 15 L100 30 L70 60 L110 110 L30 90 z"/><circle cx="90" cy="50" r="12"/>'


def picture(body: str) -> np.ndarray:
    return rasterise(Icon("x", body, (0, 0, 128, 128)))


def compared(*bodies: str) -> np.ndarray:
    rendered = [encode(picture(body)) for body in bodies]
    thumbs = np.stack([np.frombuffer(r.thumb, np.uint8).reshape(8, 8, 3) for r in rendered])
    return near_duplicates(np.array([r.phash for r in rendered], np.uint64), thumbs)


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from([7, 512]))
@settings(max_examples=40, deadline=None)
def test_near_duplicates_are_all_pairs_that_meet_both_conditions(seed, n, block):
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 2**63, 3, dtype=np.uint64)
    phash = base[rng.integers(0, 3, n)] ^ (np.uint64(1) << rng.integers(0, 7, n).astype(np.uint64))
    thumbs = (rng.integers(0, 3, (n, 1, 1, 1)) * 12 + rng.integers(0, 8, (n, 8, 8, 3))).astype(np.uint8)
    expected = {
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if (int(phash[i]) ^ int(phash[j])).bit_count() <= 4
        and np.abs(thumbs[i].astype(int) - thumbs[j].astype(int)).mean() <= 8
    }
    assert {tuple(pair) for pair in near_duplicates(phash, thumbs, block=block).tolist()} == expected


def test_a_shifted_drawing_is_a_near_duplicate_and_a_recoloured_one_is_not():
    shifted = f'<g transform="translate(0.5 0.5)">{SHAPE.format("#d22")}</g>'
    assert compared(SHAPE.format("#d22"), shifted, SHAPE.format("#22d")).tolist() == [[0, 1]]


def test_grey_hash_alone_would_merge_recolourings():
    red, green = encode(picture(SHAPE.format("#c33"))), encode(picture(SHAPE.format("#2a7a2a")))
    assert (red.phash ^ green.phash).bit_count() <= 4


def test_phash_is_imagehash_and_thumbnail_is_the_area_mean():
    import imagehash
    from PIL import Image

    image = picture(SHAPE.format("#d28"))
    rendered = encode(image)
    assert rendered.phash == int(str(imagehash.phash(Image.fromarray(image))), 16)
    means = image.reshape(8, 16, 8, 16, 3).mean((1, 3))
    assert np.abs(thumbnail(image) - means).max() <= 0.5
    assert np.array_equal(np.frombuffer(rendered.thumb, np.uint8).reshape(8, 8, 3), thumbnail(image))


def test_colour_difference_is_the_mean_over_pixels_and_channels():
    thumbs = np.zeros((2, 8, 8, 3), np.uint8)
    thumbs[1, :4, :, 0] = 60
    assert colour_difference(thumbs, np.array([[0, 1]])) == pytest.approx([10.0])


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=60))
@settings(max_examples=60, deadline=None)
def test_groups_are_the_connected_components(n, links):
    pairs = np.array([(i % n, j % n) for i, j in links], np.int64).reshape(-1, 2)
    parent = list(range(n))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in pairs:
        parent[root(i)] = root(j)
    labels = groups(n, pairs)
    roots = [root(i) for i in range(n)]
    assert all((labels[i] == labels[j]) == (roots[i] == roots[j]) for i in range(n) for j in range(n))
    assert list(dict.fromkeys(labels.tolist())) == list(range(labels.max() + 1))


def test_blank_and_invalid_icons_are_named():
    box = (0.0, 0.0, 24.0, 24.0)
    assert render_one(Icon("x", '<path d="M0 0"/>', box)) == "blank"
    assert render_one(Icon("x", '<rect width="24" height="24" fill="#fffeff"/>', box)) == "blank"
    assert str(render_one(Icon("x", "<path", box))).startswith("invalid: ")
    assert not is_blank(picture('<rect width="5" height="5"/>'))


@pytest.mark.parametrize(
    "body",
    ['<image href="/etc/hostname.png"/>', "<image xlink:href='file:///x.png'/>", '<rect fill="url(other.svg#a)"/>'],
)
def test_an_icon_that_reaches_outside_itself_is_not_rendered(body):
    assert "outside itself" in str(render_one(Icon("x", body, (0, 0, 24, 24))))


def test_references_within_the_drawing_are_rendered():
    body = (
        '<defs><circle id="a" r="6" cx="9" cy="9"/></defs><use href="#a" fill="url(#none) red"/><use xlink:href="#a"/>'
    )
    assert not isinstance(render_one(Icon("x", body, (0, 0, 24, 24))), str)


@pytest.mark.parametrize("box", [(0, 0, 12, 24), (0, 0, 24, 12), (-12, 0, 12, 24)])
def test_aspect_ratio_is_kept_and_the_rest_is_white(box):
    left, top, width, height = box
    image = rasterise(Icon("x", f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="#00f"/>', box))
    assert image.shape == (128, 128, 3) and image.dtype == np.uint8
    assert ((image == [0, 0, 255]).all(-1).mean(), (image == 255).all(-1).mean()) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("red apple", "red apples"),
        ("woman running", "man running"),
        ("person running facing right", "person running"),
        ("men holding hands", "holding hand"),
        ("flag of the Cook Islands", "flag cook island"),
        ("keycap 3", "keycap 7"),
    ],
)
def test_one_concept(one, other):
    assert concept(one) == concept(other)


@pytest.mark.parametrize(("one", "other"), [("red apple", "green apple"), ("man", "woman"), ("cat", "cat face")])
def test_two_concepts(one, other):
    assert concept(one) != concept(other)


def test_captions_are_compared_as_stems_in_order():
    assert stems("Two red apples!") == stems("two red apple") != stems("red two apple")
    assert stems("a flat icon of a flat style") != stems("a flat style icon of a flat")


def test_components_join_keys_and_pairs():
    labels = components([["a"], ["b"], ["a", "c"], ["c"], ["d"], []], np.array([[1, 4]]))
    assert labels.tolist() == [0, 1, 0, 0, 1, 2]


@given(st.lists(st.integers(0, 30), min_size=20, max_size=300), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_hold_out_takes_whole_components_up_to_its_share(raw, seed):
    labels = groups(len(raw), np.array([(i, raw.index(v)) for i, v in enumerate(raw)]))
    held = hold_out(labels, seed, share=0.2)
    assert held.sum() <= 0.2 * len(raw)
    assert not set(labels[held]) & set(labels[~held])
    assert np.array_equal(held, hold_out(labels, seed, share=0.2))
