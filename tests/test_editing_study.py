"""Words rewritten and taken out: groups of nouns, edits with known truth, claims, resumption."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pandas as pd
import pytest
import torch
from bridges import bridge
from native_twins import twin
from PIL import Image
from test_experiments import SAMPLES

import mmlens as mm
from mmlens import patching
from mmlens.datasets.sample import Sample, Samples
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.papers import editing
from mmlens.papers.contests import judged as decided
from mmlens.papers.editing.editing_claims import CLAIMS, JUDGES, judged
from mmlens.papers.editing.editing_contests import contests
from mmlens.papers.editing.groups import Group, NamedPicture, Planned, grouped
from mmlens.papers.editing.questions.first_nouns import named_nouns
from mmlens.papers.editing.questions.removals import (
    NO_OTHER,
    OTHER_VECTOR,
    OWN_VECTOR,
    RANDOM,
    removed_word,
)
from mmlens.papers.editing.questions.rewriting import (
    FEW,
    OTHER_UNITS,
    OWN,
    SAME,
    SECOND,
    SIZE,
    THINGS,
    rewritten_word,
)
from mmlens.papers.editing.questions.sequences import (
    BEHIND,
    NOISE,
    NSE,
    RANDOM_UNITS,
    ROWS,
    middle_layers,
    rewritten_sequence,
)
from mmlens.papers.editing.said import moved, refusal
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.tables import ExperimentError, ask
from mmlens.sweep.record import SweepError
from mmlens.values.errors import AddressError

ONE: dict[str, Any] = {"max_new_tokens": 1}
PROMPT = "A picture of"
NOUNS = ("dog", "cat", "house", "car", "boat", "tree", "ball", "moon")


def photo(kind: int, at: int) -> Image.Image:
    """A picture of coloured patches, much alike of one kind."""
    patches = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(kind)).round()
    noise = torch.rand(32, 32, 3, generator=torch.Generator().manual_seed(100 + 10 * kind + at))
    pixels = 20 + 215 * patches.repeat_interleave(8, 0).repeat_interleave(8, 1) + 20 * noise
    return Image.fromarray(pixels.clamp(0, 255).byte().numpy())


SHOWN = [Sample(f"{noun}-{at}", photo(kind, at)) for at in range(2)
         for kind, noun in enumerate(NOUNS)]  # fmt: skip
DATA = Samples("shown", [one.id for one in SHOWN], SHOWN.__getitem__, "shown").pick(
    [kind + at * len(NOUNS) for at in range(2) for kind in range(5)]
)


@cache
def speaking() -> Any:
    """A toy whose last position reads the picture well, and that gives each picture its noun.

    The unembedding is solved for the mean state of the two pictures of a noun.
    """
    model = copy.deepcopy(bridge("toy-gptj"))
    with torch.no_grad():
        for block in model.root.blocks:
            block.attn.W_V.mul_(4.0)
    states, last = [], model.cfg.n_layers - 1
    for one in SHOWN:
        prompt = mm.Prompt(one.image, PROMPT)
        state = mm.activations(model, prompt, "resid_post", layer=last, pos=-1).values
        states.append(model.root.ln_final(state.reshape(1, 1, -1))[0, 0].detach().double())
    means = torch.stack(states).view(2, len(NOUNS), -1).mean(0)
    wanted = torch.zeros(len(NOUNS), model.root.unembed.W_U.shape[1], dtype=torch.double)
    for row, noun in enumerate(NOUNS):
        wanted[row, token(model, noun)] = 6.0
    with torch.no_grad():
        table = model.root.unembed.W_U
        table.copy_((torch.linalg.pinv(means) @ wanted).to(table))
        model.root.unembed.b_U.zero_()
    return model


def token(model: Any, noun: str) -> int:
    return model.to_single_token(f" {noun}")


def named(noun: str, at: int = 0, model: Any = None) -> NamedPicture:
    sample = SHOWN[NOUNS.index(noun) + at * len(NOUNS)]
    return NamedPicture(sample, noun, token(model or speaking(), noun), [])


def group(
    *edits: tuple[NamedPicture, NamedPicture, str], others: tuple[NamedPicture, ...] = ()
) -> Group:
    made = tuple(Planned(one, other, token(speaking(), word)) for one, other, word in edits)
    return Group("planned", None, edits=made, others=others, kept=(named("moon", 1),))


def shares(table: Any) -> Any:
    return table.groupby(["arm", "metric"])["value"].mean()


# -- groups ----------------------------------------------------------------------------------------


def told(*nouns: str | None) -> tuple[Samples, pd.DataFrame]:
    """Samples without pictures, and a table of what is said of them."""
    kinds = list(dict.fromkeys(nouns))
    ids = [str(at) for at in range(len(nouns))]
    rows = [{"sample": one, "noun": noun, "token": kinds.index(noun), "before": "[7]",
             "skipped": "" if noun else "named nothing"}
            for one, noun in zip(ids, nouns, strict=True)]  # fmt: skip
    return Samples("made", ids, lambda at: Sample(ids[at], None), "made"), pd.DataFrame(rows)


def test_no_noun_is_in_two_groups_in_no_form_and_nothing_in_a_group_is_there_twice():
    both = ("dog", "cat", None, "dogs", "tree", "house", "moon", "boat", "ball", "kite")
    samples, table = told("star", "star", *both, *both)
    found = grouped(samples, table, size=2, pool=2)
    assert list(found.ids) == ["dog cat", "tree house", "moon boat", "ball kite"]
    seen: set[str] = set()
    for one in (found[at] for at in range(len(found))):
        assert isinstance(one, Group)
        here = [edit.first.noun for edit in one.edits]
        assert all(edit.first.noun == edit.second.noun for edit in one.edits)
        assert all(edit.first.sample.id != edit.second.sample.id for edit in one.edits)
        assert not seen & set(here) and "dogs" not in here and "star" not in here
        seen |= set(here)
        words = [table.loc[table["token"] == edit.word, "noun"].iloc[0] for edit in one.edits]
        rest = [other.noun for other in one.others]
        assert len({*here, *words, *rest}) == len(here) + len(words) + len(rest)
        assert [kept.sample.id for kept in one.kept] == ["0", "1"]
        assert one.kept[0].before == [7]  # they are preserved where their nouns are said
        pictures = [named.sample.id for edit in one.edits for named in edit[:2]]
        assert not {"0", "1"} & {*pictures, *(other.sample.id for other in one.others)}
        assert one.edits[0].first.before == [7]
    assert len(grouped(samples, table, size=2, most=1, pool=2)) == 1
    other = grouped(samples, table.assign(before="[8]"), size=2, pool=2)
    assert other.hash != found.hash


def test_too_few_nouns_are_refused_with_how_many_there_are():
    samples, table = told("dog", "dog", "cat", "house", "cat")
    with pytest.raises(ExperimentError, match="name 3 nouns first, 2 of them twice"):
        grouped(samples, table, size=2)
    assert list(grouped(samples, table, size=1).ids) == ["dog", "cat"]
    with pytest.raises(ExperimentError, match="pool=30 takes all 5 pictures of made"):
        grouped(samples, table, pool=30)


def test_the_prompt_up_to_the_noun_is_rebuilt_from_the_table():
    model = bridge("toy-gptj-planted")
    how: Any = {"noun": "content", "max_new_tokens": 3}
    table = ask(named_nouns, model, SAMPLES, **how).assign(noun=["dog", "dog", "cat", "house"])
    table["token"] = [1, 1, 2, 3]
    table["before"] = "[5, 6]"
    samples = Samples("four", [one.id for one in SAMPLES], SAMPLES.__getitem__, "four")
    first: Any = grouped(samples, table)[0]
    soft = first.edits[0].first.soft(model, PROMPT)
    read = model.read(mm.Prompt(SAMPLES[0].image, PROMPT))
    assert soft.ids[0].tolist() == [*read.ids[0].tolist(), 5, 6]
    seen: Any = explain(speaking(), SHOWN[3], **ONE)
    row: Any = ask(named_nouns, speaking(), [SHOWN[3]], **ONE).iloc[0]
    assert (row["noun"], row["token"], row["before"]) == (seen.noun, seen.token, "[]")
    assert seen.noun == "car"


def test_the_toy_gives_each_picture_its_noun_by_far():
    for one in SHOWN:
        with torch.no_grad():
            first, second = speaking()(mm.Prompt(one.image, PROMPT))[0, -1].topk(2)[0].tolist()
        assert speaking().generate(mm.Prompt(one.image, PROMPT), 1) == f" {one.id.split('-')[0]}"
        assert first - second > 1


# -- edits -----------------------------------------------------------------------------------------


def test_a_word_holds_on_a_copy_of_its_picture_and_a_thing_that_is_the_picture_loses_its_word():
    """The second picture is the first one, and so is the first of two other things."""
    model, dog = speaking(), named("dog")
    one = group((dog, dog, "cat"), others=(dog, dog))
    table: Any = rewritten_word(model, one, k=6)
    found = shares(table)
    for arm in (OWN, OTHER_UNITS):
        assert found[arm, SAME] == found[arm, SECOND] == 1
        assert found[arm, THINGS] == 0
    soft = model.read(mm.Prompt(dog.sample.image, PROMPT))
    best: Any = mm.top_neurons(mm.contributions(model, soft, dog.token, after=""), 6)
    cat = token(model, "cat")
    changed = patching.rewrite(model, soft, list(best["neuron"]), cat, margin=2.0, steps=20)
    assert found[OWN, SIZE] == pytest.approx(changed.provenance["rewritten"]["norm"], rel=1e-4)
    assert model.generate(soft, 1) == " dog"  # the given model stays as it was
    assert found[OTHER_UNITS, SIZE] != pytest.approx(found[OWN, SIZE], rel=1e-3)
    other = rewritten_word(model, one, k=6, seed=1)
    assert shares(other)[OWN, SIZE] == found[OWN, SIZE]  # the seed is that of the others alone
    assert shares(other)[OTHER_UNITS, SIZE] != found[OTHER_UNITS, SIZE]


def test_what_is_asked_beyond_the_picture_is_what_the_changed_model_says_there():
    model = speaking()
    one = group((named("dog"), named("dog", 1), "cat"), others=(named("moon"), named("boat")))
    found = shares(rewritten_word(model, one, k=6))
    soft = model.read(mm.Prompt(named("dog").sample.image, PROMPT))
    best: Any = mm.top_neurons(mm.contributions(model, soft, token(model, "dog"), after=""), 6)
    changed = patching.rewrite(model, soft, list(best["neuron"]), " cat", margin=2.0, steps=20)
    says = lambda sample: changed.generate(mm.Prompt(sample.image, PROMPT), 1)  # noqa: E731
    assert found[OWN, SECOND] == (says(named("dog", 1).sample) == " cat")
    kept = [says(named(noun).sample) == f" {noun}" for noun in ("moon", "boat")]
    assert found[OWN, THINGS] == pytest.approx(sum(kept) / 2)


def test_a_layer_with_too_few_other_neurons_is_skipped_with_the_reason():
    one = group((named("dog"), named("dog", 1), "cat"))
    units = bridge("toy-gptj").cfg.d_mlp * bridge("toy-gptj").cfg.n_layers
    table: Any = rewritten_word(speaking(), one, k=units)
    assert table["skipped"].tolist() == [FEW]


def test_the_arms_of_a_sequence_are_those_edits_and_noise_is_as_long_as_nse():
    model = speaking()
    edits = [(named("dog"), named("dog"), "boat"), (named("cat"), named("cat", 1), "tree")]
    one = group(*edits, others=(named("moon"), named("house")))
    how: Any = {"layer": [1, 2], "k": 6, "other_prompt": PROMPT, **ONE}
    table: Any = rewritten_sequence(model, one, **how)
    found = shares(table)
    assert set(table["arm"]) == {NSE, RANDOM_UNITS, ROWS, NOISE}
    softs = [model.read(mm.Prompt(first.sample.image, PROMPT)) for first, _, _ in edits]
    changed = patching.rewrite_in_sequence(
        model, softs, [" boat", " tree"], layer=[1, 2], keep=[mm.Prompt(SHOWN[-1].image, PROMPT)]
    )
    said = changed.provenance["rewritten_in_sequence"]["said"]
    assert found[NSE, SAME] == pytest.approx(sum(said) / 2)
    assert found[NSE, BEHIND] == found[NSE, SAME]  # the other prompt is the same one here
    size = found[NSE, SIZE]
    assert size == pytest.approx(moved(model, changed), rel=1e-3)
    assert found[NOISE, SIZE] == pytest.approx(size, rel=1e-3)
    tables = [torch.cat([one.root.blocks[at].mlp.W_out.detach() for at in range(3)])
              for one in (model, changed)]  # fmt: skip
    assert size == pytest.approx(float((tables[1] - tables[0]).norm() / tables[0].norm()), rel=1e-3)
    assert found[ROWS, SAME] == 1  # both are said, since the second keeps the first
    # the second picture of the first noun is its first one
    rows: Any = table[table["metric"] == SECOND]
    assert rows[rows["arm"] == ROWS]["value"].iloc[0] == 1


def test_a_noun_that_another_prompt_does_not_call_up_is_not_asked_there():
    edits = [(named("dog"), named("dog", 1), "boat"), (named("cat"), named("cat", 1), "tree")]
    one = group(*edits, others=(named("moon"),))
    how: Any = {"layer": [2], "k": 4, **ONE}
    table: Any = rewritten_sequence(speaking(), one, other_prompt=PROMPT, noun="pictos", **how)
    assert (table["metric"] == BEHIND).sum() == 2 * 4
    other = NamedPicture(named("dog").sample, "dog", token(speaking(), "star"), [])
    wrong = group((other, named("dog", 1), "boat"), edits[1], others=(named("moon"),))
    table = rewritten_sequence(speaking(), wrong, other_prompt=PROMPT, noun="pictos", **how)
    assert (table["metric"] == BEHIND).sum() == 4


def test_layers_are_those_from_the_half_of_the_depth_to_three_quarters():
    assert middle_layers(8) == [4, 5, 6]
    assert middle_layers(32) == list(range(16, 25))
    assert [middle_layers(n) for n in (1, 2, 3)] == [[0], [1], [1, 2]]


def test_who_cannot_be_rewritten_is_known_before_with_the_verb_s_own_sentence():
    assert refusal(speaking()) == ""
    normed: Any = mm.from_model(*twin("gemma3"), name="gemma3")
    assert "a norm follows the MLP" in refusal(normed)


# -- removal ---------------------------------------------------------------------------------------


def test_a_vector_is_taken_out_as_the_edit_takes_it_out_and_the_other_word_is_not_in_the_picture():
    model = bridge("toy-gptj-planted")
    sample = SAMPLES[0]
    how: Any = {"layer": 1, "text_layer": 0, **ONE}
    table: Any = removed_word(model, sample, names=[" dog", " cat"], **how).set_index("arm")
    seen: Any = explain(model, sample, **ONE)
    assert seen.noun == "dog"
    for arm, word in ((OWN_VECTOR, " dog"), (OTHER_VECTOR, " cat")):
        edited = model.edit(*patching.project_away(model, word, layer=1, text_layer=0))
        with torch.no_grad():
            prob = float(edited(seen.soft)[0, -1].softmax(-1)[seen.token])
        assert table.loc[arm, "probability"] == pytest.approx(prob, abs=1e-6)
    assert table["before"].nunique() == 1 and RANDOM in table.index
    assert abs(table.loc[OWN_VECTOR, "probability"] - table.loc[OTHER_VECTOR, "probability"]) > 1e-4
    none: Any = removed_word(model, sample, names=[" dog"], **how)
    assert none["skipped"].tolist() == [NO_OTHER]
    with pytest.raises(AddressError):
        removed_word(model, sample, names=[" cat"], layer=9, text_layer=0, **ONE)


# -- claims ----------------------------------------------------------------------------------------

ARMS = {"R": (OWN, OTHER_UNITS), "S": (NSE, RANDOM_UNITS, ROWS, NOISE),
        "A": (OWN_VECTOR, OTHER_VECTOR, RANDOM)}  # fmt: skip
METRICS = {"R": (SAME, SECOND, THINGS, SIZE), "S": (SAME, SECOND, BEHIND, THINGS, SIZE)}
MANY = 60


def planted(kind: str, means: dict[str, dict[str, float]]) -> pd.DataFrame:
    """A table in which every arm has a known share, a little more or less in each sample."""
    draw = torch.Generator().manual_seed(0)
    little = lambda: 0.02 * float(torch.rand((), generator=draw))  # noqa: E731
    rows = []
    for at in range(MANY):
        for arm in ARMS[kind]:
            if kind == "A":
                lost = means["lost"].get(arm, 0.0) + little()
                rows.append({"sample": f"s{at}", "arm": arm, "before": 0.8,
                             "probability": 0.8 * (1 - lost)})  # fmt: skip
                continue
            rows += [{"sample": f"s{at}", "arm": arm, "metric": metric,
                      "value": means.get(metric, {}).get(arm, 0.5) + little()}
                     for metric in METRICS[kind]]  # fmt: skip
    return pd.DataFrame(rows).assign(skipped="", options="{}")


def verdict(key: str, table: pd.DataFrame) -> bool | None:
    parts = {one.key: one for one in judged(key[0], table, draws=200, seed=0)}
    found = parts[key].verdict
    assert found is not None and found.claim == CLAIMS[key]
    return found.holds


@pytest.mark.parametrize("key", list(CLAIMS))
@pytest.mark.parametrize("holds", [True, False])
def test_a_claim_holds_where_its_truth_is_planted_and_fails_where_the_other_is(key, holds):
    metric, arm, other, how = JUDGES[key]
    high, low = (0.96, 0.7) if how == "holding" else (0.6, 0.03)
    own = high if holds == (how in ("holding", "above")) else low
    means = {arm: own, **({other: low if own == high else high} if other else {})}
    table = planted(key[0], {metric: means})
    assert verdict(key, table) is holds
    few: Any = table[table["sample"].isin([f"s{at}" for at in range(7)])]
    assert verdict(key, few) is None


def test_contests_judge_each_method_against_its_own_control():
    tables = {
        "R": planted("R", {SECOND: {OWN: 0.6, OTHER_UNITS: 0.3}}),
        "S": planted("S", {SECOND: {NSE: 0.2, RANDOM_UNITS: 0.6}}),
        "A": planted("A", {"lost": {OWN_VECTOR: 0.7, OTHER_VECTOR: 0.1}}),
    }
    made = contests(tables)
    assert len({one.question for one in made}) == len(made) == 5
    beats = [decided(one, draws=100)["beats"].tolist() for one in made]
    assert beats == [[True], [None], [False], [None], [True]]
    assert [one.question for one in contests({"A": tables["A"]})] == [made[-1].question]


# -- the study -------------------------------------------------------------------------------------

HOW: dict[str, Any] = {"pool": 1, "nouns": 2, "sequences": 1, "edits": 2, "k": 4, "layer": [2],
                       "draws": 20, "progress": False, **ONE}  # fmt: skip


def test_the_study_is_a_page_and_goes_on_where_it_was(tmp_path, monkeypatch):
    out, model = tmp_path / "new", speaking()  # a folder that is not there yet
    report = editing.reproduce(model, DATA, out, command="mmlens reproduce editing", **HOW)
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    decisions = dict(report.verdicts.set_index("experiment")["holds"])
    assert all(decisions[key] is None for key in decisions if key[0] in "RS")  # of too few
    text = report.results.read_text()
    assert "`mmlens reproduce editing`" in text and "NSE in layers 2" in text
    assert "S5" in report.page.read_text() and len(report.contests) == 5
    assert {file.stem for file in (out / "tables").glob("*.csv")} == {"R1", "S1", "A1"}
    with monkeypatch.context() as patch:
        for name in ("run", "generate"):
            patch.setattr(HookedVLM, name, lambda *args, **kwargs: pytest.fail("asked again"))
        again = editing.reproduce(model, DATA, out, **HOW)
        assert again.verdicts.equals(report.verdicts)
        with pytest.raises(SweepError):
            editing.reproduce(model, DATA, out, **{**HOW, "k": 5})
    made = {file: file.stat().st_mtime_ns for file in (out / "sweeps").rglob("*.parquet")}
    assert len(made) == 1 + 2 + 1 + 1  # pictures, each noun, the sequence, pictures
    lost = sorted((out / "sweeps" / "rewritten_word" / "chunks").iterdir())[0]
    lost.unlink()
    assert editing.reproduce(model, DATA, out, **HOW).verdicts.equals(report.verdicts)
    anew = [file for file, at in made.items() if file.stat().st_mtime_ns != at]
    assert len(anew) == 1 and anew[0].stem == lost.stem  # one noun was lost, and one is asked again


def test_what_a_model_or_the_pictures_do_not_allow_is_left_out_with_its_reason(tmp_path):
    model = bridge("toy-gptj-planted")
    samples = Samples("planted", [one.id for one in SAMPLES], SAMPLES.__getitem__, "planted")
    report = editing.reproduce(model, samples, tmp_path / "new", **HOW)
    says = report.verdicts.set_index("experiment")["says"]
    assert "name 1 nouns first, 1 of them twice" in says["R1"] and "takes 2 nouns" in says["S3"]
    assert NO_OTHER in says["A2"] and report.contests == ()
    assert set(report.verdicts["holds"]) == {None}
    boats = DATA.pick([NOUNS.index("boat")])  # which is no name of the bundled world
    with pytest.raises(ExperimentError, match="No picture has an answer"):
        editing.reproduce(speaking(), boats, tmp_path / "none", noun="pictos", **HOW)
