"""Running statistics: what they say of a stream is what is true of all of it at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import mmlens as mm
from mmlens.tally import Moments, Quantiles, Tally, Top
from mmlens.values.errors import AddressError, CheckpointError, NumericsError
from mmlens.values.scores import Scores

AXES = ("layer", "pos", "unit")
KINDS = [Moments(), Quantiles(), Top(k=4)]


def stream(samples: int = 40, seed: int = 0, digits: int | None = None) -> torch.Tensor:
    """Float[sample, layer 2, pos 5, unit 7]; with `digits` many values are equal."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.randn(samples, 2, 5, 7, generator=draw) * 3 + 100
    return values if digits is None else (values.round(decimals=0) % digits)


def tallied(tally: Tally, values: torch.Tensor, which: range | None = None) -> Tally:
    new = tally.empty()
    for at in which if which is not None else range(len(values)):
        new.add(Scores(values[at], AXES), at)
    return new


def cells(values: torch.Tensor) -> torch.Tensor:
    """[layer, unit, every observation]."""
    return values.permute(1, 3, 0, 2).flatten(2)


def same(one: Tally, other: Tally, tolerance: float = 0.0) -> bool:
    (a, meta), (b, also) = one.state(), other.state()
    close = all(
        torch.allclose(a[key].double(), b[key].double(), rtol=tolerance, atol=0) for key in a
    )
    return close and meta == also


def test_moments_are_those_of_all_values_at_once():
    values = stream()
    tally, whole = tallied(Moments(), values), cells(values).double()
    assert isinstance(tally, Moments) and tally.count == whole.shape[-1]
    for seen, true in [
        (tally.mean, whole.mean(-1)),
        (tally.variance, whole.var(-1)),
        (tally.min, whole.amin(-1)),
        (tally.max, whole.amax(-1)),
    ]:
        assert seen.axes == ("layer", "unit")
        torch.testing.assert_close(seen.values, true, rtol=1e-9, atol=0)


def test_the_variance_survives_values_that_lie_close_together_and_far_from_zero():
    values = (torch.rand(1000, 1, 1, 1, dtype=torch.float64) + 1e9).double()
    tally = tallied(Moments(), values)
    assert isinstance(tally, Moments)
    torch.testing.assert_close(tally.variance.values, values.var(0)[:, 0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("digits", [None, 3], ids=["different", "many equal"])
def test_two_tallies_merge_into_that_of_both(kind, digits):
    values = stream(digits=digits)
    whole = tallied(kind, values)
    odd, even = tallied(kind, values, range(1, 40, 2)), tallied(kind, values, range(0, 40, 2))
    tolerance = 1e-6 if isinstance(kind, Moments) else 0.0
    assert same(tallied(kind, values, range(39, -1, -1)), whole, tolerance)  # in any order
    assert same(kind.empty().merge(odd).merge(even), whole, tolerance)
    assert same(even.merge(odd).merge(kind.empty()), whole, tolerance)


@pytest.mark.parametrize("digits", [None, 3], ids=["different", "many equal"])
def test_top_is_a_sort_of_every_picture_by_its_highest_value_then_by_its_place(digits):
    values = stream(digits=digits)
    tally = tallied(Top(k=4), values)
    assert isinstance(tally, Top)
    highest, place = values.max(2)
    order = highest.argsort(dim=0, descending=True, stable=True)[:4]
    assert torch.equal(tally.values.values, highest.gather(0, order).permute(1, 2, 0))
    names = [f"picture {i}" for i in range(40)]
    table = tally.table(mm.Neuron(1, 3), ids=names)
    assert list(table.columns) == ["neuron", "rank", "sample", "place", "value"]
    assert list(table["rank"]) == [0, 1, 2, 3] and set(table.neuron) == {mm.Neuron(1, 3)}
    assert list(table["sample"]) == [names[i] for i in order[:, 1, 3]]
    assert list(table.place) == place[order[:, 1, 3], 1, 3].tolist()
    assert len(tally.table()) == 2 * 7 * 4


def test_fewer_pictures_than_ranks_leave_ranks_out():
    tally = tallied(Top(k=4), stream(), range(3))
    assert isinstance(tally, Top)
    assert len(tally.table(layer=0, unit=[1, 2])) == 2 * 3


@pytest.mark.parametrize("accuracy", [0.05, 0.01])
def test_quantiles_are_true_to_their_accuracy(accuracy):
    values = torch.randn(2000, 2, 5, 7, generator=torch.Generator().manual_seed(1)).exp()
    values[:, 1] *= -1
    tally = tallied(Quantiles(accuracy=accuracy), values)
    assert isinstance(tally, Quantiles)
    for q in (0.0, 0.01, 0.5, 0.9, 1.0):
        ranked = cells(values).sort(-1).values
        true = ranked[..., int(q * (ranked.shape[-1] - 1))].double()
        off = (tally.quantile(q).values - true).abs() / true.abs()
        assert float(off.max()) <= accuracy + 1e-9


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_saved_tally_goes_on_where_it_was(kind, tmp_path):
    values = stream()
    half = tallied(kind, values, range(25))
    again = Tally.load(half.save(tmp_path / "half.safetensors"))
    for at in range(25, 40):
        again.add(Scores(values[at], AXES), at)
    assert same(again, tallied(kind, values))
    first = (tmp_path / "half.safetensors").read_bytes()
    assert half.save(tmp_path / "again.safetensors").read_bytes() == first
    (tmp_path / "bad").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="does not hold a tally"):
        Tally.load(tmp_path / "bad")
    empty = Tally.load(kind.empty().save(tmp_path / "empty"))
    assert same(empty.merge(half), half)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_memory_does_not_grow_with_the_data(kind):
    def held(tally: Tally) -> int:
        return sum(part.numel() for part in tally.state()[0].values())

    values = stream(80)
    assert held(tallied(kind, values, range(10))) == held(tallied(kind, values))


def test_blocks_of_cells_change_nothing(monkeypatch):
    values = stream()
    whole = [tallied(kind, values) for kind in KINDS]
    monkeypatch.setattr("mmlens.tally.cells.BLOCK", 11)
    assert all(same(tallied(kind, values), one) for kind, one in zip(KINDS, whole, strict=True))


def test_places_get_their_labels_while_all_pictures_share_them():
    patches = tuple(mm.Patch(0, col) for col in range(5))
    tally = Top(k=2)
    tally.add(Scores(stream()[0], AXES, {"pos": patches}), 0)
    assert set(tally.table().place) <= set(patches)
    back = Tally.of_state(*tally.state())
    assert back.places == patches
    tally.add(Scores(stream()[1], AXES, {"pos": tuple("abcde")}), 1)
    assert set(tally.table().place) <= set(range(5))


def test_what_does_not_fit_is_refused_in_a_sentence():
    tally = tallied(Moments(), stream(3))
    with pytest.raises(AddressError, match="needs the axis 'unit'"):
        tally.add(Scores(torch.zeros(2, 3), ("layer", "pos")))
    with pytest.raises(AddressError, match="kept axes must be the same for every sample"):
        tally.add(Scores(torch.zeros(2, 5, 8), AXES))
    with pytest.raises(AddressError, match="kept axes must be the same for every sample"):
        tally.add(Scores(torch.zeros(2, 5, 7), AXES, {"layer": (4, 5)}))
    with pytest.raises(NumericsError, match="of sample 3 holds a NaN"):
        tally.add(Scores(torch.full((2, 5, 7), float("nan")), AXES), 3)
    with pytest.raises(AddressError, match="cannot be merged into .*: they are set otherwise"):
        Top(k=2).merge(Top(k=3))
    with pytest.raises(AddressError, match="has seen nothing yet"):
        _ = Moments().mean
    with pytest.raises(AddressError, match="k=0: write a whole number from 1 on"):
        Top(k=0)
    with pytest.raises(AddressError, match="accuracy lies between 0 and 1"):
        Quantiles(accuracy=2.0)
    with pytest.raises(AddressError, match="a share lies between 0 and 1"):
        Quantiles().quantile(50.0)


def damaged(path: Path, **changes: Any) -> Path:
    """The file with its own words for what it holds changed."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["tally"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    cut = changes.pop("cut", 0)
    tensors = {name: value[cut:].clone() for name, value in tensors.items()}
    save_file(tensors, path, metadata={"tally": json.dumps({**meta, **changes})})
    return path


@pytest.mark.parametrize(
    "changes",
    [{"cut": 1}, {"sizes": [9, 9]}, {"kind": "Median"}, {"settings": {"width": 2}}, {"labels": 3},
     {"sizes": "many"}, {"settings": None}],
)  # fmt: skip
def test_a_saved_tally_whose_parts_do_not_fit_is_refused(changes, tmp_path):
    path = tallied(Moments(), stream(3)).save(tmp_path / "tally")
    with pytest.raises(CheckpointError, match="does not hold a tally"):
        Tally.load(damaged(path, **changes))
