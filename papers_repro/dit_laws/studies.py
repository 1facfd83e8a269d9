"""Paper D (arXiv 2410.08184): where its published numbers and our results lie."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).parent
RESULTS, PUBLISHED = HERE / "results", HERE / "published"
