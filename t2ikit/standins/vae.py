"""Our own small VAEs (64 px → 16 × 16 × 4), stand-ins for SD2's and SDXL's at CPU size: `python -m
t2ikit.standins.vae NAME`.

As with the published pair, architecture is the same and training differs: `sdxl-like` is trained twice as long and
keeps an average of its
weights. Both are trained on the training splits of `scenes` and `pictograms`, half each, and scored on their
validation splits.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from t2ikit.data.world import get_world
from t2ikit.encoders import ASSETS, OWN_CODECS, image_codec
from t2ikit.files import write_json
from t2ikit.standins.training import circumstances, fit


@dataclass(frozen=True)
class VAEConfig:
    """What decides the weights."""

    images: int  # seen in training
    ema: bool  # keep an average over the last tenth of the steps
    batch: int = 32
    lr: float = 2e-3  # AdamW, cosine to zero after 100 steps of warm-up
    kl_weight: float = 1e-4  # on the KL, mean over latent elements; the other terms are means over pixels in [−1, 1]
    edge_weight: float = 1.0  # on the L1 of horizontal and vertical differences
    channels: tuple[int, ...] = (16, 32, 64)
    seed: int = 0


CONFIGS = {"sd2-like": VAEConfig(images=60_000, ema=False), "sdxl-like": VAEConfig(images=120_000, ema=True)}


def build(config: VAEConfig) -> AutoencoderKL:
    """An untrained AutoencoderKL; three levels give a factor of 4."""
    torch.manual_seed(config.seed)
    levels = len(config.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def batch_of(worlds: list, config: VAEConfig, step: int, split: str = "train") -> np.ndarray:
    """uint8 [batch, 64, 64, 3]: equal parts of each world, a pure function of (seed, step)."""
    rng = np.random.default_rng([config.seed, step])
    parts = np.array_split(np.arange(config.batch), len(worlds))
    drawn = [rng.integers(w.length(split), size=len(p)) for w, p in zip(worlds, parts, strict=True)]
    return np.concatenate([w.images(split, indices) for w, indices in zip(worlds, drawn, strict=True)])


def pixels(images: np.ndarray) -> Tensor:
    """uint8 [B, R, R, 3] → float32 [B, 3, R, R] in [−1, 1]."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def loss_of(vae: AutoencoderKL, images: Tensor, config: VAEConfig) -> Tensor:
    """L1 on pixels and on their differences, plus the KL to a unit Gaussian. Images [B, 3, 64, 64] in [−1, 1]."""
    posterior = vae.encode(images).latent_dist
    out = vae.decode(posterior.sample()).sample.float()
    pixels = (out - images).abs().mean()
    edges = sum((out.diff(dim=d) - images.diff(dim=d)).abs().mean() for d in (2, 3))
    kl = posterior.kl().float().mean() / posterior.mean[0].numel()
    return pixels + config.edge_weight * edges + config.kl_weight * kl


def train(name: str, out: Path) -> None:
    """Train `name` and save it in diffusers' format, weights as float16, with latents' mean and standard deviation in
    the config."""
    config, start = CONFIGS[name], time.process_time()
    worlds = [get_world("scenes"), get_world("pictograms")]
    vae, steps = build(config), config.images // config.batch
    average = torch.optim.swa_utils.AveragedModel(vae) if config.ema else None

    def batch_loss(step: int) -> Tensor:
        images = pixels(batch_of(worlds, config, step))
        with torch.autocast("cpu", torch.bfloat16):
            return loss_of(vae, images, config)

    def averaged(step: int) -> None:
        if average is not None and step >= int(0.9 * steps):
            average.update_parameters(vae)

    fit(vae, batch_loss, steps, config.lr, weight_decay=1e-4, after=averaged)
    if average is not None:
        vae.load_state_dict(average.module.state_dict())
    mean, std = latent_moments(vae.eval(), worlds, config)
    vae.register_to_config(latents_mean=mean, latents_std=std)
    vae.half().save_pretrained(out, safe_serialization=True)
    taken = circumstances(start)
    write_json(out / "training.json", {"config": asdict(config)} | taken | evaluate(f"local-dir:{out}"))


@torch.no_grad()
def latent_moments(vae: AutoencoderKL, worlds: list, config: VAEConfig) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each latent channel over 2,048 training images."""
    latents = []
    for step in range(2048 // config.batch):
        images = pixels(batch_of(worlds, config, 2**31 - 1 - step))  # steps that no training reaches
        latents.append(vae.encode(images).latent_dist.mode())
    z = torch.cat(latents)
    return z.mean((0, 2, 3)).tolist(), z.std((0, 2, 3)).tolist()


def evaluate(codec_name: str, n: int = 512) -> dict[str, float]:
    """PSNR in dB of reconstructed validation images, per world, and the latents' standard deviation."""
    codec, scores = image_codec(codec_name), {}
    for name in ("scenes", "pictograms"):
        images = get_world(name).images("val", np.arange(n))
        latents = codec.encode(images)
        error = (codec.decode(latents).astype(float) - images) ** 2
        scores[f"psnr_{name}"] = round(float(np.mean(10 * np.log10(255**2 / error.mean((1, 2, 3))))), 2)
        scores[f"latent_std_{name}"] = round(float(latents.std()), 3)
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONFIGS)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    train(args.name, args.out or ASSETS / OWN_CODECS[args.name])
