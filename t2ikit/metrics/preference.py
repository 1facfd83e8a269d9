"""Learned human preference from the published checkpoints: ImageReward and HPSv2, a number per image and prompt.

Neither package is used (one pins timm 0.6, the other lacks a file); preprocessing and scores are theirs, in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import functional as F
from torchvision.transforms import v2

from t2ikit.encoders import MiniLM, batches, file_hash
from t2ikit.errors import UserError, choose
from t2ikit.metrics.clip import cosines
from t2ikit.metrics.images import as_pil, checked
from t2ikit.metrics.weights import load_strictly, read_checkpoint

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BATCH = 16  # images in one forward pass
HPS_FILES = {"v2.0": "HPS_v2_compressed.pt", "v2.1": "HPS_v2.1_compressed.pt"}  # as published

# ImageReward (Xu et al. 2023): BLIP's ViT-L/16 and a BERT with cross-attention; blocks and layers as in the checkpoint
VISION = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
REWARD_MEAN, REWARD_STD = 0.16717362830052426, 1.0333394966054072
TOKENS, VOCABULARY = 35, 30524  # bert-base-uncased's 30,522 words, [DEC] and [ENC]
# BLIP's heads for contrastive learning, and a constant: in the checkpoint, of no use to the reward
UNUSED = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")
TIMM = {  # in transformers' names of the image tower → in the checkpoint's, which are timm's
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
    "post_layernorm": "norm",
    "encoder.layers": "blocks",
    "layer_norm": "norm",
    "self_attn.projection": "attn.proj",
    "self_attn": "attn",
}


class ImageReward:
    """ImageReward-v1.0 from `ImageReward.pt`; higher is better, about normal over its authors' images.

    Image: PIL bicubic, shorter side to 224, centre crop, CLIP's mean and deviation. Prompt: BERT's tokens, cut or
    padded to 35. `vision` and `text` are the widths and depths, for checkpoints of another size.
    """

    name = "imagereward"

    def __init__(
        self, path: str | Path, vision: dict[str, int] = VISION, text: dict[str, int] = TEXT, device: str = "cpu"
    ) -> None:
        from transformers import BlipTextConfig, BlipVisionConfig, BlipVisionModel
        from transformers.models.blip.modeling_blip_text import BlipTextModel

        width = text["hidden_size"]
        model = nn.ModuleDict(
            {
                "visual_encoder": BlipVisionModel(BlipVisionConfig(**vision, image_size=224, layer_norm_eps=1e-6)),
                "text_encoder": BlipTextModel(
                    BlipTextConfig(**text, vocab_size=VOCABULARY, encoder_hidden_size=vision["hidden_size"]),
                    add_pooling_layer=False,
                ),
                "layers": nn.Sequential(
                    nn.Linear(width, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64),
                    nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
                ),
            }
        )  # fmt: skip
        load_strictly(model, read_checkpoint(path), path, UNUSED, checkpoint_name)
        self.model, self.device = model.eval().requires_grad_(False).to(device), device
        # MiniLM's vocabulary is bert-base-uncased's, and comes with the kit
        self.tokenizer = MiniLM("minilm").tokenizer
        self.tokenizer.add_special_tokens({"additional_special_tokens": ["[DEC]", "[ENC]"]})
        self.transform = v2.Compose(
            [
                v2.Resize(224, v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(224),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(CLIP_MEAN, CLIP_STD),
            ]
        )
        self.provenance: dict[str, Any] = {"weights": file_hash(Path(path)), "transform": "PIL bicubic 224, centre"}

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> np.ndarray:
        """uint8 [n, 3, H, W] and n prompts → rewards, float64 [n]."""
        checked(images, prompts)
        return np.concatenate([self._rewards(images[i], prompts[i]) for i in batches(len(images), BATCH)])

    def _rewards(self, images: Tensor, prompts: Sequence[str]) -> np.ndarray:
        pixels = torch.stack([self.transform(x) for x in as_pil(images)]).to(self.device)
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        states = self.model["text_encoder"](
            tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            encoder_hidden_states=self.model["visual_encoder"](pixels).last_hidden_state,
        ).last_hidden_state
        reward = self.model["layers"](states[:, 0].float()).squeeze(1)
        return ((reward.double() - REWARD_MEAN) / REWARD_STD).cpu().numpy()


def checkpoint_name(key: str) -> str:
    """What `ImageReward.pt` calls the tensor `key` of our modules."""
    if key.startswith("visual_encoder."):
        for ours, theirs in TIMM.items():
            key = key.replace(ours, theirs)
    return f"mlp.{key}" if key.startswith("layers.") else f"blip.{key}"


class HPSv2:
    """Human Preference Score v2 (Wu et al. 2023) from `HPS_v2_compressed.pt` (v2.0) or `HPS_v2.1_compressed.pt`.

    The two differ in their weights alone, so that `version` is read from the file's name unless it is given; `name` is
    `hpsv2` for v2.0 and `hpsv2.1` for v2.1.

    The cosine of open_clip's ViT-H-14 with those weights; × 100 only in the benchmark's tables. Image: float first,
    then the longer side to 224 (bicubic), zero padding, CLIP's mean and deviation; open_clip's own transform differs.
    Whether the resize was antialiased depended on the authors' torchvision: on by default from 0.17. Their code runs in
    float16.
    """

    def __init__(
        self,
        path: str | Path,
        version: str | None = None,
        antialias: bool = True,
        architecture: str = "ViT-H-14",
        device: str = "cpu",
    ) -> None:
        import open_clip

        version = version and choose("HPS version", version, HPS_FILES)
        state = read_checkpoint(path).get("state_dict")
        version = version or {file: v for v, file in HPS_FILES.items()}.get(Path(path).name)
        if version is None:
            names = " or ".join(HPS_FILES.values())
            raise UserError(f"{path} may be either HPS version: name it {names} as published, or give the version.")
        self.name = {"v2.0": "hpsv2", "v2.1": "hpsv2.1"}[version]
        if not isinstance(state, dict):
            raise UserError(f"{path} has no 'state_dict': give HPSv2's checkpoint as its authors published it.")
        self.model = open_clip.create_model(choose("CLIP model", architecture, open_clip.list_models()))
        load_strictly(self.model, state, path)
        self.model, self.device = self.model.eval().requires_grad_(False).to(device), device
        self.tokenizer, self.antialias = open_clip.get_tokenizer(architecture), antialias
        self.side = self.model.visual.image_size[0]
        how = {"version": version, "transform": f"longest {self.side}, padded", "antialias": antialias}
        self.provenance: dict[str, Any] = {"weights": file_hash(Path(path)), **how}

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> np.ndarray:
        """uint8 [n, 3, H, W] and n prompts → cosines, float64 [n]."""
        checked(images, prompts)
        found = []
        for i in batches(len(images), BATCH):
            features = self.model.encode_image(self._pixels(images[i]).to(self.device))
            text = self.model.encode_text(self.tokenizer(list(prompts[i])).to(self.device))
            found.append(cosines(features.cpu(), text.cpu()))
        return np.concatenate(found)

    def _pixels(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, H, W] → float32 [n, 3, 224, 224]."""
        x, scale = images.float() / 255, self.side / max(images.shape[2:])
        if scale != 1:
            size = [round(s * scale) for s in images.shape[2:]]
            x = F.resize(x, size, F.InterpolationMode.BICUBIC, antialias=self.antialias)
        height, width = (self.side - s for s in x.shape[2:])
        x = F.pad(x, [width // 2, height // 2, width - width // 2, height - height // 2])
        return F.normalize(x, CLIP_MEAN, CLIP_STD)
