"""Out of range, empty, of another layout: each is refused in one sentence that names it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from bridges import bridge, needs_edges, prompt

import mmlens as mm
from mmlens import patching
from mmlens.causal import measures
from mmlens.values.errors import MMLensError

CLEAN, CORRUPT = prompt((2, 1)), prompt((0, 3))
PAIR = patching.Pair(CLEAN, CORRUPT)
PHOTO = CLEAN.pictures[0]
SOME = [mm.Neuron(i % 3, 3 * i) for i in range(8)]
ROUTES = {"a": (mm.Patch, -1)}
LATER = mm.Prompt("A picture of", PHOTO)  # as many positions, the picture behind the words
NAN = float("nan")
WHOLE = np.ones((32, 32), bool)


def to_cat(model: Any) -> Any:
    """A metric: how much more " dog" than " cat"."""
    return measures.logit_difference(model, " dog", " cat")


def curve(m: Any, units: Any = SOME, **options: Any) -> Any:
    """An ablation curve of one step."""
    return patching.ablation_curve(m, CLEAN, to_cat(m), units, **{"k": (1,), **options})


def patch(m: Any, *args: Any, **options: Any) -> Any:
    """A grid of the pair."""
    return patching.patch(m, PAIR, to_cat(m), *args, **options)


def paths(m: Any, *args: Any, **options: Any) -> Any:
    """Paths of the pair."""
    return patching.path_patching(m, PAIR, to_cat(m), *args, **options)


def ablate(m: Any, *args: Any, **options: Any) -> Any:
    """An ablation of the clean prompt."""
    return patching.ablate(m, CLEAN, to_cat(m), *args, **options)


def shares(m: Any, *args: Any, **options: Any) -> Any:
    """Direct logits of the clean prompt."""
    return patching.direct_logits(m, CLEAN, *args, **options)


REFUSED: dict[str, tuple[Any, str]] = {
    # counts
    "batch of a grid": (lambda m: patch(m, batch=0), "batch=0"),
    "batch of an ablation": (lambda m: ablate(m, batch=-3), "batch=-3"),
    "batch of a curve": (lambda m: curve(m, batch=0), "batch=0"),
    "batch of an estimate": (
        lambda m: patching.attribution_patching(m, PAIR, to_cat(m), steps=2, batch=0),
        "batch=0",
    ),
    "stride": (
        lambda m: patching.knockouts(m, CLEAN, to_cat(m), ROUTES, window=1, stride=0),
        "stride=0",
    ),
    "stride back": (
        lambda m: patching.knockouts(m, CLEAN, to_cat(m), ROUTES, window=1, stride=-1),
        "stride=-1",
    ),
    "the old word for a stride": (
        lambda m: patching.knockouts(m, CLEAN, to_cat(m), ROUTES, window=1, step=2),
        "between windows is stride=2",
    ),
    "k of a curve": (lambda m: curve(m, k=(-1,)), "k=-1"),
    "no k": (lambda m: curve(m, k=()), r"k=\[\]"),
    "randoms": (lambda m: curve(m, randoms=-1), "randoms=-1"),
    "seed of a curve": (lambda m: curve(m, seed=-1), "seed=-1"),
    "k of edges": (lambda m: patching.edge_attribution(m, PAIR, to_cat(m), k=0), "k=0"),
    "k of a lens": (lambda m: mm.logit_lens(m, CLEAN, k=-1), "k=-1"),
    # what is not there
    "no such unit in a curve": (lambda m: curve(m, [mm.Neuron(0, 9999)]), "no L0.9999"),
    "no such layer in a curve": (lambda m: curve(m, [mm.Neuron(9, 0)]), "no L9.0"),
    "no such head in a curve": (lambda m: curve(m, [mm.Head(0, 9)]), "no L0H9"),
    "a unit from the end": (lambda m: patch(m, "neurons", [mm.Neuron(0, -1)]), "no L0.-1"),
    "no positions of a curve": (lambda m: curve(m, pos=[]), "names no"),
    "a control of a patch that is not there": (
        lambda m: patching.other_patches(m.embed(CLEAN).labels[0], [mm.Patch(99, 99)]),
        r"\(99, 99\) is not among",
    ),
    "an id beyond the words": (lambda m: shares(m, 99999), "99999 is no token"),
    "a negative id": (lambda m: shares(m, -1), "-1 is no token"),
    "a second id": (lambda m: shares(m, " dog", minus=99999), "99999 is no token"),
    "an id of a metric": (lambda m: measures.logit(m, 99999), "99999 is no token"),
    "an id of a rank": (lambda m: measures.rank(m, -1), "-1 is no token"),
    "an id of a direction": (lambda m: patching.word(m, -5), "-5 is no token"),
    "an id of a lens": (lambda m: mm.logit_lens(m, CLEAN, [99999]), "99999 is no token"),
    "no words of a lens": (lambda m: mm.logit_lens(m, CLEAN, []), r"tokens=\[\]"),
    "a sender that is not there": (lambda m: paths(m, [mm.Neuron(0, 9999)]), "no unit 9999"),
    "a sender from the end": (lambda m: paths(m, [mm.Head(0, -1)]), "no part of a model"),
    "a receiver that is not there": (
        lambda m: paths(m, [mm.Head(0, 1)], mm.Head(2, 9)),
        "no head 9",
    ),
    "a receiving unit that is not there": (
        lambda m: paths(m, [mm.Head(0, 1)], mm.Neuron(2, 9999)),
        "no unit 9999",
    ),
    # empty
    "no layers": (lambda m: patch(m, layer=[]), "names nothing"),
    "no positions": (lambda m: patch(m, pos=[]), "names nothing"),
    "an empty slice": (lambda m: patch(m, pos=slice(3, 1)), "names nothing"),
    "no sets": (lambda m: patch(m, pos={}), "names no set"),
    "no units": (lambda m: patch(m, "neurons", []), "no such units"),
    "no layers of an estimate": (
        lambda m: patching.attribution_patching(m, PAIR, to_cat(m), layer=[]),
        "nam",
    ),
    "no layers of a lens": (lambda m: mm.logit_lens(m, CLEAN, layer=[]), "name"),
    "no positions of a lens": (lambda m: mm.logit_lens(m, CLEAN, pos=[]), "name"),
    "no patches": (lambda m: patching.only_at(m, patching.grey(), []), r"patches=\[\]"),
    # other layouts, other kinds
    "a pair of other layouts": (
        lambda m: patching.patch(m, patching.Pair(CLEAN, LATER), to_cat(m)),
        "at different places",
    ),
    "resampled from another layout": (lambda m: ablate(m, value=LATER), "same layout"),
    "a longer one": (lambda m: ablate(m, value=CORRUPT + " and a cat"), "same layout"),
    "no picture": (
        lambda m: patching.ablate(m, "a dog", to_cat(m), "soft_prompt"),
        "this prompt has none",
    ),
    "NaN in place": (lambda m: ablate(m, value=NAN), "value=nan"),
    "a mean of pixels": (lambda m: patching.mean_over(m, [CLEAN], "pixels"), "mean_picture"),
    "captions as tokens": (
        lambda m: patching.captions(m, CLEAN, {}, return_type="tokens"),
        "captions are words",
    ),
    "the name of nothing": (
        lambda m: patching.captions(m, CLEAN, {"(nothing)": []}),
        "model as it is",
    ),
    "a flat metric of edges": (
        lambda m: patching.edge_attribution(m, PAIR, lambda x: 3.0),
        "no gradient",
    ),
    "a scale": (
        lambda m: patching.steer("resid_post", torch.ones(32), layer=0, scale=NAN),
        "scale=nan",
    ),
    "an amount": (
        lambda m: patching.remove("resid_post", torch.ones(32), layer=0, amount=NAN),
        "amount=nan",
    ),
    "a direction of another width": (
        lambda m: m.edit(patching.remove("resid_post", torch.ones(31), layer=0))(CLEAN),
        "31 dimensions",
    ),
    # pictures
    "a level": (lambda m: patching.grey(300), "level=300"),
    "a radius": (lambda m: patching.blur(-1.0), "radius=-1.0"),
    "noise": (lambda m: patching.pixel_noise(-1.0), "std=-1.0"),
    "a seed of noise": (lambda m: patching.pixel_noise(0.1, seed=-1), "seed=-1"),
    "a seed of an order": (lambda m: patching.shuffled(m, seed=-1), "seed=-1"),
    "soft noise": (lambda m: patching.soft_noise(m, CLEAN, std=-1.0), "std=-1.0"),
    "a fill": (lambda m: patching.erased(WHOLE, (300, 0, 0)), "fill=300"),
    "two colours": (lambda m: patching.erased(WHOLE, (1, 2)), "at least 3"),
    "a mask of words": (lambda m: patching.erased("mask"), "no mask"),
    "a share": (lambda m: patching.patches_under(m, WHOLE, PHOTO, share=2.0), "share=2.0"),
    "a share of nothing": (
        lambda m: patching.patches_under(m, WHOLE, PHOTO, share=0.0),
        "share=0.0",
    ),
    "a picture's number": (lambda m: patching.patches_under(m, WHOLE, PHOTO, image=-1), "image=-1"),
    "a corrupter that fails": (
        lambda m: patching.Pair.corrupted(CLEAN, lambda image: 1 / 0),
        "ZeroDivisionError",
    ),
    "a corrupter that returns nothing": (
        lambda m: patching.Pair.corrupted(CLEAN, lambda image: None),
        "None",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_asked_is_refused_in_one_sentence(kind):
    if "edges" in kind:
        needs_edges()
    ask, sentence = REFUSED[kind]
    with pytest.raises(MMLensError, match=sentence) as caught:
        ask(bridge("toy-gpt2"))
    assert "\n" not in str(caught.value)


def test_the_empty_set_by_name_is_the_control_that_changes_nothing():
    model = bridge("toy-gpt2")
    none = patching.patch(model, PAIR, to_cat(model), pos={"none": []}, by="pos", layer=1)
    assert float(none.values[0]) == pytest.approx(none.about["corrupt"], abs=1e-6)
