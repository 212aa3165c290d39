"""What views, Scores and tallies are given: a wrong value is named where it comes in.

Values of a wrong type are called in `public_calls.py`, where no annotation is checked before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmlens import MMLensError, Neuron, Patch, Scores, view
from mmlens.tally import Moments, Top
from mmlens.values.arguments import path
from mmlens.values.errors import AddressError, ArgumentError
from mmlens.view.figures.cards import spotlight
from mmlens.view.style import given
from mmlens.view.style.paint import outlined

PHOTO = Image.new("RGB", (40, 30), (120, 130, 140))
PATCHES = tuple(Patch(row, col) for row in range(3) for col in range(4))
LABELS: dict[str, tuple[Any, ...]] = {
    "pos": PATCHES, "query": PATCHES, "key": PATCHES, "layer": (0, 1), "head": (0, 1, 2),
    "unit": (0, 1, 2), "k": (0, 1), "arm": ("ours", "random 1"), "token": (" a", " dog"),
}  # fmt: skip
ON_PHOTO = {"on_image", "panels", "attention_on_image"}
AXES = {
    "on_image": ("pos",), "bars": ("layer",), "heatmap": ("layer", "pos"),
    "panels": ("layer", "pos"), "curves": ("arm", "k"), "neurons": ("layer", "unit"),
    "attention_on_image": ("head", "query", "key"), "attention_text": ("head", "query", "key"),
}  # fmt: skip


def made(*axes: str, value: float = 0.5, **labels: tuple[Any, ...]) -> Scores:
    known = {axis: {**LABELS, **labels}[axis] for axis in axes}
    return Scores(torch.full([len(known[axis]) for axis in axes], value), axes, known)


def drawn(name: str, scores: Any, **options: Any) -> Any:
    call: Callable[..., Any] = getattr(view, name)
    return call(PHOTO, scores, **options) if name in ON_PHOTO else call(scores, **options)


def table(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"neuron": [Neuron(0, 1)], **columns})


def refused(call: Callable[[], Any], *parts: str) -> None:
    with pytest.raises(MMLensError) as told:
        call()
    sentence = str(told.value)
    assert "\n" not in sentence and all(part in sentence for part in parts), sentence


def test_scores_that_are_none_are_named_with_what_to_give():
    good = made("pos")
    assert given.scores(good) is good
    assert given.scores(np.zeros(3)).axes == ("place",)  # numbers without names get some
    for wrong in (None, [0.5], np.zeros((2, 2, 2)), "scores"):
        refused(lambda wrong=wrong: given.scores(wrong, "maps"), "maps=", "mmlens.attribute")


def test_a_title_is_a_text_and_without_one_a_view_has_its_own():
    assert given.title(None, "told") == given.title("", "told") == "told"
    assert given.title("mine", "told") == "mine"
    for wrong in (3, [], True):
        refused(lambda wrong=wrong: given.title(wrong, "told"), "title=", "write a text")


@pytest.mark.parametrize("name", AXES)
def test_every_view_shows_the_title_that_it_is_given(name: str):
    assert "A title" in str(drawn(name, made(*AXES[name]), title="A title"))


@pytest.mark.parametrize("name", AXES)
def test_every_view_refuses_scores_without_numbers_and_complex_ones(name: str):
    axes = AXES[name]
    for empty in axes:
        with pytest.raises(AddressError):
            drawn(name, made(*axes, **{empty: ()}))
    one = made(*axes)
    turned = Scores(one.values.cfloat(), one.axes, one.labels)
    refused(lambda: drawn(name, turned), "holds complex numbers")


def test_scores_of_true_and_false_are_shown_as_1_and_0():
    one = made("layer")
    found = view.bars(Scores(torch.tensor([True, False]), one.axes, one.labels))
    assert list(found.data[0].y) == [1, 0]


@pytest.mark.parametrize(
    "box", [(0, 0, float("nan"), 5), (5, 5, 5, 9), (9, 0, 5, 9), (50, 0, 60, 9), (0, 0, 1e9, 1e9)]
)
def test_a_box_that_covers_nothing_of_the_picture_is_refused_by_every_view(box: Any):
    on_photo = made("pos")
    cards = table(words=[["dog"]], sample=["a"], value=[1.0])
    active = Scores(on_photo.values[None], ("neuron", "pos"),
                    {"neuron": (Neuron(0, 1),), "pos": PATCHES})  # fmt: skip
    for call in (
        lambda: view.on_image(PHOTO, on_photo, box=box),
        lambda: view.panels(PHOTO, made("layer", "pos"), box=box),
        lambda: view.attention_on_image(PHOTO, made("query", "key"), box=box),
        lambda: view.cards(cards, picture=PHOTO, activations=active, box=box),
        lambda: view.gallery(
            cards, {"a": PHOTO}, maps={(Neuron(0, 1), "a"): on_photo}, box=box
        ),
    ):  # fmt: skip
        refused(call, "box")


def test_a_box_is_four_numbers():
    for wrong in ("nope", (1, 2, 3), 3, [None] * 4, []):
        refused(lambda wrong=wrong: given.box(wrong, PHOTO), "box=")


def test_a_box_may_be_smaller_than_a_pixel_or_reach_over_the_edge():
    assert given.box(None, PHOTO) == (0, 0, 40, 30)
    for box in ((0, 0, 0.1, 0.1), (-5, -10, 45, 40)):
        assert given.box(list(box), PHOTO) == box
        view.on_image(PHOTO, made("pos"), box=box, smooth=True)
        view.panels(PHOTO, made("layer", "pos"), box=box)


def test_what_a_neuron_answers_to_is_lit_at_its_place_where_the_box_reaches_over_the_edge():
    """A square around a wide photo, two rows of two patches: the lower left one is active."""
    photo = Image.new("RGB", (80, 40), (200, 100, 0))
    grid = np.array([[0.0, 0.0], [1.0, 0.0]])
    lit, plain = (
        np.asarray(spotlight(photo, shown, (0, -20, 80, 60)).convert("RGB")).astype(int)
        for shown in (grid, 0 * grid)
    )
    outline = np.argwhere(np.abs(lit - plain).sum(-1) > 60)  # of an undimmed picture
    rows, cols = plain.shape[:2]
    assert len(outline) > 20 and (plain == plain[0, 0]).all()
    assert outline[:, 0].min() > 0.3 * rows and outline[:, 1].max() < 0.7 * cols


def test_a_mask_is_bool_numbers_of_the_picture_whatever_holds_them():
    area = np.zeros((30, 40), bool)
    area[10:20, 10:20] = True
    wanted = outlined(PHOTO, area, PHOTO.size)
    for same in (area.tolist(), torch.from_numpy(area).float().requires_grad_(), area * 255):
        assert outlined(PHOTO, same, PHOTO.size) == wanted
    for wrong in ("nope", {}, [[1, 2], [3]], [[None]]):
        refused(lambda wrong=wrong: view.on_image(PHOTO, made("pos"), mask=wrong), "is no mask")


def test_panels_have_room_in_a_row_or_are_refused():
    maps = made("layer", "pos")
    for wrong in (0, -1, 10**9):
        refused(lambda wrong=wrong: view.panels(PHOTO, maps, columns=wrong), "columns=")
    wide = made("layer", "head", "pos", layer=(0, 1), head=tuple(range(60)))
    refused(lambda: view.panels(PHOTO, wide), "60 panels in a row", "head=[...]")
    assert view.panels(PHOTO, wide.sel(layer=[0])).data  # of one layer they stand in rows


@pytest.mark.parametrize(
    "call, parts",
    [
        (lambda: view.neurons("nope"), ("table='nope'", "DataFrame")),
        (lambda: view.neurons(table(score=["x"])), ("table['score']='x'",)),
        (lambda: view.neurons(table(score=[1.0], words=[None])), ("table['words']=None",)),
        (lambda: view.neurons(pd.DataFrame({"neuron": ["L0.1"], "score": [1.0]})), ("Neuron",)),
        (lambda: view.neurons(made("layer", "unit", layer=("a", "b"))), ("axis layer",)),
        (lambda: view.cards(None), ("table=None",)),
        (lambda: view.cards(table(words=[3])), ("table['words']=3",)),
        (lambda: view.cards(table(words=[["a"]], probs=["q"])), ("table['probs']='q'",)),
        (lambda: view.gallery(table(sample=["a"], value=["x"]), {}), ("table['value']='x'",)),
        (
            lambda: view.gallery(table(sample=["a"], value=[1.0]), {"a": PHOTO}, said=table()),
            ("'neuron' and 'words'", "said"),
        ),
        (lambda: view.lens("nope"), ("table='nope'",)),
        (
            lambda: view.lens(table(pos=[Patch(0, 0)], rank=[0], token=["a"], prob=["x"])),
            ("'prob'", "no numbers"),
        ),
        (lambda: view.explore(3), ("seen=3", "mmlens.look")),
        (lambda: view.explore("nope"), ("seen='nope'",)),
        (lambda: view.tokens(["a"]), ("values=None",)),
        (lambda: view.tokens("a", [1.0]), ("words='a'",)),
        (lambda: view.tokens(["a"], ["x"]), ("values='x'",)),
        (lambda: view.on_image(PHOTO, made("pos"), top=float("nan")), ("top=nan",)),
        (lambda: view.save("<p>", "a\0.html"), ("path=",)),
        (lambda: view.save("<p>", "a.html", scale=float("nan")), ("scale=nan",)),
    ],
)  # fmt: skip
def test_a_table_and_whatever_else_a_view_is_given_is_checked_where_it_comes_in(call, parts):
    refused(call, *parts)


def test_a_card_without_a_score_shows_none_and_a_point_needs_one():
    for none in (None, float("nan")):
        rows = table(words=[["dog"]], score=[none])
        assert "nan" not in view.cards(rows).partition("mm-cards")[2].split("</style>")[-1]
        refused(lambda rows=rows: view.neurons(rows), "table['score']=")


def test_infinite_values_get_the_full_colour_and_leave_the_others_theirs():
    html = str(view.tokens(["a", "b", "c"], [1.0, float("inf"), None]))
    assert re.findall(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", html) == ["0.500", "0.500", "0.000"]


def test_scores_need_a_tensor():
    for wrong in (None, [0, 0], np.zeros(2)):
        refused(lambda wrong=wrong: Scores(wrong, ("layer",)), "values=", "give a tensor")


@pytest.mark.parametrize("kind", [Moments, Top])
def test_a_tally_keeps_a_list_of_axes_and_no_letters_of_a_text(kind: type):
    assert kind(keep=["layer"]).keep == ("layer",)
    refused(lambda: kind(keep="layer"), "keep='layer'", "write a list")


def test_a_path_is_a_text_or_a_path(tmp_path):
    assert path(str(tmp_path), "out") == path(tmp_path, "out") == tmp_path
    for wrong in (3, None, [], b"a", "a\0"):
        with pytest.raises(ArgumentError, match="write the name of a file or folder"):
            path(wrong, "out")
