"""Paper D's in-context transformer: image patches, text tokens and time in one sequence through one transformer.

Vanilla (paper D): the time is a token, the blocks are the standard pre-norm ones. With adaLN (as SD3 and FLUX condition
on time): no time token; each block's norms are shifted, scaled and gated by the time (adaLN-zero).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2ikit.errors import UserError
from t2ikit.models import dit


class Block(nn.Module):
    """Self-attention and feed-forward over all tokens; with `adaln` both depend on the time."""

    def __init__(self, width: int, head_width: int, adaln: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6, elementwise_affine=not adaln) for _ in range(2))
        self.attention, self.feed_forward = dit.Attention(width, head_width), dit.feed_forward(width)
        self.modulation = nn.Linear(width, 6 * width) if adaln else None

    def forward(self, x: Tensor, time: Tensor, mask: Tensor | None) -> Tensor:
        if self.modulation is None:
            x = x + self.attention(self.norm1(x), mask)
            return x + self.feed_forward(self.norm2(x))
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(time))[:, None].chunk(6, -1)
        x = x + gate1 * self.attention(dit.modulate(self.norm1(x), shift1, scale1), mask)
        return x + gate2 * self.feed_forward(dit.modulate(self.norm2(x), shift2, scale2))


class InContext(nn.Module):
    """`(latents [B, C, side, side], t [B], states [B, L, text_width], mask [B, L] bool) -> [B, C, side, side]`.

    At most `text_tokens` states: their places are learned. Where `mask` is false a state is not attended to.
    """

    def __init__(
        self,
        channels: int,
        side: int,
        patch: int,
        text_tokens: int,
        text_width: int,
        width: int,
        depth: int,
        head_width: int,
        adaln: bool,
    ) -> None:
        super().__init__()
        self.adaln = adaln
        self.time, self.image = dit.Time(width), dit.Patches(channels, side, patch, width)
        self.text, self.text_places = nn.Linear(text_width, width), nn.Parameter(torch.empty(text_tokens, width))
        self.blocks = nn.ModuleList(Block(width, head_width, adaln) for _ in range(depth))
        self.head = dit.Head(channels, side, patch, width, adaln)

    def forward(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None = None) -> Tensor:
        if states.shape[1] > len(self.text_places):
            raise UserError(
                f"{states.shape[1]} text tokens are longer than the context of {len(self.text_places)}: shorten the "
                "captions, or build the backbone with more (dataclasses.replace(spec, text_tokens=…))."
            )
        time, image = self.time(t), self.image(latents)
        text = self.text(states) + self.text_places[: states.shape[1]]
        tokens = [text, image] if self.adaln else [time[:, None], text, image]
        if mask is not None:
            always = [mask.new_ones(part.shape[:2]) for part in tokens]
            mask = torch.cat([*always[:-2], mask, always[-1]], 1)
        x = torch.cat(tokens, 1)
        for block in self.blocks:
            x = block(x, time, mask)
        return self.head(x[:, -image.shape[1] :], time)

    def initialise(self) -> None:
        """DiT's weights: with adaLN every block starts as the identity; the prediction starts at zero."""
        nn.init.normal_(self.text_places, std=0.02)
        modulations = [module.modulation for module in (*self.blocks, self.head)] if self.adaln else []
        dit.initialise(self, self.time, [*modulations, self.head.project])
