"""Neo's three tools where the truth is planted: the thing is at its patch, and is read late."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from bridges import bridge
from judging import all_judged
from test_experiments import SAMPLES, mean_of

import mmlens as mm
from mmlens.datasets.sample import Samples
from mmlens.papers import neo
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.neo.neo_claims import CLAIMS, JUDGES, NAMED
from mmlens.papers.neo.object_patches import CROWDED, object_patches
from mmlens.papers.neo.questions.object_tokens import summary, token_ablations
from mmlens.papers.neo.questions.patch_words import word_shares
from mmlens.papers.neo.questions.windows import window_effects, windows
from mmlens.papers.tables import ExperimentError, ask
from mmlens.sweep.record import SweepError

ONE: dict[str, Any] = {"max_new_tokens": 1}
CORNER = SAMPLES[1]


@pytest.fixture(scope="module")
def model() -> Any:
    return bridge("toy-gptj-planted")


def test_patches_of_the_thing_and_the_ring_and_the_ground_divide_the_picture(model):
    seen: Any = explain(model, CORNER, **ONE)
    found: Any = object_patches(model, CORNER, seen, 0.5, 1)
    every = [label for label in seen.soft.labels[0] if isinstance(label, mm.Patch)]
    assert sorted(map(str, [*found.around, *found.others])) == sorted(map(str, every))
    (own,) = found.thing
    near = [one for one in every if abs(one.row - own.row) <= 1 and abs(one.col - own.col) <= 1]
    assert set(found.around) == set(near) and not set(found.bare) & set(near)
    assert object_patches(model, SAMPLES[0], seen, 0.5, 1) == CROWDED  # 9 of 16 patches
    alone: Any = object_patches(model, CORNER, seen, 0.5, 0)
    assert alone.around == alone.thing
    drawn = alone.drawn(torch.Generator().manual_seed(0))
    assert len(drawn) == 1 and drawn[0] in alone.bare


def test_the_word_is_lost_with_its_patch_and_with_no_other(model):
    out = summary(ask(token_ablations, model, SAMPLES, share=0.5, ring=0, **ONE))
    assert mean_of(out, arm="object", metric="lost") > 0.8
    assert abs(mean_of(out, arm="random", metric="lost")) < 0.1
    assert mean_of(out, arm="object", metric="said") == 0
    assert mean_of(out, arm="random", metric="said") == 1


def test_what_is_replaced_by_nothing_is_what_an_edit_of_the_stream_does(model):
    table = ask(token_ablations, model, SAMPLES[:1], fill="zero", share=0.5, ring=0, **ONE)
    by_hand = explain(model, SAMPLES[0], **ONE)
    assert by_hand is not None
    place = object_patches(model, SAMPLES[0], by_hand, 0.5, 0)
    assert not isinstance(place, str)
    silent = model.edit(mm.Edit("resid_pre", 0.0, layer=0, pos=place.thing))
    with torch.no_grad():
        prob = silent(by_hand.soft)[0, -1].softmax(-1)[by_hand.token]
    row = table[table["arm"] == "object"].iloc[0]
    assert row["probability"] == pytest.approx(float(prob), abs=1e-5)


def test_the_last_position_reads_the_patch_behind_the_layer_that_writes_the_word(model):
    """The planted unit of layer 1 writes, and the attention of layer 2 carries it to the end."""
    table: Any = ask(window_effects, model, SAMPLES[:2], share=0.5, ring=0, **ONE)
    own = table[table["arm"] == "object + ring -> last"]
    lost = own.assign(lost=1 - own["probability"] / own["before"]).groupby("layers")["lost"].mean()
    assert lost["late"] > 0.8 and lost["all"] > 0.8
    assert abs(lost["early"]) < 0.1 and abs(lost["mid"]) < 0.1
    others = table[(table["arm"] == "random -> last") & (table["layers"] == "all")]
    assert (1 - others["probability"] / others["before"]).abs().max() < 0.2


def test_windows_are_a_third_of_the_layers_from_the_first_to_the_last():
    for n in (3, 8, 32):
        found = windows(n)
        assert found["early"].start == 0 and found["late"].stop == n and len(found["all"]) == n
        assert len({len(one) for name, one in found.items() if name != "all"}) == 1
    assert windows(32)["mid"] == range(10, 21)


def test_shares_of_patches_are_those_whose_most_probable_token_is_the_noun(model):
    table = ask(word_shares, model, [CORNER], share=0.5, **ONE)
    seen: Any = explain(model, CORNER, **ONE)
    found: Any = object_patches(model, CORNER, seen, 0.5, 1)
    stream = mm.activations(model, seen.soft, "resid_post")
    with torch.no_grad():
        top = model.lm.logits_of(stream.values)[..., : model.lm.n_words].argmax(-1) == seen.token
    for arm, patches in (("object", found.thing), ("background", found.bare)):
        places = [stream.of("pos").index(one) for one in patches]
        truth = top[:, places].float().mean(1).tolist()
        assert table[table["arm"] == arm]["share"].tolist() == pytest.approx(truth)


def test_the_study_has_all_three_and_bad_options_are_refused(model):
    table = neo.study(model, SAMPLES[1::2], share=0.5, **ONE)
    assert set(table["experiment"]) == {"object tokens", "patch words", "windows"}
    assert set(table["n"]) == {2} and set(table["skipped"]) == {0}
    bad: tuple[dict[str, Any], ...] = ({"fill": "noise"}, {"ring": -1}, {"share": 2.0})
    for options in bad:
        with pytest.raises(ExperimentError):
            token_ablations(model, SAMPLES[0], **options)


PICTURES = [f"s{i}" for i in range(12)]


def planted(loss: dict[tuple[str, str], float]) -> pd.DataFrame:
    """Tables of pictures whose noun loses a known share, a little more or less in each."""
    noise = torch.Generator().manual_seed(0)
    rows = [
        {"sample": one, "arm": arm, "layers": layers, "before": 0.5, "said": lost < 0.5,
         "probability": 0.5 * (1 - lost) + 0.03 * float(torch.rand((), generator=noise))}
        for (arm, layers), lost in loss.items() for one in PICTURES
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(skipped="", options="{}")


@pytest.mark.parametrize(("lost", "other", "holds"), [(0.9, 0.1, True), (0.1, 0.9, False)])
def test_a_claim_of_patches_is_decided_by_what_is_lost_beyond_bare_ground(lost, other, holds):
    judge = JUDGES["N1"][1]
    at: Any = {("object", ""): lost, ("object + ring", ""): lost, ("random", ""): other}
    table = planted(at)
    assert judge(table, draws=200, seed=0).verdict.holds is holds
    few = table[table["sample"].isin(PICTURES[:7])]
    assert judge(few, draws=200, seed=0).verdict.holds is None


def test_claims_of_windows_compare_the_arms_that_they_name():
    names = ("early", "mid-late", "all")
    loss: Any = {("object + ring -> last", name): 0.02 if name == "early" else 0.8
                 for name in names}  # fmt: skip
    loss |= {("random -> last", name): 0.02 for name in names}
    loss |= {("patches -> last row", name): 0.95 for name in names}
    table = planted(loss)
    told = {key: JUDGES[key][1](table, draws=200, seed=0).verdict.holds for key in CLAIMS
            if key in ("N3", "N4", "N5")}  # fmt: skip
    assert told == {"N3": True, "N4": False, "N5": True}


@pytest.mark.parametrize(("late", "bare", "holds"), [(0.6, 0.1, True), (0.6, 0.8, False)])
def test_words_have_to_come_in_later_layers_and_at_the_thing(late, bare, holds):
    noise = torch.Generator().manual_seed(0)
    rows = [
        {"sample": one, "layer": layer, "arm": arm, "patches": 4,
         "share": (share if layer == 2 else 0.0) + 0.1 * float(torch.rand((), generator=noise))}
        for one in PICTURES for layer in range(3)
        for arm, share in (("object", late), ("background", bare))
    ]  # fmt: skip
    table = pd.DataFrame(rows).assign(skipped="", options="{}")
    assert JUDGES["N2"][1](table, draws=200, seed=0).verdict.holds is holds


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(model, tmp_path):
    tmp_path = tmp_path / "new"  # a folder that is not there yet
    samples = Samples("planted", [one.id for one in SAMPLES], SAMPLES.__getitem__, "planted")
    how: Any = {"share": 0.5, "draws": 50, "progress": False, **ONE}
    report = neo.reproduce(model, samples, tmp_path, command="mmlens reproduce neo", **how)
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    assert report.verdicts["holds"].isna().all()  # two pictures decide nothing
    found = all_judged(report.contests, draws=50).set_index("method")
    told = report.sections[0].summary.query("metric == 'lost'").set_index("arm")["mean"]
    for arm, said in NAMED[:2]:
        assert found.loc[said, "mean"] == pytest.approx(told[arm])
        assert found.loc[said, "gap"] == pytest.approx(told[f"{arm} - random"])
    told = report.sections[2].summary.query("metric == 'lost' and layers == 'all'")
    told = told.set_index("arm")["mean"]
    assert found.loc[NAMED[3][1], "mean"] == told["object + ring -> last"]
    text, page = report.results.read_text(), report.page.read_text()
    assert "`mmlens reproduce neo`" in text and "5 are undecided" in text and "N5" in page
    answers = (tmp_path / "sweeps").rglob("*.parquet")
    before = {file: file.stat().st_mtime_ns for file in answers}
    assert len(before) == 3
    neo.reproduce(model, samples, tmp_path, **how)
    assert all(file.stat().st_mtime_ns == at for file, at in before.items())
    with pytest.raises(SweepError):
        neo.reproduce(model, samples, tmp_path, **{**how, "share": 0.4})


def test_reports_say_below_how_many_pictures_nothing_is_decided():
    from mmlens.papers.bootstrap import LEAST
    from mmlens.papers.hallucination import decoding_report
    from mmlens.papers.neo import neo_report

    for told in (neo_report.READ, decoding_report.READ):
        assert f"f fewer than {LEAST} pictures no claim is decided" in told
