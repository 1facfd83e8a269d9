"""Paper S's studies (arXiv 2404.02883): which backbones each figure compares, in its order."""

from __future__ import annotations

import json
from pathlib import Path

from t2ikit.study import Study

HERE = Path(__file__).parent
RESULTS, PUBLISHED, PROMPTS = HERE / "results", HERE / "published", HERE / "prompts.json"

FIG03 = Study("fig03", "UNet designs under one setting", ("sd2-c320", "sd2-c512", "sdxl-c320", "ifxl-c512"))
# a backbone of several panels of figure 4 has one place in all, and with it one colour
FIG04A = Study("fig04a", "Width", ("sd2-c320", "sdxl-c320", "sdxl-c128", "sdxl-c192", "sdxl-c384"))
FIG04B = Study(
    "fig04b",
    "Transformer depth",
    (
        "sd2-c320",
        "sdxl-c320",
        "sdxl-td4_4",
        "sdxl-td4_12",
        "sdxl-td4_8",
        "sdxl-td2",
        "sdxl-td4",
        "sdxl-td12",
        "sdxl-td14",
    ),
)
FIG04C = Study(
    "fig04c", "Width and depth", ("sd2-c320", "sdxl-c320", "sdxl-td4_4", "sdxl-td4_12", "sdxl-c384", "sdxl-c384-td4_12")
)
FIG05 = Study(
    "fig05",
    "The same prompts from every UNet",
    (
        "sd2-c320",
        "sdxl-c128",
        "sdxl-c192",
        "sdxl-c320",
        "sdxl-c384",
        "sdxl-td2",
        "sdxl-td4",
        "sdxl-td4_4",
        "sdxl-td4_8",
    ),
)
FIG06 = Study(
    "fig06",
    "PixArt-α beside SD2's UNet",
    ("sd2-c320", "pixart-h1152-d28", "pixart-h1536-d28", "pixart-h1024-d28", "pixart-h1024-d56"),
)
FIG13 = Study("fig13", "SDXL beside TD4_4", ("sdxl-c320", "sdxl-td4_4"))
ALL = Study(
    "all", "Every backbone of these figures",
    tuple(dict.fromkeys(b for s in (FIG03, FIG04A, FIG04B, FIG04C, FIG05, FIG06) for b in s.backbones)),
)  # fmt: skip
STUDIES = {study.name: study for study in (FIG03, FIG04A, FIG04B, FIG04C, FIG05, FIG06, FIG13)}


def prompts(tier: str) -> list[str]:
    """Figure 5's prompts: the published ones at tier paper, elsewhere prompts in the vocabulary of `scenes`."""
    return json.loads(PROMPTS.read_text())["paper" if tier == "paper" else "scenes"]
