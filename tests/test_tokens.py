"""Ids that carry pictures: whatever is done to them, the model reads what they say, or refuses."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm
from mmlens.families import toy
from mmlens.values.errors import PromptError

DOG = prompt((2, 1), "A picture of a dog")
CAT = prompt((2, 1), "A picture of a cat")
OTHER = prompt((0, 3), "A picture of a cat")
LAST = torch.tensor([[20]])
HERE = torch.arange(21)[None] == 20


def ids(of: mm.Prompt = DOG) -> Any:
    return bridge("toy-gpt2").to_tokens(of).clone()


def cat() -> int:
    return bridge("toy-gpt2").to_single_token(" cat")


def _setitem(c: Any) -> None:
    c[0, -1] = cat()


def _through_numpy(c: Any) -> None:
    c.numpy()[0, -1] = cat()


def _through_a_row(c: Any) -> None:
    c[0][-1] = cat()


IN_PLACE: dict[str, Any] = {
    "setitem": _setitem,
    "fill_": lambda c: c[:, -1].fill_(cat()),
    "copy_": lambda c: c.copy_(ids(CAT)),
    "copy_ into a slice": lambda c: c[:, 16:].copy_(ids(CAT)[:, 16:]),
    "scatter_": lambda c: c.scatter_(1, LAST, cat()),
    "index_put_": lambda c: c.index_put_((torch.tensor(0), torch.tensor(-1)), torch.tensor(cat())),
    "masked_fill_": lambda c: c.masked_fill_(HERE, cat()),
    "index_fill_": lambda c: c.index_fill_(1, torch.tensor([20]), cat()),
    "through numpy": _through_numpy,
    "through a row": _through_a_row,
}
OUT_OF_PLACE: dict[str, Any] = {
    "where": lambda c: torch.where(HERE, cat(), c),
    "masked_fill": lambda c: c.masked_fill(HERE, cat()),
    "scatter": lambda c: c.scatter(1, LAST, cat()),
    "cat": lambda c: torch.cat([c[:, :-1], torch.tensor([[cat()]])], dim=-1),
    "stack": lambda c: torch.stack([c[0].masked_fill(HERE[0], cat())]),
    "expand": lambda c: c.masked_fill(HERE, cat()).expand(3, -1),
    "repeat": lambda c: c.repeat(2, 1).masked_fill(HERE, cat()),
    "one row": lambda c: c.masked_fill(HERE, cat())[0],
    "deepcopy": lambda c: deepcopy(c.masked_fill(HERE, cat())),
}


@pytest.mark.parametrize("how", IN_PLACE)
@torch.no_grad()
def test_a_word_written_into_ids_is_the_word_that_is_read(how):
    model, tokens = bridge("toy-gpt2"), ids()
    IN_PLACE[how](tokens)
    assert tokens[0, :16].tolist() == [-1] * 16
    assert off(model(tokens), model(CAT)) < 1e-6
    assert off(model(tokens), model(DOG)) > 1e-2
    assert model.to_str_tokens(tokens)[-1] == " cat"
    assert model.embed(tokens).prompts[0].text == "A picture of a cat"


@pytest.mark.parametrize("how", OUT_OF_PLACE)
@torch.no_grad()
def test_ids_made_from_ids_keep_their_pictures(how):
    model = bridge("toy-gpt2")
    made = OUT_OF_PLACE[how](ids())
    assert off(model(made), model(CAT).expand_as(model(made))) < 1e-5


@torch.no_grad()
def test_the_standard_corruption_of_activation_patching_runs_on_a_picture():
    """TransformerLens' own patching, on ids of which one word was replaced, against a Pair."""
    from transformer_lens import patching

    from mmlens.patching import Pair, patch

    model, corrupt = bridge("toy-gpt2"), ids()
    corrupt[0, 18] = model.to_single_token(" and")
    _, clean = model.run_with_cache(ids())
    metric = lambda logits: logits[0, -1, 5]  # noqa: E731
    theirs = patching.get_act_patch_resid_pre(model, corrupt, clean, metric)
    replaced = mm.Prompt(toy.picture((2, 1)), "A picture and a dog")
    ours = patch(model, Pair(DOG, replaced), lambda x: x[..., 5], "resid_pre")
    assert off(theirs, ours.values) < 1e-5
    assert float(theirs.std()) > 1e-4


@torch.no_grad()
def test_another_prompts_pictures_come_with_their_ids():
    model = bridge("toy-gpt2")
    moved, row = ids(), ids()
    moved[0, :16] = ids(OTHER)[0, :16]
    assert off(model(moved), model(prompt((0, 3), "A picture of a dog"))) < 1e-6
    row.copy_(ids(OTHER))
    assert off(model(row), model(OTHER)) < 1e-6
    assert off(model(torch.cat([ids(), ids(OTHER)])), model([DOG, OTHER])) < 1e-6
    both = model.to_tokens([DOG, OTHER, "A dog"])
    assert off(model(both[[1, 2]]), model([DOG, OTHER, "A dog"])[1:]) < 1e-5
    assert off(model(both.flip(0))[1], model(OTHER)[0]) < 1e-6


@torch.no_grad()
def test_a_word_over_a_patch_is_a_word_and_edits_of_the_picture_leave_it():
    model, tokens = bridge("toy-gpt2"), ids()
    tokens[0, 5] = cat()
    soft = model.embed(DOG)
    vectors = soft.vectors.clone()
    vectors[0, 5] = model.lm.hf.get_input_embeddings().weight[cat()]
    assert off(model(tokens), model.lm.hf(inputs_embeds=vectors).logits) < 1e-5
    assert model.embed(tokens).labels[0][4:7] == (
        mm.Patch(1, 0),
        mm.Token(" cat", 5),
        mm.Patch(1, 2),
    )
    again = model.edit(mm.Edit("soft_prompt", lambda x: 2 * x))  # pictures are read again
    vectors[0, :16] *= 2
    vectors[0, 5] /= 2
    assert off(again(tokens), model.lm.hf(inputs_embeds=vectors).logits) < 1e-4


def _from_another(c: Any) -> None:
    c[0].copy_(ids(OTHER)[0])


def _plus(c: Any) -> None:
    c += 1


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda c: c + 1, "lost the pictures"),
        (lambda c: c.abs(), "lost the pictures"),
        (lambda c: c * 2 - 3, "lost the pictures"),
        (lambda c: c.reshape(1, 3, 7), "lost the pictures"),
        (lambda c: torch.where(torch.arange(21) < 8, c, ids(OTHER)), "lost the pictures"),
        (lambda c: (_plus(c), c)[1], "lost the pictures"),
        (lambda c: (_from_another(c), c)[1], "lost the pictures"),
        (lambda c: torch.tensor(c.tolist()), "picture was lost"),
        (lambda c: c.to(torch.int32), "picture was lost"),
        (lambda c: c.index_fill(1, torch.tensor([20]), -1), "lost the pictures"),
        (lambda c: (c.numpy().__setitem__((0, 20), -1), c)[1], "no picture was put"),
        (lambda c: c.masked_fill(HERE, 9999), "9999 has no embedding"),
    ],
)
def test_ids_whose_pictures_cannot_be_told_are_refused(make, sentence):
    model = bridge("toy-gpt2")
    made = make(ids())
    with pytest.raises(PromptError, match=sentence):
        model(made)


@torch.no_grad()
def test_words_alone_are_plain_ids():
    model = bridge("toy-gpt2")
    assert type(ids()[:, 16:]) is torch.Tensor
    assert off(model(ids()[:, 16:]), model("A picture of a dog")) < 1e-6
    assert type(ids() >= 0) is torch.Tensor


@torch.no_grad()
def test_a_word_written_into_padding_is_refused():
    model = bridge("toy-gpt2")
    both = model.to_tokens([DOG, "A dog"])
    both[:, -1] = cat()
    assert off(model(both)[1, -2:], model("A cat")[0]) < 1e-5
    both[:, 2] = cat()
    with pytest.raises(PromptError, match="Position 2 of prompt 1 is padding"):
        model(both)


@torch.no_grad()
def test_ids_with_pictures_belong_to_the_model_that_made_them():
    model, other = bridge("toy-gpt2"), mm.load("toy-gpt2", seed=1)
    with pytest.raises(PromptError, match="as another model's projection gives them"):
        other(model.to_tokens(DOG))
    edited = model.edit(mm.Edit("neurons", 0.0, layer=1))
    assert off(edited(model.to_tokens(DOG)), edited(DOG)) == 0.0
    wide = model.embed(DOG)
    with pytest.raises(PromptError, match="This soft prompt does not fit"):
        model(replace(wide, vectors=wide.vectors[..., :7]))
