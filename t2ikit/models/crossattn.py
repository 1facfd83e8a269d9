"""Paper D's cross-attention transformer: DiT blocks on image patches, with the text in a cross-attention of each.

DiT (Peebles & Xie 2023) with adaLN-zero for the time, and PixArt-α's order: self-attention, cross-attention,
feed-forward.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from t2ikit.models import dit


class Block(nn.Module):
    """Self-attention and feed-forward depend on the time by adaLN; between them the image attends to the text."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.norm1, self.norm3 = (nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(2))
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.attention, self.cross = dit.Attention(width, head_width), dit.Attention(width, head_width)
        self.feed_forward = dit.feed_forward(width)
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, x: Tensor, time: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(time))[:, None].chunk(6, -1)
        x = x + gate1 * self.attention(dit.modulate(self.norm1(x), shift1, scale1))
        x = x + self.cross(self.norm2(x), mask, text)
        return x + gate2 * self.feed_forward(dit.modulate(self.norm3(x), shift2, scale2))


class CrossAttention(nn.Module):
    """`(latents [B, C, side, side], t [B], states [B, L, text_width], mask [B, L] bool) -> [B, C, side, side]`.

    Any number of states (the encoder has placed them already); where `mask` is false one is not attended to.
    """

    def __init__(
        self,
        channels: int,
        side: int,
        patch: int,
        text_width: int,
        width: int,
        depth: int,
        head_width: int,
    ) -> None:
        super().__init__()
        self.time, self.image = dit.Time(width), dit.Patches(channels, side, patch, width)
        self.text = nn.Linear(text_width, width)
        self.blocks = nn.ModuleList(Block(width, head_width) for _ in range(depth))
        self.head = dit.Head(channels, side, patch, width, adaln=True)

    def forward(self, latents: Tensor, t: Tensor, states: Tensor, mask: Tensor | None = None) -> Tensor:
        time, x, text = self.time(t), self.image(latents), self.text(states)
        for block in self.blocks:
            x = block(x, time, text, mask)
        return self.head(x, time)

    def initialise(self) -> None:
        """DiT's and PixArt-α's weights: every block starts as the identity, the prediction at zero."""
        modulations = [module.modulation for module in (*self.blocks, self.head)]
        dit.initialise(self, self.time, [*modulations, *(b.cross.out for b in self.blocks), self.head.project])
