"""Figures without a browser: what a still picture shows is what the figure holds."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image, ImageColor

from mmlens import Patch, Scores, Token, view
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.view.still.drawing import png, still, svg
from mmlens.view.still.frame import round_ticks
from mmlens.view.still.marks import Photo, Shape, Text
from mmlens.view.still.raster import to_picture
from mmlens.view.style import theme
from mmlens.view.style.colourscale import on, read

EVIL = "<img src=x onerror=alert(1)>"
PHOTO = Image.new("RGB", (40, 30), (200, 30, 30))
PATCHES = tuple(Patch(row, col) for row in range(3) for col in range(4))


def grid() -> Scores:
    values = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
    return Scores(values, ("layer", "pos"), {"pos": (Token(EVIL, 0), Token(" a", 1))})


def test_the_cells_of_a_heat_map_have_their_colours_and_places():
    figure = view.heatmap(grid())
    (width, height), _, marks, _ = still(figure)
    stops = read(figure.data[0].colorscale)
    wanted = [on(stops, (value + 3) / 6) for value in (1.0, -3.0, 0.0, 2.0)]
    cells = [m for m in marks if isinstance(m, Shape) and not m.width][:4]
    assert [cell.colour for cell in cells] == wanted
    (x0, y0), (x1, y1) = cells[0].points[0], cells[3].points[0]
    assert x0 < x1 and y0 > y1  # layer 1 lies above layer 0
    assert all(0 <= x <= width and 0 <= y <= height for cell in cells for x, y in cell.points)


def test_a_png_shows_the_same_colours_where_the_marks_say():
    figure = view.heatmap(grid())
    _, _, marks, _ = still(figure)
    picture = png(figure, 2)
    assert picture.size == (2 * 700, 2 * figure.layout.height)
    for cell in [m for m in marks if isinstance(m, Shape) and not m.width][:4]:
        x, y = np.mean(cell.points, 0)
        assert picture.getpixel((round(2 * x), round(2 * y))) == ImageColor.getrgb(cell.colour)


def test_a_png_has_the_letters_of_its_svg_with_and_without_fonts_on_the_machine():
    figure = view.heatmap(grid(), title="attribution")
    document = svg(figure)
    mute = re.sub(r"<text.*?</text>", "", document, flags=re.DOTALL)
    for system_fonts in (True, False):
        written = np.asarray(to_picture(document, 1, system_fonts=system_fonts), float)
        blank = np.asarray(to_picture(mute, 1, system_fonts=system_fonts), float)
        inked = np.argwhere((written != blank).any(-1))
        top = inked[inked[:, 0] < 40]  # the title: its letters are dark, 16 high, from the left on
        assert len(top) > 200 and top[:, 1].min() < 20
        assert written[tuple(top.T)].min() < 60


@pytest.mark.parametrize("scale", [0.1, 1, 1.5, 3])
def test_a_png_has_scale_pixels_per_pixel_of_its_figure(scale):
    figure = view.heatmap(grid())
    picture, tall = png(figure, scale), figure.layout.height
    assert picture.mode == "RGB"
    assert picture.size == pytest.approx((700 * scale, tall * scale), abs=1)


def test_an_svg_is_xml_whose_tokens_are_text():
    for figure in (view.heatmap(grid()), view.heatmap(grid(), title=EVIL)):
        tree = ElementTree.fromstring(svg(figure))
        texts = [one.text for one in tree.iter("{http://www.w3.org/2000/svg}text")]
        assert any(EVIL in (text or "") for text in texts)
        assert not list(tree.iter("{http://www.w3.org/2000/svg}img"))


def test_bars_are_as_long_as_their_values():
    figure = view.bars(Scores(torch.tensor([2.0, -1.0, 4.0]), ("layer",)))
    _, _, marks, _ = still(figure)
    shapes = [m for m in marks if isinstance(m, Shape) and not m.width]
    lengths = [m.points[0][1] - m.points[2][1] for m in shapes]
    assert lengths[0] / lengths[2] == pytest.approx(0.5)
    assert lengths[1] / lengths[2] == pytest.approx(-0.25)
    assert [m.colour for m in shapes][1] == theme.colours()["lowers"]


def test_categories_stand_in_their_order_and_intervals_at_their_ends():
    error = {"type": "data", "symmetric": False, "array": [1.0, 0.0], "arrayminus": [0.5, 0.0]}
    figure = go.Figure(go.Scatter(x=[2.0, 4.0], y=["b", "a"], mode="markers", error_x=error))
    figure.update_layout(template=theme.template(), yaxis={"categoryarray": ["a", "b"]})
    _, _, marks, _ = still(figure)
    places = {m.text: m.y for m in marks if isinstance(m, Text) and m.text in ("a", "b")}
    assert places["b"] < places["a"]
    (line,) = [
        m
        for m in marks
        if isinstance(m, Shape) and m.width == 1.5 and m.points[0][0] != m.points[1][0]
    ]
    points = [np.mean(m.points, 0) for m in marks if isinstance(m, Shape) and not m.width]
    (x0, y0), (x1, _) = line.points
    apart = points[1][0] - points[0][0]  # 2 units
    assert y0 == pytest.approx(places["b"], abs=1) and (x1 - x0) / apart == pytest.approx(0.75)


def test_lines_pass_through_their_values():
    curve = Scores(
        torch.tensor([[0.0, 1.0, 4.0]]), ("arm", "k"), {"arm": ("ranked",), "k": (0, 10, 40)}
    )
    _, _, marks, _ = still(view.curves(curve))
    line = max((m for m in marks if isinstance(m, Shape) and m.width > 2), key=lambda m: m.width)
    (x0, y0), (x1, y1), (x2, y2) = line.points
    assert (x1 - x0) / (x2 - x0) == pytest.approx(0.25)
    assert (y1 - y0) / (y2 - y0) == pytest.approx(0.25)


def test_a_picture_is_in_its_still_and_keeps_its_proportions():
    figure = view.on_image(PHOTO, Scores(torch.randn(12), ("pos",), {"pos": PATCHES}))
    _, _, marks, _ = still(figure)
    photo = next(m for m in marks if isinstance(m, Photo))
    assert photo.width / photo.height == pytest.approx(4 / 3)


def test_no_text_leaves_the_paper():
    maps = Scores(torch.rand(2, 12), ("token", "pos"), {"token": (" a", EVIL), "pos": PATCHES})
    curve = Scores(torch.rand(2, 3), ("arm", "k"), {"arm": ("ranked", EVIL), "k": (0, 1, 2)})
    for figure in (view.heatmap(grid()), view.panels(PHOTO, maps), view.curves(curve)):
        (width, height), _, marks, _ = still(figure)
        for mark in marks:
            if isinstance(mark, Text) and not mark.turn:
                assert 0 <= mark.x <= width and 0 <= mark.y <= height


@pytest.mark.parametrize("low, high", [(0, 1), (-3, 8), (0.001, 0.0042), (1e6, 9e6)])
def test_ticks_are_round_and_lie_inside(low, high):
    ticks = round_ticks(low, high, 5)
    assert 2 <= len(ticks) <= 11 and all(low <= t <= high for t in ticks)
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
    digits = f"{ticks[1] - ticks[0]:.0e}"[0]
    assert digits in "125"


def test_what_only_plotly_draws_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(CapabilityError, match="has a 'violin': write it as .html"):
        view.save(go.Figure(go.Violin(y=[1, 2])), tmp_path / "a.svg")
    with pytest.raises(CapabilityError, match="has dates, or names beside numbers"):
        view.save(go.Figure(go.Bar(x=np.array(["2020-01-01"], "M8[D]"), y=[1])), tmp_path / "a.png")
    with pytest.raises(CapabilityError, match="only a browser"):
        view.save("<p>a part of a view</p>", tmp_path / "a.png")
    with pytest.raises(CapabilityError, match="no numbers of its own"):
        view.save("<p>a part of a view</p>", tmp_path / "a.csv")
    with pytest.raises(AddressError, match=re.escape("in .html, .svg, .pdf, .png or .csv")):
        view.save(view.heatmap(grid()), tmp_path / "a.eps")
    with pytest.raises(AddressError, match="A list is no figure"):
        view.save([1], tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_every_format_is_written(tmp_path):
    figure = view.heatmap(grid())
    assert view.save(figure, tmp_path / "a.svg").read_text().startswith("<svg")
    assert Image.open(view.save(figure, tmp_path / "a.png", scale=1)).size[0] == 700
    page = view.save(view.tokens([EVIL], [1.0]), tmp_path / "a.html").read_text()
    assert "default-src 'none'" in page and "<img src=x" not in page


# -- in notebooks ------------------------------------------------------------------------------


def test_a_figure_in_a_notebook_carries_a_still_picture_beside_its_json(monkeypatch):
    import plotly.io as pio

    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    bundle = view.heatmap(grid())._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.plotly.v1+json", "image/svg+xml"}
    ElementTree.fromstring(bundle["image/svg+xml"])


def test_scores_show_themselves_once_views_are_imported(monkeypatch):
    import plotly.io as pio

    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    bundle = grid()._repr_mimebundle_()
    assert "image/svg+xml" in bundle and bundle["text/plain"] == repr(grid())
    words = Scores(torch.rand(1), ("pos",), {"pos": (Token(EVIL, 0),)})._repr_mimebundle_()
    assert "&lt;img" in words["text/html"] and "<img" not in words["text/html"]
    assert set(Scores(torch.rand(2, 2, 2, 2), tuple("abcd"))._repr_mimebundle_()) == {"text/plain"}


def test_without_a_notebook_the_switch_says_what_to_write():
    with pytest.raises(CapabilityError, match="There is no notebook here"):
        view.notebook()
