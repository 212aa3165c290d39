"""Maps of relevance where the truth is known: planted patches, and tables of known differences."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
import torch
import transformers
from bridges import bridge
from judging import all_judged
from native_twins import photo, twin
from packaging.version import Version
from test_experiments import SAMPLES, mean_of
from typer.testing import CliRunner

import mmlens as mm
from mmlens import relevance
from mmlens.cli.app import app
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.families.native import since
from mmlens.model.targets import caption, one
from mmlens.papers import maps
from mmlens.papers.maps.map_methods import (
    ABSENT,
    ATTN_LRP,
    CHANCE,
    CHEFER,
    EARLY,
    FUNCTIONS,
    GRAD_CAM,
    GRAD_ECLIP,
    GRADIENT,
    INTEGRATED,
    LATE,
    LENS,
    METHODS,
    OCCLUSION,
    RISE,
    ROLLOUT,
    TAM,
    chosen,
)
from mmlens.papers.maps.maps_claims import CLAIMS, PAIRS, asked_for, judged
from mmlens.papers.maps.maps_left_out import left_out
from mmlens.papers.maps.maps_overview import contests, costs_of, side_by_side
from mmlens.papers.maps.questions import map_scores
from mmlens.papers.maps.questions.map_scores import METRICS, judged_maps, summary
from mmlens.papers.study_folder import StudyReport
from mmlens.papers.tables import ExperimentError, ask
from mmlens.sweep.record import SweepError
from mmlens.towers.language.tokenization import word

ONE: dict[str, Any] = {"max_new_tokens": 1}
THINGS = ["cat", "dog", "tree"]


@pytest.fixture(scope="module")
def model() -> Any:
    return bridge("toy-gptj-planted")


@pytest.fixture(scope="module")
def table(model: Any) -> Any:
    """What every method's maps of the planted pictures come to."""
    return ask(judged_maps, model, SAMPLES[:3], things=THINGS, steps=7, **ONE)


def value(table: Any, **where: Any) -> float:
    """The one value in the row that is named."""
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    return table["value"].item()


def test_the_planted_patch_is_found_by_what_reads_it_and_not_by_random_numbers(table):
    out = summary(table)
    for name in (GRAD_ECLIP, ATTN_LRP, INTEGRATED, OCCLUSION):
        assert mean_of(out, arm=name, metric="energy") > 0.9
        assert mean_of(out, arm=name, metric="pointing") == 1
        assert mean_of(out, arm=f"{name} - {CHANCE}", metric="insertion") > 0
        assert mean_of(out, arm=f"{name} - {CHANCE}", metric="deletion") < 0
    assert mean_of(out, arm=CHANCE, metric="energy") < 0.15  # the thing is a sixteenth
    assert set(table["method"]) == {CHANCE, *METHODS, ABSENT}
    assert (table["why"] == "").all() and table["value"].notna().all()


def test_measures_are_those_of_the_map_of_the_prompt_in_words(table, model):
    """A second route: the prompt as text, and the functions of `mm.relevance`."""
    sample = SAMPLES[0]
    shown, mask = mm.Prompt(sample.image, "A picture of"), sample.things[0].mask
    of: dict[str, Any] = {"of": " dog", "after": ""}
    found = {
        CHEFER: relevance.chefer(model, shown, **of),
        TAM: relevance.tam(model, shown, **of),
        LENS: relevance.lens_map(model, shown, " dog"),
        LATE: relevance.noise_map(model, shown, layer=2, radius=1, draws=2),
        RISE: relevance.rise(model, shown, **of, at="pixels", masks=100),
    }
    for name, scores in found.items():
        rows: Any = table[(table["sample"] == sample.id) & (table["method"] == name)]
        told = relevance.in_mask(model, scores, mask, sample.image)
        curves = relevance.covering_curves(model, shown, scores, **of, steps=7)
        told |= {curve: float(curves.sel(curve=curve).values.mean()) for curve in map_scores.CURVES}
        for metric in METRICS[:-1]:
            assert value(rows, metric=metric) == pytest.approx(told[metric], abs=1e-4), name
        assert value(rows, metric="cost") > 0


def test_the_thing_is_the_first_of_the_picture_that_the_caption_names(model):
    picture, mask = SAMPLES[0].source, SAMPLES[0].things[0].mask
    skipped = {}
    for name, things in {
        "cat": (Thing("cat", mask),),
        "twice": (Thing("dog", mask), Thing("dog", mask)),
        "maskless": (Thing("dog"),),
        "pieces": (Thing("dog dog", mask),),
        "dog": (Thing("cat", mask), Thing("dog", mask)),
    }.items():
        answer = judged_maps(model, Sample(name, picture, (), things), methods=["tam"],
                             max_new_tokens=2)  # fmt: skip
        skipped[name] = answer["skipped"].unique().item()
        nouns = answer["noun"].unique().tolist()
        assert nouns == ["dog"] if name == "dog" else nouns == [None]
    assert skipped == {
        "cat": map_scores.NAMELESS, "twice": map_scores.MASKLESS,
        "maskless": map_scores.MASKLESS, "pieces": map_scores.PIECES, "dog": "",
    }  # fmt: skip


def test_an_absent_word_is_no_thing_of_the_picture_and_one_token(model, monkeypatch):
    asked: list[int] = []
    own = relevance.lens_map
    monkeypatch.setattr(
        map_scores, "lens_map", lambda one, soft, of: asked.append(of) or own(one, soft, of)
    )
    for things in (["dog", "zebra crossing", "cat"], ["dog"], []):
        table = judged_maps(model, SAMPLES[0], methods=["lens_map"], things=things,
                            steps=2, **ONE)  # fmt: skip
        assert (ABSENT in set(table["method"])) == ("cat" in things)
    assert [word(model.lm, token) for token in asked] == [" cat"]


def test_of_an_absent_word_the_mask_alone_is_asked(table):
    assert set(table.loc[table["method"] == ABSENT, "metric"]) == {"energy", "pointing"}


def test_a_picture_gives_the_same_numbers_whatever_was_asked_before(model):
    few: dict[str, Any] = {"methods": ["lens_map"], "things": THINGS, "steps": 3, **ONE}
    first: Any = judged_maps(model, SAMPLES[1], **few)
    torch.rand(3)
    second: Any = judged_maps(model, SAMPLES[1], **few)
    same = first["metric"] != "cost"
    pd.testing.assert_frame_equal(first[same], second[same])
    other: Any = judged_maps(model, SAMPLES[1], **few, seed=1)
    chance = (first["method"] == CHANCE) & (first["metric"] == "energy")
    assert not (first[chance]["value"] == other[chance]["value"]).any()
    assert first[chance]["value"].nunique() == 3  # so many maps of random numbers, each its own


def test_methods_are_chosen_by_their_function():
    assert chosen(None) == list(METHODS)
    assert chosen(["lrp", "chefer"]) == [CHEFER, "chefer (through the encoder)", ATTN_LRP,
                                         "lrp (CP-LRP)"]  # fmt: skip
    assert [name for each in FUNCTIONS for name in chosen([each])] == list(METHODS)
    with pytest.raises(ExperimentError, match="chefer"):
        chosen(["chefr"])
    assert asked_for("M1", [CHEFER]) and not asked_for("C1", [CHEFER])
    assert asked_for("C1", [CHEFER, ROLLOUT]) and asked_for("C6", [LENS])


# -- models that cannot take every method ----------------------------------------------------------


def answered(name: str, **options: Any) -> Any:
    """The table of one picture whose thing is what a tiny native twin says of it."""
    whole, processor = twin(name)
    if Version(transformers.__version__) < Version(since(whole.config)):
        pytest.skip(f"read with transformers {since(whole.config)} or later")
    model: Any = mm.from_model(whole, processor)
    picture = photo()
    said = [word(model.lm, token) for token in
            caption(model, one(model, mm.Prompt(picture, "A picture of")), 12)]  # fmt: skip
    noun = next(piece.strip() for piece in said if piece.strip().isalpha())
    mask = torch.zeros(picture.height, picture.width, dtype=torch.bool)
    mask[5:20, 5:30] = True
    samples = [Sample(f"a{i}", picture, (), (Thing(noun, mask),)) for i in range(2)]
    found = ask(judged_maps, model, samples, max_new_tokens=12, steps=3, **options)
    assert set(found["skipped"]) == {""}
    return found


def test_a_whole_model_takes_every_method():
    table = answered("llava")
    assert set(table["method"]) == {CHANCE, *METHODS}
    assert not left_out(table) and table["value"].notna().all()


def test_pictures_beside_the_positions_leave_methods_out_with_the_reason():
    table = answered("mllama", methods=["chefer", "tam", "occlusion"])
    told = left_out(table)
    assert set(told) == {"chefer (through the encoder)", TAM}
    assert "among the positions" in told[TAM][0][1]
    every = [one for each in told.values() for one in each]
    assert all(text.startswith("Of 2 pictures: ") and measures == {*METRICS}
               for measures, text in every)  # fmt: skip
    found = summary(table, *PAIRS, draws=20)
    rows: Any = {(row["arm"], row["metric"]): row for row in found.to_dict("records")}
    part = judged("M4", rows, chosen(["chefer", "tam", "occlusion"]), told, costs_of(table))
    assert part.verdict is not None and part.verdict.holds is None
    assert part.says == f"Not measured: no picture has deletion and insertion of {TAM}."
    assert any(TAM in note and "among the positions" in note for note in part.notes)
    controls = {name for each in contests(table, {}) for name in each.controls}
    assert controls == {CHEFER, OCCLUSION}


def test_a_picture_in_crops_is_judged_by_its_mask_alone():
    table = answered("llava_next", methods=["rollout", "lrp"])
    assert table.loc[table["metric"] == "energy", "value"].notna().sum() > 2
    curves: Any = table[table["metric"].isin(map_scores.CURVES)]
    assert curves["value"].isna().all() and (curves["why"] != "").all()
    told = left_out(table)
    ((measures, text),) = told[ROLLOUT]
    assert measures == {*map_scores.CURVES} and "crops" in text
    assert ["on the thing" in each.measure for each in contests(table, {})] == [True]


# -- claims ----------------------------------------------------------------------------------------

PICTURES = [f"s{i}" for i in range(12)]
GOOD, BAD = {"insertion": 0.8, "deletion": 0.1, "energy": 0.6}, {
    "insertion": 0.2, "deletion": 0.6, "energy": 0.02}  # fmt: skip
PLAIN = {"insertion": 0.5, "deletion": 0.4, "energy": 0.1}


def planted(values: dict[str, dict[str, float]]) -> Any:
    """A table of pictures whose measures are known, a little more or less in each."""
    noise = torch.Generator().manual_seed(0)
    rows = [
        {"sample": picture, "noun": "dog", "method": name, "metric": metric, "why": "",
         "value": mean + 0.02 * (float(torch.rand((), generator=noise)) - 0.5)}
        for name, measures in {CHANCE: PLAIN, **values}.items()
        for metric, mean in measures.items() for picture in PICTURES
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(skipped="", options="{}")


def verdict(key: str, table: Any) -> bool | None:
    found = summary(table, *PAIRS, draws=200)
    rows: Any = {(row["arm"], row["metric"]): row for row in found.to_dict("records")}
    part = judged(key, rows, list(METHODS), {}, {})
    assert part.verdict is not None and part.verdict.claim == CLAIMS[key].claim
    return part.verdict.holds


@pytest.mark.parametrize("key", CLAIMS)
def test_a_claim_holds_where_the_first_of_each_pair_is_ahead_and_fails_where_it_is_behind(key):
    first = {pair[0] for pair in CLAIMS[key].pairs}
    second = {pair[1] for pair in CLAIMS[key].pairs} - {CHANCE}
    ahead = {**dict.fromkeys(first, GOOD), **dict.fromkeys(second, PLAIN)}
    behind = {**dict.fromkeys(first, BAD), **dict.fromkeys(second, PLAIN)}
    assert verdict(key, planted(ahead)) is True
    assert verdict(key, planted(behind)) is False
    few = planted(ahead)
    assert verdict(key, few[few["sample"].isin(PICTURES[:7])]) is None


def test_both_curves_must_agree_and_one_on_the_wrong_side_is_enough():
    only = {**PLAIN, "insertion": 0.8}
    assert verdict("M5", planted({LATE: only})) is None  # nothing by deletion
    assert verdict("M5", planted({LATE: {**GOOD, "deletion": 0.6}})) is False
    assert verdict("M6", planted({OCCLUSION: GOOD, RISE: PLAIN})) is None
    assert verdict("M6", planted({OCCLUSION: GOOD, RISE: BAD})) is False
    assert verdict("C2", planted({ATTN_LRP: GOOD, CHEFER: PLAIN, GRADIENT: BAD,
                                  INTEGRATED: PLAIN})) is True  # fmt: skip


def test_a_family_says_which_of_its_maps_are_ahead():
    table = planted({GRAD_CAM: BAD, GRAD_ECLIP: GOOD, GRADIENT: PLAIN})
    found = summary(table, *PAIRS, draws=200)
    rows: Any = {(row["arm"], row["metric"]): row for row in found.to_dict("records")}
    part = judged("M2", rows, [GRAD_CAM, GRAD_ECLIP, GRADIENT], {}, {GRAD_CAM: 2.0})
    assert part.says == (f"Ahead of random numbers: {GRAD_ECLIP}. Behind them on a curve:"
                         f" {GRAD_CAM}. Not told apart on both: {GRADIENT}.")  # fmt: skip
    cells = {line[0]: line[3:] for line in part.table[1:]}
    assert cells[f"{GRAD_CAM} - {CHANCE}"] == ["behind", "12", "2"]
    assert cells[f"{GRAD_ECLIP} - {CHANCE}"] == ["ahead", "12", ""]


def test_a_map_without_a_positive_value_is_told_where_the_mask_is_asked():
    table = planted({GRAD_CAM: PLAIN, TAM: PLAIN, ROLLOUT: PLAIN})
    flat = (table["method"] == GRAD_CAM) & (table["metric"] == "energy") & (table["sample"] == "s3")
    table.loc[flat, ["value", "why"]] = [float("nan"), map_scores.FLAT]
    found, why = summary(table, *PAIRS, draws=50), left_out(table)
    rows: Any = {(row["arm"], row["metric"]): row for row in found.to_dict("records")}
    assert rows[f"{TAM} - {GRAD_CAM}", "energy"]["n"] == 11
    line = f"Left out: {GRAD_CAM}. Of 1 picture (energy): {map_scores.FLAT}."
    names = [GRAD_CAM, TAM, ROLLOUT]
    assert side_by_side(found, names, why, {}).notes == [line]
    assert judged("C4", rows, names, why, {}).notes == [line]
    assert judged("M2", rows, names, why, {}).notes == []


def test_contests_judge_against_random_numbers_and_deletion_the_other_way_round():
    lens = {"energy": 0.3, "insertion": 0.8, "deletion": 0.1}
    table = planted({CHEFER: GOOD, ROLLOUT: BAD, LENS: lens, ABSENT: {"energy": 0.35}, EARLY: BAD})
    found = all_judged(contests(table, {CHEFER: 2.0}), draws=200)
    every = found[found["control"] == CHANCE]
    for name, beats in ((CHEFER, True), (ROLLOUT, False), (LENS, True)):
        assert [*every.loc[every["method"] == name, "beats"]] == [beats] * 3
    assert set(every["method"]) == {CHEFER, ROLLOUT, LENS}  # a control is no method
    absent = found[found["control"] == ABSENT]
    assert absent["method"].item() == LENS and absent["beats"].item() is False
    assert (found.loc[found["method"] == CHEFER, "passes"] == 2).all()


# -- the study -------------------------------------------------------------------------------------


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(model, tmp_path):
    folder = tmp_path / "new"  # a folder that is not there yet
    samples = Samples("planted", [one.id for one in SAMPLES], SAMPLES.__getitem__, "planted")
    how: Any = {"methods": ["chefer", "rollout", "lens_map"], "steps": 5, "draws": 50,
                "progress": False, "command": "mmlens reproduce x", **ONE}  # fmt: skip
    seen: list[int] = []
    count = model.towers["vision"].module.register_forward_pre_hook(lambda *_: seen.append(1))
    try:
        report = maps.reproduce(model, samples, folder, **how)
        asked = len(seen)
        assert asked > len(SAMPLES)
        maps.reproduce(model, samples, folder, **how)
        assert len(seen) == asked  # no picture is looked at again
        with pytest.raises(SweepError):
            maps.reproduce(model, samples, folder, **{**how, "steps": 6})
        with pytest.raises(ExperimentError, match="grad_cam"):
            maps.reproduce(model, samples, folder, **{**how, "methods": ["gradcam"]})
    finally:
        count.remove()
    assert list(report.verdicts["experiment"]) == ["M1", "M4", "C1", "C6"]  # of these methods
    assert ABSENT in report.verdicts["says"].iloc[-1]  # the pictures have but one name
    assert not any(one in (True, False) for one in report.verdicts["holds"])  # of four pictures
    text, page = report.results.read_text(), report.page.read_text()
    assert "`mmlens reproduce x`" in text and CHEFER in text and "M4" in page
    assert "| random numbers |" in text
    assert {each.controls[CHEFER] for each in report.contests} == {CHANCE}
    options = json.loads(report.sections[0].summary["options"].iloc[0])
    assert options["methods"] == how["methods"] and options["steps"] == 5


def test_the_command_hands_its_options_on_and_writes_itself_down(tmp_path, monkeypatch):
    asked: list[Any] = []

    def reproduce(model: Any, samples: Any, out: Any, **options: Any) -> StudyReport:
        asked.append((model, len(samples), options))
        return StudyReport(tmp_path / "a", tmp_path / "b", pd.DataFrame(), [])

    monkeypatch.setattr(maps, "reproduce", reproduce, raising=False)
    args = ["reproduce", "maps", "--model", "toy-gptj", "--data", "pictos:held_out:2",
            "--pictures", "1", "--methods", "tam", "--methods", "lens_map"]  # fmt: skip
    out = CliRunner().invoke(app, [*args, "--out", str(tmp_path)], catch_exceptions=False)
    assert out.exit_code == 0, out.output
    ((model, pictures, options),) = asked
    assert (model, pictures, options["methods"]) == ("toy-gptj", 1, ["tam", "lens_map"])
    assert options["command"] == f"mmlens {' '.join(args)}"
    CliRunner().invoke(app, ["reproduce", "maps", "--out", str(tmp_path)], catch_exceptions=False)
    assert asked[1][2]["methods"] is None and asked[1][2]["command"] == "mmlens reproduce maps"
