"""Functions of the caller: with how many arguments each is called, and that its errors are its own.

A function that takes other arguments is refused in one sentence, wherever one is taken, and is not
called. What a fitting function raises arrives as it was raised, or as the cause of the sentence
that quotes it.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch
from bridges import bridge, prompt
from PIL import Image

import mmlens as mm
from mmlens import patching
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.families import toy
from mmlens.metrics.vocabulary import Vocabulary
from mmlens.papers.hallucination.questions.said_things import plain, said_things
from mmlens.papers.mmn.questions import ablation
from mmlens.papers.mmn.questions.explained import nouns
from mmlens.papers.scoring import against_captions, values_of
from mmlens.papers.tables import ask
from mmlens.values.arguments import shown
from mmlens.values.errors import MMLensError
from mmlens.values.written import accepts, written
from mmlens.view.style import given

PETS = Vocabulary("pets", {"dog": "dog", "cat": "cat"})
KNOWN = Sample("a", toy.picture((2, 1)), ("a dog",), (Thing("dog", None),))
ONE = Samples("one", ["a"], [KNOWN].__getitem__, "hash")
POINT = "blocks.0.hook_resid_pre"


class Own(Exception):
    """What a caller's function raises."""


def own(*_: Any, **__: Any) -> Any:
    raise Own("mine")


def unfit(*, never: Any) -> Any:
    raise AssertionError("It was called.")


def pair() -> Any:
    return patching.Pair(prompt(), prompt((0, 0)), of=" dog")


def table() -> Any:
    """A table of `ablations`, with captions to compare."""
    return ask(ablation.ablations, bridge("toy-gptj"), ONE, ks=(0, 1), max_new_tokens=2)


def pairs_table() -> Any:
    import pandas as pd

    return pd.DataFrame({"sample": ["a"], "text": ["a dog"]})


CALLS: dict[str, Any] = {
    "target": lambda m, f: mm.attribute(m, prompt(), target=f),
    "target of a caption": lambda m, f: mm.attribute_caption(m, prompt(), caption=" dog", target=f),
    "metric": lambda m, f: patching.patch(m, pair(), f, layer=1, pos=[-1]),
    "metric of routes": lambda m, f: patching.knockouts(m, prompt(), f, {"all": (mm.Patch, -1)}),
    "corrupter": lambda m, f: patching.Pair.corrupted(prompt(), f),
    "corrupter at patches": lambda m, f: patching.only_at(m, f, [mm.Patch(0, 0)])(KNOWN.image),
    "Edit": lambda m, f: m.edit(mm.Edit("mlp_out", f, layer=1))(prompt()),
    "hook": lambda m, f: m.run_with_hooks(prompt(), fwd_hooks=[(POINT, f)]),
    "hooks by name": lambda m, f: m.run_with_hooks(prompt(), fwd_hooks=[(f, lambda x, hook: x)]),
    "names of a cache": lambda m, f: m.run_with_cache(prompt(), names_filter=f),
    "names of hooks": lambda m, f: listed(m, f),
    "progress": lambda m, f: patching.patch(m, pair(), "logit", layer=1, pos=[-1], progress=f),
    "progress of pairs": lambda m, f: patching.patch(m, [pair()] * 2, "logit", layer=1, pos=[-1],
                                                     progress=f),
    "progress of words": lambda m, f: mm.neuron_graph(m, prompt(), [" dog"], after="", k=1,
                                                      units=1, progress=f),
    "progress of an audit": lambda m, f: mm.audit(m, prompt(), progress=f),
    "progress of asking": lambda m, f: ask(said_things, m, ONE, progress=f, vocabulary=plain(PETS)),
    "progress of a lens": lambda m, f: mm.tuned_lens(m, [prompt()], steps=1, progress=f),
    "progress of fetching": lambda m, f: mm.fetch("smol", progress=f) if f is unfit else f(),
    "edits of a pair": lambda m, f: patching.captions(m, [pair()], f, max_new_tokens=1),
    "processor": lambda m, f: m.generate(prompt(), 2, logits_processor=f),
    "decode": lambda m, f: said_things(m, KNOWN, vocabulary=plain(PETS), decode=f),
    "arm": lambda m, f: mm.hallucination(m, ONE, edited={"mine": f}, vocabulary=PETS),
    "question": lambda m, f: ask(f, m, ONE),
    "question of a sweep": lambda m, f: mm.sweep.sweep(f, m, ONE, "nowhere", progress=False)
                           if f is unfit else f(),
    "scorer": lambda m, f: values_of(pairs_table(), [KNOWN], {"mine": f}),
    "metric of a scorer": lambda m, f: values_of(pairs_table(), [KNOWN],
                                                 {"mine": against_captions(f)}),
    "compare": lambda m, f: ablation.summary(table(), {"mine": f}, draws=20),
    "noun": lambda m, f: nouns("a dog", f),
    "read": lambda m, f: Samples("mine", ["a"], f, "hash")[0],
    "pictures": lambda m, f: given.pictures(f)("a"),
}  # fmt: skip


def listed(model: Any, f: Any) -> Any:
    """The hooks of names that a function chooses."""
    with model.hooks(fwd_hooks=[(POINT, lambda x, hook: None)]):
        return model.list_hooks(f)


@pytest.fixture(scope="module")
def model() -> Any:
    return bridge("toy-gptj")


@pytest.mark.parametrize("name", CALLS)
def test_a_function_of_other_arguments_is_refused_in_one_sentence_and_not_called(model, name):
    with pytest.raises(MMLensError) as caught:
        CALLS[name](model, unfit)
    told = str(caught.value)
    assert "\n" not in told and told.count(". ") == 0
    assert re.search(r"cannot be called|is asked with|is called with", told) and "0x" not in told


@pytest.mark.parametrize("name", CALLS)
def test_what_a_function_raises_itself_arrives(model, name):
    with pytest.raises(Exception, match="mine") as caught:
        CALLS[name](model, own)
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, Own):
        error = error.__cause__
    assert isinstance(error, Own)


def test_whether_a_call_fits_is_read_off_the_signature():
    assert accepts(len, 1) and not accepts(len, 2)
    assert accepts(torch.nn.Linear(2, 2), 1) and not accepts(torch.nn.Linear(2, 2), 2)
    assert accepts(partial(pow, 2), 1) and accepts(print, 9) and accepts(max, 2)
    assert accepts(KNOWN.__getattribute__, 1) and not accepts(lambda one, *, of: one, 1)
    assert accepts(lambda one, *, of: one, 1, ["of"]) and not accepts(lambda one: one, 1, ["of"])


def test_functions_are_written_by_their_names_and_without_addresses():
    def half(x: torch.Tensor, by: float) -> torch.Tensor:
        return x / by

    part = partial(half, torch.ones(2, 3), by=[2.0])
    assert written(part) == "partial(half, Tensor 2x3, by=[2.0])" == shown(part)
    assert written(half) == shown(half) == "half" and shown([half, len]) == "[half, len]"
    assert written(lambda x, y: x) == "lambda x, y" and written("a".join) == "str.join"
    assert written(object()) == "<object object>" and written(Image.new) == "new"
    assert repr(mm.Edit("mlp_out", lambda x: x, layer=1)) == "Edit('mlp_out', lambda x, layer=1)"
