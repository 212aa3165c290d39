"""Patchscopes: identities that hold on every model, a planted unit, maps between models."""

from __future__ import annotations

import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm
from mmlens import Patch
from mmlens.methods.patchscope import DESCRIPTION
from mmlens.methods.translators import Translators
from mmlens.values.errors import AddressError, ArgumentError, CheckpointError, PromptError

KINDS = ("gptj", "llama", "gemma")
TEXT = "A picture of a dog and a cat on a table"


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_last_layer_a_patchscope_is_the_model_itself(kind):
    """Behind the last layer nothing reads other positions, so the target does not matter."""
    model, asked = bridge(f"toy-{kind}"), prompt()
    said = mm.patchscope(model, asked, [" dog", 5], layer=2, into=TEXT, quantity="logit")
    with torch.no_grad():
        own = model(asked)[0][:, [model.to_single_token(" dog"), 5]]
    assert off(said.values[0], own) < 1e-4
    assert said.of("pos") == model.embed(asked).labels[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 5, -1])
def test_a_vector_put_where_it_was_changes_nothing(kind, at):
    model, asked = bridge(f"toy-{kind}"), prompt()
    said = mm.patchscope(model, asked, [" dog"], pos=[at], into=asked, into_pos=at, batch=2)
    with torch.no_grad():
        own = model(asked)[0, -1].softmax(-1)[model.to_single_token(" dog")]
    assert off(said.values, own) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_an_edit_of_the_target_says_whatever_the_batch(kind):
    model, asked = bridge(f"toy-{kind}"), prompt()
    said = mm.patchscope(model, asked, [" dog"], pos=[3, -1], into=TEXT, into_pos=4, batch=5)
    moved = mm.patchscope(model, asked, [" dog"], pos=[3, -1], into=TEXT, into_pos=4, into_layer=1)
    stream = mm.activations(model, asked, "resid_post")
    for layer in range(3):
        for i, pos in enumerate((3, -1)):
            vector = stream.sel(layer=layer, pos=pos).values
            for found, end in ((said, layer), (moved, 1)):
                edited = model.edit(mm.Edit("resid_post", vector, layer=end, pos=4))
                with torch.no_grad():
                    true = edited(TEXT)[0, -1].softmax(-1)[model.to_single_token(" dog")]
                assert float(found.values[layer, i, 0]) == pytest.approx(float(true), abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_what_the_edited_model_writes_with_and_without_the_cache(kind):
    model, asked = bridge(f"toy-{kind}"), prompt()
    table = mm.patchscope(model, asked, pos=[5, 7], layer=[0, 1], into=TEXT, max_new_tokens=6)
    stream = mm.activations(model, asked, "resid_post")
    where = model.embed(asked).labels[0]
    plain = model.generate(TEXT, 6)
    for row in table.itertuples():
        vector = stream.sel(layer=row.layer, pos=where.index(row.pos)).values
        last = len(model.embed(TEXT).labels[0]) - 1
        edited = model.edit(mm.Edit("resid_post", vector, layer=row.layer, pos=[last]))
        assert row.text == edited.generate(TEXT, 6)
        assert row.text == edited.generate(TEXT, 6, use_past_kv_cache=False)
    assert any(text != plain for text in table["text"])


def test_a_target_of_one_position_is_patched_once():
    model = bridge("toy-gptj")
    table = mm.patchscope(model, prompt(), pos=[5], layer=1, into="A", max_new_tokens=4)
    vector = mm.activations(model, prompt(), "resid_post", layer=1, pos=5).values
    edited = model.edit(mm.Edit("resid_post", vector, layer=1, pos=[0]))
    assert table["text"][0] == edited.generate("A", 4, use_past_kv_cache=False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_word_of_a_planted_unit_is_read_at_the_patch_that_it_sees(kind):
    """The unit of layer 1 writes " dog" at the white patch: silencing it costs the word there."""
    model, asked = bridge(f"toy-{kind}-planted"), prompt((2, 1))
    how = {"pos": Patch, "layer": 1, "into": "A picture of a", "quantity": "logit"}
    said = mm.patchscope(model, asked, [" dog"], **how)
    silent = model.edit(mm.Edit("neurons", 0.0, mm.Neuron(1, 5)))
    without = mm.patchscope(silent, asked, [" dog"], reader=model, **how)
    lost = (said.values - without.values).flatten()
    best, second = lost.topk(2).values
    assert said.of("pos")[int(lost.argmax())] == Patch(2, 1)
    assert float(best) > 2 * float(second)


def texts(n: int) -> list[str]:
    """Texts whose positions span the stream."""
    words = ["dog", "cat", "red", "ball", "picture", "table", "house", "of", "a", "the"]
    draw = torch.Generator().manual_seed(0)
    return [
        " ".join(words[i] for i in torch.randint(len(words), (9,), generator=draw).tolist())
        for _ in range(n)
    ]


def test_a_map_between_models_that_differ_by_a_rotation_is_that_rotation():
    """The streams of a model and of its twin in other coordinates: planted truth."""
    model = bridge("toy-gptj")
    turn = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))[0]
    shift = torch.randn(32, generator=torch.Generator().manual_seed(2))
    twin = model.edit(mm.Edit("resid_post", lambda x: x @ turn.to(x) + shift.to(x), layer=1))
    found = mm.stream_map(model, texts(20), layer=1, reader=twin)
    assert off(found.matrix, turn) < 1e-3 and off(found.bias, shift) < 1e-3
    assert found.about["explained"] > 0.9999
    back = mm.stream_map(twin, texts(20), layer=1, reader=model)
    said = mm.patchscope(twin, prompt(), [" dog"], layer=1, into=TEXT, reader=model, through=back)
    own = mm.patchscope(model, prompt(), [" dog"], layer=1, into=TEXT)
    assert off(said.values, own.values) < 1e-4


def test_a_map_is_the_least_squares_of_an_independent_route():
    np = pytest.importorskip("numpy")
    one, other = bridge("toy-gptj"), bridge("toy-llama")
    found = mm.stream_map(one, texts(12), layer=0, into_layer=2, reader=other)
    x, y = (
        torch.cat([mm.activations(m, t, "resid_post", layer=layer).values for t in texts(12)])
        for m, layer in ((one, 0), (other, 2))
    )
    padded = np.concatenate([x.double().numpy(), np.ones((len(x), 1))], 1)
    solved = np.linalg.lstsq(padded, y.double().numpy(), rcond=None)[0]
    assert np.abs(found.matrix.numpy() - solved[:-1]).max() < 1e-3 * np.abs(solved).max()
    assert found.about["positions"] == len(x)


def test_a_lens_of_the_model_as_the_map_is_that_lens():
    model, asked = bridge("toy-gptj"), prompt()
    lens = mm.jacobian_lens(model, asked, pos=Patch)
    said = mm.patchscope(model, asked, [" dog"], into=TEXT, through=lens)
    read = mm.logit_lens(model, asked, [" dog"], through=lens)
    assert off(said.values, read.values) < 1e-5


def test_the_prompts_of_the_paper_are_read_by_default():
    model = bridge("toy-gptj")
    table = mm.patchscope(model, prompt(), pos=[5], layer=[0, 1], k=2)
    assert list(table.columns) == ["layer", "pos", "rank", "token", "prob"] and len(table) == 4
    assert DESCRIPTION.endswith(", x")  # the place of the vector


def test_what_does_not_fit_is_refused():
    model = bridge("toy-gptj")
    with pytest.raises(AddressError, match="into_pos=slice.*names 8 positions: give one"):
        mm.patchscope(model, prompt(), into="A picture of a dog and a cat", into_pos=slice(None))
    with pytest.raises(AddressError, match=r"layer=\[\] names nothing"):
        mm.patchscope(model, prompt(), layer=[])
    with pytest.raises(ArgumentError, match="leave out tokens"):
        mm.patchscope(model, prompt(), [" dog"], max_new_tokens=2)
    narrow = mm.StreamMap(torch.zeros(8, 32), torch.zeros(32))
    with pytest.raises(CheckpointError, match="reads streams of width 8"):
        mm.patchscope(model, prompt(), through=narrow)
    with pytest.raises(CheckpointError, match="These vectors have 16 dimensions"):
        mm.patchscope(model, prompt(), through=mm.StreamMap(torch.zeros(32, 16), torch.zeros(16)))
    lens = Translators("tuned", torch.eye(32).repeat(2, 1, 1), torch.zeros(2, 32))
    with pytest.raises(AddressError, match="maps into the last layer, 2"):
        mm.patchscope(model, prompt(), through=lens, into_layer=1)
    with pytest.raises(PromptError, match="read other tokens"):
        mm.stream_map(model, TEXT, layer=0, reader=mm.load("pictos"))
