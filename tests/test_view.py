"""Views choose by axes and labels, show every token as text, and keep zero in the middle."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image

from mmlens import Neuron, Patch, Scores, Token, view
from mmlens.values.errors import AddressError
from mmlens.view.figures.on_image import patch_grid
from mmlens.view.style import theme
from mmlens.view.style.paint import LOWERS, RAISES, colour, painted, span
from mmlens.view.style.printed import label, visible

PHOTO = Image.new("RGB", (40, 30), (200, 30, 30))
PATCHES = tuple(Patch(row, col) for row in range(3) for col in range(4))
WORDS = (Token(" of", 12), Token("<s>", 13), Token(" of", 14))
ABOUT = {"method": "attribute", "of": " dog", "target": "logit", "model": "toy"}


def on_pos(values: torch.Tensor) -> Scores:
    return Scores(values, ("pos",), {"pos": PATCHES + WORDS}, ABOUT)


@pytest.fixture
def signed() -> Scores:
    values = torch.zeros(15)
    values[5], values[6], values[14] = 2.0, -1.0, 100.0
    return on_pos(values)


# -- on the photo ------------------------------------------------------------------------------


def test_patches_find_their_place_and_words_are_left_out(signed):
    grid = patch_grid(signed)
    assert grid.shape == (3, 4)
    assert grid[1, 1] == 2 and grid[1, 2] == -1
    assert np.abs(grid).max() == 2  # the word's 100 is no patch


def test_hue_is_the_sign_and_opacity_the_size(signed):
    grid = patch_grid(signed)
    assert span(grid) == (True, 2.0)
    rgba = colour(grid, True, 2.0)
    assert tuple(rgba[1, 1, :3]) == RAISES and tuple(rgba[1, 2, :3]) == LOWERS
    assert rgba[0, 0, 3] == 0  # zero hides nothing of the photo
    assert rgba[1, 1, 3] == pytest.approx(2 * rgba[1, 2, 3], abs=1)


def test_the_photo_is_grey_and_a_missing_value_is_hatched():
    grid = np.zeros((2, 2))
    grid[0, 1] = np.nan
    image = np.asarray(painted(PHOTO, grid, True, 1.0, (0, 0, 40, 30))).astype(int)
    assert (image[..., 0] == image[..., 2]).all()  # no colour is left where values are zero
    top, half = image.shape[0] // 2, image.shape[1] // 2
    assert image[:top, half:].std() > 20 and image[top:, half:].std() == 0


def test_the_overlay_covers_the_box_that_the_encoder_sees(signed):
    painted_on = view.on_image(PHOTO, signed, box=(5, 0, 35, 30))
    x = painted_on.data[0].x
    assert x[0] == pytest.approx(5 + 30 / 8) and x[-1] == pytest.approx(35 - 30 / 8)


def test_a_photo_figure_has_its_numbers_title_and_axes(signed):
    figure = view.on_image(PHOTO, signed)
    assert "“dog”" in figure.layout.title.text
    assert "gradient × activation (logit)" in figure.layout.title.subtitle.text
    assert figure.layout.xaxis.title.text == "patch column"
    assert figure.data[0].z[1][1] == 2
    bar = figure.data[1].marker
    assert (bar.cmin, bar.cmax) == (-2, 2)


def test_values_without_a_sign_start_at_zero(signed):
    bar = view.on_image(PHOTO, signed.abs()).data[1].marker
    assert (bar.cmin, bar.cmax) == (0, 2)


@pytest.mark.parametrize(
    "scores, sentence",
    [
        (Scores(torch.zeros(2, 15), ("layer", "pos"), {"pos": PATCHES + WORDS}), "sel(layer=...)"),
        (Scores(torch.zeros(3), ("layer",)), "needs an axis 'pos'"),
        (Scores(torch.zeros(3), ("pos",), {"pos": WORDS}), "There is no patch of picture 0"),
    ],
)
def test_what_no_picture_can_show_is_refused_with_the_next_step(scores, sentence):
    with pytest.raises(AddressError) as caught:
        view.on_image(PHOTO, scores)
    assert sentence in str(caught.value)


# -- grids -------------------------------------------------------------------------------------


def test_a_heat_map_of_both_signs_is_centred_and_blue_raises():
    values = torch.tensor([[1.0, -3.0, 0.0]] * 2)
    heat = view.heatmap(Scores(values, ("layer", "token"), {"token": WORDS})).data[0]
    assert (heat.zmin, heat.zmax, heat.zmid) == (-3, 3, 0)
    assert heat.colorscale[0][1] == "#b2182b" and heat.colorscale[-1][1] == "#2166ac"


def test_probabilities_start_at_zero():
    heat = view.heatmap(Scores(torch.rand(2, 3) + 0.1, ("layer", "token"))).data[0]
    assert heat.zmin == 0 and heat.zmid is None


def test_layers_go_upwards_whatever_the_order_of_axes():
    values = torch.arange(6.0).reshape(3, 2)
    figure = view.heatmap(Scores(values, ("token", "layer"), {"token": WORDS}))
    assert figure.layout.yaxis.title.text == "layer"
    assert (figure.data[0].z == values.T.numpy()).all()


def test_repeated_words_keep_their_own_columns_and_markup_is_text():
    figure = view.heatmap(Scores(torch.rand(2, 3), ("layer", "pos"), {"pos": WORDS}))
    ticks = list(figure.layout.xaxis.ticktext)
    assert ticks == ["·of", "&lt;s&gt;", "·of"]
    assert figure.data[0].customdata[0][1][1] == "&lt;s&gt;, position 13"


def test_patches_are_marked_by_row_and_words_are_wider():
    labels = tuple(Patch(row, col) for row in range(10) for col in range(10)) + WORDS
    figure = view.heatmap(Scores(torch.rand(2, 103), ("layer", "pos"), {"pos": labels}))
    widths = np.diff(figure.data[0].x)
    assert widths[0] == 1 and widths[-1] == 5
    assert list(figure.layout.xaxis.ticktext)[:2] == ["row 0", "row 1"]
    assert len(figure.layout.xaxis.ticktext) == 13


def test_a_heat_map_of_three_axes_is_refused():
    with pytest.raises(AddressError, match="A heat map has two axes"):
        view.heatmap(Scores(torch.rand(2, 2, 2), ("layer", "pos", "token")))


# -- tables and words --------------------------------------------------------------------------


def table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "neuron": [Neuron(0, 5), Neuron(2, 9)],
            "patch": [Patch(1, 1), Patch(0, 2)],
            "score": [1.0, -0.5],
            "words": [[" dog", "<b>"], [" cat"]],
        }
    )


def test_neurons_are_points_with_their_words():
    figure = view.neurons(table())
    points = figure.data[0]
    assert list(points.x) == [5, 9] and list(points.y) == [0, 2]
    assert points.marker.color[0] == theme.colours()["raises"]
    assert points.marker.color[1] == theme.colours()["lowers"]
    assert "decodes to ·dog &lt;b&gt;" in points.customdata[0]


def test_names_in_a_crowd_of_neurons_do_not_cover_each_other():
    crowd = pd.DataFrame(
        {
            "neuron": [Neuron(1, unit) for unit in (10, 10, 12, 500, 900)],
            "score": [5.0, 4.0, 3.0, 2.0, 1.0],
        }
    )
    names = view.neurons(crowd).data[0].text
    assert [name.strip() for name in names] == ["L1.10", "", "", "L1.500", "L1.900"]


def test_a_table_without_neurons_is_refused():
    with pytest.raises(AddressError, match="the columns 'neuron' and 'score'"):
        view.neurons(pd.DataFrame({"word": []}))


def test_coloured_words_are_escaped_and_carry_their_numbers():
    html = view.tokens([" dog", "<img src=x onerror=alert(1)>", "no"], [1.0, -0.5, None])
    assert "<img" not in html and "&lt;img src=x onerror=alert(1)&gt;: -0.5" in html
    assert "·dog: +1" in html and "no: no value" in html
    assert html._repr_html_() == html


def test_words_and_values_must_fit():
    with pytest.raises(AddressError, match="There are 1 words and 2 values"):
        view.tokens(["a"], [1.0, 2.0])


@pytest.mark.parametrize(
    "token, shown",
    [
        (" dog", "·dog"),
        ("\n", "⏎"),
        ("", "∅"),
        (" ", "·"),
        ("a b ", "a b·"),
        ("\x1b[2J", "⟨1b⟩[2J"),
    ],
)
def test_every_token_is_something_to_see(token, shown):
    assert visible(token) == shown


def test_a_direction_mark_cannot_turn_a_line_around():
    assert visible("ab\u202ecd") == "ab⟨202e⟩cd"
    assert label(Patch(1, 2)) == "(1, 2)"


# -- the choice and the theme ------------------------------------------------------------------


def test_show_takes_the_view_that_fits(signed):
    assert view.show(signed, PHOTO).layout.xaxis.title.text == "patch column"
    assert view.show(signed).layout.images  # without a photo, on paper
    assert "mmlens-tokens" in view.show(Scores(torch.rand(3), ("pos",), {"pos": WORDS}))
    assert isinstance(view.show(Scores(torch.rand(3), ("layer",))).data[0], go.Bar)
    assert isinstance(view.show(Scores(torch.rand(3, 2), ("layer", "pos"))).data[0], go.Heatmap)
    assert isinstance(view.show(table()).data[0], go.Scatter)
    with pytest.raises(AddressError, match="A list has no view"):
        view.show([1, 2])


def test_themes_change_the_page_and_unknown_ones_are_refused(signed):
    view.use_theme("dark")
    try:
        dark = view.heatmap(Scores(torch.rand(2, 2), ("layer", "pos")))
    finally:
        view.use_theme("auto")
    assert dark.layout.template.layout.paper_bgcolor == "#14181d"
    assert view.show(signed).layout.template.layout.paper_bgcolor == "#ffffff"
    with pytest.raises(AddressError, match="There is no theme 'pink'"):
        view.use_theme("pink")


def test_no_figure_offers_an_upload(tmp_path, signed):
    import plotly.io as pio

    path = view.save(view.on_image(PHOTO, signed), tmp_path / "figure.html")
    assert '"showSendToCloud": false' in path.read_text(encoding="utf-8")
    assert pio.renderers["plotly_mimetype"].config["showSendToCloud"] is False


def test_the_page_of_pictures_needs_no_plotly():
    code = (
        "import mmlens.view.explorer_page.page, sys; print({'plotly', 'torch'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
