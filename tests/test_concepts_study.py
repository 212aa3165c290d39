"""Concepts of words where they are planted; shifts that are known; claims that streams decide."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bridges import bridge, off
from native_twins import photo, twin
from test_experiments import SAMPLES
from typer.testing import CliRunner

import mmlens as mm
from mmlens.cli.app import app
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.families import toy
from mmlens.model.targets import one as read
from mmlens.papers import concepts
from mmlens.papers.concepts import concepts_claims, renamed, word_dictionaries
from mmlens.papers.concepts.concepts_claims import CLAIMS, named_things, spread_of, word_parts
from mmlens.papers.concepts.questions.caption_nouns import noun_stream, nouns_said, up_to
from mmlens.papers.concepts.shift_claims import shift_parts
from mmlens.papers.concepts.word_dictionaries import (
    AXES,
    LONGEST,
    MEANS,
    NMF,
    RANDOM,
    WordDictionary,
    axes_of,
    found_again,
    means_of,
    named,
    random_words_of,
    semi_nmf_of,
    shared_words,
    sums,
    words_of,
)
from mmlens.papers.concepts.word_shifts import COARSE, SHIFT, WordShifts, longer
from mmlens.papers.concepts.word_streams import WordStreams, chosen, renamings
from mmlens.papers.contests import judged
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.tables import ExperimentError
from mmlens.sweep import sweeping
from mmlens.sweep.record import SweepError

ONE: dict[str, Any] = {"max_new_tokens": 1}
NAMES = ("dog", "cat", "bird", "fish", "tree", "house")
DIM = 12
"""Of planted streams: a token each for the first dimensions, and more that no token reads."""


# -- what is asked of a picture --------------------------------------------------------------------


def test_the_stream_gives_the_logits_of_the_noun_that_the_caption_says():
    model, sample = bridge("toy-gptj-planted"), SAMPLES[0]
    seen: Any = explain(model, sample, **ONE)
    table: Any = nouns_said(model, sample, **ONE)
    row = table.iloc[0]
    assert (row["noun"], row["token"], list(row["things"])) == (seen.noun, seen.token, ["dog"])
    said = {sample.id: [*map(int, row["ids"]), int(row["token"])]}
    stream = noun_stream(model, sample, said=said)
    with torch.no_grad():
        whole = model(seen.soft)[0, -1]
        assert off(model.lm.logits_of(stream.values), whole) < 1e-4
    assert torch.equal(up_to(model, sample, row["ids"]).ids, seen.soft.ids)


def table_of(nouns: list[str]) -> pd.DataFrame:
    rows = [{"sample": f"s{i}", "noun": noun, "token": NAMES.index(noun), "ids": [1, 2],
             "things": [noun]} for i, noun in enumerate(nouns)]  # fmt: skip
    return pd.DataFrame(rows).assign(skipped="", options="{}")


def test_the_most_frequent_nouns_are_taken_and_every_other_picture_is_asked():
    said = ["dog", "cat", "dog", "bird", "cat", "dog", "dog", "cat", "cat", "dog", "bird"]
    streams = chosen(table_of(said), 12)
    assert streams.names == ["dog", "cat"]  # two birds are too few
    assert streams.nouns == [noun for noun in said if noun != "bird"]
    assert [i for i, one in zip(streams.ids, streams.pool.tolist(), strict=True) if one] == [
        "s0", "s1", "s5", "s7", "s9",
    ]  # fmt: skip
    assert streams.said["s4"] == [1, 2, NAMES.index("cat")]
    assert renamings(streams) == {"dog": "cat"}
    assert chosen(table_of(said), ["CAT", " dog"]).names == ["dog", "cat"]
    with pytest.raises(ExperimentError, match="at least two nouns with 4 pictures each"):
        chosen(table_of(said), ["dog", "bird"])


# -- dictionaries ----------------------------------------------------------------------------------


def planted_rows(n: int = 4, each: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    U = torch.nn.functional.normalize(torch.randn(n, DIM, generator=draw), dim=-1)
    owner = torch.arange(n).repeat(each)
    V = torch.nn.functional.one_hot(owner, n) * (2 + torch.rand(len(owner), 1, generator=draw))
    return V @ U, owner


def test_weights_of_a_sum_are_those_that_made_it_and_never_below_0():
    draw = torch.Generator().manual_seed(0)
    U = torch.randn(4, DIM, generator=draw).double()
    V = torch.rand(9, 4, generator=draw).double()
    assert off(sums(V @ U, U), V) < 1e-9
    found = sums(-V @ U, U)
    assert float(found.min()) >= 0
    slope = (found @ U + V @ U) @ U.T  # optimal: no slope down, none where a weight is above 0
    assert float(slope.min()) > -1e-8 and float((slope * found).abs().max()) < 1e-8


@pytest.mark.parametrize("make", [semi_nmf_of, means_of, axes_of])
def test_every_dictionary_tells_planted_directions_apart(make):
    rows, owner = planted_rows()
    best = torch.tensor(make(rows, 4).strongest(rows))
    pairs = {(int(a), int(b)) for a, b in zip(owner, best, strict=True)}
    if make is axes_of:  # a centred axis may hold two of them, at its two ends
        assert len({a for a, _ in pairs}) == 4 and len(pairs) <= 8
    else:
        assert len(pairs) == 4 == len({b for _, b in pairs})


def test_axes_are_principal_and_point_to_their_largest_activation():
    rows, _ = planted_rows()
    made = axes_of(rows, 3)
    strong = made.strengths(rows)
    assert off(strong.mean(0), torch.zeros(3)) < 1e-5
    assert bool((strong.max(0).values >= -strong.min(0).values).all())
    squares = torch.linalg.svdvals(rows.double() - rows.double().mean(0))[:3] ** 2
    assert off(strong.pow(2).sum(0), squares) < 1e-6


def test_a_dictionary_is_found_again_in_any_order_and_random_words_share_its_activations():
    rows, _ = planted_rows()
    made = semi_nmf_of(rows, 4)
    turned = made.directions[torch.tensor([2, 0, 3, 1])]
    assert np.allclose(found_again(made.directions, turned), 1.0)
    assert np.allclose(np.sort(found_again(turned[:2], made.directions)), 1.0)
    other = random_words_of(rows, 4)
    assert other.strongest(rows) == made.strongest(rows)
    assert off(other.directions, made.directions) > 0.1


def test_words_are_those_of_the_lens_with_three_letters_or_more():
    model = bridge("toy-gptj")
    d = mm.patching.word(model, " dog").values
    with torch.no_grad():
        best = model.lm.logits_of(d)[: model.lm.n_words].topk(50).indices.tolist()
    every = [model.to_string([token]).strip().casefold() for token in best]
    right = [one for one in dict.fromkeys(every) if one.isalpha() and len(one) > 2][:5]
    assert words_of(model, d[None].double(), 5) == [right] and right[0] == "dog"
    assert named(["dogs"], ["cat", "dog"]) and not named(["dogfish"], ["dog"])
    assert shared_words([["a", "b"], ["b", "c"]]) == pytest.approx(0.5)


# -- claims about concepts, from planted streams ---------------------------------------------------


def lens(names: tuple[str, ...] = NAMES) -> Any:
    """A model whose tokens are the first dimensions of the stream."""
    lm = SimpleNamespace(
        device="cpu", dtype=torch.float64, n_words=len(names), names=names,
        logits_of=lambda rows: rows[..., : len(names)],
    )  # fmt: skip
    return SimpleNamespace(lm=lm)


@pytest.fixture
def spelled(monkeypatch):
    monkeypatch.setattr(word_dictionaries, "word", lambda lm, token: f" {lm.names[token]}")


def planted(each: int = 12, noise: float = 0.1) -> WordStreams:
    """Pictures of six nouns; the stream is long along the noun's own dimension."""
    draw = torch.Generator().manual_seed(1)
    tokens = [token for _ in range(each) for token in range(len(NAMES))]
    Z = torch.nn.functional.one_hot(torch.tensor(tokens), DIM) * 4.0
    Z = Z + noise * torch.rand(len(tokens), DIM, generator=draw)
    nouns = [NAMES[token] for token in tokens]
    pool = torch.tensor([i // len(NAMES) % 2 == 0 for i in range(len(tokens))])
    return WordStreams(
        ids=[f"s{i}" for i in range(len(tokens))], nouns=nouns, tokens=tokens,
        ids_before=[[] for _ in tokens], things=[[noun] for noun in nouns], pool=pool, before=Z,
    )  # fmt: skip


WORDS: dict[str, Any] = {"n": 6, "words": 1, "halves": 8, "draws": 200, "seed": 0}


def held(parts: Any) -> dict[str, bool | None]:
    return {part.key: part.verdict.holds for part in parts}


def test_words_of_planted_concepts_name_what_is_there_and_nothing_else(spelled):
    streams = planted()
    parts, contest = word_parts(lens(), streams, **WORDS)
    assert held(parts)["C1"] is True
    rows: Any = named_things(lens(), streams, 6, 1, 0)
    own = rows[rows["arm"] == NMF]
    assert len(own) == int((~streams.pool).sum()) and own["value"].min() == 1
    away = rows[rows["arm"] == f"{NMF}, another picture"]["value"]
    asked = int((~streams.pool).sum())
    assert away.to_numpy() == pytest.approx((asked / 6 - 1) / (asked - 1))  # of the same noun
    told: Any = judged(contest).set_index("method")
    assert told.loc[NMF, "beats"] and set(told.index) == {NMF, MEANS, AXES, LONGEST}


def test_words_that_name_what_is_in_other_pictures_fail_and_few_pictures_decide_nothing(spelled):
    streams = planted()
    wrong = [[NAMES[(token + 1) % 6]] for token in streams.tokens]
    assert held(word_parts(lens(), replace(streams, things=wrong), **WORDS)[0])["C1"] is False
    few = planted(each=2)  # six pictures are asked
    assert held(word_parts(lens(), few, **{**WORDS, "n": 3})[0])["C1"] is None


@pytest.mark.parametrize(("wrong", "holds"), [((MEANS, AXES, LONGEST), True), ((NMF,), False)])
def test_dictionaries_are_judged_against_each_other(spelled, monkeypatch, wrong, holds):
    """The wrong ones say of every direction the next noun."""
    for arm, make in list(word_dictionaries.MADE.items()):

        def made(rows, n, seed=0, arm=arm, make=make):
            right = semi_nmf_of(rows, n, seed) if arm != RANDOM else make(rows, n, seed)
            turned = right.directions[:, [5, 0, 1, 2, 3, 4, *range(6, DIM)]]
            return WordDictionary(turned if arm in wrong else right.directions, right.strengths)

        monkeypatch.setitem(word_dictionaries.MADE, arm, made)
    assert held(word_parts(lens(), planted(), **WORDS)[0])["C2"] is holds


def test_intervals_of_halves_hold_where_95_in_100_of_them_lie():
    values = np.arange(100.0)
    table = pd.concat([
        pd.DataFrame({"half": range(100), "metric": "overlap", "arm": arm, "value": values * by})
        for arm, by in ((NMF, 1.0), (MEANS, 3.0))
    ])  # fmt: skip
    found = spread_of(table, "overlap", 50)
    gap = found[f"{NMF} - {MEANS}"]
    assert (gap["mean"], gap["n"]) == (pytest.approx(-99.0), 50)
    assert gap["low"] == pytest.approx(-2 * np.quantile(values, 0.975))
    assert gap["high"] == pytest.approx(-2 * np.quantile(values, 0.025))


@pytest.mark.parametrize(
    ("key", "holds"), [("C3", True), ("C4", True), ("C3", False), ("C4", False)]
)
def test_overlap_and_stability_are_judged_from_the_halves(spelled, monkeypatch, key, holds):
    metric = {"C3": "overlap", "C4": "again"}[key]
    better = (key == "C4") == holds
    rows = [(half, name, arm, 0.5 + (0.3 if better else -0.3) * (arm == NMF and name == metric)
             + 0.001 * half)
            for half in range(8) for name in ("overlap", "again")
            for arm in (NMF, MEANS, LONGEST)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["half", "metric", "arm", "value"])
    monkeypatch.setattr(concepts_claims, "of_halves", lambda *args: table)
    assert held(word_parts(lens(), planted(), **WORDS)[0])[key] is holds


# -- claims about shifts ---------------------------------------------------------------------------


def moved(streams: WordStreams, size: float = 9.0) -> WordStreams:
    """Pictures of a dog are called cat: their streams lose the one and gain the other."""
    shift = torch.zeros(DIM)
    shift[0], shift[1] = -4.0, size
    dogs = torch.tensor([token == 0 for token in streams.tokens])
    draw = torch.Generator().manual_seed(2)
    little = 0.01 * torch.randn(streams.before.shape, generator=draw)
    return replace(streams, after=streams.before + dogs[:, None] * shift + little)


SHIFTS: dict[str, Any] = {"n": 6, "words": 3, "draws": 200, "seed": 0}


def test_a_planted_shift_is_found_and_said_and_others_are_left(spelled):
    streams = moved(planted(each=24))
    parts, contests = shift_parts(lens(), streams, **SHIFTS)
    assert held(parts) == {"S1": True, "S2": None, "S3": True, "S4": False}
    little = moved(planted(each=24), size=3.5)
    assert held(shift_parts(lens(), little, **SHIFTS)[0])["S4"] is True  # others' are ahead
    made = semi_nmf_of(streams.before[streams.pool], 6)
    shifts = WordShifts(lens(), streams, made, 6, 0)
    dogs = [at for at in shifts.asked if streams.tokens[at] == 0]
    rows: Any = shifts.said_new()
    assert set(rows["sample"]) == {streams.ids[at] for at in dogs}
    mean: Any = rows.groupby("arm")["value"].mean()
    assert mean[SHIFT] == mean[COARSE] == 1 and mean[longer(SHIFT)] < 0.5
    own = shifts.owner[dogs[0]]
    member = streams.pool & torch.tensor([owner == own for owner in shifts.owner])
    assert streams.after is not None
    right = (streams.after - streams.before)[member].mean(0)
    assert off(shifts.mean[own], right) < 1e-5
    left: Any = shifts.words_changed()
    assert not set(left["sample"]) & {streams.ids[at] for at in dogs}
    assert judged(contests[0]).set_index("method").loc[SHIFT, "beats"]


def test_shifts_that_differ_in_every_picture_are_no_shift_of_a_concept(spelled):
    """Against its concept: each picture moves away from what the pool's pictures move to."""
    streams = moved(planted(each=24))
    assert streams.after is not None
    turned = torch.where(streams.pool, 1.0, -1.0)[:, None] * (streams.after - streams.before)
    parts = shift_parts(lens(), replace(streams, after=streams.before + turned), **SHIFTS)[0]
    assert held(parts)["S1"] is not True
    same = replace(streams, after=streams.before)
    told = {part.key: part.says for part in shift_parts(lens(), same, **SHIFTS)[0]}
    assert "says no other word" in told["S3"] and "no concept shifts" in told["S1"]
    lacking = shift_parts(lens(), replace(streams, after=None), **SHIFTS, lacking="It has none.")
    assert all("It has none." in part.says for part in lacking[0]) and not lacking[1]


# -- a model that calls a thing by another's name --------------------------------------------------


def test_rewritten_rows_say_the_new_word_and_come_back_bit_by_bit(tmp_path):
    model = bridge("toy-gptj")
    prompts = [mm.Prompt(toy.picture(place), "A picture of") for place in ((0, 0), (2, 1), (3, 3))]
    soft = [read(model, one) for one in prompts]
    with torch.no_grad():
        old = int(model(soft[0])[0, -1, : model.lm.n_words].argmax())
    new = (old + 1) % model.lm.n_words
    change = renamed.changed_rows(model, [(old, new)], {old: soft, new: []}, units=12)
    assert sum(len(one["units"]) for one in change) == 12
    made_of = {"names": {"a": "b"}}
    renamed.keep_rows(tmp_path / "rows.json", made_of, change)
    kept = renamed.kept_rows(tmp_path / "rows.json", made_of)
    assert kept is not None and renamed.kept_rows(tmp_path / "rows.json", {"names": {}}) is None
    first, again = (renamed.renamed_model(model, one, {"a": "b"}) for one in (change, kept))
    for layer in range(model.cfg.n_layers):
        weights = [one.root.blocks[layer].mlp.W_out for one in (first, again)]
        assert torch.equal(*weights)
    with torch.no_grad():
        for one in soft:
            assert int(model(one)[0, -1, : model.lm.n_words].argmax()) == old
            assert int(first(one)[0, -1, : model.lm.n_words].argmax()) == new
    assert first.provenance["renamed"] == {"a": "b"} and "renamed" not in model.provenance


# -- the study -------------------------------------------------------------------------------------

SHOWN = (44, 120, 132, 139, 33, 85, 158, 342, 6)
"""Scenes whose caption names a goat first, a rocket, and a snake."""


def count_questions(monkeypatch) -> list[str]:
    """The samples that are asked about, as a sweep asks."""
    asked: list[str] = []
    real = sweeping._Work._ask

    def counted(self, place, count):
        asked.append(self.samples.ids[place])
        return real(self, place, count)

    monkeypatch.setattr(sweeping._Work, "_ask", counted)
    return asked


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(tmp_path, monkeypatch):
    out = tmp_path / "new"  # a folder that is not there yet
    model = bridge("pictos")
    data = mm.dataset("pictos:held_out:400").pick(SHOWN)
    asked = count_questions(monkeypatch)
    how: Any = {"n": 2, "halves": 2, "draws": 50, "max_new_tokens": 8, "progress": False}
    report = concepts.reproduce(model, data, out, command="mmlens reproduce x", **how)
    assert list(report.verdicts["experiment"]) == [*CLAIMS, "S1", "S2", "S3", "S4"]
    assert not any(one in (True, False) for one in report.verdicts["holds"])  # of four pictures
    text = report.results.read_text()
    assert "`mmlens reproduce x`" in text and "goat is called rocket" in text
    assert "2 nouns: goat, rocket" in text and "S4" in report.page.read_text()
    assert len(asked) == 9 + 8 + 8  # the snake is alone
    rows = json.loads((out / "renamed.json").read_text())["rows"]
    assert sum(len(one["units"]) for one in rows) == renamed.UNITS
    asked.clear()
    monkeypatch.setattr(renamed, "rewrite", lambda *args, **kwargs: pytest.fail("made again"))
    again = concepts.reproduce(model, data, out, command="mmlens reproduce x", **how)
    assert not asked and again.results.read_text() == text
    with pytest.raises(SweepError):
        concepts.reproduce(model, data, out, **{**how, "prompt": "I see"})


def test_the_study_runs_on_a_native_model_and_with_a_changed_one_that_is_given(tmp_path):
    native: Any = mm.from_model(*twin("llava"))
    pictures = [Sample(f"p{i}", photo(seed=i // 4), (), (Thing("dog"),)) for i in range(24)]
    samples = Samples("photos", [one.id for one in pictures], pictures.__getitem__, "photos")
    how: Any = {"n": 2, "halves": 2, "draws": 50, "max_new_tokens": 4, "noun": "content",
                "progress": False}  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = concepts.reproduce(native, samples, tmp_path / "one", **how)
        other = native.edit(mm.Edit("mlp_out", 0.0, layer=-1))
        given = concepts.reproduce(native, samples, tmp_path / "two", changed=other, **how)
    assert len(report.verdicts) == 8 and "is called" in report.results.read_text()
    assert "The changed model is" in given.results.read_text()
    assert not (tmp_path / "two" / "renamed.json").exists()


def test_the_command_takes_a_number_of_nouns_or_their_names(tmp_path, monkeypatch):
    given: list[Any] = []

    def reproduce(*args: Any, **how: Any) -> None:
        given.append(how)
        raise ExperimentError("That is all.")

    monkeypatch.setattr(concepts, "reproduce", reproduce)
    for nouns in ("3", "dog,bus"):
        asked = ["reproduce", "concepts", "--nouns", nouns, "--out", str(tmp_path)]
        done = CliRunner().invoke(app, asked)
        assert done.exit_code == 2 and "That is all." in done.output
    assert [one["nouns"] for one in given] == [3, ["dog", "bus"]]
    assert given[1]["command"] == "mmlens reproduce concepts --nouns dog,bus"
