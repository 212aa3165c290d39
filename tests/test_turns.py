"""Models that share their parts: one run at a time, and runs inside of each other."""

from __future__ import annotations

import threading

import pytest
import torch
from bridges import off, prompt

import mmlens as mm
from mmlens.towers.language.language_model import wrap_lm
from mmlens.values.errors import CapabilityError

OTHER = prompt((0, 0), "A dog")


def pair(kind: str):
    """Two models, each with an edit, on one encoder and one TransformerLens model."""
    one = mm.load(f"toy-{kind}")
    root = wrap_lm(one.root, one.tokenizer)
    two = mm.HookedVLM(one.vision, one.projection, root, name="two")
    silent = mm.Edit("neurons", 0.0, layer=0)
    return one.edit(silent), two.edit(mm.Edit("vision.resid_post", 0.0, layer=0))


def in_two_threads(work) -> None:
    """work(0) and work(1) at the same time, to the end of both."""
    threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@torch.no_grad()
def test_two_models_on_one_transformer_lens_model_run_in_two_threads():
    models = pair("gptj")
    wanted = [model(prompt()) for model in models]
    said = [model.generate(prompt(), 4) for model in models]
    assert off(*wanted) > 1e-3
    wrong = []

    def work(i):
        with torch.no_grad():
            wrong.extend(i for _ in range(10) if off(models[i](prompt()), wanted[i]) > 0)
            wrong.extend(i for _ in range(2) if models[i].generate(prompt(), 4) != said[i])

    in_two_threads(work)
    assert wrong == []


@torch.no_grad()
def test_sampling_with_a_seed_says_the_same_in_two_threads():
    model = mm.load("toy-gptj")

    def sample(seed):
        return model.generate(prompt(), 6, do_sample=True, seed=seed, return_type="tokens").tolist()

    wanted, wrong = [sample(seed) for seed in range(2)], []

    def work(seed):
        wrong.extend(seed for _ in range(5) if sample(seed) != wanted[seed])

    in_two_threads(work)
    assert wrong == []


@pytest.mark.parametrize("name", ["hook_embed", "vision.hook_features"])
@torch.no_grad()
def test_a_call_inside_a_hook_runs_with_its_own_edits_and_the_outer_one_goes_on(name):
    for outer, inner in (pair("gpt2"), pair("gpt2")[::-1]):
        outside, whole = outer(prompt()), inner(OTHER)
        stopped, part = outer(prompt(), stop_at_layer=2), inner(OTHER, stop_at_layer=1)
        said = inner.generate(OTHER, 3)
        got = []

        def look(tensor, hook, inner=inner, got=got):
            got[:] = [inner(OTHER, stop_at_layer=1), inner(OTHER), inner.generate(OTHER, 3)]

        assert off(outer.run_with_hooks(prompt(), [(name, look)]), outside) == 0.0
        assert off(outer.run_with_hooks(prompt(), [(name, look)], stop_at_layer=2), stopped) == 0.0
        assert off(got[0], part) == off(got[1], whole) == 0.0
        assert got[2] == said


@pytest.mark.parametrize("kind", ["gptj", "gpt2"])
@torch.no_grad()
def test_a_call_inside_a_hook_never_sees_the_edits_of_the_outer_model(kind):
    outer, inner = pair(kind)
    alone, got = inner(OTHER), []

    def look(tensor, hook):
        if not got:  # once, whoever calls
            got.append(None)
            got[0] = inner(OTHER)

    outer.run_with_hooks(prompt(), [("blocks.1.hook_resid_pre", look)])
    assert off(got[0], alone) == 0.0


@torch.no_grad()
def test_a_hook_may_call_the_model_that_it_is_on():
    model = mm.load("toy-gptj")
    plain, other = model(prompt()), model(OTHER)
    got = []

    def look(tensor, hook):
        got.append(model(OTHER))
        return tensor * 0

    for run in (
        lambda: model.run_with_hooks(prompt(), [("blocks.1.hook_resid_pre", look)]),
        lambda: (model.add_hook("blocks.1.hook_resid_pre", look), model(prompt()))[1],
    ):
        assert off(run(), plain) > 1e-3
        assert off(got.pop(), other) == 0.0 and got == []
    model.reset_hooks()
    assert off(model(prompt()), plain) == 0.0


@torch.no_grad()
def test_an_edit_whose_function_runs_its_own_model_is_refused():
    box = []
    model = mm.load("toy-gptj").edit(mm.Edit("resid_pre", lambda x: box[0](OTHER)[0, 0], layer=1))
    box.append(model)
    with pytest.raises(CapabilityError, match="runs the model that it is part of"):
        model(prompt())
    assert not any(point.fwd_hooks for point in model.hook_points() if "resid" in point.name)
