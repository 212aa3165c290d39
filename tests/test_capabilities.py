"""What a verb needs is declared, held against what a model can, and refused in one sentence."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from verb_calls import verbs

import mmlens as mm
from mmlens.model.capabilities import WHAT, needs, require
from mmlens.values.errors import ArgumentError, CapabilityError

VERBS = verbs()


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    timm = pytest.importorskip("timm")
    bridge = mm.load("toy-gpt2")
    net = timm.create_model("resnet10t", pretrained=False, num_classes=3).eval()
    return {
        "bridge": bridge,
        "language model": mm.HookedVLM(None, None, bridge.lm, name="gpt2"),
        "tiled": mm.load("toy-tiled"),
        "cross-attention": mm.load("toy-cross"),
        "classifier": mm.from_parts(vision=net),
    }


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_declares_what_it_needs(name):
    assert set(getattr(VERBS[name], "needs", {"nothing said"})) <= set(WHAT), name


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_refuses_what_is_no_model_and_a_model_that_cannot(name, models):
    verb = VERBS[name]
    with pytest.raises(ArgumentError, match="is no HookedModel"):
        verb(3)
    for model in models.values():
        lacking = [one for one in verb.needs if not model.can(one)]
        if lacking:
            with pytest.raises(CapabilityError, match="needs a model that " + WHAT[lacking[0]]):
                verb(model)


def test_what_a_model_can_is_what_it_has(models):
    bridge, words, tiled, crosses, classes = models.values()
    assert bridge.can("pictures") and bridge.can("logits") and not bridge.can("classes")
    assert all(model.can("positions") for model in (bridge, words, tiled))
    assert bridge.can("grid") and not tiled.can("grid") and not crosses.can("grid")
    assert not crosses.can("positions") and crosses.can("pictures") and crosses.can("logits")
    assert words.can("generate") and not words.can("pictures")
    assert classes.can("classes") and not classes.can("text") and not classes.can("unembed")
    with pytest.raises(ArgumentError, match="did you mean 'logits'|'logits'"):
        bridge.can("logit")


def test_a_declared_need_keeps_the_signature_and_is_checked_first():
    @needs("logits")
    def verb(model: Any, k: int = 3) -> int:
        raise AssertionError("it ran")

    assert list(inspect.signature(verb).parameters) == ["model", "k"]
    with pytest.raises(ArgumentError):
        verb(None)
    assert require(mm.load("toy-gpt2"), "logits").can("logits")
