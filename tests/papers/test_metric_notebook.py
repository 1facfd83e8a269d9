"""The notebook about metrics is executed, exported and read offline."""

from pathlib import Path

import pytest

from t2ikit import batch, report

NOTEBOOK = Path(__file__).parent.parent.parent / "notebooks" / "what_does_this_metric_see.ipynb"


@pytest.mark.slow
def test_what_does_this_metric_see(home, tmp_path, read_offline):
    executed = batch.execute(NOTEBOOK, {"prompts": 6, "shown": 4}, tmp_path / "seen.ipynb")
    report.export(executed, tmp_path / "seen.html")
    page = read_offline(tmp_path / "seen.html")
    assert page.locator("img").count() >= 3
    assert "one true image, 300 times" in page.content()
    assert "questions, " in page.content() and "answered wrongly" in page.content()
