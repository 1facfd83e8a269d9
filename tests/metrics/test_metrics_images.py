"""Image files as metrics read them: exact pixels, or one sentence that names the file."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from t2ikit.errors import UserError
from t2ikit.metrics.images import as_pil, checked, read_image, read_images

PIXELS = np.random.default_rng(0).integers(256, size=(6, 9, 3), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    def save(array, name="image.png", mode=None):
        path = tmp_path / name
        Image.fromarray(array, mode).save(path) if mode else Image.fromarray(array).save(path)
        return path

    return save


def test_pixels_come_back_as_they_were(save):
    found = read_image(save(PIXELS))
    assert found.dtype == torch.uint8 and found.shape == (3, 6, 9)
    np.testing.assert_array_equal(found.permute(1, 2, 0), PIXELS)
    np.testing.assert_array_equal(as_pil(found[None])[0], PIXELS)


def test_grey_is_repeated_over_three_channels_as_the_authors_do(save):
    found = read_image(save(PIXELS[..., 0]))
    np.testing.assert_array_equal(found, np.stack([PIXELS[..., 0]] * 3))


def test_an_opaque_alpha_channel_changes_nothing_and_a_transparent_one_is_refused(save):
    opaque = np.dstack([PIXELS, np.full((6, 9), 255, np.uint8)])
    assert torch.equal(read_image(save(opaque)), read_image(save(PIXELS, "rgb.png")))
    opaque[2, 3, 3] = 254
    with pytest.raises(UserError, match="image.png is transparent in places: put it on a background"):
        read_image(save(opaque))


def test_a_palette_with_a_transparent_colour_is_refused(tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(PIXELS).quantize(8).save(path)
    assert read_image(path).shape == (3, 6, 9)
    Image.fromarray(PIXELS).quantize(8).save(path, transparency=0)
    with pytest.raises(UserError, match="transparent in places"):
        read_image(path)


def test_sixteen_bits_are_refused(save):
    with pytest.raises(UserError, match="more than 8 bits a channel"):
        read_image(save(PIXELS[..., 0].astype(np.uint16) * 256))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_several_channels_are_refused(tmp_path, channels):
    """PIL reads them as eight bits: their upper bytes."""
    pixels = np.random.default_rng(0).integers(65536, size=(5, 7, channels)).astype(">u2")
    pixels[..., -1] |= 0xFFFF if channels in (2, 4) else 0  # opaque
    head = struct.pack(">IIBBBBB", 7, 5, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    chunks = ((b"IHDR", head), (b"IDAT", data), (b"IEND", b""))
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    )
    with pytest.raises(UserError, match="deep.png has more than 8 bits a channel"):
        read_image(path)


@pytest.mark.parametrize("keep", [0, 20, 60, 0.5, 0.9])
def test_a_truncated_png_is_named(save, keep):
    path = save(np.random.default_rng(1).integers(256, size=(64, 64, 3), dtype=np.uint8))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match="image.png cannot be read .*generate it again"):
        read_image(path)


def test_changed_bytes_in_a_png_are_noticed(save):
    path = save(np.random.default_rng(1).integers(256, size=(64, 64, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="cannot be read"):
        read_image(path)


def test_a_missing_image_is_named_and_nothing_is_skipped(save, tmp_path):
    with pytest.raises(UserError, match=r"gone.png is missing"):
        read_images([save(PIXELS), tmp_path / "gone.png"])
    with pytest.raises(UserError, match="cannot be read"):
        read_image(tmp_path)


def test_images_of_two_sizes_are_refused(save):
    one, two = save(PIXELS, "one.png"), save(PIXELS[:5], "two.png")
    with pytest.raises(UserError, match="two.png is 9 × 5 px and .*one.png is 9 × 6 px"):
        read_images([one, one, two])
    assert read_images([one, one]).shape == (2, 3, 6, 9)
    with pytest.raises(UserError, match="no image to read"):
        read_images([])


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 4, 4), torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(0, 3, 4, 4).byte()]
)
def test_what_is_no_batch_of_images_is_refused(images):
    with pytest.raises(UserError, match=r"metrics take uint8 \[n, 3, H, W\]"):
        checked(images)


def test_every_image_needs_a_prompt():
    with pytest.raises(UserError, match="2 images and 1 prompts"):
        checked(torch.zeros(2, 3, 4, 4).byte(), ["one"])
