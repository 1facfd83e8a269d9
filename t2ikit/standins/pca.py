"""The frozen PCA that narrows MiniLM's states to the tiny backbones' text width: `python -m t2ikit.standins.pca`.

At tiny, widths are a sixteenth of the published ones, and so is the text's (1024 / 16 = 64): with 384-wide states the
keys and values of the text
would take most of the multiply-accumulates, and the ranking of the backbones by cost would change.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from t2ikit.config import digest
from t2ikit.data.world import get_world
from t2ikit.encoders import ASSETS, MiniLM, batches

WIDTHS = (64, 256)
CAPTIONS = {"scenes": ("sparse", "medium", "dense"), "pictograms": ("name", "tags")}
WEIGHT = {
    "scenes": 0.8,
    "pictograms": 0.2,
}  # equal weights keep 3% less of the variance on scenes, 3% more on pictograms
PER_KIND = {"train": 3000, "val": 1000}  # captions of each world and density, for the fit and for the scores


def token_states(encoder: MiniLM, captions: list[str]) -> Tensor:
    """The unreduced states [tokens, 384] of all real tokens."""
    parts = []
    for piece in batches(len(captions), 256):
        states, mask = encoder.hidden(captions[piece])
        parts.append(states[mask])
    return torch.cat(parts)


def fit(states: dict[str, Tensor]) -> dict[str, Tensor]:
    """Mean [384], components [256, 384] by falling variance, and the scale that gives the first 64 a mean square of
    one.

    `states` are the tokens [n, 384] of each world; a world counts by `WEIGHT`, however many tokens it has.
    """
    mean = sum(WEIGHT[w] * s.double().mean(0) for w, s in states.items())
    covariance = sum(WEIGHT[w] * (s.double() - mean).T @ (s.double() - mean) / len(s) for w, s in states.items())
    variance, vectors = torch.linalg.eigh(covariance)
    components = vectors.flip(1).T.contiguous()
    # the sign of an eigenvector is arbitrary: make its largest entry positive
    components *= components.gather(1, components.abs().argmax(1, keepdim=True)).sign()
    scale = (WIDTHS[0] / variance.flip(0)[: WIDTHS[0]].sum()).sqrt()
    return {"mean": mean.float(), "components": components[: WIDTHS[-1]].float(), "scale": scale.float()}


def retrieval(encoder: MiniLM, pca: dict[str, Tensor], captions: list[str], width: int) -> float:
    """How well captions are still told apart: each is rebuilt from `width` numbers a token; the share whose nearest
    full one is itself."""
    states, mask = encoder.hidden(sorted(set(captions)))
    basis = pca["components"][:width]
    rebuilt = (states - pca["mean"]) @ basis.T @ basis + pca["mean"]
    full, rebuilt = ((x * mask[..., None]).flatten(1) for x in (states, rebuilt))
    return float((torch.cdist(rebuilt, full).argmin(1) == torch.arange(len(full))).float().mean())


def main(out: Path) -> None:
    """Fit on training captions, save, and score on validation captions."""
    encoder, kinds = MiniLM("minilm"), [(w, d) for w, ds in CAPTIONS.items() for d in ds]

    def captions(world: str, density: str, split: str) -> list[str]:
        data = get_world(world)
        return data.captions(split, np.arange(min(PER_KIND[split], data.length(split))), density)

    pca = fit(
        {w: torch.cat([token_states(encoder, captions(w, d, "train")) for d in ds]) for w, ds in CAPTIONS.items()}
    )
    out.mkdir(parents=True, exist_ok=True)
    save_file(pca, out / "pca.safetensors")
    scores: dict[str, dict[str, float]] = {}
    for world, density in kinds:
        held_out = captions(world, density, "val")
        states = token_states(encoder, held_out) - pca["mean"]
        score = {"distinct_captions": len(set(held_out)), "longest_tokens": max(encoder.count_tokens(held_out))}
        for width in WIDTHS:
            kept = (states @ pca["components"][:width].T).square().sum() / states.square().sum()
            score[f"variance_{width}"] = round(float(kept), 4)
            score[f"retrieval_{width}"] = round(retrieval(encoder, pca, held_out, width), 4)
        scores[f"{world}/{density}"] = score
    config = {
        "widths": WIDTHS,
        "captions": CAPTIONS,
        "per_kind": PER_KIND,
        "weight": WEIGHT,
        "minilm": encoder.fingerprint,
    }
    (out / "training.json").write_text(
        json.dumps({"config": config, "digest": digest(config), "scores": scores}, indent=1) + "\n"
    )
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS / "pca-minilm-v1")
    main(parser.parse_args().out)
