"""Paper D (arXiv 2410.08184): its isoFLOP studies, and where its published numbers and our results lie."""

from __future__ import annotations

from pathlib import Path

from t2ikit.isoflop import Grid, IsoFlop, read_rates

HERE = Path(__file__).parent
RESULTS, PUBLISHED = HERE / "results", HERE / "published"
RATES = RESULTS / "rates.csv"

# (depth, width) of the sizes: a factor of 1.5 to 2 in parameters; at `paper` 1M to 1B, depths 2 to 15
SIZES = {
    "smoke": ((2, 32), (2, 64), (2, 96)),
    "tiny": ((2, 32), (4, 32), (2, 64), (3, 64), (2, 96), (3, 96), (3, 128), (4, 160), (5, 192), (6, 256)),
    "small": ((3, 128), (4, 160), (5, 192), (5, 256), (6, 320), (7, 448), (8, 576), (9, 768)),
    "paper": (
        (2, 192), (3, 256), (4, 320), (5, 448), (6, 576), (8, 768), (10, 1024), (12, 1280), (14, 1984), (15, 2368)
    ),
}  # fmt: skip
BUDGETS = {
    "smoke": (2e9, 4e9),
    "tiny": (3e12, 7e12, 1.7e13, 4e13, 1e14),
    "small": (1e15, 3e15, 1e16, 3e16, 1e17),
    "paper": (1e17, 3e17, 6e17, 1e18, 3e18, 6e18),
}
# a batch so small that the smallest budget buys most sizes 1,000 steps; the rate and batch of paper D at `paper`
SETTINGS = {
    "smoke": {"batch": 4},
    "tiny": {"batch": 8},
    "small": {"batch": 64, "warmup": 100},
    "paper": {"batch": 1024, "warmup": 100, "lr": 1e-4},
}


def along(family: str, world: str = "scenes") -> IsoFlop:
    """The isoFLOP study of a ladder of transformers, trained by rectified flow."""
    grids = {
        tier: Grid(
            tuple(f"{family}-d{depth}-w{width}" for depth, width in SIZES[tier]),
            BUDGETS[tier],
            {"objective": "rf-logit-normal"} | SETTINGS[tier],
            least_steps=20 if tier == "smoke" else 1000,
            pairs=108e6 if tier == "paper" else None,
        )
        for tier in SIZES
    }
    name = f"isoflop-{family}-{world}"
    return IsoFlop(name, f"isoFLOP profiles of {family} on {world}", grids, world, read_rates(RATES))


INCONTEXT = along("incontext")
CROSSATTN = along("crossattn")
STUDIES = {study.name: study for study in (INCONTEXT, CROSSATTN, along("incontext", "pictograms"))}
