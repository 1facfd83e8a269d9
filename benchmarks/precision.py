"""The fastest precision on this CPU, backbone by backbone at tier tiny: `python -m benchmarks.precision`.

fp32            eager: the peer that the ratios are against
bf16            autocast
bf16 compiled   autocast and torch.compile, as `precision=bf16 compile=true` trains; transformers only
fused attention the same with torch's fused attention in bf16 in place of `t2ikit.models.attention`

A step is forward, backward and AdamW over a batch that lies in memory. On one thread images per second of CPU time are
counted, so that a busy machine changes little, on more (`--threads 2`) images per second of an idle machine; the
contenders take turns, and medians are over rounds. `products` says
why a ratio is what it is: the share of an eager step that matrix products, convolutions and attention take, by torch's
profiler; the rest moves memory. docs/precision.json keeps what it printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from contextlib import nullcontext
from unittest.mock import patch

import torch
from torch.profiler import ProfilerActivity, profile

from t2ikit.models import denoiser, zoo
from t2ikit.objectives import DDPM, RectifiedFlow, sample_losses
from t2ikit.train.journal import device_name

EAGER = {"fp32": dict(bf16=False), "bf16": dict(bf16=True)}
COMPILED = {
    "bf16 compiled": dict(bf16=True, compiled=True),
    "fused attention": dict(bf16=True, compiled=True, fused=True),
}
PRODUCTS = ("::mm", "::bmm", "::addmm", "::baddbmm", "::linear", "convolution", "scaled_dot_product", "softmax")
UNETS = ("sd2-c320", "sdxl-c128", "sdxl-c320")
TRANSFORMERS = ("incontext-d6-w160", "crossattn-d4-w160")


def step_of(name: str, batch: int, bf16: bool, compiled: bool = False, fused: bool = False):
    """One training step of the backbone as a function."""
    spec, objective = zoo.spec(name).at("tiny"), DDPM() if name in UNETS else RectifiedFlow()
    model, generator = spec.build(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    shape = (batch, spec.latent_channels, spec.latent_side, spec.latent_side)
    x0, noise = (torch.randn(shape, generator=generator) for _ in range(2))
    states = torch.randn(batch, spec.text_tokens, spec.text_width, generator=generator)
    words = torch.randint(3, spec.text_tokens + 1, (batch, 1), generator=generator)
    mask, t = torch.arange(spec.text_tokens) < words, objective.timesteps(torch.rand(batch, generator=generator))
    forward = torch.compile(model) if compiled else model
    attention = (lambda _: nullcontext()) if fused else denoiser.quick_attention

    def step() -> None:
        with patch.object(denoiser, "quick_attention", attention), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = sample_losses(forward, objective, x0, noise, t, states, mask).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def products(step) -> float:
    """The share of one step's time that goes into matrix products, convolutions and attention."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    spent = [(event.key, event.self_cpu_time_total) for event in seen.key_averages()]
    return sum(t for name, t in spent if any(word in name for word in PRODUCTS)) / sum(t for _, t in spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=[*UNETS, *TRANSFORMERS])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clock, second = (time.process_time, "cpu_second") if args.threads == 1 else (time.perf_counter, "second")
    table = []
    for name in args.backbones:
        kinds = EAGER if name in UNETS else EAGER | COMPILED
        contenders = {kind: step_of(name, args.batch, **how) for kind, how in kinds.items()}
        rates: dict[str, list[float]] = {kind: [] for kind in contenders}
        for number in range(args.rounds + 1):
            for kind, step in contenders.items():
                start = clock()
                for _ in range(args.steps):
                    step()
                if number:  # the first round warms up
                    rates[kind].append(args.steps * args.batch / (clock() - start))
        cost = zoo.spec(name).at("tiny").cost()
        middle = {kind: statistics.median(rate) for kind, rate in rates.items()}
        about = {"device": device_name(torch.device("cpu")), "torch": torch.__version__}
        about |= {"threads": args.threads, "batch": args.batch}
        table.append(
            {"backbone": name, "params": cost.params} | about | {
                f"images_per_{second}": {kind: round(rate, 1) for kind, rate in middle.items()},
                "over_fp32": {kind: round(rate / middle["fp32"], 2) for kind, rate in middle.items()},
                "products": {kind: round(products(contenders[kind]), 2) for kind in EAGER},
                f"gflops_per_{second}": {k: round(r * cost.flops_train / 1e9, 1) for k, r in middle.items()},
            }
        )  # fmt: skip
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
