"""One picture read through a model whose truth is known: " dog" because of a white patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from bridges import bridge

import mmlens as mm
from mmlens import Neuron, Patch, Token
from mmlens.explore import Look, choose, thing_tokens
from mmlens.explore.look import look
from mmlens.families import toy
from mmlens.model.text_end import TextEnd
from mmlens.values.errors import (
    ArgumentError,
    CapabilityError,
    NumericsError,
    PromptError,
    TargetError,
)

NAME = "toy-gptj-planted"


@pytest.fixture(scope="module")
def model() -> mm.HookedVLM:
    return bridge(NAME)


@pytest.fixture(scope="module")
def seen(model: mm.HookedVLM) -> Look:
    return look(model, toy.picture((2, 1)), max_new_tokens=3)


def test_the_planted_neuron_comes_first_says_its_word_and_looks_at_its_patch(seen):
    assert seen.caption == " dog dog dog" and seen.token == Token(" dog", 19)
    best = seen.neurons.iloc[0]
    assert best.neuron == Neuron(1, 5) and best.patch == Patch(2, 1)
    assert best.words[0] == " dog"
    active = seen.activations.sel(neuron=Neuron(1, 5))
    assert active.of("pos")[int(active.values.argmax())] == Patch(2, 1)


def test_the_patch_map_peaks_where_the_word_comes_from(seen):
    here = seen.maps.sel(token=seen.token)
    assert here.of("pos")[int(here.values.argmax())] == Patch(2, 1)


def test_the_numbers_are_those_of_the_questions(model, seen):
    prompt = mm.Prompt(toy.picture((2, 1)), "A picture of")
    scores = mm.attribute(model, prompt, of=" dog")
    top = mm.top_neurons(scores, 10, rank_by="max")
    assert list(top.neuron) == list(seen.neurons.neuron)
    assert list(top.patch) == list(seen.neurons.patch)
    assert np.allclose(top.score, seen.neurons.score, rtol=1e-4)
    summed = scores.sel(pos=Patch).sum("layer", "unit")
    assert torch.allclose(summed.values, seen.maps.sel(token=seen.token).values, atol=1e-4)
    for neuron in seen.neurons.neuron[:3]:
        direct = mm.activations(model, prompt, "neurons", neuron, pos=Patch)
        assert torch.allclose(direct.values, seen.activations.sel(neuron=neuron).values, atol=1e-5)


def test_every_word_of_the_caption_has_its_map_and_its_neurons(seen):
    assert seen.maps.axes == ("token", "pos") and seen.maps.shape == (3, 16)
    assert list(seen.table.token.unique()) == list(seen.tokens)
    assert set(seen.table.neuron) == set(seen.activations.of("neuron"))


def test_other_words_can_be_explained_than_the_models_own(model):
    seen = look(model, toy.picture(), caption=" a cat", of="cat", k=2)
    assert seen.token.text == " cat" and len(seen.neurons) == 2


def test_the_page_holds_the_caption_and_the_provenance(seen, tmp_path):
    html = seen.save(tmp_path / "white.html").read_text(encoding="utf-8")
    assert "<title>white · mmlens</title>" in html
    assert NAME in html and "gptj" in html.lower() and "A picture of" in html


def test_a_crop_is_told_to_the_page(seen):
    assert seen.box == (0, 0, 32, 32)


@pytest.mark.parametrize(
    "words, taken",
    [
        ([" a", " dog", " and"], " dog"),
        ([" a", " picture", " of", " two", " cats"], " cats"),
        ([" the", " word", " banana"], " banana"),
        ([" a", " gir", "affe", " tree"], " tree"),  # a piece of a word names nothing
        ([" a", " red", " ."], " red"),  # nothing better
        ([" of", "."], " of"),
        (["."], "."),
    ],
)
def test_the_first_word_that_names_a_thing_is_explained(model, words, taken):
    tokens = tuple(Token(word, i) for i, word in enumerate(words))
    assert choose(model, tokens).text == taken


def test_a_word_is_found_with_and_without_its_space(model):
    tokens = (Token(" a", 0), Token(" dog", 1))
    assert choose(model, tokens, "dog") == choose(model, tokens, " dog") == tokens[1]


def test_a_word_that_is_not_said_is_refused_with_the_words_there_are(model):
    with pytest.raises(
        TargetError, match=r"does not predict 'cat' here: choose .* \(' a', ' dog'\)"
    ):
        choose(model, (Token(" a", 0), Token(" dog", 1)), "cat")


def test_a_word_of_several_tokens_is_refused_with_its_pieces(model):
    with pytest.raises(TargetError, match="' zebra' is . tokens here"):
        choose(model, (Token(" a", 0),), "zebra")


def test_at_least_one_neuron_is_asked_for(model):
    with pytest.raises(PromptError, match="k=0: write a whole number from 1 on"):
        look(model, toy.picture(), k=0)


def test_a_nan_is_refused_and_never_ranked(model):
    broken = model.edit(mm.Edit("neurons", float("nan"), Neuron(1, 5)))
    with pytest.raises(NumericsError, match="NaN or infinity"):
        look(broken, toy.picture(), caption=" dog")


# -- where the caption ends, and which of its words are explained ----------------------------------


@pytest.mark.parametrize(
    "words, stop, kept",
    [
        (["\n", " a", " dog", ".", "\n", " cat"], (".", "\n"), ["\n", " a", " dog", "."]),
        ([" a", " dog", "\n", " cat"], (".", "\n"), [" a", " dog"]),
        ([" a", " dog", ".\n"], (".", "\n"), [" a", " dog", ".\n"]),
        ([" a", ".", " dog"], (), [" a", ".", " dog"]),
        ([" a", "<eos>", " dog"], (), [" a"]),
        ([" a", " dog", " and", " cat"], ("dog and",), [" a", " dog", " and"]),
    ],
)
def test_a_text_is_cut_at_its_first_sentence_or_line(monkeypatch, words, stop, kept):
    monkeypatch.setattr("mmlens.model.text_end.word", lambda lm, token: words[token])
    ends = [i for i, one in enumerate(words) if one == "<eos>"]
    ids, ended = TextEnd(None, ends, stop).of(list(range(len(words))))
    assert [words[i] for i in ids] == kept and ended == bool(ends or stop)


@pytest.mark.parametrize("backend", ["bridge", "hooked_transformer"])
def test_generation_stops_where_it_is_told_and_pays_for_no_more(backend):
    try:
        model = bridge("toy-gptj", backend=backend)
    except CapabilityError:
        pytest.skip("TransformerLens 4 has no HookedTransformer")
    prompt = mm.Prompt(toy.picture(), "A picture of")
    whole = model.generate(prompt, 12, stop_at_eos=False)
    mark = whole[4:7]
    steps = []
    with model.hooks([("unembed.hook_out", lambda x, hook: steps.append(1))]):
        short = model.generate(prompt, 12, stop=mark, stop_at_eos=False)
    assert mark in short and whole.startswith(short) and len(short) < len(whole)
    assert len(steps) < 12
    rows = model.generate([prompt, prompt], 12, stop=[mark], stop_at_eos=False)
    assert rows == [short, short]
    with pytest.raises(ArgumentError, match="write what ends the text"):
        model.generate(prompt, stop="")


def test_only_the_words_that_name_things_are_explained_unless_all_are_asked_for(model):
    words = " a dog and two cat in this picture"
    seen = look(model, toy.picture(), caption=words, full=True)
    assert [token.text for token in seen.explained] == [" dog", " cat"]
    assert "".join(token.text for token in seen.tokens) == words == seen.caption
    whole = look(model, toy.picture(), caption=words, full=True, explain="all")
    assert whole.explained == whole.tokens == seen.tokens
    for token in seen.explained:
        assert torch.allclose(seen.maps.sel(token=token).values,
                              whole.maps.sel(token=token).values, atol=1e-5)  # fmt: skip
        assert seen.together is not None and whole.together is not None
        assert seen.together.sel(token=token).item() == pytest.approx(
            whole.together.sel(token=token).item(), rel=1e-4
        )
    assert seen.before is not None and seen.before.of("token") == seen.tokens
    assert look(model, toy.picture(), caption=words, of="and").token.text == " and"


def test_pieces_of_a_word_are_explained_together():
    tokens = tuple(Token(word, i) for i, word in enumerate([" a", " gir", "affe", ",", " of", "."]))
    assert [token.text for token in thing_tokens(tokens)] == [" gir", "affe"]


def test_look_reads_the_neurons_through_what_it_is_told(model):
    asked = mm.Prompt(toy.picture((2, 1)), "A picture of")
    lens = mm.jacobian_lens(model, asked)
    read = {how: look(model, toy.picture((2, 1)), max_new_tokens=2, through=how, k=4, full=True)
            for how in ("effect", lens)}  # fmt: skip
    for how, seen in read.items():
        assert seen.neurons.iloc[0].words[0] == " dog"
        prompt = asked if seen.token.at == 19 else asked + " dog"
        said = mm.decode(model, seen.neurons, through=how, prompt=prompt)
        assert list(said.words) == list(seen.neurons.words)
    assert read["effect"].about["decoded"] == "effect"
    with pytest.raises(ArgumentError, match="did you mean 'effect'"):
        look(model, toy.picture(), through="effects")
