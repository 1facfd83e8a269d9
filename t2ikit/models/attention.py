"""Attention in bf16 on a CPU, for every backbone.

There the backward pass of torch's fused kernel takes four to eight times as long in bf16 as in float32 (torch 2.15,
AMX). Instead: two products and a softmax for short sequences, the fused kernel in float32 for long ones. Forward and
backward of 64 × 4 heads of 32 over 85 tokens take 16 and 25 ms that way, of 16 × 4 over 277 tokens 40 and 34 ms.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

LONG = 160  # keys from which the fused kernel in float32 is the faster one


def quick_attention(x: Tensor) -> AbstractContextManager:
    """In a `with` block: the faster attention, where x is on a CPU under autocast; else torch's own."""
    return QuickAttention() if x.device.type == "cpu" and torch.is_autocast_enabled("cpu") else nullcontext()


class QuickAttention(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (attend if func is F.scaled_dot_product_attention else func)(*args, **(kwargs or {}))


def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    """`scaled_dot_product_attention`; the fused kernel takes its other `options` (dropout, a causal mask, a scale)."""
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # added: to fill by a mask compiles to slower code
        attn_mask = torch.where(attn_mask, 0.0, -1e4)
    if any(options.values()) or key.shape[-2] >= LONG:
        mask = attn_mask if attn_mask is None else attn_mask.float()
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), mask, **options)
    query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
    scores = (query * query.shape[-1] ** -0.5) @ key.mT
    return (scores if attn_mask is None else scores + attn_mask.to(scores.dtype)).softmax(-1) @ value
