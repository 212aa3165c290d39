"""Concepts, shifts and alignment: a planted dictionary comes back, and sums are those of pairs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
import torch
from bridges import bridge, off, prompt

import mmlens as mm
from mmlens.methods.concepts import overlap, semi_nmf
from mmlens.values.errors import AddressError, ArgumentError, PromptError

PLACES = [(0, 0), (0, 3), (1, 1), (2, 1), (3, 2), (3, 3)]


def made(n: int = 3, rows: int = 60, noise: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that are each so much of one direction, n in turn; and the directions."""
    g = torch.Generator().manual_seed(5)
    U = torch.nn.functional.normalize(torch.randn(n, 12, generator=g), dim=-1)
    V = torch.zeros(rows, n)
    V[torch.arange(rows), torch.arange(rows) % n] = 2.0 + torch.rand(rows, generator=g)
    return V @ U + noise * torch.randn(rows, 12, generator=g), U


def test_a_planted_dictionary_comes_back_with_its_activations():
    Z, U = made()
    found = mm.concepts(mm.Scores(Z, ("prompt", "dim")), 3, steps=500)
    cosine = found.directions.values @ U.T
    axes = torch.linalg.svd(Z, full_matrices=False)[2][:3] @ U.T  # what sums and differences find
    assert float(cosine.amax(-1).min()) > 0.95 > 0.6 > float(axes.abs().amax(-1).min())
    assert found.error < 1e-3
    assert sorted(cosine.argmax(-1).tolist()) == [0, 1, 2]
    assert float(found.activations.values.min()) >= 0
    assert off(found.directions.values.norm(dim=-1), torch.ones(3)) < 1e-5
    energy = found.activations.values.pow(2).sum(0)
    assert bool((energy.diff() <= 0).all())


def test_no_step_makes_the_rest_larger_and_it_is_never_below_that_of_singular_values():
    Z = made(noise=0.3)[0].double()
    rests = []
    for steps in (1, 2, 5, 20, 80):
        V, U = semi_nmf(Z, 4, steps)
        rests.append(float((Z - V @ U).pow(2).sum()))
    assert all(later <= earlier + 1e-9 for earlier, later in pairwise(rests))
    least = float(torch.linalg.svdvals(Z)[4:].pow(2).sum())
    assert least <= rests[-1] < rests[0]


def test_the_stream_is_that_of_the_position_that_predicts_the_word():
    model = bridge("toy-gptj")
    some = [prompt(place) for place in PLACES[:2]]
    found = mm.stream_before(model, some, " dog", after=" a", layer=1)
    for row, one in zip(found.values, some, strict=True):
        whole = mm.activations(model, one + " a", "resid_post", layer=1, pos=-1)
        assert off(row, whole.values) < 1e-5
    last = mm.stream_before(model, some, 7, after="")
    with torch.no_grad():
        assert off(model.lm.logits_of(last.values[0]), model(some[0])[0, -1]) < 1e-4


def test_a_concept_says_what_the_unembedding_reads_of_it_and_where_it_is_strongest():
    model = bridge("toy-gptj")
    stream = mm.stream_before(model, [prompt(place) for place in PLACES], 7, after="")
    found = mm.concepts(stream, 2)
    table: Any = found.table(model, 4)
    with torch.no_grad():
        best = model.lm.logits_of(found.directions.values)[:, : model.lm.n_words].argmax(-1)
    assert [row[0] for row in table["words"]] == [model.to_string([int(at)]) for at in best]
    assert [row[0] for row in table["prompts"]] == found.activations.values.argmax(0).tolist()
    assert float(table["share"].sum()) == pytest.approx(1.0)


def test_overlap_is_that_of_all_pairs_of_lists():
    table: Any = pd.DataFrame({"words": [["a", "b"], ["b", "c"], ["d", "e"]]})
    assert overlap(table) == pytest.approx(2 * 0.5 / 6)
    with pytest.raises(ArgumentError):
        overlap(table[:1])


def test_a_planted_shift_is_found_for_its_concept_alone_and_is_consistent():
    Z, _ = made()
    before = mm.Scores(Z, ("prompt", "dim"))
    found = mm.concepts(before, 3, steps=300)
    owner = found.activations.values.argmax(-1)
    moved = torch.zeros(12).index_fill(0, torch.tensor([4]), 2.0)
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(Z.shape, generator=g) * (owner == 2)[:, None]
    after = mm.Scores(Z + moved * (owner == 1)[:, None] + noise, ("prompt", "dim"))
    shifts = mm.concept_shifts(before, after, found).values
    assert off(shifts[1], moved) < 1e-5 and off(shifts[0], torch.zeros(12)) < 1e-5
    told: Any = mm.shift_consistency(before, after, found).set_index("concept")
    assert told.loc[1, "consistency"] == pytest.approx(1.0, abs=1e-5)
    own = noise[owner == 2]
    cosines = torch.cosine_similarity(own[:, None], own[None], dim=-1)
    pairs = cosines[~torch.eye(len(own), dtype=torch.bool)]
    assert told.loc[2, "consistency"] == pytest.approx(float(pairs.mean()), abs=1e-5)
    assert int(told.loc[1, "prompts"]) == int((owner == 1).sum())


def test_a_model_that_is_steered_shifts_by_the_direction():
    model = bridge("toy-gptj")
    some = [prompt(place) for place in PLACES]
    direction = torch.linspace(-1, 1, 32)
    steered = model.edit(mm.patching.steer("resid_post", direction, layer=2, scale=0.5))
    before, after = (mm.stream_before(one, some, 7, after="") for one in (model, steered))
    shifts = mm.concept_shifts(before, after, mm.concepts(before, 1))
    assert off(shifts.values[0], 0.5 * direction) < 1e-5


def cos(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.cosine_similarity(x[:, None], y[None], dim=-1)


def apart(x: torch.Tensor) -> torch.Tensor:
    """The mean cosine of two different ones."""
    return cos(x, x)[~torch.eye(len(x), dtype=torch.bool)].mean()


def test_alignment_is_the_mean_over_all_pairs_of_positions():
    model = bridge("toy-llama")
    found = mm.alignment(model, prompt())
    stream = mm.activations(model, prompt(), "resid_post")
    first = mm.activations(model, prompt(), "resid_pre", layer=0, pos=mm.Patch).values
    for layer in range(3):
        a, b = (stream.sel(layer=layer, pos=kind).values for kind in (mm.Patch, mm.Token))
        truth = [cos(a, b).mean(), apart(a), apart(b), cos(first, b).mean()]
        ours = found.sel(layer=layer).values
        assert off(ours, torch.stack(truth)) < 1e-5


def test_what_has_no_concepts_or_no_pairs_is_refused():
    model, stream = bridge("toy-gptj"), mm.Scores(torch.randn(3, 4), ("prompt", "dim"))
    with pytest.raises(ArgumentError, match="3 prompts for 4 concepts"):
        mm.concepts(stream, 4)
    with pytest.raises(AddressError):
        mm.concepts(mm.Scores(torch.randn(3), ("dim",)), 1)
    with pytest.raises(AddressError):
        mm.stream_before(model, prompt(), 7, layer=3, after="")
    other: Any = mm.Scores(torch.randn(2, 4), ("prompt", "dim"))
    with pytest.raises(AddressError, match="the same prompts"):
        mm.concept_shifts(stream, other, mm.concepts(stream, 2))
    with pytest.raises(PromptError, match="0 positions of pictures and 3 of words"):
        mm.alignment(model, "A picture of")
