"""Images for scoring: files read as pixels, never skipped or repaired, and what every metric of them looks like.

TIFA, ImageReward and HPSv2 read with PIL's `convert("RGB")`: a grey image is repeated over three channels, as here.
That call also drops an alpha channel and shows whatever colour lies hidden beneath, and cuts 16 bits off at 255; both
are refused, since the authors' number would not be of the picture one sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from t2ikit.errors import UserError


class PromptMetric(Protocol):
    """One number per image. `provenance` is what decides that number: weights, transform, version."""

    name: str
    provenance: dict[str, Any]

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> np.ndarray:
        """uint8 [n, 3, H, W] and n prompts → float64 [n]."""
        ...


class Features(Protocol):
    """A row of features per image, from which the statistics of a set are computed (t2ikit.metrics.fidelity)."""

    name: str
    provenance: dict[str, Any]

    def __call__(self, images: Tensor) -> np.ndarray:
        """uint8 [n, 3, H, W] → float32 [n, d]."""
        ...


def read_image(path: str | Path) -> Tensor:
    """uint8 [3, H, W] of an image file; a UserError that names it if it is missing, damaged or not plain 8-bit RGB."""
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            deep = ";16" in str(image.tile)  # as which PIL reads the file: RGB of 16 bits would become one of 8
            image.load()
    except FileNotFoundError:
        raise UserError(f"The image {path} is missing: generate it again, nothing is skipped.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"The image {path} cannot be read ({error}): generate it again, nothing is skipped.") from None
    if frames > 1:
        raise UserError(f"The image {path} has {frames} frames: save the one that is meant.")
    if deep or image.mode in ("F", "I") or image.mode.startswith("I;"):
        raise UserError(f"The image {path} has more than 8 bits a channel (mode {image.mode}): save it as 8-bit RGB.")
    if image.has_transparency_data and image.convert("RGBA").getextrema()[3][0] < 255:
        raise UserError(f"The image {path} is transparent in places: put it on a background and save it as RGB.")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def read_images(paths: Sequence[str | Path]) -> Tensor:
    """uint8 [n, 3, H, W]; all must be of one size."""
    if not paths:
        raise UserError("There is no image to read: give at least one path.")
    images = [read_image(paths[0])]
    for path in paths[1:]:
        images.append(read_image(path))
        if images[-1].shape != images[0].shape:
            (h, w), (h0, w0) = images[-1].shape[1:], images[0].shape[1:]
            raise UserError(f"{path} is {w} × {h} px and {paths[0]} is {w0} × {h0} px: score images of one size.")
    return torch.stack(images)


def checked(images: Tensor, prompts: Sequence[str] | None = None) -> Tensor:
    """`images` if they are uint8 [n, 3, H, W] with n ≥ 1 and as many as there are prompts."""
    shape = tuple(images.shape)
    if images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise UserError(f"Images are {images.dtype} of shape {list(shape)}: metrics take uint8 [n, 3, H, W].")
    if prompts is not None and len(prompts) != len(images):
        raise UserError(f"There are {len(images)} images and {len(prompts)} prompts: give a prompt for each image.")
    return images


def as_pil(images: Tensor) -> list[Image.Image]:
    """The images as PIL's, for transforms whose authors use PIL's resampling."""
    return [Image.fromarray(x) for x in images.permute(0, 2, 3, 1).cpu().numpy()]
