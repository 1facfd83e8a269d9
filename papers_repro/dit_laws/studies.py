"""Paper D (arXiv 2410.08184): its isoFLOP studies, and where its published numbers and our results lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from t2ikit.isoflop import Grid, IsoFlop, read_rates

HERE = Path(__file__).parent
RESULTS, PUBLISHED = HERE / "results", HERE / "published"
RATES = RESULTS / "rates.csv"

# (depth, width) of the sizes: a factor of 1.5 to 2 in parameters; at `paper` 1M to 1B, depths 2 to 15
SIZES = {
    "smoke": ((2, 32), (4, 32), (2, 64), (2, 96)),
    "tiny": ((2, 32), (4, 32), (2, 64), (3, 64), (2, 96), (3, 96), (3, 128), (4, 160), (5, 192), (6, 256)),
    "small": (
        (3, 128), (4, 160), (5, 192), (5, 256), (6, 320), (7, 448), (8, 576), (9, 768), (10, 1024), (12, 1280),
        (13, 1600)
    ),
    "paper": (
        (2, 192), (3, 256), (4, 320), (5, 448), (6, 576), (8, 768), (10, 1024), (12, 1280), (14, 1984), (15, 2368)
    ),
}  # fmt: skip
BUDGETS = {
    "smoke": (3e9, 5e9, 8e9, 1.3e10, 2e10),
    "tiny": (3e12, 7e12, 1.7e13, 4e13, 1e14),
    "small": (1e15, 3e15, 1e16, 3e16, 1e17),
    "paper": (1e17, 3e17, 6e17, 1e18, 3e18, 6e18),
}
# a batch so small that the smallest budget buys most sizes 1,000 steps; the usual β2 of 0.999 is still the best there
# (results/beta2.csv); the rate and batch of paper D at `paper`
SETTINGS = {
    "smoke": {"batch": 2, "warmup": 0},
    "tiny": {"batch": 8},
    "small": {"batch": 64, "warmup": 100},
    "paper": {"batch": 1024, "warmup": 100, "lr": 1e-4},
}
# about equal N at several shapes, thin and deep to wide and shallow
SHAPES = {
    "smoke": ((1, 64), (4, 32)),
    "tiny": ((14, 64), (6, 96), (3, 128), (1, 224)),
    "small": ((15, 256), (7, 384), (4, 512), (2, 704)),
    "paper": ((15, 768), (8, 1024), (5, 1280), (2, 2048)),
}
# far beyond the largest budget, the size of the ladder nearest to the optimum there by the law (at `tiny` 1.4M to 2.4M
# parameters for 5e14 FLOPs): to be predicted before it is trained
FAR = {"smoke": (6e10, (3, 96)), "tiny": (5e14, (5, 192)), "small": (5e17, (9, 768)), "paper": (1.5e21, (15, 2304))}
# rates as multiples of each size's own: around it, and well outside
FACTORS = (1 / 16, 1 / 4, 1 / 2, 1, 2, 4, 16)


def along(
    family: str,
    world: str = "scenes",
    name: str = "",
    sizes: Mapping[str, Sequence[tuple[int, int]]] = SIZES,
    budgets: Mapping[str, Sequence[float]] = BUDGETS,
    grid: Mapping[str, Any] | None = None,  # more of each `Grid`
    title: str = "",
    **settings: Any,
) -> IsoFlop:
    """The isoFLOP study of a ladder of transformers, trained by rectified flow, with `settings` of RunConfig on top (a
    mapping: a value for each tier)."""
    grids = {
        tier: Grid(
            tuple(f"{family}-d{depth}-w{width}" for depth, width in sizes[tier]),
            tuple(budgets[tier]),
            {"objective": "rf-logit-normal"}
            | SETTINGS[tier]
            | {k: v[tier] if isinstance(v, Mapping) else v for k, v in settings.items()},
            least_steps=2 if tier == "smoke" else 1000,
            pairs=108e6 if tier == "paper" else None,
            passing=tuple(BUDGETS[tier]),
            **(grid or {}),
        )
        for tier in SIZES
    }
    said = "".join(f", {k} {v}" for k, v in settings.items() if not isinstance(v, Mapping))
    title = title or f"isoFLOP profiles of {family} on {world}{said}"
    return IsoFlop(name or f"isoflop-{family}-{world}", title, grids, world, read_rates(RATES))


INCONTEXT = along("incontext")
CROSSATTN = along("crossattn")
ADALN = along("incontext-adaln")
MMDIT = along("mmdit")
FLUX = along("flux")
PIXART = along("pixart")
LARGER = along(
    "incontext", name="isoflop-incontext-twice", resolution=dict.fromkeys(SIZES, 128) | {"paper": 512},
    title="isoFLOP profiles of incontext on scenes at twice the resolution",
)  # fmt: skip
DENSE, SPARSE = (along("incontext", name=f"isoflop-incontext-{c}", captions=c) for c in ("dense", "sparse"))
ENUMERATED, SINGLE, PICTOGRAMS = (
    along("incontext", world) for world in ("scenes-enumerated", "scenes-single", "pictograms")
)
MIDDLE = {tier: (sorted(at)[len(at) // 2],) for tier, at in BUDGETS.items()}
WIDTH_DEPTH = along(
    "incontext", name="width-depth", sizes=SHAPES, budgets=MIDDLE, title="Width against depth at equal parameters"
)
LEARNING_RATE = along(
    "incontext", name="learning-rate", sizes={t: s[:1] if t == "smoke" else s[:9:3] for t, s in SIZES.items()},
    budgets=MIDDLE, grid={"factors": FACTORS, "most_steps": 10**7}, title="Learning rates of three sizes: with --rates",
)  # fmt: skip
FURTHER = along(
    "incontext", name="far", sizes={t: (size,) for t, (_, size) in FAR.items()},
    budgets={t: (c,) for t, (c, _) in FAR.items()}, grid={"most_steps": 10**7},
    title="One run far beyond the budgets of isoflop-incontext-scenes",
)  # fmt: skip
STUDIES = {
    study.name: study
    for study in (
        INCONTEXT, CROSSATTN, ADALN, MMDIT, FLUX, PIXART, LARGER, DENSE, SPARSE, ENUMERATED, SINGLE, WIDTH_DEPTH,
        LEARNING_RATE, FURTHER, PICTOGRAMS,
    )
}  # fmt: skip
