"""Rewritten neurons: a word is ahead by the margin, by the least change, and what is kept stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bridges import bridge, off, prompt
from native_twins import twin

import mmlens as mm
from mmlens.families import toy
from mmlens.methods.rewrite import least_change
from mmlens.patching import rewrite
from mmlens.values.errors import AddressError, CapabilityError, NumericsError, TargetError

CAT, DOG = " cat", " dog"


def gap(model: Any, asked: mm.Prompt, of: str = CAT, minus: str = DOG) -> float:
    first, second = (model.to_single_token(word) for word in (of, minus))
    with torch.no_grad():
        logits = model(asked)[0, -1].float()
    return float(logits[first] - logits[second])


def behind(model: Any) -> tuple[str, str]:
    """The word that is less probable, and the other one."""
    return (CAT, DOG) if gap(model, prompt()) < 0 else (DOG, CAT)


def strongest(model: Any, k: int = 6, **where: Any) -> Any:
    scores = mm.contributions(model, prompt(), behind(model)[1], after="")
    return mm.top_neurons(scores.sel(**where) if where else scores, k)


@pytest.mark.parametrize("kind", ["gpt2", "gptj", "llama", "opt"])
def test_the_other_word_is_ahead_by_the_margin_and_the_given_model_stays_as_it_is(kind):
    model = bridge(f"toy-{kind}")
    words, before = behind(model), model(prompt()).detach().clone()
    changed = rewrite(model, prompt(), strongest(model), *words, margin=1.5)
    assert gap(model, prompt(), *words) < 0 and gap(changed, prompt(), *words) > 1.49
    assert torch.equal(model(prompt()), before)
    told = changed.provenance["rewritten"]
    assert told["before"][0] == pytest.approx(gap(model, prompt(), *words), abs=1e-4)
    assert told["after"][0] == pytest.approx(gap(changed, prompt(), *words), abs=1e-4)


def test_only_the_rows_of_these_neurons_are_changed_and_towards_one_direction():
    model = bridge("toy-gptj")
    chosen = strongest(model)
    changed = rewrite(model, prompt(), chosen, *behind(model))
    theirs, ours = (dict(one.root.named_parameters()) for one in (model, changed))
    changed_tables = [n for n in ours if not torch.equal(ours[n], theirs[n])]
    assert changed_tables and all("fc_out" in name for name in changed_tables)
    rows = []
    for layer in range(model.cfg.n_layers):
        moved = (changed.root.blocks[layer].mlp.W_out - model.root.blocks[layer].mlp.W_out).detach()
        units = set(moved.norm(dim=-1).nonzero()[:, 0].tolist())
        assert units == {one.unit for one in chosen.neuron if one.layer == layer}
        rows += [moved[unit] for unit in units]
    singular = torch.linalg.svdvals(torch.stack(rows).double())
    assert float(singular[1] / singular[0]) < 1e-4


def test_what_the_neurons_write_at_kept_prompts_stays_and_so_does_what_is_said_there():
    model = bridge("toy-gptj")
    other, words = prompt((0, 3), "the red house"), behind(model)
    chosen = strongest(model, layer=[2])  # the last layer: nothing comes after it
    with_keep = rewrite(model, prompt(), chosen, *words, keep=[other])
    without = rewrite(model, prompt(), chosen, *words)
    assert gap(with_keep, prompt(), *words) > 0.95
    last = lambda one: one(other)[0, -1].detach()  # noqa: E731
    assert off(last(with_keep), last(model)) < 1e-4 < 1e-3 < off(last(without), last(model))


def test_the_change_is_the_least_one_that_meets_what_was_demanded():
    """The same system written out for every entry of the change, solved by singular values."""
    g = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.double)  # noqa: E731
    d, gaps = draw(2, 5), (-1.0, 0.25)
    active, still = draw(2, 6), draw(2, 6)
    found = list(zip(active, d, gaps, strict=True))
    ours = least_change(found, list(still), 1.0).double()
    rows = [torch.kron(a, towards) for a, towards in zip(active, d, strict=True)]
    rows += [torch.kron(a, e) for a in still for e in torch.eye(5, dtype=torch.double)]
    demanded = torch.cat([torch.tensor([2.0, 0.75]).double(), torch.zeros(10).double()])
    least = torch.linalg.pinv(torch.stack(rows)) @ demanded
    assert off(ours.flatten(), least) < 1e-6
    assert off(torch.stack(rows) @ ours.flatten(), demanded) < 1e-6


def test_without_another_word_it_is_said_at_every_prompt_whatever_led_there():
    model = bridge("toy-gpt2")
    some = [prompt(), prompt((0, 3), "the red house")]
    with torch.no_grad():
        order = [model(one)[0, -1, : model.lm.n_words].argsort(descending=True) for one in some]
    assert int(order[0][0]) != int(order[1][0])
    word = int(order[0][40])
    changed = rewrite(model, some, strongest(model, 20), word, margin=0.5, steps=30)
    with torch.no_grad():
        after = [changed(one)[0, -1, : model.lm.n_words] for one in some]
    for logits in after:
        assert int(logits.argmax()) == word and float(logits.topk(2).values.diff()) < -0.45


def test_a_margin_that_the_steps_do_not_reach_is_told():
    model = bridge("toy-gpt2")
    some = [prompt(), prompt((0, 3), "the red house")]
    with pytest.warns(
        UserWarning, match=r"After 1 steps '.*' is ahead by .* and 9 was asked"
    ) as told:
        changed = rewrite(model, some, strongest(model), *behind(model), margin=9.0, steps=1)
    least = min(changed.provenance["rewritten"]["after"])
    assert least < 9.0 and f"is ahead by {least:.3g} " in str(told[0].message)


def test_a_prompt_that_says_the_word_already_is_left_alone():
    model = bridge("toy-gptj")
    minus, of = behind(model)
    ahead = gap(model, prompt(), of, minus)
    same = rewrite(model, prompt(), strongest(model), of, minus, margin=ahead - 0.5)
    assert torch.equal(same(prompt()), model(prompt()))
    assert same.provenance["rewritten"]["norm"] == 0


def test_edits_of_the_model_go_on_and_the_copy_takes_new_ones():
    model = bridge("toy-gptj").edit(mm.Edit("mlp_out", 0.0, layer=0))
    words = behind(model)
    changed = rewrite(model, prompt(), strongest(model), *words, steps=30)  # layer 0 adds nothing
    assert [repr(edit) for edit in changed.edits] == [repr(edit) for edit in model.edits]
    assert gap(changed, prompt(), *words) > 0.95
    silent = changed.edit(mm.Edit("neurons", 0.0))
    quiet = model.edit(mm.Edit("neurons", 0.0))
    assert off(silent(prompt()).detach(), quiet(prompt()).detach()) < 1e-5


def test_what_cannot_be_rewritten_is_refused():
    model = bridge("toy-gptj")
    with pytest.raises(AddressError):
        rewrite(model, prompt(), [], CAT, DOG)
    with pytest.raises(AddressError):
        rewrite(model, prompt(), [mm.Neuron(9, 0)], CAT, DOG)
    normed: Any = mm.from_model(*twin("gemma3"), name="gemma3")
    with pytest.raises(CapabilityError, match="a norm follows the MLP"):
        rewrite(normed, prompt(), [mm.Neuron(0, 1)], 5, 6)
    silent = model.edit(mm.Edit("neurons", 0.0))
    with pytest.raises(NumericsError, match="silent at the end of prompt 0"):
        rewrite(silent, prompt(), [toy.PLANTED], CAT, DOG, margin=50.0)
    with pytest.raises(TargetError, match="in place of itself"):
        rewrite(model, prompt(), [toy.PLANTED], CAT, CAT)
    with pytest.raises(CapabilityError, match="no MLP neuron"):
        rewrite(model, prompt(), [mm.Neuron(1, 3, "sae")], CAT, DOG)
    few = list(strongest(model, 2).neuron)
    with pytest.raises(NumericsError, match="keep fewer prompts"):
        rewrite(model, prompt(), few, *behind(model), margin=50.0, keep=[prompt()])
    with pytest.raises(NumericsError, match="keep fewer prompts"):
        rewrite(model, "a b c", few, *behind(model), margin=50.0, keep=["one", "two", "a cat"])
