"""GPUs by name: dense bf16 peak and memory from the makers' data sheets, GPU hours of a budget, and this machine's own
GEMM peak, measured. Marketing peaks count 2:4 sparsity; these do not."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from t2ikit.errors import UserError, choose


@dataclass(frozen=True)
class Gpu:
    """`peak`: FLOP/s of dense bf16 matrix products (fp16 where the chip has no bf16); `memory` in bytes."""

    peak: float
    memory: float
    source: str


GPUS: dict[str, Gpu] = {
    "B200": Gpu(
        2.25e15, 180e9, "NVIDIA DGX B200 data sheet: 72 PFLOP/s sparse FP8 for eight, twice sparse bf16; 1,440 GB"
    ),
    "H200": Gpu(989.4e12, 141e9, "NVIDIA H200 data sheet: 1,979 TFLOP/s sparse"),
    "H100": Gpu(989.4e12, 80e9, "NVIDIA H100 data sheet (SXM): 1,979 TFLOP/s sparse"),
    "H100-PCIe": Gpu(756.5e12, 80e9, "NVIDIA H100 data sheet (PCIe): 1,513 TFLOP/s sparse"),
    "A100-80GB": Gpu(312e12, 80e9, "NVIDIA A100 data sheet: 312 TFLOP/s dense"),
    "A100-40GB": Gpu(312e12, 40e9, "NVIDIA A100 data sheet: 312 TFLOP/s dense"),
    "A40": Gpu(149.7e12, 48e9, "NVIDIA A40 data sheet: 149.7 TFLOP/s dense"),
    "A10": Gpu(125e12, 24e9, "NVIDIA A10 data sheet: 125 TFLOP/s dense"),
    "L40S": Gpu(362.05e12, 48e9, "NVIDIA L40S data sheet: 362.05 TFLOP/s dense"),
    "L4": Gpu(121e12, 24e9, "NVIDIA L4 data sheet: 242 TFLOP/s sparse"),
    "V100": Gpu(125e12, 32e9, "NVIDIA V100 data sheet (SXM2): 125 TFLOP/s fp16, no bf16"),
    "T4": Gpu(65e12, 16e9, "NVIDIA T4 data sheet: 65 TFLOP/s fp16, no bf16"),
    "RTX4090": Gpu(165.2e12, 24e9, "NVIDIA Ada architecture paper: 165.2 TFLOP/s dense, fp32 accumulation"),
    "RTX3090": Gpu(71e12, 24e9, "NVIDIA Ampere GA102 architecture paper: 71 TFLOP/s dense, fp32 accumulation"),
    "MI300X": Gpu(1307.4e12, 192e9, "AMD MI300X data sheet: 1,307.4 TFLOP/s dense"),
    "MI250X": Gpu(383e12, 128e9, "AMD MI250X data sheet: 383 TFLOP/s, both dies"),
}


def gpu(name: str) -> Gpu:
    """The GPU of that name, in any case ("A100" is the 80 GB one); UserError lists the names."""
    return GPUS[canonical_name(name)]


def canonical_name(name: str) -> str:
    """The name in GPUS that `name` means."""
    folded = {known.lower(): known for known in GPUS} | {"a100": "A100-80GB", "h100-sxm": "H100", "rtx-4090": "RTX4090"}
    return choose("GPU", folded.get(str(name).lower().replace(" ", "-"), name), GPUS)


def utilisation(mfu: float) -> float:
    """`mfu`, a model FLOPs utilisation, if it is one: above 0 and up to 1."""
    if not 0 < mfu <= 1:
        raise UserError(f"An MFU of {mfu:g} is not possible: give a number above 0 and up to 1; 0.3 to 0.5 is usual.")
    return mfu


def gpu_hours(flops: float, name: str, *, mfu: float) -> float:
    """Hours of one GPU for `flops` at model FLOPs utilisation `mfu` (0 to 1)."""
    return flops / (gpu(name).peak * utilisation(mfu) * 3600)


def gemm_peak(
    dtype: str = "bf16", *, device: str | None = None, size: int | None = None, seconds: float = 1.0
) -> float:
    """FLOP/s of square matrix products measured here, the median of repeats within about `seconds`.

    dtype: bf16, fp16 or fp32. `size` None: 1,024 on a CPU, 8,192 on a GPU.
    """
    import torch

    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    kind = kinds[choose("dtype", dtype, kinds)]
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    n = size or (1024 if where.type == "cpu" else 8192)
    generator = torch.Generator(device=where).manual_seed(0)
    a, b = (torch.randn(n, n, generator=generator, device=where).to(kind) for _ in range(2))

    def once() -> float:
        start = time.perf_counter()
        a @ b
        if where.type == "cuda":
            torch.cuda.synchronize(where)
        return time.perf_counter() - start

    for _ in range(3):
        once()
    repeats = max(5, min(200, math.ceil(seconds / max(once(), 1e-6))))
    times = sorted(once() for _ in range(repeats))
    return 2 * n**3 / times[len(times) // 2]


def usable(device: str) -> None:
    """UserError unless torch can compute there."""
    import torch

    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise UserError(
            f"The device {device!r} cannot be used ({reason}): choose cpu, or cuda with a driver."
        ) from None
