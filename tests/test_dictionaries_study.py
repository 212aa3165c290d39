"""Units that are about one thing, and units that are not: scores of known truth, and the study."""

from typing import Any

import pandas as pd
import pytest
import torch
from bridges import bridge
from judging import all_judged
from scipy.stats import mannwhitneyu
from test_experiments import PLACES, SAMPLES, sample

import mmlens as mm
from mmlens.datasets.sample import Sample, Samples
from mmlens.families import toy
from mmlens.papers import dictionaries
from mmlens.papers.dictionaries.dictionaries_claims import judged
from mmlens.papers.dictionaries.questions.peaks import COORDINATES, NEURONS, RANDOM, UNITS
from mmlens.papers.dictionaries.unit_truth import mono_scores, often_active, purity, told_by_one
from mmlens.papers.tables import ExperimentError
from mmlens.towers.dictionaries.dictionary import Dictionary

THINGS = torch.arange(4).repeat_interleave(12)
"""What 48 pictures show."""
FIGURES = {"explained": 0.9, "recovered_mean": 0.95, "dead": 0.1, "l0": 8.0}


def noise(units: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(len(THINGS), units, generator=torch.Generator().manual_seed(seed))


def of_one_thing() -> torch.Tensor:
    """Four units, each on for its thing alone."""
    return torch.nn.functional.one_hot(THINGS).float() * (1 + noise(4))


def test_a_unit_of_one_thing_has_every_score_at_its_end():
    values = of_one_thing()
    assert often_active(values).all()
    assert purity(values, THINGS).tolist() == [1.0] * 4
    assert torch.allclose(mono_scores(values, THINGS), torch.ones(4))
    assert told_by_one(values, THINGS).tolist() == [1.0] * 4


def test_the_mono_score_is_the_sum_over_pairs():
    values = noise(5)
    low, high = values.amin(0), values.amax(0)
    a = (values - low) / (high - low)
    pairs = a[:, None] * a[None]
    apart = ~torch.eye(len(a), dtype=torch.bool)
    same = (THINGS[:, None] == THINGS[None]) & apart
    told = pairs[same].sum(0) / pairs[apart].sum(0)
    assert torch.allclose(mono_scores(values, THINGS), told, atol=1e-5)


def test_one_unit_tells_a_thing_by_pictures_that_did_not_choose_it():
    values = noise(6)
    values[:, 2] += (THINGS == 1) * 0.6
    found = told_by_one(values, THINGS)
    order = torch.arange(12).repeat(4)
    rest = order % 2 == 1
    own, others = (values[rest & ((THINGS == 1) == side), 2].numpy() for side in (True, False))
    told: Any = mannwhitneyu(own, others)
    assert float(found[1]) == pytest.approx(told.statistic / (len(own) * len(others)))
    by_chance = told_by_one(noise(300, 1), THINGS)
    assert float(by_chance.mean()) < 0.75  # chosen on the same pictures the best is above 0.8


def verdicts(peaks: dict[str, torch.Tensor], figures: Any = FIGURES) -> dict[str, Any]:
    parts, _ = judged(figures, peaks, THINGS, draws=300, seed=0)
    return {one.key: one.verdict.holds for one in parts if one.verdict is not None}


def kinds(units: torch.Tensor, others: torch.Tensor) -> dict[str, torch.Tensor]:
    return {UNITS: units, NEURONS: others, COORDINATES: others, RANDOM: others}


def test_claims_hold_of_a_planted_dictionary_and_fail_of_one_that_is_no_better():
    pure = torch.cat([of_one_thing() * (1 + at) for at in range(5)], 1)
    assert verdicts(kinds(pure, noise(20))) == {"S1": True, "S2": True, "S3": True, "S4": None}
    assert verdicts(kinds(noise(20), pure)) == {"S1": True, "S2": False, "S3": False, "S4": None}
    same = verdicts(kinds(noise(20), noise(20, 2)))
    assert (same["S2"], same["S3"]) == (None, None)
    for low in ({"explained": 0.7}, {"recovered_mean": 0.8}, {"dead": 0.3}):
        assert verdicts(kinds(pure, noise(20)), {**FIGURES, **low})["S1"] is False


def test_units_that_are_seldom_active_are_left_out_and_none_is_no_verdict():
    seldom = of_one_thing() * (torch.arange(48) % 12 < 9)[:, None]
    assert not often_active(seldom).any()
    found = verdicts(kinds(seldom, noise(20)))
    assert (found["S2"], found["S3"]) == (None, None)


def test_things_are_compared_one_by_one():
    """Of ten things the units of one kind tell all, those of the other none."""
    things = torch.arange(10).repeat_interleave(4)
    draw = torch.Generator().manual_seed(0)
    chance = torch.rand(40, 10, generator=draw)
    peaks = kinds(torch.nn.functional.one_hot(things) + 0.1 * chance, chance)
    for given, holds in ((peaks, True), ({**peaks, UNITS: chance, NEURONS: peaks[UNITS]}, False)):
        parts, contest = judged(FIGURES, given, things, draws=300, seed=0)
        assert parts[-1].verdict is not None and parts[-1].verdict.holds is holds
        found = all_judged([contest], draws=300).set_index("method")
        assert found.loc[UNITS, "beats"] is holds


@pytest.fixture(scope="module")
def model() -> Any:
    return bridge("toy-gptj")


def pictures() -> Samples:
    """A white patch at four places, by the name of its place: four pictures of each."""
    every = [
        Sample(
            f"{row}{col} {i}",
            toy.picture((row, col), seed=i),
            ("a dog",),
            sample((row, col), f"{row}{col}").things,
        )
        for row, col in PLACES
        for i in range(4)
    ]
    return Samples("planted", [one.id for one in every], every.__getitem__, "planted")


def dictionary(model: Any) -> Dictionary:
    draw = torch.Generator().manual_seed(0)
    d = model.cfg.d_model
    up = torch.randn(d, 24, generator=draw) / d**0.5
    return Dictionary(up, up.T.clone(), k=6, at="blocks.1.hook_resid_post")


def test_peaks_are_the_largest_activations_on_patches(model):
    attached = model.attach(dictionary(model))
    one = SAMPLES[0]
    found = dictionaries.unit_peaks(attached, one)
    for name, site in (("units", "sae"), ("neurons", "neurons"), ("coordinates", "resid_post")):
        every = mm.activations(attached, mm.Prompt(one.image), site, layer=1, pos=mm.Patch)
        assert torch.equal(found[name].values, every.values.amax(0))
    assert found["random"].shape == found["coordinates"].shape
    with pytest.raises(ExperimentError, match="0 dictionaries attached"):
        dictionaries.unit_peaks(model, one)


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(model, tmp_path):
    tmp_path = tmp_path / "new"  # a folder that is not there yet
    how: Any = {"dictionary": dictionary(model), "draws": 50, "progress": False}
    report = dictionaries.reproduce(model, pictures(), tmp_path, command="mmlens x", **how)
    assert list(report.verdicts["experiment"]) == ["S1", "S2", "S3", "S4"]
    assert "`mmlens x`" in report.results.read_text() and "MonoScore" in report.page.read_text()
    stored = (tmp_path / "sweeps").rglob("*.safetensors")
    answers = {file: file.stat().st_mtime_ns for file in stored}
    assert len(answers) == 4
    again = dictionaries.reproduce(model, pictures(), tmp_path, **how)
    assert all(file.stat().st_mtime_ns == at for file, at in answers.items())
    pd.testing.assert_frame_equal(again.verdicts, report.verdicts)


def test_what_cannot_be_judged_is_said_in_a_sentence(model, tmp_path):
    with pytest.raises(ExperimentError, match="nothing to train a dictionary on"):
        dictionaries.reproduce(model, pictures(), tmp_path)
    one = SAMPLES[0]
    few = Samples("few", [one.id], lambda at: one, "few")
    with pytest.raises(ExperimentError, match="things that 4 pictures show alone"):
        dictionaries.reproduce(model, few, tmp_path, dictionary=dictionary(model))
