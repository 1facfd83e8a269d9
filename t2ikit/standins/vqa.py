"""Our own small VQA network for `scenes`, which stands in for BLIP at CPU size: `python -m t2ikit.standins.vqa`.

A convolutional network marks in 8 × 8 cells where a shape's middle is, of what colour, shape and size; a question picks
the marks that fit its words, and a small network answers from how many they are, what and where. Trained on renders and
on reconstructions of them, noised in the latents and in pixels and blurred, with the questions of the image's own
captions and of others', whose right answers come from the scene graph, and on the marks themselves: from answers alone
it learns nothing for long. Where no choice is true, `none` is to be found probable; it is never the answer.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from t2ikit.data.scenes import Scenes
from t2ikit.data.scenes_captions import PLACES
from t2ikit.data.scenes_graph import BACKGROUNDS, COLORS, RELATIONS, SHAPES, SIZES, Scene
from t2ikit.data.world import get_world
from t2ikit.encoders import ASSETS, OWN_CODECS, batches
from t2ikit.errors import UserError
from t2ikit.files import write_json
from t2ikit.metrics.images import checked
from t2ikit.metrics.scenes_answers import KINDS, NONE, Seen, answer, parse
from t2ikit.metrics.scenes_questions import NUMBERS, scene_questions
from t2ikit.metrics.tifa import TIFA, aggregate
from t2ikit.standins.assets import load_asset, save_asset
from t2ikit.standins.training import Pool, circumstances, fit, reconstructed, tower

NAME = "vqa-scenes-v1"
ANSWERS = ("yes", "no", *NUMBERS, *COLORS, *SHAPES, *SIZES, *PLACES, *RELATIONS, *BACKGROUNDS, NONE)
INDEX = {word: k for k, word in enumerate(ANSWERS)}
GROUND = tuple(BACKGROUNDS)
PARTS = (1, len(COLORS), len(SHAPES), len(SIZES), 2)  # of a mark: is there one, its colour, shape, size, and offset
WORDS = [{None: 0} | {w: k for k, w in enumerate(some, 1)} for some in (COLORS, SHAPES)]


@dataclass(frozen=True)
class VQAConfig:
    """What decides the weights."""

    pool: int = 12_000  # training images, their reconstructions and questions, made once
    images: int = 115_200  # seen in training
    batch: int = 64
    questions: int = 12  # of each image in a batch
    lr: float = 2e-3
    width: int = 96  # channels of a cell
    seed: int = 0


class SceneVQA(nn.Module):
    """`read`: images → marks; `forward`: marks and questions → logits over `ANSWERS`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem, self.mark, self.plain = tower(width), nn.Conv2d(width, sum(PARTS), 1), nn.Linear(width, len(GROUND))
        self.kind = nn.Embedding(len(KINDS), 32)
        self.out = nn.Sequential(
            nn.Linear(32 + 8 + sum(PARTS[1:4]) + len(GROUND), 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(),
            nn.Linear(128, len(ANSWERS)),
        )  # fmt: skip
        grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 2, indexing="xy"))
        self.register_buffer("middles", 8 * grid + 4, persistent=False)  # (x, y) of each cell's, in px

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, 64, 64] in [−1, 1] → logits of marks [B, 64, PARTS] and of backgrounds [B, 4]."""
        cells = self.stem(images)
        return self.mark(cells).flatten(2).transpose(1, 2).float(), self.plain(cells.mean((2, 3))).float()

    def forward(self, marks: Tensor, plain: Tensor, questions: Tensor) -> Tensor:
        """What `read` gives and questions int64 [B, Q, 5] → logits [B, Q, answers]."""
        there, *what, offset = marks.split(PARTS, -1)
        there, what = there[..., 0].sigmoid(), [x.softmax(-1) for x in what]
        xy = (self.middles.flatten(1).T + 4 * offset.tanh()) / 32 - 1  # [B, 64, 2] in [−1, 1]
        found = []
        for color, shape in (questions[..., 1:3].unbind(-1), questions[..., 3:5].unbind(-1)):
            gate = there[:, None]
            for word, p in ((color, what[0]), (shape, what[1])):
                either = nn.functional.pad(p, (1, 0), value=1.0).transpose(1, 2)  # row 0: not named
                gate = gate * either.gather(1, word[..., None].expand(-1, -1, 64))
            total = gate.sum(-1, keepdim=True)
            found += [total, gate.amax(-1, keepdim=True), gate @ xy / (total + 0.05)]
            if len(found) == 3:  # of what is asked about; of the other thing only how many and where
                found += [gate @ p / (total + 0.05) for p in what]
        ground = plain.softmax(-1)[:, None].expand(-1, questions.shape[1], -1)
        return self.out(torch.cat([self.kind(questions[..., 0]), *found, ground], -1))


def encode(question: str) -> list[int]:
    """The question's five words: kind, and colour and shape of both things it names (0: not named)."""
    kind, *things = parse(question)
    return [KINDS.index(kind), *(WORDS[k][thing[k]] for thing in things for k in (0, 1))]


def masks(choices: Sequence[Sequence[str]]) -> Tensor:
    """bool [n, answers]: the choices of each question; a UserError for one that the network has no word for."""
    out = torch.zeros(len(choices), len(ANSWERS), dtype=torch.bool)
    for row, some in enumerate(choices):
        if unknown := [c for c in some if c not in INDEX]:
            raise UserError(f"{NAME} has no word for the choice {unknown[0]!r}: ask it about scenes alone.")
        out[row, [INDEX[c] for c in some]] = True
    return out


class StandinVQA:
    """The shipped network as a `t2ikit.metrics.vqa.VQA`; its answer is always one of the choices."""

    name = NAME

    def __init__(self, folder: Path = ASSETS / NAME, device: str = "cpu") -> None:
        self.model, self.device = SceneVQA(VQAConfig().width), device
        self.provenance: dict[str, Any] = {"weights": load_asset(self.model, folder), "transform": "none, 64 px"}
        self.model.to(device).eval().requires_grad_(False)

    def answers(self, images: Tensor, questions: Sequence[str], choices: Sequence[Sequence[str]]) -> list[str]:
        """See `VQA`."""
        allowed = masks(choices)
        best = self._logits(images, questions).masked_fill(~allowed, -torch.inf).argmax(1)
        return [ANSWERS[k] for k in best.tolist()]

    def probabilities(
        self, images: Tensor, questions: Sequence[str], choices: Sequence[Sequence[str]], answers: Sequence[str]
    ) -> np.ndarray:
        """See `VQA`; the choices and `none` sum to one."""
        allowed = masks([[*some, NONE] for some in choices])
        p = self._logits(images, questions).masked_fill(~allowed, -torch.inf).softmax(1)
        return p[torch.arange(len(p)), [INDEX[a] for a in answers]].double().numpy()

    @torch.no_grad()
    def _logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        if checked(images, questions).shape[2:] != (64, 64):
            h, w = images.shape[2:]
            raise UserError(f"{NAME} reads images of 64 × 64 px, not {w} × {h}: choose another VQA model.")
        asked = torch.tensor([encode(q) for q in questions])
        parts = []
        for piece in batches(len(images), 256):
            shown, of = torch.unique(images[piece], dim=0, return_inverse=True)  # an image is read once
            read = self.model.read(shown.to(self.device).float() / 127.5 - 1)
            parts.append(self.model(*(x[of] for x in read), asked[piece, None].to(self.device))[:, 0].cpu())
        return torch.cat(parts)


def asked_of(world: Scenes, split: str, index: np.ndarray, seed: int, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Questions [B, n, 5], choices and `none` as masks [B, n, answers], and targets [B, n] of a split's images.

    Half of an image's questions are of one of its captions, half of another image's.
    """
    rng = np.random.default_rng([seed, 1])
    by_image = [{} for _ in index]
    for density in world.densities:
        for q in scene_questions(world, split, index, density):
            by_image[int(q["id"].split("_")[-1]) - index[0]].setdefault(density, []).append(q)
    rows = []
    for scene, own in zip(world.scenes(split, index), by_image, strict=True):
        seen, other = Seen.of(scene), by_image[rng.integers(len(index))]
        some = [x[world.densities[rng.integers(3)]] for x in (own, other)]
        picked = [s[k] for s in some for k in rng.integers(len(s), size=n // 2)]
        rows.append([(q["question"], q["choices"], answer(seen, q["question"], q["choices"])) for q in picked])
    flat = [x for row in rows for x in row]
    target = torch.tensor([INDEX[a] for _, _, a in flat])
    asked = torch.tensor([encode(q) for q, _, _ in flat]), masks([[*c, NONE] for _, c, _ in flat]), target
    return tuple(x.view(len(index), n, *x.shape[1:]) for x in asked)


def marks_of(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor, Tensor]:
    """What is to be marked: colour, shape and size [B, 64, 3], −1 where no shape's middle is; offsets of the middles
    from their cells' [B, 64, 2], in [−1, 1]; backgrounds [B]."""
    what, offset = torch.full((len(scenes), 64, 3), -1), torch.zeros(len(scenes), 64, 2)
    orders = [list(some) for some in (COLORS, SHAPES, SIZES)]
    for row, scene in enumerate(scenes):
        for shape in Seen.of(scene).shapes:
            cell = int(shape.y // 8) * 8 + int(shape.x // 8)
            what[row, cell] = torch.tensor([order.index(v) for order, v in zip(orders, shape, strict=False)])
            offset[row, cell] = torch.tensor([shape.x % 8, shape.y % 8]) / 4 - 1
    return what, offset, torch.tensor([GROUND.index(s.background) for s in scenes])


def marks_loss(marks: Tensor, plain: Tensor, what: Tensor, offset: Tensor, ground: Tensor) -> Tensor:
    """Of all marks, and of what is said where there is one."""
    there, *parts, moved = marks.split(PARTS, -1)
    real = what[..., 0] >= 0
    loss = nn.functional.cross_entropy(plain, ground)
    loss = loss + 10 * nn.functional.binary_cross_entropy_with_logits(there[..., 0], real.float())
    for k, part in enumerate(parts):
        loss = loss + nn.functional.cross_entropy(part[real], what[real][:, k])
    return loss + (moved[real].tanh() - offset[real]).abs().mean()


def train(out: Path, config: VQAConfig = VQAConfig()) -> None:
    """Train and save the network, weights as float16, and what it scores on validation images beside it."""
    start, world, index = time.process_time(), get_world("scenes"), np.arange(config.pool)
    pool = Pool(world.images("train", index), config.seed)
    asked, allowed, target = asked_of(world, "train", index, config.seed, 4 * config.questions)
    torch.manual_seed(config.seed)
    model, truth = SceneVQA(config.width), marks_of(world.scenes("train", index))
    rng = np.random.default_rng([config.seed, 2])

    def loss_of(step: int) -> Tensor:
        some = rng.integers(config.pool, size=config.batch)
        picked = some[:, None], rng.integers(asked.shape[1], size=(config.batch, config.questions))
        with torch.autocast("cpu", torch.bfloat16):
            read = model.read(pool.draw(some))
        logits = model(*read, asked[picked]).masked_fill(~allowed[picked], -1e4)
        answers = nn.functional.cross_entropy(logits.flatten(0, 1), target[picked].flatten())
        return answers + marks_loss(*read, *(x[some] for x in truth))

    fit(model, loss_of, config.images // config.batch, config.lr)
    save_asset(model, out)
    write_json(out / "training.json", {"config": asdict(config)} | circumstances(start) | evaluate(StandinVQA(out)))


def evaluate(vqa: StandinVQA, n: int = 1000) -> dict[str, Any]:
    """TIFA of `n` validation images by what is shown: renders, reconstructions (the ceiling), another prompt's renders
    (the floor); and of reconstructions by each VAE which answers are most taken for which, by category."""
    world, index = get_world("scenes"), np.arange(n)
    renders, scores = world.images("val", index), {}
    confusion: dict[str, dict[str, Counter]] = {codec: {} for codec in OWN_CODECS}
    shown = {"renders": renders} | {codec: reconstructed(renders, codec) for codec in OWN_CODECS}
    shown["shuffled"] = np.roll(renders, 1, axis=0)
    for density in world.densities:
        metric = TIFA(vqa, scene_questions(world, "val", index, density))
        for kind, images in shown.items():
            records = metric.records(torch.from_numpy(images).permute(0, 3, 1, 2), list(metric.questions))
            found = aggregate(records)
            scores[f"{density}/{kind}"] = {"tifa": found["tifa_average"]} | found["accuracy_by_type"]
            for r in records if kind in OWN_CODECS else []:
                if not r["scores"]:
                    of = confusion[kind].setdefault(r["element_type"], Counter())
                    of[f"{r['answer']} as {r['multiple_choice_vqa']}"] += 1
    rounded = {k: {kind: round(v, 4) for kind, v in row.items()} for k, row in scores.items()}
    most = {codec: {k: dict(c.most_common(6)) for k, c in of.items()} for codec, of in confusion.items()}
    return {"images": n, "accuracy": rounded, "confusion": most}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS / NAME)
    train(parser.parse_args().out)
