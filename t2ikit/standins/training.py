"""What the stand-ins share: an image tower, pictures spoiled as samples are, and one training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from t2ikit.encoders import batches, image_codec

CODEC = "sdxl-like"  # not sd2-like too: where it turns red to orange, a network would learn that orange may be red
BLUR, PIXEL_NOISE, LATENT_NOISE = 1.5, 0.15, 0.4  # the most of each: px, of [−1, 1], of the latents' deviation


def tower(width: int) -> nn.Sequential:
    """Images [B, 3, 64, 64] in [−1, 1] → cells [B, width, 8, 8]."""
    channels, layers = [3, 32, 64, width, width, width], []
    for k, (a, b) in enumerate(zip(channels, channels[1:], strict=False)):
        layers += [nn.Conv2d(a, b, 3, stride=1 if k in (2, 4) else 2, padding=1), nn.GroupNorm(8, b), nn.SiLU()]
    return nn.Sequential(*layers)


def spoiled(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images [B, 3, 64, 64] in [−1, 1]: half of them blurred, half noised, each by an amount of its own."""
    b = len(images)
    amount = torch.rand(4, b, generator=generator)
    sigma = (BLUR * amount[0] * (amount[1] < 0.5)).clamp(min=0.05)
    kernel = torch.exp(-0.5 * (torch.arange(-4, 5) / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)
    x = nn.functional.pad(images.reshape(1, 3 * b, 64, 64), (4, 4, 4, 4), mode="replicate")
    x = nn.functional.conv2d(x, kernel[:, None, None], groups=3 * b)
    x = nn.functional.conv2d(x, kernel[:, None, :, None], groups=3 * b).view_as(images)
    noise = torch.randn(images.shape, generator=generator)
    x = x + noise * (PIXEL_NOISE * amount[2] * (amount[3] < 0.5)).view(-1, 1, 1, 1)
    return x.clamp(-1, 1).to(memory_format=torch.channels_last)


def reconstructed(images: np.ndarray, codec: str, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Images [n, 64, 64, 3] through a VAE and back, each one's latents noised by up to `noise` of their deviation."""
    rng, made, vae = np.random.default_rng(seed), [], image_codec(codec)
    for piece in batches(len(images), 256):
        z = vae.encode(images[piece])
        size = noise * rng.random((len(z), 1, 1, 1), dtype=np.float32)
        noised = z + torch.from_numpy(size * rng.standard_normal(z.shape, dtype=np.float32))
        with torch.autocast("cpu", torch.bfloat16):
            made.append(vae.decode(noised))
    return np.concatenate(made)


class Pool:
    """Training images as they are and reconstructed from noised latents; `draw` spoils what it takes."""

    def __init__(self, renders: np.ndarray, seed: int) -> None:
        again = reconstructed(renders, CODEC, LATENT_NOISE, seed)
        self.kinds = torch.from_numpy(np.stack([renders, again])).permute(0, 1, 4, 2, 3)
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, index: np.ndarray) -> Tensor:
        """[B, 3, 64, 64] in [−1, 1]."""
        kind = torch.randint(len(self.kinds), (len(index),), generator=self.generator)
        return spoiled(self.kinds[kind, torch.from_numpy(index)].float() / 127.5 - 1, self.generator)


def fit(
    model: nn.Module,
    loss_of: Callable[[int], Tensor],
    steps: int,
    lr: float,
    weight_decay: float = 1e-3,
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """AdamW, cosine to zero after 100 steps of warm-up; `loss_of(step)` is a batch's loss, `after(step)` follows its
    update."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / 100, 0.5 * (1 + math.cos(math.pi * s / steps)))
    )
    bar = tqdm(range(steps), desc=type(model).__name__, mininterval=5)
    for step in bar:
        loss = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        after(step)
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)


def circumstances(start: float) -> dict[str, Any]:
    """What a training took, for its `training.json`: processor seconds since `start`, threads, torch."""
    seconds = round(time.process_time() - start)
    return {"processor_seconds": seconds, "threads": torch.get_num_threads(), "torch": torch.__version__}
