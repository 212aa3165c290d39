"""Silenced units, many variants at once: what edits do one by one, and no more work than needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mmlens as mm
from mmlens.causal.silencing import captions_after, number_after, units_at, units_of
from mmlens.families import toy
from mmlens.model.targets import one

LATE = [mm.Neuron(2, 7), mm.Neuron(2, 9)]
BOTH = [mm.Neuron(1, 3), mm.Neuron(2, 7)]
PROMPT = mm.Prompt(toy.picture((2, 1)), "A picture of")


def logits(model: Any, units: Any, **how: Any) -> torch.Tensor:
    return number_after(model, PROMPT, lambda y: y, [units_of(some) for some in units], **how)


@pytest.mark.parametrize("where", ["all", "image", "last"])
@pytest.mark.parametrize("value", [0.0, 1.5, "mean"])
def test_what_reuses_a_prefix_gives_what_an_edit_gives(value, where):
    model = mm.load("toy-gptj")
    pos = {"all": None, "image": mm.Patch, "last": -1}[where]
    together = logits(model, [LATE, [], BOTH], value=value, where=where)
    means = {
        at.layer: mm.activations(model, PROMPT, "neurons", layer=at.layer).mean("pos")
        for at in LATE  # of layer 2 in a run that is whole before it
    }
    for row, neurons in zip(together, [LATE, [], BOTH], strict=True):
        if value == "mean" and neurons == BOTH:
            continue
        edits = [
            mm.Edit("neurons", means[n.layer].sel(unit=n.unit).item() if value == "mean" else value,
                    n, pos=pos) for n in neurons
        ]  # fmt: skip
        alone = (model.edit(*edits) if edits else model)(PROMPT)[0, -1]
        assert torch.allclose(row, alone, atol=1e-4 * float(alone.detach().abs().max()))


def test_answers_at_several_positions_are_those_of_the_edited_model():
    model = mm.load("toy-gptj")
    width = one(model, PROMPT).ids.shape[1]
    at = torch.tensor([width - 3, width - 1])
    found = logits(model, [LATE, []], at=at)
    alone = model.edit(mm.Edit("neurons", 0.0, LATE))(PROMPT)[0, at]
    assert found.shape == (2, 2, alone.shape[-1])
    assert torch.allclose(found[0], alone, atol=1e-4 * float(alone.abs().max()))
    assert torch.allclose(found[1], model(PROMPT)[0, at], atol=1e-4 * float(alone.abs().max()))


def test_variants_that_silence_nothing_are_computed_once():
    model, rows = mm.load("toy-gptj"), []
    count = lambda tensor, hook: rows.append(len(tensor))  # noqa: E731
    with model.hooks([("blocks.2.hook_resid_post", count)]):
        found = logits(model, [[], [], [mm.Neuron(0, 1)], []])
    assert sum(rows) == 2
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[3])
    assert not torch.equal(found[0], found[2])


def test_a_neuron_of_a_late_layer_runs_the_layers_before_it_once():
    model, rows = mm.load("toy-gptj"), []
    logits(model, [LATE, BOTH, [LATE[0]]])  # what is measured at first use is not counted
    model.root.blocks[0].mlp.register_forward_hook(lambda *call: rows.append(len(call[2])))
    logits(model, [LATE, BOTH, [LATE[0]]])
    assert sum(rows) == 1


def test_silencing_everywhere_acts_on_the_words_that_are_said_and_at_the_prompt_it_does_not():
    model = mm.load("toy-gptj")
    units = units_at(model, torch.arange(model.cfg.n_layers * model.cfg.d_mlp))
    seen: dict[str, list[float]] = {}
    for where in ("all", "image"):
        kept = seen.setdefault(where, [])
        look = lambda x, hook, kept=kept: kept.append(float(x[:, -1].abs().max()))  # noqa: E731
        with model.hooks([("blocks.1.hook_mlp_out", look)]):
            captions_after(model, PROMPT, [units], where=where, max_new_tokens=4)
    plain = model.edit(mm.Edit("neurons", 0.0))
    assert captions_after(model, PROMPT, [units], max_new_tokens=4) == [plain.generate(PROMPT, 4)]
    bias = float(mm.activations(plain, PROMPT, "mlp_out", layer=1).sel(pos=-1).values.abs().max())
    assert seen["all"] == pytest.approx([bias] * len(seen["all"]), abs=1e-5)
    assert all(abs(value - bias) > 1e-3 for value in seen["image"])
