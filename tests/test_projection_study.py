"""What can be read before and behind a projection, where the truth is planted; and the study."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from bridges import bridge
from judging import all_judged
from test_dictionaries_study import pictures

import mmlens as mm
from mmlens.methods.projection_probe import PLACES
from mmlens.papers import projection
from mmlens.papers.projection.projection_claims import CLAIMS, judged, richness
from mmlens.papers.tables import ExperimentError
from mmlens.sweep.record import SweepError
from mmlens.values.errors import CapabilityError

THINGS = torch.arange(4).repeat_interleave(40)
HOW: Any = {"folds": 5, "l2": 0.01, "seed": 0}


def clear() -> torch.Tensor:
    """Vectors whose thing can be read, each in a direction of its own."""
    noise = torch.randn(len(THINGS), 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.one_hot(THINGS, 8) * 3 + 0.3 * noise


def weak() -> torch.Tensor:
    """Vectors whose thing can be read of four pictures in five: a gain is possible."""
    noise = torch.randn(len(THINGS), 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.one_hot(THINGS, 8) * 0.6 + 0.3 * noise


def empty() -> torch.Tensor:
    return torch.randn(len(THINGS), 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("before", "behind", "verdicts"),
    [
        (weak, weak, [True, True, True]),
        (weak, empty, [True, None, True]),
        (clear, clear, [True, True, None]),
        (clear, empty, [True, None, None]),
        (empty, clear, [None, True, False]),
    ],
)
def test_claims_are_decided_by_where_a_thing_can_be_read(before, behind, verdicts):
    rows = richness(dict(zip(PLACES, (before(), behind()), strict=True)), THINGS, **HOW)
    told = [judged(key, rows, draws=300, seed=0).verdict for key in CLAIMS]
    assert [one and one.holds for one in told] == verdicts


def test_at_the_ceiling_nothing_is_added_by_no_projection_and_so_undecided():
    """A claim that could not fail does not hold, and its page says how much could be gained."""
    ceiling = richness(dict.fromkeys(PLACES, clear()), THINGS, **HOW)
    part = judged("P3", ceiling, draws=300, seed=0)
    assert part.verdict is not None and part.verdict.holds is None
    assert "leave 0.00 of the pictures" in part.notes[0] and "could not fail" in part.rule


CLIP_REFUSED = ("projection", "maps", "circuits", "concepts", "editing", "shootout")


@pytest.mark.parametrize("study", CLIP_REFUSED)
def test_a_model_without_a_language_model_is_refused_in_a_sentence(study, tmp_path):
    with pytest.raises(CapabilityError, match="predicts the next token"):
        getattr(mm.papers, study).reproduce("pictos-clip", pictures(), tmp_path, progress=False)


def test_richness_is_that_of_the_verb():
    model, samples = bridge("toy-gptj"), pictures()
    images = [samples[i].image for i in range(len(samples))]
    names = [samples[i].names[0] for i in range(len(samples))]
    told: Any = mm.projection_probe(model, images, names, folds=4)
    vectors = {place: [] for place in PLACES}
    for i in range(len(samples)):
        found = projection.mean_vectors(model, samples[i])
        for place, one in zip(PLACES, found.values(), strict=True):
            vectors[place].append(one.values)
    known = list(dict.fromkeys(names))
    things = torch.tensor([known.index(one) for one in names])
    stacked = {place: torch.stack(parts) for place, parts in vectors.items()}
    rows: Any = richness(stacked, things, folds=4, l2=0.01, seed=0)
    for place in PLACES:
        own = told[(told["place"] == place) & (told["arm"] == "labels")]["right"].tolist()
        assert rows[rows["arm"] == place]["value"].tolist() == own


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(tmp_path):
    tmp_path, model = tmp_path / "new", bridge("toy-gptj")
    how: Any = {"folds": 4, "draws": 50, "progress": False}
    report = projection.reproduce(model, pictures(), tmp_path, command="mmlens x", **how)
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    assert "`mmlens x`" in report.results.read_text() and "P3" in report.page.read_text()
    assert set(all_judged(report.contests, draws=50)["method"]) == set(PLACES)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    assert len(before) == 2
    again = projection.reproduce(model, pictures(), tmp_path, **how)
    assert all(file.stat().st_mtime_ns == at for file, at in before.items())
    pd.testing.assert_frame_equal(again.verdicts, report.verdicts)
    with pytest.raises(SweepError):
        projection.reproduce(model, pictures()[:12], tmp_path, **how)
    with pytest.raises(ExperimentError, match="two at least are needed"):
        projection.reproduce(model, pictures()[:4], tmp_path, **how)
