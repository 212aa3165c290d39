"""Addresses and labels: what a position, a pair, an empty list and a row's labels mean."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm
from mmlens import Neuron, Patch, Scores, Token
from mmlens.families import toy
from mmlens.sweep.sweep_files import read_tables, table_bytes, to_arrow
from mmlens.values import labels as labels_module
from mmlens.values.errors import AddressError, ArgumentError, CheckpointError, PromptError
from mmlens.values.labels import Padding
from mmlens.values.packed_labels import LABELS, unpack_labels

SHORT = "A dog"


def seen() -> Scores:
    return mm.activations(bridge("toy-gpt2"), prompt(), "resid_post", layer=1)


# -- pairs ----------------------------------------------------------------------------------------


def _edited(pos: Any) -> torch.Tensor:
    return bridge("toy-gpt2").edit(mm.Edit("resid_post", 0.0, layer=0, pos=pos))(prompt())


def _patched(pos: Any) -> torch.Tensor:
    from mmlens.patching import Pair, patch

    pair = Pair(prompt((0, 0)), prompt((3, 3)))
    measure = lambda logits: logits[..., 5]  # noqa: E731
    return patch(bridge("toy-gpt2"), pair, measure, layer=0, pos=pos).values


def _cut(pos: Any) -> torch.Tensor:
    from mmlens.patching import knockout

    return bridge("toy-gpt2").edit(knockout(pos, -1))(prompt())


def _lens(of: Any, **options: Any) -> torch.Tensor:
    scores: Any = mm.logit_lens(bridge("toy-gpt2"), of, [" dog"], **options)
    return scores.values


def _noised(pos: Any) -> torch.Tensor:
    from mmlens.patching import soft_noise

    return soft_noise(bridge("toy-gpt2"), prompt(), pos=pos).vectors


READERS: dict[str, Any] = {
    "Scores.sel": lambda pos: seen().sel(pos=pos).values,
    "activations": lambda pos: mm.activations(bridge("toy-gpt2"), prompt(), pos=pos).values,
    "Edit": _edited,
    "patch": _patched,
    "knockout": _cut,
    "noise": _noised,
    "attention": lambda pos: (
        mm.activations(bridge("toy-gpt2"), prompt(), "pattern", key=pos).values
    ),
    "lens": lambda pos: _lens(prompt(), pos=pos),
}


@pytest.mark.parametrize("how", READERS)
@torch.no_grad()
def test_a_pair_is_the_patch_that_tables_print_so(how):
    read = READERS[how]
    wanted = read(Patch(2, 1))
    for written in ((2, 1), "(2, 1)", (np.int64(2), torch.tensor(1))):
        assert off(read(written), wanted) == 0.0
    assert wanted.shape != read([2, 1]).shape or off(read([2, 1]), wanted) > 1e-4
    assert off(read([(2, 1), (2, 2)]), read([Patch(2, 1), Patch(2, 2)])) == 0.0


def test_a_pair_without_its_patch_and_three_numbers_are_refused():
    words = mm.activations(bridge("toy-gpt2"), "The dog and the cat", "resid_post", layer=0)
    with pytest.raises(AddressError, match=r"no pos '\(0, 1\)'"):
        words.sel(pos=(0, 1))
    with pytest.raises(
        AddressError, match=r"write Patch\(row, col, image\), or a list, pos=\[1, 2"
    ):
        seen().sel(pos=(1, 2, 0))
    both = mm.Prompt(toy.picture(), toy.picture((0, 0)), "The dog")
    scores = mm.activations(bridge("toy-gpt2"), both, "resid_post", layer=0)
    second = scores.sel(pos=Patch(2, 1, 1)).values
    assert off(scores.sel(pos="(2, 1) of picture 1").values, second) == 0.0
    layers = mm.activations(bridge("toy-gpt2"), prompt(), "resid_post", layer=(0, 2))
    assert layers.of("layer") == (0, 2)  # a tuple of layers is a list as ever


# -- padding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "pos", [0, 1, -1, slice(0, 2), slice(None, None, 2), slice(-2, None), [0, -1], range(2)]
)
@torch.no_grad()
def test_positions_of_a_batch_are_those_of_each_prompt_alone(kind, pos):
    model = bridge(f"toy-{kind}")
    ramp = torch.linspace(-1, 1, 32)
    changed = model.edit(mm.Edit("resid_post", lambda x: x + ramp, layer=0, pos=pos))
    together = changed([prompt(), SHORT])
    for row, one in enumerate((prompt(), SHORT)):
        alone = changed(one)
        assert off(together[row, -alone.shape[1] :], alone[0]) < 1e-5
        assert off(alone, model(one)) > 1e-3


@torch.no_grad()
def test_padding_is_never_read_and_never_found():
    from mmlens.model.prompt_tokens import rows

    model = bridge("toy-gpt2")
    padded = rows(model.embed([prompt(), SHORT]), [1])
    alone = mm.activations(model, SHORT, "resid_post", layer=1)
    scores = mm.activations(model, padded, "resid_post", layer=1)
    assert scores.of("pos") == alone.of("pos") == (Token("A", 0), Token(" dog", 1))
    assert off(scores.values, alone.values) < 1e-5
    for pos in (0, -2, slice(0, 1), Token):
        read = mm.activations(model, padded, "resid_post", layer=1, pos=pos)
        assert off(read.values, alone.sel(pos=pos).values) < 1e-5
    attention = mm.activations(model, padded, "pattern", layer=0)
    assert attention.shape == (4, 2, 2)
    assert off(_lens(padded), _lens(SHORT)) < 1e-5
    for wrong in (2, -3, Padding, Padding(0)):
        with pytest.raises(AddressError):
            mm.activations(model, padded, "resid_post", layer=1, pos=wrong)
    scores = mm.attribute(model, padded, " cat", after=" and")
    assert scores.of("pos") == (Token("A", 0), Token(" dog", 1), Token(" and", 2))
    table: Any = mm.attribute_caption(model, padded, 1, caption=" and cat", pos=None)
    assert [t.at for t in dict.fromkeys(table.token)] == [2, 3]


@torch.no_grad()
def test_ids_with_a_mask_on_the_left_begin_where_it_ends():
    model = bridge("toy-gpt2")
    ids = model.to_tokens(SHORT)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), ids], 1)
    mask = torch.tensor([[0, 0, 0, 1, 1]])
    changed = model.edit(mm.Edit("resid_post", 0.0, layer=0, pos=0))
    assert off(changed(padded, attention_mask=mask)[:, 3:], changed(ids)) < 1e-5
    assert off(changed(ids), model(ids)) > 1e-3


# -- nothing, and numbers of other kinds ----------------------------------------------------------

NOTHING: list[Any] = [[], (), set(), range(0), slice(3, 1), np.array([]), np.zeros(19, bool)]


@pytest.mark.parametrize("nothing", NOTHING, ids=[str(i) for i in range(len(NOTHING))])
def test_what_names_nothing_is_refused(nothing):
    model = bridge("toy-gpt2")
    asks: list[Any] = [
        lambda: seen().sel(pos=nothing),
        lambda: mm.activations(model, prompt(), "neurons", layer=0, pos=nothing),
        lambda: model.edit(mm.Edit("neurons", 0.0, layer=0, pos=nothing))(prompt()),
        lambda: mm.logit_lens(model, prompt(), [" dog"], pos=nothing),
    ]
    if not isinstance(nothing, np.ndarray):
        asks += [
            lambda: model.edit(mm.Edit("neurons", 0.0, layer=nothing)),
            lambda: mm.activations(model, prompt(), "neurons", layer=nothing),
            lambda: mm.attribute(model, prompt(), " dog", after="", layer=nothing),
        ]
    for ask in asks:
        with pytest.raises(AddressError, match="names nothing"):
            ask()


@torch.no_grad()
def test_numbers_of_numpy_and_torch_are_numbers_and_others_are_refused():
    model, scores = bridge("toy-gpt2"), seen()
    for two in (np.int64(2), torch.tensor(2), np.array(2)):
        assert off(scores.sel(pos=two).values, scores.sel(pos=2).values) == 0.0
        assert scores.sel(pos=two).axes == ("dim",)
        assert mm.activations(model, prompt(), "neurons", layer=two).axes == ("pos", "unit")
        change = mm.Edit("neurons", 0.0, layer=two, unit=two)
        assert off(model.edit(change)(prompt()), model.edit(_plain(2))(prompt())) == 0.0
    for some in (np.array([1, 3]), torch.tensor([1, 3])):
        assert off(scores.sel(pos=some).values, scores.sel(pos=[1, 3]).values) == 0.0
    mask = model.embed(prompt()).is_picture[0]
    assert off(scores.sel(pos=mask).values, scores.sel(pos=Patch).values) == 0.0
    for wrong in (True, 1.0, 0.5, np.float32(2.0), [True], np.array([[1]]), "x", {"a": 1}, 99, -99):
        with pytest.raises(AddressError):
            scores.sel(pos=wrong)
        with pytest.raises(AddressError):
            model.edit(mm.Edit("neurons", 0.0, layer=wrong))
    for wrong in (slice(0.5, 2), slice(0, 5, 0), slice("a", None)):
        with pytest.raises(AddressError, match="step of 0|from one number to another"):
            scores.sel(pos=wrong)
    with pytest.raises(AddressError, match="A mask of 3 doesn't fit pos"):
        scores.sel(pos=np.ones(3, bool))


@pytest.mark.parametrize(
    "address", [(2, 1), [1, 2], np.array([1, 2]), 3, "x", True, [Neuron(-1, 5)]]
)
def test_what_does_not_name_its_axis_is_refused(address):
    with pytest.raises(AddressError, match="name (its|the) axis"):
        mm.Edit("neurons", 0.0, address)
    with pytest.raises(AddressError, match="name its axis"):
        seen().sel(address)


def _plain(at: int) -> mm.Edit:
    return mm.Edit("neurons", 0.0, layer=at, unit=at)


@pytest.mark.parametrize("value", ["zero", None, {}, True, object()])
def test_an_edit_that_puts_no_numbers_is_refused(value):
    with pytest.raises(AddressError, match="can't put .* in place of activations"):
        mm.Edit("neurons", value)


@pytest.mark.parametrize("k", [-1, 0])
def test_a_count_out_of_range_is_refused(k):
    scores = mm.attribute(bridge("toy-gpt2"), prompt(), " dog", after="", layer=0)
    for ask in (lambda: mm.top_neurons(scores.sel(layer=[0]), k), lambda: scores.to_frame(k)):
        with pytest.raises(ArgumentError, match=f"k={k}: write a whole number from 1 on"):
            ask()
    assert len(scores.to_frame(10**9)) == scores.values.numel()
    with pytest.raises(AddressError, match="is not made of neurons"):
        mm.top_neurons(seen())


# -- labels ---------------------------------------------------------------------------------------


@torch.no_grad()
def test_several_prompts_have_one_layout_or_are_refused():
    model = bridge("toy-gpt2")
    dog, cat = prompt((2, 1), "A dog and"), prompt((0, 0), "A cat and")
    scores = mm.activations(model, [dog, cat], "resid_post", layer=1)
    assert scores.of("pos")[16:] == (Token("A", 16), Token(" dog | cat", 17), Token(" and", 18))
    for row, one in enumerate((dog, cat)):
        alone = mm.activations(model, one, "resid_post", layer=1)
        assert off(scores.sel(prompt=row).values, alone.values) < 1e-5
    with pytest.raises(AddressError, match="no pos ' dog'"):
        scores.sel(pos=" dog")
    for others in ([dog, "The dog"], [dog, mm.Prompt("A", toy.picture(), " dog and")]):
        with pytest.raises(PromptError, match="pictures at different places"):
            mm.activations(model, others, "resid_post", layer=1)


@torch.no_grad()
def test_pictures_of_one_prompt_are_told_apart_by_their_axis():
    model = bridge("toy-gpt2")
    both = mm.Prompt(toy.picture((0, 0)), toy.picture((3, 3)), "The dog")
    scores = mm.activations(model, both, "vision.resid_post", layer=1)
    assert scores.axes == ("picture", "pos", "dim")
    assert {x.image for x in scores.of("pos") if isinstance(x, Patch)} == {0}
    second = mm.activations(model, both, "vision.resid_post", layer=1, picture=1)
    assert {x.image for x in second.of("pos") if isinstance(x, Patch)} == {1}
    assert off(scores.sel(picture=1).values, second.values) == 0.0
    moved = model.edit(mm.Edit("vision.resid_post", 0.0, layer=1, pos=Patch(2, 2, 1)))
    after = mm.activations(moved, both, "vision.resid_post", layer=1)
    changed = (after.values != scores.values).any(-1).nonzero().tolist()
    assert changed == [[1, 1 + 2 * 4 + 2]]


def test_differences_are_taken_of_the_same_labels():
    a = Scores(torch.tensor([1.0, 2.0]), ("pos",), {"pos": (Token("A", 0), Patch(0, 1))})
    b = Scores(torch.tensor([3.0, 5.0]), ("pos",), {"pos": (Token("A", 0), Patch(0, 1))})
    assert (b - a).values.tolist() == [2.0, 3.0]
    assert (b - 1).values.tolist() == [2.0, 4.0]
    half: Any = torch.tensor(0.5)
    assert (b - half).values.tolist() == [2.5, 4.5]
    moved = Scores(b.values, ("pos",), {"pos": (Token("A", 0), Patch(1, 0))})
    with pytest.raises(AddressError, match=r"same labels: on axis 'pos' Patch\(row=0, col=1.* has"):
        _ = a - moved
    plain = Scores(torch.zeros(2), ("unit",))
    assert (plain - Scores(torch.ones(2), ("unit",), {"unit": (0, 1)})).values.tolist() == [-1, -1]
    with pytest.raises(AddressError, match="same labels"):
        _ = plain - Scores(torch.ones(2), ("unit",), {"unit": (4, 7)})


def test_there_is_no_difference_of_probabilities_and_logits():
    a = Scores(torch.zeros(2), ("layer",), {}, {"quantity": "prob"})
    assert (a - Scores(torch.ones(2), ("layer",), {}, {"quantity": "prob"})).values.tolist() == [
        -1,
        -1,
    ]
    with pytest.raises(AddressError, match="measured differently"):
        _ = a - Scores(torch.ones(2), ("layer",), {}, {"quantity": "logit"})


def test_labels_of_every_kind_come_back_as_they_were_saved(tmp_path):
    labels = (
        ("a", 1),
        ("Patch", 2, (Patch(1, 2), "x")),
        Patch(0, 1),
        Neuron(1, 2),
        "Token",
        3,
        None,
    )
    scores = Scores(torch.arange(7.0), ("what",), {"what": labels})
    loaded = Scores.load(scores.save(tmp_path / "scores.safetensors"))
    assert loaded.of("what") == labels
    assert loaded.sel(what=[("a", 1)]).values.tolist() == [0.0]
    assert loaded.sel(what=("a", 1)).item() == 0.0
    numbers = Scores(torch.zeros(2), ("k",), {"k": (np.int64(1), torch.tensor(2))})
    assert Scores.load(numbers.save(tmp_path / "numbers")).of("k") == (1, 2)
    with pytest.raises(AddressError, match="can't be saved: labels are texts, numbers, tuples"):
        Scores(torch.zeros(1), ("k",), {"k": (object(),)}).save(tmp_path / "object")


def test_every_kind_of_label_is_written_and_read_and_an_older_file_has_defaults(tmp_path):
    kinds = [one for one in vars(labels_module).values() if is_dataclass(one)]
    assert set(kinds) == set(LABELS.values()) and len(kinds) >= 6
    some = {"name": "query", "text": " a", "tower": "vision", "expert": 2}
    made = tuple(
        kind(**{one.name: some.get(one.name, i) for i, one in enumerate(fields(kind))})
        for kind in kinds
    )
    scores = Scores(torch.zeros(len(made)), ("pos",), {"pos": made})
    assert Scores.load(scores.save(tmp_path / "scores")).of("pos") == made
    table = pd.DataFrame({"place": list(made)})
    path = tmp_path / "table.parquet"
    path.write_bytes(table_bytes([to_arrow("one", table, "places")]))
    assert tuple(read_tables([path])["place"]) == made
    # before experts and crops were counted, these had fewer fields
    assert unpack_labels([["Neuron", 3, 17, "lm"], ["Patch", 1, 2]]) == (Neuron(3, 17), Patch(1, 2))
    old = pa.table({"neuron": [{"kind": "Neuron", "layer": 3, "unit": 17, "tower": "lm"}]})
    path.write_bytes(table_bytes([old]))
    assert read_tables([path])["neuron"][0] == Neuron(3, 17)
    for newer in (["Neuron", 3, 17, "lm", None, "later"], ["Blob", 1]):
        with pytest.raises(CheckpointError, match=f"{newer[0]}.* a newer one wrote the file"):
            unpack_labels([newer])


@pytest.mark.parametrize(
    "meta", ['{"axes": ["k"], "labels": {"k": [["Blob", 1]]}}', '{"axes": 3}', "[]"]
)
def test_a_damaged_file_of_scores_is_refused(meta, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "scores.safetensors"
    save_file({"values": torch.zeros(1)}, path, metadata={"scores": meta, "about": "{}"})
    with pytest.raises(CheckpointError, match="does not hold saved Scores"):
        Scores.load(path)
