"""PROJECTAWAY: the map is the lens's own, and what is left has no share of the word's vector."""

from __future__ import annotations

import pytest
import torch
from bridges import KINDS, bridge, off, prompt

import mmlens as mm
from mmlens import patching, relevance
from mmlens.families import toy
from mmlens.values.errors import AddressError, PromptError


@pytest.mark.parametrize("kind", KINDS)
def test_the_map_is_the_largest_probability_that_any_layer_reads_at_a_patch(kind):
    model = bridge(f"toy-{kind}")
    words = [model.to_single_token(one) for one in (" dog", " cat")]
    stream = mm.activations(model, prompt(), "resid_post", pos=mm.Patch)
    with torch.no_grad():
        read = model.lm.logits_of(stream.values).float().softmax(-1)[..., words]
    found = relevance.lens_map(model, prompt(), [" dog", " cat"])
    assert off(found.values, read.amax((0, -1))) < 1e-5
    assert found.axes == ("pos",) and found.of("pos") == stream.of("pos")
    alone = relevance.lens_map(model, prompt(), " cat", layer=[1])
    assert off(alone.values, read[1, :, 1]) < 1e-5


@pytest.mark.parametrize("white", [(2, 1), (0, 3)])
def test_a_planted_word_is_located_at_its_patch(white):
    model = bridge("toy-gptj-planted")
    found = relevance.lens_map(model, prompt(white), " dog", layer=[toy.PLANTED.layer])
    assert found.argmax()["pos"] == mm.Patch(*white)


@pytest.mark.parametrize(("kind", "word"), [("gpt2", " dog"), ("llama", " cat")])
def test_nothing_of_the_vector_is_left_at_patches_and_words_stay_as_they_were(kind, word):
    model = bridge(f"toy-{kind}")
    vector = patching.word_state(model, word, layer=0).values
    alone = mm.activations(model, word, "resid_post", layer=0)
    assert off(vector, alone.values[-1].float()) == 0
    edits = patching.project_away(model, word, layer=1, text_layer=0)
    before, after = (
        mm.activations(one, prompt(), "resid_post", layer=1) for one in (model, model.edit(*edits))
    )
    share = before.sel(pos=mm.Patch).values @ vector / (vector @ vector)
    assert float(share.max()) > 0.01 and float(share.min()) < -0.01  # both signs are there
    truth = before.sel(pos=mm.Patch).values - share.clamp(min=0)[:, None] * vector
    assert off(after.sel(pos=mm.Patch).values, truth) < 1e-5
    assert off(after.sel(pos=mm.Token).values, before.sel(pos=mm.Token).values) == 0
    left = after.sel(pos=mm.Patch).values @ vector / (vector @ vector)
    assert float(left.max()) < 1e-5


def test_words_are_taken_out_one_after_the_other():
    model = bridge("toy-gptj")
    names = [" dog", " cat", " tree"]
    edits = patching.project_away(model, names, layer=0, amount=1.5)
    x = mm.activations(model, prompt(), "resid_post", layer=0, pos=mm.Patch).values
    for name in names:
        t = patching.word_state(model, name, layer=0).values
        x = x - 1.5 * (x @ t / (t @ t)).clamp(min=0)[:, None] * t
    edited = mm.activations(model.edit(*edits), prompt(), "resid_post", layer=0, pos=mm.Patch)
    assert off(edited.values, x) < 1e-5


def test_an_amount_of_nothing_changes_nothing_and_it_holds_while_text_is_generated():
    model = bridge("toy-gptj-planted")
    none = model.edit(*patching.project_away(model, " dog", layer=1, amount=0.0))
    assert torch.equal(none(prompt()), model(prompt()))
    edited = model.edit(*patching.project_away(model, " dog", layer=1))
    texts = [edited.generate(prompt(), 6, use_past_kv_cache=cached) for cached in (True, False)]
    assert texts[0] == texts[1]


def test_a_prompt_without_patches_and_a_layer_that_is_not_there_are_refused():
    model = bridge("toy-gptj")
    with pytest.raises(PromptError, match="no patch among the positions"):
        relevance.lens_map(model, "A picture of", " dog")
    with pytest.raises(AddressError):
        patching.project_away(model, " dog", layer=9)
