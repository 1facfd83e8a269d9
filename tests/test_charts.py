"""The colours of charts are measured, not believed: contrast on white and distance under colour blindness."""

import itertools

import numpy as np
import pytest

from t2ikit import charts

# Machado, Oliveira, Fernandes 2009, severity 1.0, linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of linear RGB."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("colour", charts.COLOURS)
def test_contrast_on_white_is_that_of_graphics(colour):
    luminance = linear(colour) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) >= 3  # WCAG 2.1, 1.4.11


@pytest.mark.parametrize("vision", VISION)
def test_colours_stay_apart_for_every_eye(vision):
    seen = {colour: lab(VISION[vision] @ linear(colour)) for colour in charts.COLOURS}
    for a, b in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[a] - seen[b]) >= 15, (a, b)  # a just noticeable difference is about 2.3


def test_lines_beyond_the_palette_differ_in_their_dash():
    names = [f"backbone {k}" for k in range(2 * len(charts.COLOURS) + 1)]
    hues, kinds = (f("backbone", names).to_dict()["scale"]["range"] for f in (charts.colours, charts.dashes))
    assert len(set(zip(hues, map(tuple, kinds), strict=True))) == len(names)
    assert hues[: len(charts.COLOURS)] == charts.COLOURS and kinds[0] == [1, 0]


def test_a_chart_says_what_it_is_to_who_cannot_see_it():
    import altair as alt

    charts.use()
    one, other = (alt.Chart(title=title).mark_point() for title in ("loss", "score"))
    data = (one | other)._repr_mimebundle_()
    assert data[charts.VEGALITE_MIME]["description"] == "loss; score" and data["text/plain"] == "<chart: loss; score>"


def test_use_registers_a_legal_notebook_key_and_the_theme():
    import altair as alt
    import nbformat
    import pandas as pd

    charts.use()
    charts.use()
    chart = alt.Chart(pd.DataFrame({"x": [1], "y": [2]}), title="<b>").mark_point().encode(x="x", y="y")
    data = chart._repr_mimebundle_()
    assert data["text/plain"] == "<chart: <b>>"
    assert data[charts.VEGALITE_MIME]["config"]["title"]["fontSize"] == 15
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data=data)])
    nbformat.validate(nbformat.v4.new_notebook(cells=[cell]))
