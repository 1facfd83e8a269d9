"""Our own small contrastive model, a stand-in for CLIP at CPU size: `python -m t2ikit.standins.contrastive`.

An image tower against MiniLM's frozen states and a small head, trained on the pairs of `scenes` and `pictograms` with
CLIP's loss (Radford et al. 2021). Captions of scenes with one attribute flipped stand among the wrong ones, or it would
see a bag of words (Yuksekgonul et al. 2023). Its cosines are not CLIP's: report them as `contrastive-v1`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from t2ikit.data.world import World, get_world
from t2ikit.encoders import ASSETS, OWN_CODECS, batches, text_encoder
from t2ikit.errors import UserError
from t2ikit.files import write_json
from t2ikit.metrics.clip import cosines
from t2ikit.metrics.images import checked
from t2ikit.standins.assets import load_asset, save_asset
from t2ikit.standins.training import Pool, circumstances, fit, reconstructed, tower

NAME = "contrastive-v1"
TEXT = "minilm-256"
WORLDS = {"scenes": ("sparse", "medium", "dense"), "pictograms": ("name", "tags")}


@dataclass(frozen=True)
class ContrastiveConfig:
    """What decides the weights."""

    pool: int = 5_000  # training images of each world
    images: int = 80_000  # seen in training
    batch: int = 128  # half of each world, and a flipped caption of each scene
    lr: float = 2e-3
    width: int = 128
    seed: int = 0


class Contrastive(nn.Module):
    """Two towers into one space of `width` numbers, vectors of length one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = tower(width)
        self.cells = nn.Linear(64 * 16, width)
        self.narrow, self.look = nn.Conv2d(width, 16, 1), nn.Linear(2 * width, width)
        self.word = nn.Linear(text_encoder(TEXT).width, width)
        self.place = nn.Parameter(torch.zeros(text_encoder(TEXT).max_tokens, width))
        self.read = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.say = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.tensor(2.5))

    def see(self, images: Tensor) -> Tensor:
        """[B, 3, 64, 64] in [−1, 1] → [B, width]; what is in each cell counts beside the average."""
        cells = self.image(images)
        where = self.cells(self.narrow(cells).flatten(1))
        return nn.functional.normalize(self.look(torch.cat([cells.mean((2, 3)), where], 1)).float(), dim=1)

    def text(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, L, 256] and mask [B, L] → [B, width]."""
        x = self.read(self.word(states) + self.place, src_key_padding_mask=~mask) * mask[..., None]
        return nn.functional.normalize(self.say(x.sum(1) / mask.sum(1, keepdim=True)).float(), dim=1)


class ContrastiveScore:
    """The plain cosine between image and prompt, as `CLIPScore` has it of CLIP; a `PromptMetric`."""

    name = NAME

    def __init__(self, folder: Path = ASSETS / NAME, device: str = "cpu") -> None:
        self.model, self.device = Contrastive(ContrastiveConfig().width), device
        weights = load_asset(self.model, folder)
        self.model.to(device).eval().requires_grad_(False)
        self.encoder = text_encoder(TEXT)
        self.provenance: dict[str, Any] = {"weights": weights, "text": self.encoder.fingerprint, "transform": "64 px"}

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> np.ndarray:
        """uint8 [n, 3, 64, 64] and n prompts → cosines, float64 [n]."""
        checked(images, prompts)
        return cosines(self.images(images), self.texts(prompts))

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, 64, 64] → [n, width]."""
        if images.shape[2:] != (64, 64):
            h, w = images.shape[2:]
            raise UserError(f"{NAME} reads images of 64 × 64 px, not {w} × {h}: choose a CLIP model by name.")
        pieces = (images[p].to(self.device).float() / 127.5 - 1 for p in batches(len(images), 256))
        return torch.cat([self.model.see(x).cpu() for x in pieces])

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Prompts → [n, width]; a prompt that occurs often is read once."""
        each = sorted(set(prompts))
        pieces = (self.encoder.encode(each[p]) for p in batches(len(each), 256))
        vectors = torch.cat([self.model.text(s.to(self.device), m.to(self.device)).cpu() for s, m in pieces])
        row = {text: k for k, text in enumerate(each)}
        return vectors[[row[p] for p in prompts]]


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor, captions: Sequence[str]) -> Tensor:
    """CLIP's loss both ways; images [B, d], texts [B + F, d]: the last F are wrong for all. A caption that reads as the
    right one is not a wrong one."""
    logits, b = images @ texts.T * scale.exp().clamp(max=100), len(images)
    number = {c: k for k, c in enumerate(dict.fromkeys(captions))}
    ids = torch.tensor([number[c] for c in captions])
    same = (ids[:b, None] == ids[None]) & ~torch.eye(b, len(ids), dtype=torch.bool)
    logits, target = logits.masked_fill(same, -1e4), torch.arange(b)
    return (nn.functional.cross_entropy(logits, target) + nn.functional.cross_entropy(logits[:, :b].T, target)) / 2


def train(out: Path, config: ContrastiveConfig = ContrastiveConfig()) -> None:
    """Train and save the model, weights as float16, and its retrieval on validation pairs beside it."""
    start = time.process_time()
    text, index, pools, captions, flipped, states = text_encoder(TEXT), np.arange(config.pool), {}, {}, [], {}
    for name, densities in WORLDS.items():
        world = get_world(name)
        pools[name] = Pool(world.images("train", index), config.seed)
        captions[name] = [world.captions("train", index, d) for d in densities]
        if name == "scenes":
            rng = np.random.default_rng([config.seed, 1])
            for k, d in zip(index, rng.integers(len(densities), size=len(index)), strict=True):
                (flips,) = world.flips("train", [k], densities[d], config.seed)
                flipped.append(flips[rng.integers(len(flips))].flipped_caption)
    every = sorted({c for some in captions.values() for said in some for c in said} | set(flipped))
    for piece in batches(len(every), 256):
        with torch.autocast("cpu", torch.bfloat16):
            encoded, mask = text.encode(every[piece])
        states |= dict(zip(every[piece], zip(encoded.half(), mask, strict=True), strict=True))
    torch.manual_seed(config.seed)
    model, draws = Contrastive(config.width), np.random.default_rng([config.seed, 2])

    def loss_of(step: int) -> Tensor:
        images, said, wrong = [], [], []
        for name, densities in WORLDS.items():
            some, density = draws.integers(config.pool, size=config.batch // 2), draws.integers(len(densities))
            images.append(pools[name].draw(some))
            said += [captions[name][density][k] for k in some]
            wrong += [flipped[k] for k in some] if name == "scenes" else []
        read, masks = (torch.stack(x) for x in zip(*(states[c] for c in said + wrong), strict=True))
        with torch.autocast("cpu", torch.bfloat16):
            seen, told = model.see(torch.cat(images)), model.text(read.float(), masks)
        return contrastive_loss(seen, told, model.scale, said + wrong)

    fit(model, loss_of, config.images // config.batch, config.lr)
    save_asset(model, out)
    taken = circumstances(start)
    write_json(out / "training.json", {"config": asdict(config)} | taken | evaluate(ContrastiveScore(out)))


def evaluate(model: ContrastiveScore, n: int = 500) -> dict[str, dict[str, float]]:
    """On `n` validation pairs of each kind: retrieval at 1 both ways, of renders and of reconstructions, where an equal
    caption counts as the right one; and how often the true caption is nearer than one with one attribute flipped."""
    scores = {}
    for name, densities in WORLDS.items():
        world, index = get_world(name), np.arange(n)
        renders = world.images("val", index)
        shown = {"": renders} | {f"_{c}": reconstructed(renders, c) for c in OWN_CODECS}
        seen = {kind: model.images(as_tensor(images)) for kind, images in shown.items()}
        for density in densities:
            said = world.captions("val", index, density)
            texts, score = model.texts(said), {"distinct_captions": float(len(set(said)))}
            for kind, vectors in seen.items():
                near = vectors @ texts.T
                score[f"to_text{kind}"] = np.mean([said[k] == s for k, s in zip(near.argmax(1), said, strict=True)])
                score[f"to_image{kind}"] = np.mean([said[k] == s for k, s in zip(near.argmax(0), said, strict=True)])
            score |= flip_accuracy(model, world, index, density, seen[""], texts)
            scores[f"{name}/{density}"] = {k: round(float(v), 4) for k, v in score.items()}
    return {"retrieval_at_1": scores}


def flip_accuracy(
    model: ContrastiveScore, world: World, index: np.ndarray, density: str, seen: Tensor, texts: Tensor
) -> dict[str, float]:
    """By category of flip; empty in a world without flips."""
    flips = [(row, f) for row, some in enumerate(world.flips("val", index, density)) for f in some]
    if not flips:
        return {}
    wrong, rows = model.texts([f.flipped_caption for _, f in flips]), [row for row, _ in flips]
    right = ((seen * texts)[rows].sum(1) > (seen[rows] * wrong).sum(1)).tolist()
    found: dict[str, list[bool]] = {}
    for (_, flip), hit in zip(flips, right, strict=True):
        found.setdefault(f"flip_{flip.category}", []).append(hit)
    return {k: float(np.mean(v)) for k, v in sorted(found.items())}


def as_tensor(images: np.ndarray) -> Tensor:
    """uint8 [n, H, W, 3] → uint8 [n, 3, H, W]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS / NAME)
    train(parser.parse_args().out)
