"""What each metric makes of one image set: rows with intervals, and by metric a score for each prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2ikit.config import digest
from t2ikit.encoders import batches, file_hash
from t2ikit.errors import UserError
from t2ikit.evaluation.scores import Scores, image_hashes, keys_of
from t2ikit.evaluation.sets import ImageSet
from t2ikit.metrics import fidelity
from t2ikit.metrics.alignment import alignment
from t2ikit.metrics.clip import CLIPScore
from t2ikit.metrics.features import features
from t2ikit.metrics.images import Features, PromptMetric
from t2ikit.metrics.likelihood import (
    TOLERANCE,
    chain,
    ddpm_log_likelihood,
    flow_log_likelihood,
    noise_of,
    noise_of_flow,
    variational_bound,
    velocity_of,
)
from t2ikit.metrics.preference import HPSv2, ImageReward
from t2ikit.metrics.scenes_checker import Checker
from t2ikit.metrics.statistics import deviation, interval
from t2ikit.metrics.tifa import TIFA, TINY, Sentences
from t2ikit.metrics.vqa import VQA, TransformersVQA
from t2ikit.objectives import DDPM, RectifiedFlow
from t2ikit.probe import make_probe, others
from t2ikit.standins.contrastive import ContrastiveScore
from t2ikit.standins.vqa import StandinVQA
from t2ikit.train.checkpoint import snapshot_path
from t2ikit.train.journal import commit

PROBE = 256  # images at most that alignment is measured on
LATENTS, CHAIN = 64, 64  # images of bound and likelihood; most timesteps of the bound
FEWEST = 20  # images for FD∞
CHECKER = "tifa:checker"  # answers from the pixels of a scene, by rule
AUTHORS_SENTENCES = "sentence-transformers/all-mpnet-base-v2"  # of TIFA, for the nearest choice


@cache
def versions() -> dict[str, Any]:
    """What computed a row."""
    return {"t2ikit": version("t2ikit"), "commit": commit()}


@dataclass
class Scored:
    """What metrics found of one set: rows, and by metric a score for each prompt. `say` tells what is left out."""

    images: ImageSet
    say: Callable[[str], None] = print
    rows: list[dict[str, Any]] = field(default_factory=list)
    by_prompt: dict[str, dict[str, float]] = field(default_factory=dict)
    how: dict[str, dict[str, Any]] = field(default_factory=dict)  # what decides the scores of `by_prompt`

    def add(self, metric: str, found: dict[str, Any], provenance: dict[str, Any]) -> None:
        """A row from anything with value, low, high, n; its flags go into the provenance."""
        extra = {k: v for k, v in found.items() if k not in ("value", "low", "high", "n")}
        numbers = {k: found.get(k) for k in ("value", "low", "high", "n")}
        of_row = {"images": self.images.provenance, "metric": provenance | extra, **versions()}
        own = {"run": self.images.name, "step": self.images.step, "metric": metric}
        self.rows.append(own | numbers | {"versus": None, "provenance": of_row})

    def add_scores(self, metric: str, scores: Sequence[float], provenance: dict[str, Any], **more: Any) -> None:
        """A score a prompt: the mean with its bootstrap interval over prompts, and `spread`, the deviation of the
        differences between two such runs if the scores of one told nothing of the other's."""
        self.by_prompt[metric] = dict(zip(self.images.prompts, map(float, scores), strict=True))
        self.how[metric] = provenance
        spread = float(np.sqrt(2)) * deviation(scores) if len(scores) > 1 else None
        self.add(metric, interval(scores) | {"spread": spread} | more, provenance)


def build(name: str, device: str, sentences: str | None = None) -> Any:
    """What the metric called `name` needs, loaded once for all sets; of TIFA the VQA model and the sentence encoder:
    by default the authors' beside a published model, the kit's MiniLM beside its own."""
    kind, _, which = name.partition(":")
    own = {"tifa": lambda: StandinVQA(device=device), CHECKER: Checker}
    if name in own:
        return own[name](), Sentences(sentences or "minilm")
    makers = {
        "tifa": lambda: (TransformersVQA(which, device), Sentences(sentences or AUTHORS_SENTENCES)),
        "fidelity": lambda: features(which or "efficientnet-lite0", device),
        "contrastive": lambda: ContrastiveScore(device=device),
        "clip": lambda: CLIPScore(which, device),
        "cmmd": lambda: CLIPScore(which, device),
        "imagereward": lambda: ImageReward(which, device=device),
        "hpsv2": lambda: HPSv2(which, device=device),
        "alignment": lambda: None,
        "likelihood": lambda: None,
    }
    return makers[kind]()


def measure(name: str, part: Any, found: Scored, scores: Scores, against: Tensor | None, device: str) -> None:
    """Add the metric's rows to `found`; `part` is what `build` made, `against` the images of fidelity's reference."""
    match name.partition(":")[0]:
        case "tifa":
            tifa(found, *part, scores)
        case "fidelity":
            distances(found, part, found.images.truth if against is None else against, scores)
        case "cmmd":
            maximum_mean_discrepancy(found, part, found.images.truth if against is None else against, scores)
        case "alignment":
            without_sampling(found, scores, device)
        case "likelihood":
            likelihood(found, scores, device)
        case _:
            prompted(found, part, scores)


def prompted(found: Scored, metric: PromptMetric, scores: Scores) -> None:
    """One number per image and prompt."""
    images, said = found.images.images, list(found.images.prompts.values())
    fingerprint = digest([metric.name, metric.provenance])
    values = scores.of(
        fingerprint, keys_of(images, said), lambda i: metric(images[i], [said[k] for k in i])[:, None], name=metric.name
    )
    found.add_scores(metric.name, [float(v[0]) for v in values], metric.provenance)


def tifa(found: Scored, vqa: VQA, sentences: Sentences, scores: Scores) -> None:
    """TIFA and Soft-TIFA, accuracies by type, and the floor (each prompt asked of an image of another); of a run also
    the ceiling (reconstructions of the true images) and the score between the two, both held fixed."""
    images, asked_of = found.images.images, found.images.questions
    metric, plain = (TIFA(vqa, asked_of, sentences, soft=soft) for soft in (True, False))
    about = [metric.questions[key] for key in found.images.prompts]

    def answered(shown: Tensor, name: str, metric: TIFA) -> list[np.ndarray]:
        """For each image [1 or 2, questions]: rightly answered, and if soft the probability of the right answer."""
        asked = [[[q["question"], q["choices"], q["answer"]] for q in some] for some in about]

        def compute(rows: np.ndarray) -> list[np.ndarray]:
            records = iter(metric.records(shown[rows], [about[k][0]["id"] for k in rows]))
            each = [[next(records) for _ in about[k]] for k in rows]
            kinds = ("scores", "probability") if metric.soft else ("scores",)
            return [np.array([[r[kind] for r in some] for kind in kinds]) for some in each]

        how = digest(["tifa" if metric.soft else "tifa without soft", metric.provenance])
        got = scores.of(how, keys_of(shown, asked), compute, name=name)
        return [x.reshape(1 + metric.soft, -1) for x in got]

    name = "tifa" if isinstance(vqa, StandinVQA) else f"tifa:{vqa.name}"
    got = answered(images, name, metric)
    right = np.array([x[0].mean() for x in got])
    found.add_scores(name, right, metric.provenance, stdev=float(right.std(ddof=1)) if len(right) > 1 else None)
    found.add_scores(f"soft-{name}", [x[1].mean() for x in got], metric.provenance | {"mean": "arithmetic"})
    geometric = [float(np.exp(np.log(np.maximum(x[1], TINY)).mean())) for x in got]
    found.add_scores(f"soft-{name}-geometric", geometric, metric.provenance | {"mean": "geometric"})
    kinds = [np.array([q["element_type"] for q in some]) for some in about]
    for kind in sorted({k for some in kinds for k in some}):
        shares = [(x[0][some == kind].mean(), (some == kind).sum()) for x, some in zip(got, kinds, strict=True)
                  if (some == kind).any()]  # fmt: skip
        found.add(f"{name}/{kind}", interval(*np.array(shares).T), metric.provenance)
    said = list(found.images.prompts.values())
    if len(set(said)) < 2:
        found.say(f"{name}-floor is left out for {found.images.name}: it needs two different prompts.")
        return
    floor = np.array([x[0].mean() for x in answered(images[others(said)], f"{name}, floor", plain)])
    found.add(f"{name}-floor", interval(floor), metric.provenance | {"images shown": "of the next other prompt"})
    if found.images.parts is None:
        return
    truth, codec = found.images.truth.permute(0, 2, 3, 1), found.images.parts.codec
    latents = torch.cat([codec.encode(truth[piece]) for piece in batches(len(truth), 64)])
    again = torch.from_numpy(codec.decode(latents)).permute(0, 3, 1, 2)
    ceiling = np.array([x[0].mean() for x in answered(again, f"{name}, ceiling", plain)])
    found.add(
        f"{name}-ceiling", interval(ceiling), metric.provenance | {"images shown": f"true ones through {codec.name}"}
    )
    if ceiling.mean() > floor.mean():
        between = (right - floor.mean()) / (ceiling.mean() - floor.mean())
        found.add(f"{name}-normalised", interval(between), metric.provenance)
    else:
        found.say(f"{name}-normalised is left out for {found.images.name}: the ceiling is not above the floor.")


def features_of(found: Scored, extract: Features, against: Tensor, scores: Scores) -> tuple[list[np.ndarray], dict]:
    """Features [n, d] of the set's images and of the reference's, and what decides them; both of one n and size."""
    images, fingerprint = found.images.images, digest([extract.name, extract.provenance])
    for what, ours, theirs in (
        ("images", len(images), len(against)),
        ("pixels a side", tuple(images.shape[2:])[::-1], tuple(against.shape[2:])[::-1]),
    ):
        if ours != theirs:
            raise UserError(
                f"{found.images.name} has {ours} {what} and the reference {theirs}: compare sets of one n and size."
            )
    both = [
        np.stack(scores.of(fingerprint, image_hashes(x), lambda i, x=x: extract(x[i]), np.float32, extract.name))
        for x in (images, against)
    ]
    return both, extract.provenance | {"reference": digest(image_hashes(against))}


def distances(found: Scored, extract: Features, against: Tensor, scores: Scores) -> None:
    """FD, FD∞, KID, precision and recall, each under its features' name, against as many images."""
    both, how = features_of(found, extract, against, scores)
    found.add(f"fd-{extract.name}", fidelity.frechet(*map(fidelity.Moments.batch, both)), how)
    if len(both[0]) >= FEWEST:
        found.add(f"fd-infinity-{extract.name}", fidelity.fd_infinity(*both), how)
    else:
        found.say(f"fd-infinity-{extract.name} is left out for {found.images.name}: it needs {FEWEST} images.")
    found.add(f"kid-{extract.name}", fidelity.kid(*both), how)
    if len(both[0]) <= fidelity.NEIGHBOURS:
        few = f"more than {fidelity.NEIGHBOURS} images"
        found.say(f"Precision and recall are left out for {found.images.name}: they need {few}.")
        return
    shares = fidelity.precision_recall(*both)
    values = {kind: shares.pop(kind) for kind in ("precision", "recall")}
    for kind, value in values.items():
        found.add(f"{kind}-{extract.name}", {"value": value} | shares, how)


def maximum_mean_discrepancy(found: Scored, model: CLIPScore, against: Tensor, scores: Scores) -> None:
    """CMMD (Jayasumana et al. 2024) between CLIP's features of the set's images and of as many others."""
    both, how = features_of(found, model, against, scores)
    found.add(f"cmmd:{model.name.removeprefix('clip:')}", fidelity.cmmd(*both), how)


def of_weights(
    found: Scored, n: int, name: str, scores: Scores, compute: Callable[[Any], dict], how: Sequence[Any] = ()
) -> dict[str, Any]:
    """What `compute` finds of the run's weights on the probe of its first `n` validation images, kept by their hash and
    `how` it is computed."""
    parts, path = found.images.parts, found.images.folder
    key = digest([file_hash(snapshot_path(path, found.images.step)), parts.loss_space, n, *how])

    def fresh(_: np.ndarray) -> list[np.ndarray]:
        got = compute(make_probe(parts.world, parts.config.captions, parts.codec, parts.text, n))
        return [np.frombuffer(json.dumps(got).encode(), np.uint8)]

    return json.loads(scores.of(name, [key], fresh, np.uint8, name)[0].tobytes())


def without_sampling(found: Scored, scores: Scores, device: str) -> None:
    """Caption gap, information in nats and flip accuracy of the run's weights, ± 1.96 standard errors: in fp32,
    whatever it was trained in."""
    parts, model = found.images.parts, found.images.model
    n = min(PROBE, len(found.images.prompts))

    def compute(probe: Any) -> dict[str, Any]:
        return alignment(model.to(device), parts.objective, probe, parts.text.encode([""]), device=device)

    got = of_weights(found, n, "alignment", scores, compute)
    more = {
        "caption_gap": {"by bin": got["caption_gap_by_bin"]},
        "information": {"by bin": got["information_by_bin"], "log snr": got["log_snr"]},
        "flip_accuracy": {"by category": got["flip_accuracy_by_category"]},
    }
    for metric, parts_of in more.items():
        if metric == "information" and not parts.config.caption_dropout:
            found.say(f"information is left out for {found.images.name}: it was trained without captions dropped.")
        elif (value := got[metric]) is not None:
            half = 1.96 * error if (error := got[f"{metric}_se"]) is not None else None
            ends = {"low": value - half, "high": value + half} if half is not None else {}
            found.add(metric, {"value": value, "n": n} | ends, {"probe images": n} | parts_of)


def likelihood(found: Scored, scores: Scores, device: str) -> None:
    """Variational bound and negative log-likelihood of the validation images' latents, each given its caption, in nats
    a dimension (zero is a convention), with bootstrap intervals over images; the provenance keeps the bound's terms by
    timestep."""
    parts, model = found.images.parts, found.images.model
    n = min(LATENTS, len(found.images.prompts))

    def compute(probe: Any) -> dict[str, Any]:
        x0, condition = probe.x0.to(device), tuple(c.to(device) for c in probe.true)
        model.to(device).requires_grad_(False)
        flow = isinstance(parts.objective, RectifiedFlow)
        alphas = (DDPM() if flow else parts.objective).alphas_cumprod
        noise = noise_of_flow(model, alphas, condition) if flow else noise_of(model, parts.objective, condition)
        steps = chain(alphas, CHAIN)
        bound = variational_bound(noise, x0, alphas, steps)
        log_p = (
            flow_log_likelihood(velocity_of(model, condition), x0)
            if flow else ddpm_log_likelihood(noise, x0, alphas)
        )  # fmt: skip
        nll = (-log_p.cpu().double() / x0[0].numel()).tolist()
        return {"vlb": bound.total.tolist(), "nll": nll, "terms": bound.terms.mean(0).tolist(), "chain": steps.tolist()}

    got = of_weights(found, n, "likelihood", scores, compute, ["even in log snr", CHAIN, TOLERANCE])
    how = {"vlb": {"timesteps": got["chain"], "terms": got["terms"]}, "nll": {"solver tolerance": TOLERANCE}}
    for metric, parts_of in how.items():
        found.add(metric, interval(got[metric]), {"unit": "nats/dim"} | parts_of)
