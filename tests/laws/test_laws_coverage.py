"""The script behind docs/laws_coverage.md goes with the package: an hour's simulation must not end in a TypeError."""

import csv

import pytest

from benchmarks import laws_coverage as coverage


@pytest.mark.parametrize("part", coverage.PARTS, ids=lambda part: part.__name__)
def test_every_design_can_be_simulated(part):
    tally = coverage.Tally(seed=1, studies=2)
    part(tally)
    assert tally.rows and all(set(row) == set(coverage.FIELDS) for row in tally.rows)


def test_the_page_is_the_tables():
    with (coverage.DOCS / "laws_coverage.csv").open(newline="", encoding="utf-8") as lines:
        assert coverage.table(list(csv.DictReader(lines))) == (coverage.DOCS / "laws_coverage.md").read_text("utf-8")
