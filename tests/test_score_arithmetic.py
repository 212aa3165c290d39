"""Arithmetic, comparison, positions and joining of Scores; labels and provenance stay."""

import numpy as np
import pytest
import torch

from mmlens import Neuron, Scores
from mmlens.values.errors import AddressError

VALUES = torch.arange(6.0).view(2, 3) - 2
UNITS = (Neuron(3, 1), Neuron(3, 4), Neuron(3, 7))


def scores(values=VALUES, layers=(3, 5), **about) -> Scores:
    return Scores(values, ("layer", "unit"), {"layer": layers, "unit": UNITS}, about)


@pytest.mark.parametrize(
    ("do", "right"),
    [
        (lambda s: s + s, VALUES + VALUES),
        (lambda s: s + 1, VALUES + 1),
        (lambda s: 1 + s, VALUES + 1),
        (lambda s: 1 - s, 1 - VALUES),
        (lambda s: s - 1, VALUES - 1),
        (lambda s: 2 * s, VALUES * 2),
        (lambda s: s * s, VALUES**2),
        (lambda s: s / 4, VALUES / 4),
        (lambda s: s / s.sum(), VALUES / 3),
        (lambda s: -s, -VALUES),
        (lambda s: s > 0, (VALUES > 0).float()),
        (lambda s: s >= 0, (VALUES >= 0).float()),
        (lambda s: s < s.mean(), (VALUES < 0.5).float()),
        (lambda s: s <= -1, (VALUES <= -1).float()),
    ],
)
def test_operators_compute_value_by_value_and_keep_labels(do, right):
    got = do(scores(method="attribute"))
    assert torch.equal(got.values, right)
    assert got.of("layer") == (3, 5) and got.of("unit") == UNITS
    assert got.about["method"] == "attribute"


def test_what_was_computed_is_told_in_order():
    made = (scores(method="attribute") + 1) / 2
    assert made.about["computed"] == "+ 1 / 2"
    assert "Scores(3.0)" in (scores() / scores().sum()).about["computed"]


@pytest.mark.parametrize("do", [lambda a, b: a + b, lambda a, b: a < b, lambda a, b: a - b])
def test_what_is_measured_differently_is_neither_added_nor_compared(do):
    with pytest.raises(AddressError, match="quantity='logit'.*'prob'"):
        do(scores(quantity="logit"), scores(quantity="prob"))


def test_a_ratio_of_two_quantities_is_one():
    ratio = scores(quantity="logit") / scores(quantity="prob")
    assert ratio.values[1, 2] == 1


@pytest.mark.parametrize("do", [lambda a, b: a * b, lambda a, b: a > b, lambda a, b: a / b])
def test_other_places_are_not_stretched_onto_each_other(do):
    with pytest.raises(AddressError, match="'layer' 5 stands where the other has 6"):
        do(scores(), scores(layers=(3, 6)))
    with pytest.raises(AddressError, match="do not have the same axes"):
        do(scores(), scores().sum("unit"))
    with pytest.raises(AddressError, match="finite number"):
        do(scores(), "1")


@pytest.mark.parametrize("at", [0, -1, (1, 2), (slice(None), 1), (Ellipsis, -1), slice(0, 1)])
def test_numbers_choose_as_in_numpy(at):
    assert np.array_equal(scores()[at].numpy(), VALUES.numpy()[at])


def test_numbers_keep_the_labels_of_what_they_choose():
    assert scores()[:, 1:].of("unit") == UNITS[1:]
    assert scores()[1].about["layer"] == "5"
    assert [row.values.tolist() for row in scores()] == VALUES.tolist()


@pytest.mark.parametrize("at", [2, -3, "x", UNITS[0], (0, 3), 1.0])
def test_no_number_there_is_said_with_what_there_is(at):
    with pytest.raises(AddressError, match=r"is no number from -\d to \d"):
        scores()[at]
    with pytest.raises(AddressError, match="2 axes, not 3"):
        scores()[0, 0, 0]


def test_the_place_of_the_largest_value_is_an_address():
    place = scores().argmax()
    assert place == {"layer": 5, "unit": UNITS[2]}
    assert scores().sel(layer=5).sel(unit=place["unit"]).item() == 3
    assert scores().sum().argmax() == {}


def test_results_are_joined_along_an_axis_of_theirs_or_a_new_one():
    more = scores(VALUES * 2, layers=(6, 7))
    joined = Scores.concat([scores(), more], "layer")
    assert joined.of("layer") == (3, 5, 6, 7) and torch.equal(joined.values[2:], VALUES * 2)
    runs = Scores.concat([scores(), scores()], "run", ["clean", "corrupt"])
    assert runs.axes == ("run", "layer", "unit") and runs.of("run") == ("clean", "corrupt")
    with pytest.raises(AddressError, match="same labels"):
        Scores.concat([scores(), more], "run")
    with pytest.raises(AddressError, match="2 results have 1 labels"):
        Scores.concat([scores(), scores()], "run", ["clean"])


def test_xarray_gets_axes_labels_and_provenance():
    pytest.importorskip("xarray")
    array = scores(method="attribute").to_xarray()
    assert array.dims == ("layer", "unit") and array.attrs["method"] == "attribute"
    assert array.sel(unit=UNITS[1]).values.tolist() == VALUES[:, 1].tolist()
