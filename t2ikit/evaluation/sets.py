"""What is scored: images with their prompts, drawn from a run into its folder, or found in a folder of anyone's.

Such a folder holds `prompts.json`, a list of {id, caption}, an `ID.png` for each, and `questions.json` in TIFA's format
if it has questions. Drawing goes on where it stopped: an image depends on weights, prompt and seed alone.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from t2ikit.config import RunConfig, digest
from t2ikit.data.scenes import Scenes
from t2ikit.data.world import World, get_world
from t2ikit.encoders import batches
from t2ikit.errors import UserError
from t2ikit.evaluation.scores import image_hashes
from t2ikit.files import read_json, write_atomic, write_json
from t2ikit.generate import config_of, generate, load_run, snapshot_step, snapshots
from t2ikit.metrics.images import read_images
from t2ikit.metrics.scenes_questions import scene_questions
from t2ikit.metrics.tifa import read_prompts, read_questions
from t2ikit.samplers import possible, sampler
from t2ikit.train.setup import Parts

BATCH = 32  # images drawn, then written, at once


@dataclass(frozen=True)
class Sampling:
    """How images are drawn: the first `prompts` different validation captions of the run's world."""

    prompts: int = 1000
    step: int | None = None  # which snapshot; None: the last
    seed: int = 0
    steps: int = 50
    guidance: float = 7.5

    def __post_init__(self) -> None:
        possible("sampler", self.steps, self.guidance)


@dataclass
class ImageSet:
    """Images of prompts; of a run also its parts, its backbone and the indices of the prompts in validation."""

    folder: Path
    step: int | None
    prompts: dict[str, str]  # id → caption
    images: Tensor  # uint8 [n, 3, H, W], in the prompts' order
    provenance: dict[str, Any]
    questions: list[dict[str, Any]] = field(default_factory=list)
    parts: Parts | None = None
    model: nn.Module | None = None
    index: np.ndarray | None = None

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @cached_property
    def truth(self) -> Tensor | None:
        """The validation images whose captions the prompts are; None where there are none."""
        if self.parts is None:
            return None
        return torch.from_numpy(self.parts.world.images("val", self.index)).permute(0, 3, 1, 2)


def snapshots_of(paths: Sequence[Path], text: str | None) -> list[int | None]:
    """The steps that `text` names, rising: numbers with commas between, or `all` that every run has; None: the last."""
    if text is None:
        return [None]
    if text == "all":
        common = set.intersection(*(set(snapshots(path)) for path in paths))
        if not common:
            raise UserError("No step has a snapshot in every run: name some with --step, or evaluate one run alone.")
        return sorted(common)
    named = [part.strip() for part in text.split(",")]
    if wrong := [part for part in named if not (part.isascii() and part.isdigit())]:
        raise UserError(f"{wrong[0]!r} is no step: write --step as 800, as 400,800 or as all.")
    for path in paths:
        if (path / "config.json").exists():
            for part in named:
                snapshot_step(path, int(part))
    return sorted({int(part) for part in named})


def image_set(path: Path, how: Sampling, device: str, say: Callable[[str], None]) -> ImageSet:
    """The images of a run folder, drawn if they are not there, or of a folder with prompts.json."""
    if (path / "config.json").exists():
        return of_run(path, how, device, say)
    return of_folder(path, say)


def prompts_of(path: Path, how: Sampling) -> dict[str, str]:
    """The captions by id of what `image_set` would give, before anything is drawn."""
    if not (path / "config.json").exists():
        return found_prompts(path)
    config = config_of(path / "config.json", read_json(path / "config.json", ("config",))["config"])
    return captions_of(config, get_world(config.world, size=config.resolution), how.prompts)[1]


def reference_images(path: Path, say: Callable[[str], None] = print) -> Tensor:
    """Images to compare with, uint8 [n, 3, H, W]: those that prompts.json names, or every PNG and JPEG of a folder."""
    if (path / "prompts.json").exists():
        return of_folder(path, say).images
    files = sorted(p for p in path.glob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not files:
        raise UserError(f"{path} holds no images to compare with: give a folder of PNG or JPEG files.")
    return read_images(files)


def of_folder(path: Path, say: Callable[[str], None] = print) -> ImageSet:
    """Images that are there already; `say` tells which files and questions belong to no prompt."""
    prompts = found_prompts(path)
    images = read_images([path / f"{key}.png" for key in prompts])
    questions = read_questions(path / "questions.json") if (path / "questions.json").exists() else []
    known = {q["id"]: q["caption"] for q in questions}
    for key, caption in prompts.items() if questions else ():
        if known.get(key) != caption:
            raise UserError(f"{path / 'questions.json'} has no question about {key!r}, {caption!r}: add them.")
    asked = [q for q in questions if q["id"] in prompts]
    if len(asked) < len(questions):
        say(f"{path.name}: {len(questions) - len(asked)} questions are about prompts it has not; they are left out.")
    if others := sorted(p.name for p in path.glob("*.png") if p.stem not in prompts):
        say(f"{path.name}: {len(others)} images belong to no prompt ({others[0]} …); they are left out.")
    content = digest([image_hashes(images), list(prompts.values())])
    return ImageSet(path, None, prompts, images, {"images": "found", "content": content}, asked)


def found_prompts(path: Path) -> dict[str, str]:
    """What prompts.json in a folder of images names."""
    if not (path / "prompts.json").exists():
        raise UserError(f"{path} is no run folder and has no prompts.json: give one of the two.")
    prompts = read_prompts(path / "prompts.json")
    if bad := [key for key in prompts if Path(key).name != key or key.startswith(".")]:
        raise UserError(f"The id {bad[0]!r} in {path / 'prompts.json'} is no file name: give each prompt a plain one.")
    return prompts


def of_run(path: Path, how: Sampling, device: str, say: Callable[[str], None]) -> ImageSet:
    """Images of the run's validation captions at one of its steps."""
    parts, model = load_run(path, how.step)
    step = snapshot_step(path, how.step)
    for key, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"{path.name} has NaN or infinity in {key!r} at step {step}: choose another step.")
    index, prompts = captions_of(parts.config, parts.world, how.prompts)
    drawing = asdict(how) | {"step": step, "sampler": sampler(parts.objective).__name__}
    del drawing["prompts"]  # more prompts are more images in one folder
    folder = path / "images" / digest(drawing | {"captions": parts.config.captions})
    write_json(folder / "how.json", drawing)
    missing = [key for key in prompts if not (folder / f"{key}.png").exists()]
    if missing:
        draw(parts, model, {key: prompts[key] for key in missing}, folder, how, device, say)
    images = read_images([folder / f"{key}.png" for key in prompts])
    world = parts.world
    asked = scene_questions(world, "val", index, parts.config.captions) if isinstance(world, Scenes) else []
    of_set = drawing | {"prompts": digest(list(prompts.values())), "loss_space": parts.loss_space}
    return ImageSet(path, step, prompts, images, of_set, asked, parts, model, index)


def captions_of(config: RunConfig, world: World, n: int) -> tuple[np.ndarray, dict[str, str]]:
    """Indices and captions by id of the first `n` different captions of validation."""
    every = np.arange(world.length("val"))
    said = world.captions("val", every, config.captions)
    first = list({caption: k for k, caption in reversed(list(enumerate(said)))}.values())[::-1]
    if not 0 < n <= len(first):
        raise UserError(
            f"{n} prompts are not possible: {config.world} has {len(first)} different validation captions; "
            f"choose from 1 to {len(first)}."
        )
    index = np.sort(first)[:n]
    return index, {f"{config.world}_val_{config.captions}_{k}": said[k] for k in index}


def draw(
    parts: Parts, model: nn.Module, prompts: dict[str, str], folder: Path, how: Sampling, device: str, say: Callable
) -> None:
    """Draw and write images batch by batch; what it costs is said first, and how long it takes after a first batch."""
    forwards = how.steps * (1 if how.guidance == 1 else 2)
    flops = parts.spec.cost().flops_forward * forwards * len(prompts)
    say(
        f"Sampling {len(prompts)} images of {parts.spec.name}: {how.steps} steps, {forwards} forward passes an image, "
        f"{flops:.2g} FLOPs."
    )
    keys, start = list(prompts), time.perf_counter()
    with tqdm(total=len(keys), desc="sampling", unit="image", mininterval=1.0) as bar:
        for piece in batches(len(keys), BATCH):
            said = [prompts[key] for key in keys[piece]]
            images = generate(parts, model, said, how.seed, how.steps, how.guidance, BATCH, device, progress=False)
            for key, image in zip(keys[piece], images, strict=True):
                write_atomic(folder / f"{key}.png", _png(image))
            bar.update(len(said))
            if piece.start == 0 and len(keys) > BATCH:
                minutes = (time.perf_counter() - start) * (len(keys) / BATCH - 1) / 60
                say(f"After the first {BATCH} images: about {minutes:.1f} minutes to go.")


def _png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
