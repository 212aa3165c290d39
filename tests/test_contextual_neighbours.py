"""An index of contexts: equal to brute force, resumable, refused elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm
from mmlens import Patch
from mmlens.methods import contextual_index as made
from mmlens.methods.contextual_neighbours import in_context
from mmlens.values.errors import AddressError, CheckpointError, PromptError

TEXTS = ["a dog on a table", "the red ball", "A picture of a cat and a dog", "a house",
         "of the dog", "cat cat cat", "a table in the house"]  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> mm.ContextualIndex:
    return mm.contextual_index(
        bridge("toy-gptj"), TEXTS, tmp_path_factory.mktemp("index"), half=False, shard=2, batch=2
    )


def brute(model: mm.HookedVLM, texts: list[str], layer: int) -> tuple[torch.Tensor, list]:
    """Every state of a layer, text by text, and (text, position)."""
    states = [mm.activations(model, one, "resid_post", layer=layer) for one in texts]
    keys = [(i, at) for i, one in enumerate(states) for at in range(one.values.shape[0])]
    return torch.cat([one.values for one in states]), keys


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("text_layer", [None, "same", [2]])
def test_the_neighbours_are_those_of_brute_force(index, centred, text_layer):
    model, asked = bridge("toy-gptj"), prompt()
    table = mm.contextual_neighbours(
        model, asked, index, pos=Patch, text_layer=text_layer, k=4, centred=centred
    )
    for layer in range(3):
        wanted = mm.activations(model, asked, "resid_post", layer=layer, pos=Patch).values
        every, names = [], []
        searched = {None: [0, 1, 2], "same": [layer]}.get(
            text_layer if text_layer != [2] else 2, [2]
        )
        means = {at: brute(model, TEXTS, at)[0].mean(0) if centred else 0.0 for at in range(3)}
        for at in searched:
            states, keys = brute(model, TEXTS, at)
            every.append(torch.cosine_similarity((wanted - means[layer])[:, None],
                                                 (states - means[at])[None], dim=-1))  # fmt: skip
            names += [(at, text) for text, _ in keys]
        best = torch.cat(every, 1).topk(4)
        found = table[table["layer"] == layer]
        assert off(torch.tensor(found["cosine"].to_numpy()).view(-1, 4), best.values) < 1e-5
        clear = (best.values[:, 0] - best.values[:, 1]) > 1e-5
        first = found[found["rank"] == 0]
        told = list(zip(first["text_layer"], first["text"], strict=True))
        true = [names[i] for i in best.indices[:, 0].tolist()]
        assert [a for a, c in zip(told, clear.tolist(), strict=True) if c] == [
            b for b, c in zip(true, clear.tolist(), strict=True) if c
        ]


def test_a_position_of_a_text_of_the_index_finds_itself(index):
    """Planted truth: the same words before it give the same state."""
    model = bridge("toy-gptj")
    table = mm.contextual_neighbours(model, TEXTS[2], index, k=1, text_layer="same")
    assert float(table["cosine"].min()) > 1 - 1e-5
    last = table[table["pos"] == table["pos"].iloc[-1]]
    assert set(last["context"]) == {"A picture of a cat and a [dog]"}
    assert set(last["token"]) == {" dog"}


def test_half_precision_keeps_directions_and_lengths(index, tmp_path):
    model = bridge("toy-gptj")
    half = mm.contextual_index(model, TEXTS, tmp_path / "half", shard=100)
    assert half.read("states", 0).dtype == np.float16 and len(half) == len(index)
    for layer in (0, 2):
        small = torch.cat([block for *_, block in half.blocks(layer)])
        whole = torch.cat([block for *_, block in index.blocks(layer)])
        assert off(small, whole) < 1e-3 * float(whole.abs().max())
        assert off(half.mean(layer), whole.mean(0)) < 1e-5
        assert off(whole, brute(model, TEXTS, layer)[0]) < 1e-4


def test_an_index_that_was_stopped_goes_on_and_ends_as_one_that_was_not(
    index, tmp_path, monkeypatch
):
    model, read = bridge("toy-gptj"), []
    real = made._shard

    def stopping(model, texts, first, *rest):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(first)
        return real(model, texts, first, *rest)

    options = {"half": False, "shard": 2, "per_token": 2}
    with monkeypatch.context() as here:
        here.setattr(made, "_shard", stopping)
        with pytest.raises(KeyboardInterrupt):
            mm.contextual_index(model, TEXTS, tmp_path / "a", **options)
    with pytest.raises(CheckpointError, match="has 2 of 4 shards"):
        mm.ContextualIndex.open(tmp_path / "a")
    mm.contextual_index(model, TEXTS, tmp_path / "a", **options)
    mm.contextual_index(model, TEXTS, tmp_path / "b", **options)
    names = sorted(one.name for one in (tmp_path / "a").iterdir())
    assert names == sorted(one.name for one in (tmp_path / "b").iterdir())
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    few = mm.ContextualIndex.open(tmp_path / "a")
    tokens = np.concatenate([few.read("rows", shard)[:, 2] for shard in few.shards])
    assert np.bincount(tokens).max() == 2 and len(few) < len(index)


def test_texts_come_from_a_file_a_line_each(tmp_path):
    model = bridge("toy-gptj")
    (tmp_path / "texts.txt").write_text("a dog\n\n  a cat \n", "utf-8")
    there = mm.contextual_index(model, tmp_path / "texts.txt", tmp_path / "index", layer=[1])
    assert there.texts == ("a dog", "a cat") and there.layer == (1,)
    table = mm.contextual_neighbours(model, prompt(), there, layer=0, pos=[3], k=2)
    few = mm.contextual_neighbours(model, prompt(), ["a dog", "a cat"], layer=0, pos=[3], k=2,
                                   text_layer=1)  # fmt: skip
    assert table["context"].tolist() == few["context"].tolist()


@pytest.mark.parametrize(
    ("pieces", "at", "word", "context"),
    [
        (["a", " bic", "ycle", " here"], 2, " bicycle", "a [bicycle] here"),
        (["a", " bic", "ycle", "."], 1, " bicycle", "a [bicycle]."),
        (["dog", " and"], 0, "dog", "[dog] and"),
    ],
)
def test_a_word_is_told_whole_in_its_sentence(pieces, at, word, context):
    assert in_context(list(enumerate(pieces)), at) == (word, context)


def test_what_does_not_fit_is_refused(index, tmp_path):
    model = bridge("toy-gptj")
    with pytest.raises(CheckpointError, match="made with 'toy-gptj', and 'toy-llama' has other"):
        mm.contextual_neighbours(bridge("toy-llama"), prompt(), index)
    with pytest.raises(
        CheckpointError, match="with other edits, dictionaries or rewritten weights"
    ):
        mm.contextual_neighbours(model.edit(mm.Edit("mlp_out", 0.0)), prompt(), index)
    codes = [mm.Dictionary(torch.randn(32, 8), torch.randn(8, 32)) for _ in "ab"]
    held = [model.attach(code, at="blocks.1.hook_resid_post") for code in codes]
    mine = mm.contextual_index(held[0], TEXTS[:2], tmp_path / "held")
    assert len(mm.contextual_neighbours(held[0], prompt(), mine))
    with pytest.raises(
        CheckpointError, match="with other edits, dictionaries or rewritten weights"
    ):
        mm.contextual_neighbours(held[1], prompt(), mine)
    with pytest.raises(CheckpointError, match="has an index with other dictionaries"):
        mm.contextual_index(held[1], TEXTS[:2], tmp_path / "held")
    with pytest.raises(CheckpointError, match="has an index with other digest"):
        mm.contextual_index(model, TEXTS[1:], index.folder, half=False, shard=2)
    with pytest.raises(CheckpointError, match="has an index with other half"):
        mm.contextual_index(model, TEXTS, index.folder, shard=2)
    with pytest.raises(CheckpointError, match="holds no index of contexts"):
        mm.contextual_neighbours(model, prompt(), tmp_path)
    with pytest.raises(PromptError, match="is no file of texts"):
        mm.contextual_index(model, tmp_path / "nothing.txt", tmp_path / "new")
    with pytest.raises(PromptError, match="'' among texts is no text"):
        mm.contextual_index(model, ["a", ""], tmp_path / "new")
    one = mm.contextual_index(model, TEXTS[:2], tmp_path / "one", layer=1)
    with pytest.raises(AddressError, match="The index has no layer 0 whose mean"):
        mm.contextual_neighbours(model, prompt(), one, layer=0, centred=True)
    with pytest.raises(AddressError, match="The index has no layer 0: it has 1"):
        mm.contextual_neighbours(model, prompt(), one, layer=0, text_layer="same")
