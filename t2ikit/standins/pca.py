"""The frozen PCA that narrows MiniLM's states to the tiny backbones' text width: `python -m t2ikit.standins.pca`.

At tiny, widths are a sixteenth of the published ones, and so is the text's (1024 / 16 = 64): with 384-wide states the keys and values of the text
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
from t2ikit.encoders import ASSETS, MiniLM, batches, text_encoder

WIDTHS = (64, 256)
CAPTIONS = {"scenes": ("sparse", "medium", "dense"), "pictograms": ("name", "tags")}
PER_KIND = {"train": 3000, "val": 1000}  # captions of each world and density, for the fit and for the scores


def token_states(encoder: MiniLM, captions: list[str]) -> Tensor:
    """The unreduced states [tokens, 384] of all real tokens."""
    parts = []
    for piece in batches(len(captions), 256):
        states, mask = encoder.hidden(captions[piece])
        parts.append(states[mask])
    return torch.cat(parts)


def fit(states: Tensor) -> dict[str, Tensor]:
    """Mean [384], all components [384, 384] by falling variance, and the scale that gives the first 64 a mean square of one."""
    mean = states.double().mean(0)
    variance, vectors = torch.linalg.eigh(torch.cov((states.double() - mean).T))
    components = vectors.flip(1).T.contiguous()
    # the sign of an eigenvector is arbitrary: make its largest entry positive
    components *= components.gather(1, components.abs().argmax(1, keepdim=True)).sign()
    scale = (WIDTHS[0] / variance.flip(0)[: WIDTHS[0]].sum()).sqrt()
    return {"mean": mean.float(), "components": components[: WIDTHS[-1]].float(), "scale": scale.float()}


def retrieval(encoder: MiniLM, captions: list[str]) -> float:
    """How often a caption's nearest neighbour by reduced states is also its nearest by the full ones (distinct captions only).

    Nearness is the Euclidean distance of the token states laid end to end, what a cross-attention could tell apart.
    """
    captions = sorted(set(captions))
    full = torch.cat([(s * m[..., None]).flatten(1) for s, m in [encoder.hidden(captions)]])
    reduced = encoder.encode(captions)[0].flatten(1)
    nearest = [torch.cdist(x, x).fill_diagonal_(torch.inf).argmin(1) for x in (full, reduced)]
    return float((nearest[0] == nearest[1]).float().mean())


def main(out: Path) -> None:
    """Fit on training captions, save, and score on validation captions."""
    encoder, kinds = text_encoder("minilm"), [(w, d) for w, ds in CAPTIONS.items() for d in ds]
    assert isinstance(encoder, MiniLM)

    def captions(world: str, density: str, split: str) -> list[str]:
        data = get_world(world)
        return data.captions(split, np.arange(min(PER_KIND[split], data.length(split))), density)

    pca = fit(torch.cat([token_states(encoder, captions(w, d, "train")) for w, d in kinds]))
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
            score[f"same_nearest_{width}"] = round(retrieval(text_encoder(f"minilm-{width}"), held_out), 4)
        scores[f"{world}/{density}"] = score
    config = {"widths": WIDTHS, "captions": CAPTIONS, "per_kind": PER_KIND, "minilm": encoder.fingerprint}
    (out / "training.json").write_text(json.dumps({"config": config, "digest": digest(config), "scores": scores}, indent=1) + "\n")
    print(json.dumps(scores, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ASSETS / "pca-minilm-v1")
    main(parser.parse_args().out)
