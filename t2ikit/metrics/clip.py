"""CLIP score, and CLIP's features of images and prompts, of any open_clip model by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from t2ikit.config import digest
from t2ikit.encoders import batches, not_loaded
from t2ikit.errors import UserError
from t2ikit.hub import loading
from t2ikit.metrics.images import as_pil, checked
from t2ikit.tensors import only_finite, tensors_hash

BATCH = 64  # images in one forward pass
WRONG = {  # what torch says of a state dict that does not fit → what we say of it
    r'Missing key\(s\) in state_dict: "([^"]+)"': "lacks the weights",
    r'Unexpected key\(s\) in state_dict: "([^"]+)"': "has weights that the model does not know,",
    r"size mismatch for ([^:]+):": "has in another shape the weights",
}


class CLIPScore:
    """The plain cosine between image and prompt (about 0.27 for good images): not × 2.5, not × 100, not cut at zero.

    `name` is MODEL/WEIGHTS of open_clip, such as `ViT-L-14/openai`, or `local-dir:FOLDER` with `open_clip_config.json`
    and its weights. Images go through the transform that open_clip keeps with those weights. Also a `Features`: the
    image tower's output before normalisation, as FD and CMMD take it.
    """

    def __init__(self, name: str = "ViT-L-14/openai", device: str = "cpu") -> None:
        import open_clip

        model_name, _, weights = (name, "", None) if name.startswith("local-dir:") else name.partition("/")
        if weights is not None and (model_name, weights) not in open_clip.list_pretrained():
            raise UserError(
                f"Unknown CLIP model {name!r}: choose MODEL/WEIGHTS from open_clip.list_pretrained(), such as "
                "ViT-L-14/openai or ViT-H-14/laion2b_s32b_b79k, or give a local copy as local-dir:FOLDER."
            )
        # the activation belongs to the weights; open_clip takes the model's own, GELU for OpenAI's, and warns
        quick = weights is not None and open_clip.get_pretrained_cfg(model_name, weights).get("quick_gelu", False)
        try:
            with loading(from_hub=weights is not None):
                self.model, self.transform = open_clip.create_model_from_pretrained(
                    model_name, weights, device=device, force_quick_gelu=quick
                )
                self.tokenizer = open_clip.get_tokenizer(model_name)
                config = open_clip.get_model_config(model_name)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            for pattern, what in WRONG.items():
                if key := re.search(pattern, str(error)):
                    raise UserError(f"{name} {what} {key[1]!r}: give the whole checkpoint of this model.") from error
            raise not_loaded("CLIP model", name, error) from error
        only_finite(self.model.state_dict(), name)
        self.model.eval().requires_grad_(False)
        quick = quick or config.get("quick_gelu", False)
        self.name, self.device = f"clip:{name}", device
        fingerprint = tensors_hash([p for _, p in sorted(self.model.named_parameters())])
        self.provenance: dict[str, Any] = {
            "weights": fingerprint,
            "architecture": digest(config | {"quick_gelu": quick}),
            "quick_gelu": quick,
            "transform": open_clip.get_model_preprocess_cfg(self.model),
        }

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str] | None = None) -> np.ndarray:
        """With prompts the cosines, float64 [n]; without them the images' features, float32 [n, width]."""
        checked(images, prompts)
        pixels = (torch.stack([self.transform(x) for x in as_pil(images[i])]) for i in batches(len(images), BATCH))
        features = torch.cat([self.model.encode_image(x.to(self.device)).float().cpu() for x in pixels])
        return features.numpy() if prompts is None else cosines(features, self.text(prompts))

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """Features of prompts, [n, width]; the tokenizer cuts what is longer than its context (77 tokens)."""
        tokens = self.tokenizer(list(prompts))
        return torch.cat([self.model.encode_text(x.to(self.device)).float().cpu() for x in tokens.split(BATCH)])


def cosines(first: Tensor, second: Tensor) -> np.ndarray:
    """Row by row, float64 [n]."""
    return nn.functional.cosine_similarity(first.double(), second.double()).numpy()
