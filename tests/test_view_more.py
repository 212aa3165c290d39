"""What the further views draw equals the numbers, and no text of theirs is ever markup."""

from __future__ import annotations

import re
from unittest.mock import Mock

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image

from mmlens import Neuron, Patch, Scores, Token, view
from mmlens.values.errors import AddressError
from mmlens.view import choose
from mmlens.view.figures import attention_text
from mmlens.view.figures.cards import spotlight
from mmlens.view.figures.curves import interval
from mmlens.view.style import theme
from mmlens.view.style.colourscale import ink_on
from mmlens.view.style.paint import finer, outlined, painted

EVIL = "<img src=x onerror=alert(1)>"
PHOTO = Image.new("RGB", (40, 30), (200, 30, 30))
PATCHES = tuple(Patch(row, col) for row in range(3) for col in range(4))
WORDS = (Token(" of", 12), Token(EVIL, 13))
LAYERS = tuple(range(3))


def scores(*sizes: int, axes: str, **labels: object) -> Scores:
    values = torch.arange(float(np.prod(sizes))).reshape(sizes)
    return Scores(values, tuple(axes.split()), dict(labels), {"method": "patch"})  # type: ignore[arg-type]


# -- on the photo ------------------------------------------------------------------------------


def test_smooth_values_meet_the_patches_in_their_middles_and_never_leave_their_range():
    grid = np.array([[0.0, 1.0], [2.0, -3.0]])
    fine = finer(grid, (40, 40))
    assert fine[10, 10] == pytest.approx(0, abs=0.2) and fine[30, 30] == pytest.approx(-3, abs=0.2)
    assert fine.min() >= -3 and fine.max() <= 2
    assert fine[10, 20] == pytest.approx(0.5, abs=0.1)  # halfway between 0 and 1


def test_a_mask_is_outlined_and_its_inside_left_alone():
    mask = np.zeros((30, 40), bool)
    mask[10:20, 10:30] = True
    plain = painted(PHOTO, np.zeros((3, 4)), True, 1.0, (0, 0, 40, 30))
    drawn = painted(PHOTO, np.zeros((3, 4)), True, 1.0, (0, 0, 40, 30), mask=mask)
    changed = (np.asarray(plain) != np.asarray(drawn)).any(-1)
    assert changed[160:165].any() and not changed[200:280, 200:440].any()
    assert {(0, 0, 0), (255, 255, 255)} <= set(
        map(tuple, np.asarray(drawn).reshape(-1, 3).tolist())
    )
    with pytest.raises(AddressError, match="give one value per pixel"):
        outlined(plain, mask.T, PHOTO.size)


def test_every_panel_holds_its_own_numbers_on_one_scale():
    maps = scores(2, 14, axes="token pos", token=(" a", EVIL), pos=PATCHES + WORDS)
    figure = view.panels(PHOTO, maps)
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(heats) == len(figure.layout.images) == 2
    for heat, row in zip(heats, maps.numpy(), strict=True):
        assert (heat.z == row[:12].reshape(3, 4)).all()
    assert figure.data[-1].marker.cmax == 25  # the largest of all patches, not of the words
    assert [note.text for note in figure.layout.annotations][1].startswith("&lt;img src=x")


def test_two_other_axes_are_rows_and_columns():
    heads = scores(3, 2, 12, axes="layer head key", layer=LAYERS, key=PATCHES)
    figure = view.panels(PHOTO, heads, shared=False)
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    assert (heats[3].z == heads.numpy()[1, 1].reshape(3, 4)).all()
    first, second, below = (figure.layout[f"xaxis{n}"].domain for n in ("", 2, 3))
    assert first == below and second[0] > first[1]
    assert figure.layout.yaxis3.domain[1] < figure.layout.yaxis.domain[0]


def test_panels_of_one_layer_stand_in_rows_and_not_in_one_line():
    one = scores(1, 24, 12, axes="layer unit pos", layer=(3,), pos=PATCHES)
    figure = view.panels(one, PHOTO)
    heats = [trace for trace in figure.data if trace.type == "heatmap"]
    assert (heats[7].z == one.numpy()[0, 7].reshape(3, 4)).all()
    wide = figure.layout.xaxis.domain
    assert wide[1] - wide[0] > 0.1 and "layer 3" in figure.layout.title.subtitle.text


def test_names_above_panels_are_no_wider_than_these():
    words = ("<start_of_text>", "a", "dog", "cat", "end", "<end_of_text>")
    figure = view.panels(scores(6, 12, axes="token pos", token=words, pos=PATCHES), PHOTO)
    names = [note.text for note in figure.layout.annotations]
    assert names[1:3] == ["a", "dog"] and names[0].endswith("…") and len(names[0]) < 24


def test_several_words_are_no_word_of_a_title():
    told = {"method": "attribute", "of": ["a dog", "a cat"], "target": "logit"}
    several = Scores(torch.ones(2, 12), ("token", "pos"), {"pos": PATCHES,
                     "token": ("a dog", "a cat")}, told)  # fmt: skip
    assert "Attribution of each word" in view.panels(several, PHOTO).layout.title.text
    assert "of “a cat”" in view.on_image(several.sel(token="a cat"), PHOTO).layout.title.text


@pytest.mark.parametrize(
    "refused, sentence",
    [
        (scores(3, 2, axes="layer head"), "no patches"),
        (scores(200, 12, axes="unit pos", pos=PATCHES), "makes 200 panels"),
    ],
)
def test_panels_that_cannot_be_drawn_are_refused(refused, sentence):
    with pytest.raises(AddressError, match=sentence):
        view.panels(PHOTO, refused)


# -- words in cells ----------------------------------------------------------------------------


def lens_table(layers: int = 2) -> pd.DataFrame:
    rows = [
        (layer, pos, rank, word, 0.9 / (1 + rank) / (1 + layer))
        for layer in range(layers)
        for pos in (*PATCHES[:2], *WORDS)
        for rank, word in enumerate((EVIL, " cat"))
    ]
    return pd.DataFrame(rows, columns=["layer", "pos", "rank", "token", "prob"])


def test_a_lens_shows_the_best_word_and_its_number_in_each_cell():
    figure = view.lens(lens_table())
    heat, words = figure.data
    assert heat.z.shape == (2, 4)
    assert heat.z[0] == pytest.approx(0.9) and heat.z[1] == pytest.approx(0.45)
    assert (heat.zmin, heat.zmax) == (0, 1)
    assert set(words.text) == {"&lt;img sr…"}
    assert "·cat 0.45" in heat.customdata[0][0] and EVIL not in heat.customdata[0][0]


def test_heads_stand_where_layers_do():
    table = lens_table().rename(columns={"layer": "head"})
    figure = view.lens(table)
    assert (figure.data[0].z == view.lens(lens_table()).data[0].z).all()
    assert figure.layout.yaxis.title.text == "head" and "head 1" in figure.data[0].customdata[1][0]


def test_one_layer_of_patches_is_a_grid_of_rows_and_columns():
    figure = view.lens(lens_table(1))
    assert figure.data[0].z.shape == (1, 2)
    assert figure.layout.xaxis.title.text == "patch column"
    assert "2 positions of words left out" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_words_on_cells_are_black_or_white_whichever_contrasts_more():
    assert ink_on("#ffffff") == "#000000" and ink_on("#182a5c") == "#ffffff"

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name in ("sequential", "diverging"):
        for colour in theme.colours()[name]:
            low, high = sorted((light(colour), light(ink_on(colour))))
            assert (high + 0.05) / (low + 0.05) >= 4.5


# -- lines -------------------------------------------------------------------------------------

ARMS = ("ranked", "random 1", "random 2", "random 3")


def test_random_arms_are_one_line_with_a_band_from_least_to_largest():
    curve = scores(4, 3, axes="arm k", arm=ARMS, k=(0, 1, 5))
    figure = view.curves(curve)
    ranked, band, random = figure.data
    assert list(ranked.x) == [0, 1, 5] and list(ranked.y) == [0, 1, 2]
    assert list(random.y) == [6, 7, 8]  # the mean of rows 1 to 3
    assert list(band.y) == [9, 10, 11, 5, 4, 3]
    assert "least to largest of 3 random draws" in figure.layout.title.subtitle.text


def test_an_interval_over_prompts_holds_the_mean_and_shrinks_with_their_number():
    few = np.random.default_rng(1).normal(size=(10, 2))
    low, high = interval(few)
    assert (low < few.mean(0)).all() and (few.mean(0) < high).all()
    many = interval(np.tile(few, (16, 1)))
    assert (many[1] - many[0] < 0.5 * (high - low)).all()
    assert (interval(np.ones((5, 2)))[0] == 1).all()


def test_curves_over_prompts_draw_the_mean():
    values = torch.rand(6, 2, 3)
    told = {"arm": ("ranked", "rest"), "k": (0, 1, 5)}
    figure = view.curves(Scores(values, ("prompt", "arm", "k"), told))
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert np.allclose(lines[0].y, values[:, 0].mean(0))
    low, high = np.asarray(lines[0].customdata).T
    assert (low <= lines[0].y).all() and (lines[0].y <= high).all()
    assert "95 % interval over 6 prompts" in figure.layout.title.subtitle.text


def test_models_of_different_depth_meet_at_the_share_of_the_way():
    parts = {"a": scores(3, axes="layer", layer=LAYERS), "b": scores(5, axes="layer")}
    figure = view.compare(parts)
    assert list(figure.data[0].x) == [0, 0.5, 1] and list(figure.data[1].x)[1] == 0.25
    assert "b has 5 layers" in figure.layout.title.subtitle.text


def test_compared_maps_share_one_scale():
    small, large = scores(2, 3, axes="layer head"), scores(2, 3, axes="layer head")
    large = Scores(large.values * 10, large.axes)
    one, two = view.compare({EVIL: small, "large": large}).data
    assert (one.zmin, one.zmax) == (two.zmin, two.zmax) == (0, 50)
    with pytest.raises(AddressError, match="two or more Scores of the same axes"):
        view.compare({"a": small, "b": scores(3, axes="layer")})


# -- HTML --------------------------------------------------------------------------------------


def said() -> pd.DataFrame:
    words = [[EVIL, " dog"], [" cat"]]
    return pd.DataFrame({"neuron": [Neuron(0, 5), Neuron(2, 9)], "words": words})


def pictured(html: str) -> bool:
    """Whether every address in the page is one of data."""
    return all(one.startswith("data:image/") for one in re.findall(r'src="([^"]*)"', html))


def test_cards_and_galleries_show_words_as_text_and_pictures_as_data():
    active = scores(2, 12, axes="neuron pos", neuron=(Neuron(0, 5), Neuron(2, 9)), pos=PATCHES)
    cards = view.cards(said(), picture=PHOTO, activations=active, title=EVIL)
    top = pd.DataFrame({"neuron": [Neuron(0, 5)], "sample": [EVIL], "value": [3.0]})
    maps = {(Neuron(0, 5), EVIL): active.sel(neuron=Neuron(0, 5))}
    gallery = view.gallery(top, {EVIL: PHOTO}, maps=maps, said=said())
    for html in (cards, gallery):
        assert "<img src=x" not in html and "&lt;img src=x onerror=alert(1)&gt;" in html
        assert pictured(html) and html.count('src="data:') >= 1
    with pytest.raises(AddressError, match="There is no picture of"):
        view.gallery(top, {})


def test_a_gallery_outlines_what_lies_above_half_of_the_maximum_and_dims_nothing():
    grid = np.zeros((3, 4))
    grid[1, 1] = 4.0
    seen = np.asarray(spotlight(PHOTO, grid)).astype(int)
    height, width = seen.shape[:2]
    assert tuple(seen[height // 2, round(width * 1.5 / 4)]) == (200, 30, 30)  # inside, as it was
    assert tuple(seen[height - 3, width - 3]) == (200, 30, 30)  # outside, as it was
    edge = (seen == 255).all(-1)
    rows, columns = np.nonzero(edge)
    assert rows.min() / height > 0.3 and rows.max() / height < 0.7
    assert columns.min() / width > 0.2 and columns.max() / width < 0.55


def test_a_pattern_on_the_picture_holds_every_number():
    import base64
    import json

    pattern = torch.rand(2, 14, 14)
    pattern = Scores(
        pattern / pattern.sum(-1, keepdim=True),
        ("head", "query", "key"),
        {"query": PATCHES + WORDS, "key": PATCHES + WORDS},
    )
    html = view.attention_on_image(PHOTO, pattern)
    assert "<img src=x" not in html
    found = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert found is not None
    data = json.loads(found[1])
    for one, true in zip(data["patterns"], pattern.numpy(), strict=True):
        whole = np.frombuffer(base64.b64decode(one["data"]), np.uint8).reshape(14, 14)
        assert np.allclose(whole * np.array(one["scale"])[:, None], true, atol=true.max() / 400)
    assert data["queries"][13] == {"text": EVIL} and data["start"] == 13


def test_attention_as_text_is_offline_escaped_closed_and_limited(monkeypatch):
    import circuitsvis.utils.render as theirs

    monkeypatch.setattr(theirs, "internet_on", lambda: pytest.fail("it asked for the network"))
    words = (Token(" a", 0), Token(EVIL, 1), Token("</script>", 2))
    pattern = scores(2, 3, 3, axes="head query key", query=words, key=words)
    html = view.attention_text(pattern)
    assert "<img" not in html and "</script>‹" not in html and "unpkg" not in html
    assert attention_text.harmless(EVIL) == "‹img src=x onerror=alert(1)›"
    assert html.count("<div") == html.count("</div>")
    assert len(html) < 800_000
    many = tuple(Token("a", i) for i in range(121))
    with pytest.raises(AddressError, match="up to 120 positions"):
        view.attention_text(scores(121, 121, axes="query key", query=many, key=many))


# -- the choice --------------------------------------------------------------------------------

CHOICES = [
    (scores(12, axes="pos", pos=PATCHES), "on_image", "on_image"),
    (scores(2, 12, axes="token pos", token=(" a", " b"), pos=PATCHES), "panels", "heatmap"),
    (scores(3, 12, axes="layer pos", layer=LAYERS, pos=PATCHES), "panels", "heatmap"),
    (scores(3, 2, axes="layer pos", layer=LAYERS, pos=("dog", "rest")), "heatmap", "heatmap"),
    (scores(3, 2, axes="layer pos", layer=LAYERS, pos=WORDS), "heatmap", "heatmap"),
    (scores(3, 2, axes="layer head", layer=LAYERS), "heatmap", "heatmap"),
    (scores(3, 5, axes="layer unit", layer=LAYERS), "neurons", "neurons"),
    (scores(4, 3, axes="arm k", arm=ARMS, k=(0, 1, 5)), "curves", "curves"),
    (scores(6, 4, 3, axes="prompt arm k", arm=ARMS, k=(0, 1, 5)), "curves", "curves"),
    (scores(2, 3, axes="route layer", route=("a", "b"), layer=LAYERS), "curves", "curves"),
    (scores(6, 3, axes="prompt layer", layer=LAYERS), "curves", "curves"),
    (scores(6, 2, axes="prompt pos", pos=WORDS), "heatmap", "heatmap"),
    (scores(2, 2, axes="query key", query=WORDS, key=WORDS), "attention_text", "attention_text"),
    (
        scores(12, 12, axes="query key", query=PATCHES, key=PATCHES),
        "attention_on_image",
        "heatmap",
    ),
    (
        scores(2, 12, 12, axes="head query key", query=PATCHES, key=PATCHES),
        "attention_on_image",
        "attention_on_image",
    ),
    (scores(3, 2, 12, axes="layer head key", layer=LAYERS, key=PATCHES), "panels", None),
    (scores(2, axes="neuron", neuron=(Neuron(0, 5), Neuron(2, 9))), "bars", "bars"),
    (scores(2, axes="pos", pos=WORDS), "tokens", "tokens"),
]


@pytest.mark.parametrize("x, pictured, bare", CHOICES, ids=[repr(one[0]) for one in CHOICES])
def test_show_finds_the_view_with_a_picture_and_without(x, pictured, bare, monkeypatch):
    for name, picture in ((pictured, PHOTO), (bare, None)):
        if name is None:
            with pytest.raises(AddressError, match="No view shows 3 axes at once"):
                view.show(x, picture)
            continue
        called = Mock(wraps=getattr(view, name))
        monkeypatch.setitem(choose._VIEWS, name, called)
        assert view.show(x, picture) is not None
        called.assert_called_once()
        monkeypatch.undo()


def test_tables_find_their_view():
    top = pd.DataFrame({"neuron": [Neuron(0, 5)], "sample": ["a"], "value": [3.0]})
    assert view.show(lens_table()).layout.yaxis.title.text == "layer"
    assert "mm-cards" in view.show(said()) and "mm-strip" in view.show(top, {"a": PHOTO})
    with pytest.raises(AddressError, match="needs the pictures"):
        view.show(top)
    with pytest.raises(AddressError, match=re.escape("with the columns ['a'] has no view")):
        view.show(pd.DataFrame({"a": [1]}))


@pytest.mark.parametrize("x, pictured, bare", CHOICES, ids=[repr(one[0]) for one in CHOICES])
def test_every_figure_says_what_it_shows_and_names_its_axes(x, pictured, bare):
    shown = view.show(x, PHOTO)
    if not isinstance(shown, go.Figure):
        assert re.search(r'class="mm-title">[^<]+<', shown)
        return
    assert len(shown.layout.title.text) > len("<b></b>")
    for trace in shown.data:
        for kind in ("x", "y"):
            name = (trace[f"{kind}axis"] or kind).replace(kind, f"{kind}axis")
            axis = shown.layout[name]
            assert axis.title.text or axis.visible is False
