"""What one sample costs: parameters, and multiply-accumulates counted layer by layer in one pass of shapes alone.

Three conventions, never mixed. `paper`: Linear and Conv layers of one forward pass, attention products left out (it
reproduces paper S, Tables 1 and 2). `exact`: attention products too, FLOPs = 2 × MACs, a training step = 3 × forward.
`6ND` (paper D): 6 × parameters × tokens, which takes every parameter for one that meets every token; those of adaLN and
of the time's embedding meet each sample once, so it is also given without them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from t2ikit.models.spec import BackboneSpec


@dataclass(frozen=True)
class Cost:
    """Counts for one sample. `macs`, `attn_macs`: paper convention; `flops_*`: exact; `params*`, `tokens`: 6ND."""

    params: int
    params_per_sample: int  # of `params`, those in Linear layers that are applied once a sample
    tokens: int
    macs: int
    attn_macs: int
    flops_forward: int

    @property
    def flops_train(self) -> int:
        """One training step: forward, and twice that backward (a stated convention)."""
        return 3 * self.flops_forward

    @property
    def params_per_token(self) -> int:
        return self.params - self.params_per_sample


@cache
def cost(spec: BackboneSpec, resolution: int | None = None, text_tokens: int | None = None) -> Cost:
    """The cost of `spec` on images of `resolution` px with `text_tokens` tokens (default: the spec's own of both).

    UserError if either does not fit the backbone.
    """
    if resolution is not None:
        spec = replace(spec, resolution=resolution)
    if text_tokens is not None:
        spec = replace(spec, text_tokens=text_tokens)
    made = _pass(spec)
    once = {name for name in made.positions if made.macs[name] == made.weights[name][0].numel()}
    if any(made.positions[name] for name in once):  # of one position: is it so of larger inputs too?
        larger = _pass(replace(spec, resolution=2 * spec.resolution, text_tokens=spec.text_tokens + 1))
        once = {name for name in once if made.macs[name] == larger.macs[name]}
    total = sum(made.macs.values())
    return Cost(
        params=made.params,
        params_per_sample=sum(p.numel() for name in once for p in made.weights[name]),
        tokens=spec.tokens,
        macs=total,
        attn_macs=sum(n for name, n in made.macs.items() if spec.in_attention(name)),
        flops_forward=2 * (total + made.products),
    )


class _Pass(NamedTuple):
    """What one forward pass shows; layers are the Linear and Conv ones, by name."""

    params: int
    weights: dict[str, list]  # of a layer, the bias after them
    macs: dict[str, int]  # of a layer
    positions: dict[str, bool]  # of Linear layers: whether the output is [batch, positions, width]
    products: int  # MACs of activations with activations


def _pass(spec: BackboneSpec) -> _Pass:
    import torch

    model = spec.build("meta")
    side, tokens = spec.latent_side, spec.text_tokens
    layers = {
        name: layer
        for name, layer in model.network.named_modules()
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d))
    }
    macs, positions = dict.fromkeys(layers, 0), {}
    for name, layer in layers.items():
        layer.register_forward_hook(_layer_hook(macs, positions, name))
    inputs = {
        "latents": torch.empty(1, spec.latent_channels, side, side, device="meta"),
        "t": torch.empty(1, dtype=torch.long, device="meta"),
        "states": torch.empty(1, tokens, spec.text_width, device="meta"),
        "mask": torch.ones(1, tokens, dtype=torch.bool, device="meta"),
    }
    with torch.no_grad(), _shapes_only() as products:
        model(**inputs)
    weights = {name: list(layer.parameters()) for name, layer in layers.items()}
    return _Pass(sum(p.numel() for p in model.parameters()), weights, macs, positions, products.macs)


def _layer_hook(macs: dict[str, int], positions: dict[str, bool], name: str) -> Any:
    def count(layer: Any, _inputs: Any, output: Any) -> None:
        if layer.weight.ndim == 2:  # Linear
            positions[name] = output.ndim > 2
        # every output number is a dot product with one row (Linear) or one filter (Conv2d) of the weight
        macs[name] += output.numel() * prod(layer.weight.shape[1:])

    return count


def _shapes_only() -> Any:
    """A context that adds up the products of activations with activations (QKᵀ and AV, fused or written as einsum).

    It passes over what keeps a tensor's shape: on the meta device torch decomposes that in Python, most of the time.
    """
    import torch
    from torch.nn import functional as F
    from torch.overrides import TorchFunctionMode

    same_shape = {F.layer_norm, F.group_norm, F.gelu, F.silu}
    broadcasting = {torch.add, torch.Tensor.add, torch.Tensor.mul, torch.Tensor.div}

    class ShapesOnly(TorchFunctionMode):
        macs = 0

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func in same_shape or (func in broadcasting and args[0].shape == getattr(args[1], "shape", None)):
                return args[0]
            if func is F.linear:
                return args[0].new_empty(*args[0].shape[:-1], args[1].shape[0])
            if func is F.scaled_dot_product_attention:
                query, key, value = (*args, *(kwargs[k] for k in ("query", "key", "value")[len(args) :]))[:3]
                self.macs += query.numel() * key.shape[-2] + query.shape[:-1].numel() * value.shape[-2:].numel()
                return query.new_empty(*query.shape[:-1], value.shape[-1])
            if func is torch.einsum and len(args) == 3:
                terms = args[0].partition("->")[0].split(",")
                sides = {
                    letter: n
                    for term, x in zip(terms, args[1:], strict=True)
                    for letter, n in zip(term, x.shape, strict=True)
                }
                self.macs += prod(sides.values())
            return func(*args, **kwargs)

    return ShapesOnly()
