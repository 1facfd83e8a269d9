"""Figures read rows: means and spreads over seeds, one loss space, a chart that has what the table has."""

import re

import pandas as pd
import pytest
import vl_convert

from t2ikit import charts, figures
from t2ikit.errors import UserError


def rows(**columns) -> pd.DataFrame:
    """Two seeds of one backbone and one of another, two steps each."""
    table = []
    for backbone, seed, offset in (("sd2-c320", 0, 0.0), ("sd2-c320", 1, 0.2), ("sdxl-c320", 0, 1.0)):
        for step in (0, 100, 200):
            score = offset + step / 100
            table.append(
                dict.fromkeys(("val_loss", "caption_gap"), score)
                | dict.fromkeys(("val_loss_se", "caption_gap_se"), 0.03)
                | dict.fromkeys(("flip_accuracy", "flip_accuracy_se"))
                | {"run": f"{backbone}-{seed}", "backbone": backbone, "world": "scenes", "tier": "tiny", "seed": seed}
                | {"step": step, "images": 64 * step, "flops_paper": 1e9 * step, "flops_exact": 2e9 * step}
                | {"loss_space": "a", "source": "committed"}
                | columns
            )
    return pd.DataFrame(table)


def test_bands_are_a_standard_deviation_of_the_seeds_or_the_interval_of_one():
    table = figures.banded(rows(), "val_loss").set_index(["backbone", "step"])
    assert table.loc[("sd2-c320", 100), "mean"] == pytest.approx(1.1)
    assert table.loc[("sd2-c320", 100), "spread"] == pytest.approx(0.02**0.5)  # of 1.0 and 1.2
    assert table.loc[("sd2-c320", 100), "seeds"] == 2
    assert table.loc[("sdxl-c320", 200), "spread"] == pytest.approx(1.96 * 0.03)  # 95% over validation images
    assert (table["high"] - table["low"]).tolist() == pytest.approx((2 * table["spread"]).tolist())


def test_a_step_that_one_seed_alone_has_makes_no_jag():
    extra = rows().query("run == 'sd2-c320-0' and step == 100").assign(step=150)
    table = figures.banded(pd.concat([rows(), extra]), "val_loss").query("backbone == 'sd2-c320'")
    assert table["step"].tolist() == [0, 100, 200] and table["seeds"].eq(2).all()


def test_a_score_that_some_seeds_lack_says_of_how_many_it_is():
    lacking = rows(tifa=0.4, tifa_se=0.01)
    lacking.loc[lacking["run"] == "sd2-c320-1", "tifa"] = None
    table = figures.final_table(lacking).set_index("backbone")
    assert table.loc["sd2-c320", ["tifa", "tifa ±", "tifa n", "seeds"]].tolist() == [0.4, 0.01, 1, 2]
    assert pd.isna(table.loc["sdxl-c320", "tifa n"])


def test_the_final_table_reads_the_last_step():
    table = figures.final_table(rows()).set_index("backbone")
    assert table.loc["sd2-c320", "val_loss"] == pytest.approx(2.1)
    assert table.loc["sd2-c320", "seeds"] == 2
    assert table.loc["sdxl-c320", "images"] == 12_800
    assert "flip_accuracy" not in table  # this world has none


def test_a_chart_shows_every_backbone_with_its_number_of_seeds_and_no_untrained_step():
    spec = figures.learning_curves(rows(), "step", "val_loss").to_dict()
    (data,) = spec["datasets"].values()
    assert {d["line"] for d in data} == {"sd2-c320 (n = 2)", "sdxl-c320 (n = 1)"}
    assert {d["step"] for d in data} == {100, 200}


def test_a_missing_backbone_leaves_the_others_their_colours():
    def colours(table):
        spec = figures.learning_curves(table, "step", "val_loss", order=("sd2-c320", "sdxl-c320")).to_dict()
        channel = spec["layer"][0]["encoding"]["color"]
        places = {name.split()[0]: i for i, name in enumerate(channel["scale"]["domain"])}
        return {name.split()[0]: places[name.split()[0]] for name in channel["legend"]["values"]}

    whole = colours(rows())
    assert colours(rows().query("backbone == 'sdxl-c320'")) == {"sdxl-c320": whole["sdxl-c320"]}


def test_no_axis_names_compute_below_zero():
    """A first point near 0 and round ends to the axis put a tick at −1e13 FLOPs."""
    charts.use()
    table = rows().assign(flops_paper=lambda t: t["step"].map({0: 0, 100: 2e12, 200: 1.2e14}))
    svg = vl_convert.vegalite_to_svg(figures.learning_curves(table, "flops_paper", "val_loss").to_dict())
    labels = re.findall(r">([^<>]*e[+-]\d+)</text>", svg)
    assert len(labels) > 3 and all(float(label.replace("\N{MINUS SIGN}", "-")) >= 0 for label in labels), labels


def test_two_loss_spaces_are_not_drawn_together():
    mixed = pd.concat([rows(), rows(loss_space="b", run="other")])
    with pytest.raises(UserError, match="different spaces"):
        figures.learning_curves(mixed, "step", "val_loss")


def test_each_world_has_a_row_of_its_own():
    both = pd.concat([rows(), rows(world="pictograms", loss_space="b")])
    spec = figures.by_world(both, "caption_gap").to_dict()
    assert len(spec["vconcat"]) == 2
    # shared, one legend would stand for all, and a shared dash adds a grey entry of the other world's n
    assert spec["resolve"]["scale"] == {"color": "independent", "strokeDash": "independent"}
    more = pd.concat([both, rows(world="scenes", run="another", backbone="ifxl-c512").query("seed == 1")])
    first = figures.by_world(more, "caption_gap").to_dict()["vconcat"][0]["hconcat"][0]["title"]
    assert first.startswith("scenes")


@pytest.mark.parametrize(
    ("x", "y", "words"), [("epoch", "val_loss", "Unknown x axis 'epoch'"), ("step", "fid", "Unknown score 'fid'")]
)
def test_unknown_axes_are_named(x, y, words):
    with pytest.raises(UserError, match=words):
        figures.learning_curves(rows(), x, y)


def test_a_score_that_no_run_has_is_named():
    with pytest.raises(UserError, match="No run has flip_accuracy"):
        figures.by_world(rows(), "flip_accuracy")


def test_the_grid_escapes_prompts():
    import numpy as np

    image = np.zeros((8, 8, 3), np.uint8)
    html = figures.grid({"<b>run</b>": [image]}, ["<script>alert(1)</script>"]).data
    assert "<script" not in html and "<b>" not in html
    assert html.count("<img") == 1


def test_scores_of_a_scatter_have_their_errors_and_a_linear_axis():
    frame = pd.DataFrame({"N": [1e6, 1e7], "tifa": [0.4, 0.5], "family": ["a", "b"], "noise": [0.01, 0.02]})
    bars, points = figures.scatter(frame, "N", "tifa", "family", "Parameters", "TIFA", error="noise").to_dict()["layer"]
    assert points["encoding"]["y"]["scale"] == {"zero": False} and bars["encoding"]["y2"] == {"field": "high"}
    (plain,) = figures.scatter(frame, "N", "tifa", "family", "Parameters", "TIFA").to_dict()["layer"]
    assert plain["encoding"]["y"]["scale"] == {"type": "log"}


def test_what_is_no_seed_is_not_counted_as_one():
    for other in (rows(), rows(run="of another rate"), rows(world="pictograms")):
        both = pd.concat([rows(), other])
        with pytest.raises(UserError, match="Seed 0 of sd2-c320 has several committed rows"):
            figures.banded(both, "val_loss")
    with pytest.raises(UserError, match="several committed rows at step 0"):
        figures.final_table(pd.concat([rows(), rows()]))
    spaces = pd.concat([rows(), rows(backbone="sd2-c512", run="b", loss_space="b").query("seed == 0").iloc[:3]])
    with pytest.raises(UserError, match="different spaces"):
        figures.final_table(spaces)
    assert len(figures.final_table(pd.concat([rows(), rows(world="pictograms")]))) == 4
