"""Labels by next tokens: their probability is that of their tokens, each branch read by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bridges import bridge, prompt

import mmlens as mm
from mmlens.values.errors import ArgumentError

SCENE = Path(__file__).parents[1] / "scenes" / "dog-and-bicycle.png"


def by_hand(model: Any, first: int, stop: str, most: int) -> tuple[str, float, bool]:
    """A branch by ids that carry their picture, one whole forward pass a token."""
    ids = model.to_tokens(prompt())
    n, prob, token = ids.shape[1], 1.0, first
    while True:
        with torch.no_grad():
            prob *= float(model(ids)[0, -1].softmax(-1)[token])
            if model.to_string([token]) == stop:
                return model.to_string(ids[0, n:].tolist()).strip(), prob, True
            ids = torch.cat([ids, torch.tensor([[token]])], 1)
            token = int(model(ids)[0, -1, : model.lm.n_words].argmax())
            if ids.shape[1] - n == most and model.to_string([token]) != stop:
                return model.to_string(ids[0, n:].tolist()).strip(), prob, False


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_a_label_has_the_probability_of_its_tokens_and_of_what_ends_it(kind):
    model = bridge(f"toy-{kind}")
    with torch.no_grad():
        best = model(prompt())[0, -1, : model.lm.n_words].topk(6).indices.tolist()
    ids = torch.cat([model.to_tokens(prompt()), torch.tensor([[best[0]]])], 1)
    with torch.no_grad():  # what the first branch says next ends a label
        stop = model.to_string([int(model(ids)[0, -1, : model.lm.n_words].argmax())])
    found = mm.next_labels(model, prompt(), 6, stop=stop, max_new_tokens=3)
    truth: dict[str, float] = {}
    ended: dict[str, bool] = {}
    for token in best:
        label, prob, over = by_hand(model, token, stop, 3)
        if label:
            truth[label] = truth.get(label, 0.0) + prob
            ended[label] = ended.get(label, True) and over
    assert any(ended.values())
    assert dict(zip(found["label"], found["ended"], strict=True)) == ended
    for label, prob in zip(found["label"], found["prob"], strict=True):
        assert prob == pytest.approx(truth[label], rel=1e-4)
    assert list(found["prob"]) == sorted(found["prob"], reverse=True)


def test_the_first_label_is_the_captions_first_name_and_no_branch_depends_on_another():
    model = mm.load("pictos")
    asked = mm.Prompt(SCENE, "A picture of a")
    many, few = (mm.next_labels(model, asked, k) for k in (6, 2))
    assert model.generate(asked).startswith(f" {many['label'][0]}") and many["label"][0] == "dog"
    rows: Any = many.set_index("label")["prob"]
    for label, prob in zip(few["label"], few["prob"], strict=True):
        assert prob == pytest.approx(rows[label], rel=1e-5)
    assert float(many["prob"].sum()) <= 1.0 + 1e-6


def test_a_count_or_a_stop_that_is_none_is_refused():
    model = bridge("toy-gptj")
    for options in ({"k": 0}, {"max_new_tokens": 0}, {"stop": ("",)}):
        with pytest.raises(ArgumentError):
            mm.next_labels(model, prompt(), **options)
