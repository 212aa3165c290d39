"""E1 to E7 where the truth is known: planted neurons, hand-made masks, exact ablations."""

from __future__ import annotations

import inspect
import json
import pickle
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bridges import bridge, off
from PIL import Image

import mmlens as mm
from mmlens.causal.silencing import captions_after, number_after, units_of
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.families import toy
from mmlens.papers.mmn.questions import (
    ablation,
    classes,
    faithfulness,
    layers,
    project,
    regions,
    sensitivity,
    sheet,
    translate,
    unit_masks,
)
from mmlens.papers.mmn.questions.decoded_units import numbers_of, partners, ranked, scored, shuffle
from mmlens.papers.mmn.questions.explained import explain, nouns
from mmlens.papers.tables import ExperimentError, ask
from mmlens.values.errors import ArgumentError

PLANTED = mm.Neuron(1, 5)
PLACES = ((2, 1), (0, 3), (1, 1), (3, 2))
SHORT: dict[str, Any] = {"max_new_tokens": 1}


def planted(kind: str = "gptj") -> Any:
    return bridge(f"toy-{kind}-planted")


def sample(place: tuple[int, int], name: str = "dog") -> Sample:
    """A picture with one white patch, whose mask is known."""
    row, col = place
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[row * 8 : row * 8 + 8, col * 8 : col * 8 + 8] = True
    picture = toy.picture(place, seed=4 * row + col)
    return Sample(f"{name}-{row}{col}", picture, ("a dog", "one dog"), (Thing(name, mask),))


SAMPLES = [sample(place) for place in PLACES]


@cache
def asked(question: Any, **options: Any) -> Any:
    """The answers of the planted model about all samples, asked once."""
    return ask(question, planted(), SAMPLES, **SHORT, **options)


def mean_of(table: Any, **where: Any) -> float:
    """The mean in the one row of a summary that is named."""
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1, table
    return float(table["mean"].iloc[0])


# -- what is explained -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, rule, found",
    [
        (" a drawing of two dogs and a bicycle.", "pictos", ["dogs", "bicycle"]),
        (" the words mice and wolf.", "pictos", ["mice", "wolf"]),
        (" a photo of the man with his horse", "content", ["man", "horse"]),
        (" it is.", "content", []),
        (" a red kite", lambda text: ["kite"], ["kite"]),
    ],
)
def test_nouns_are_found_by_the_rule_that_is_named(text, rule, found):
    assert nouns(text, rule) == found


def test_the_first_noun_is_explained_where_the_model_says_it():
    seen: Any = explain(planted(), SAMPLES[0], max_new_tokens=3)
    before = seen.caption.index(seen.noun)
    assert planted().to_string([seen.token]) == " dog"
    assert seen.noun == "dog"
    assert (
        "".join(map(str, seen.soft.labels[0][16:])) == "A picture of" + seen.caption[: before - 1]
    )
    with pytest.raises(ExperimentError, match="no rule 'verbs'"):
        explain(planted(), SAMPLES[0], noun="verbs", max_new_tokens=1)


def says_nothing(text: str) -> list[str]:
    return []


def test_a_picture_whose_caption_names_nothing_is_skipped_and_counted():
    model = planted()
    dumb = ask(translate.top_units, model, SAMPLES[:1], noun=says_nothing, **SHORT)
    assert dumb["skipped"].tolist() == ["the caption names nothing"]
    assert json.loads(dumb["options"][0])["noun"] == "says_nothing"
    with pytest.raises(ExperimentError, match="names nothing.*1"):
        layers.summary(dumb)
    both = pd.concat([asked(translate.top_units, k=10), dumb.assign(sample="dumb")])
    found = layers.summary(both)
    assert set(found["skipped"]) == {1}
    assert set(found.loc[found["arm"] == "all", "n"]) == {4}
    sheets = sheet.picture_sheet(model, SAMPLES[0], noun=says_nothing, **SHORT)
    assert list(sheets) == ["sheet"]


QUESTIONS = [
    (translate.top_units, {}),
    (project.nearest_words, {}),
    (regions.unit_regions, {}),
    (classes.class_activations, {"units": ["L1.5"]}),
    (ablation.ablations, {}),
    (sheet.picture_sheet, {}),
    (faithfulness.faithful, {}),
    (sensitivity.option_effects, {}),
]


@pytest.mark.parametrize("question, needs", QUESTIONS, ids=lambda x: getattr(x, "__name__", ""))
def test_every_option_of_a_question_is_recorded_and_it_can_be_sent_to_another_process(
    question, needs
):
    assert pickle.loads(pickle.dumps(question)) is question
    options = set(inspect.signature(question).parameters) - {"model", "sample", "batch"}
    quick = {"noun": says_nothing, **SHORT} if "noun" in options else {}
    told = json.loads(ask(question, planted(), SAMPLES[:1], **needs, **quick)["options"][0])
    assert options <= set(told)
    assert told["model"] == "toy-gptj-planted"


# -- E1 and E6 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_e1_the_planted_neuron_is_what_is_decoded(kind):
    table = ask(translate.top_units, planted(kind), SAMPLES[:2], k=20, **SHORT)
    first = table[table["rank"] == 0]
    assert first["neuron"].tolist() == [PLANTED, PLANTED]
    assert first["patch"].tolist() == [mm.Patch(*place) for place in PLACES[:2]]
    assert all(words[0] == " dog" and len(words) == 10 for words in first["words"])
    told = json.loads(table["options"][0])
    assert (told["point"], told["target"], told["rank_by"], told["gain"]) == (
        "pre",
        "logit",
        "pair",
        False,
    )


def said(sample: str, *words: str) -> dict[str, Any]:
    neuron = mm.Neuron(0, len(words[0]))
    return {"sample": sample, "neuron": neuron, "words": list(words), "interpretable": True,
            "caption": f"a {words[0]}", "skipped": "", "options": "{}"}  # fmt: skip


def test_e1_neurons_beat_random_pairs_where_they_say_what_is_there():
    things = ["dog", "horse", "kitten", "lantern", "elephant"]
    table = pd.DataFrame(
        [row for thing in things for row in (said(thing, thing), said(thing, "x"))]
    )
    samples = [Sample(thing, None, (f"a {thing}", "words")) for thing in things]
    out = translate.summary(table, samples)
    own = mean_of(out, arm="neurons", metric="word overlap F1")
    assert own == pytest.approx((2 / 3 + 0) / 2)  # F1 2/3 with one caption of two, 0 with the other
    assert mean_of(out, arm="random", metric="word overlap F1") == 0.0
    assert mean_of(out, arm="caption", metric="word overlap F1") == 0.5
    gap = out[out["arm"] == "neurons - random"].iloc[0]
    assert gap["mean"] == pytest.approx(1 / 3) and gap["low"] < 0  # five pictures show no spread
    assert json.loads(out["options"][0])["summary"]["metrics"]["word overlap F1"]["over"] == "mean"


@pytest.mark.parametrize("way", ["pictures", "neurons"])
def test_e1_random_pairs_keep_the_multiset_of_neurons(way):
    rows = [(f"s{i}", mm.Neuron(0, u), "t") for i, u in enumerate([1, 2, 2, 3, 4, 5] * 3)]
    units = pd.DataFrame([*rows, *rows[:7]], columns=["sample", "neuron", "text"])
    wrong = translate.mismatched(units, way, seed=1)
    assert sorted(wrong["neuron"]) == sorted(units["neuron"])
    if way == "pictures":
        assert (wrong["sample"] != units["sample"]).all()
        assert wrong.groupby("sample").size().tolist() != []
    else:
        assert wrong["sample"].value_counts().to_dict() == units["sample"].value_counts().to_dict()
    with pytest.raises(ExperimentError, match="at least two pictures"):
        translate.mismatched(units[units["sample"] == "s0"], way)


def test_e6_counts_each_unit_once_and_shares_add_up():
    table = asked(translate.top_units, k=20)
    out: Any = layers.summary(table, 3)
    units = out[(out["arm"] == "all") & (out["metric"] == "units")].set_index("layer")["mean"]
    different = set(table["neuron"])
    assert units.tolist() == [sum(n.layer == layer for n in different) for layer in range(3)]
    shares = out[(out["arm"] == "all") & (out["metric"] == "share")]
    assert shares["mean"].sum() == pytest.approx(1.0)


# -- E2 --------------------------------------------------------------------------------------------


def test_e2_every_vector_gets_its_nearest_words_and_as_many_random_ones():
    table = asked(project.nearest_words, k=3)
    counts = table.groupby("arm").size()
    assert counts["prompt"] == counts["random"] == 16 * len(SAMPLES)
    row = table[table["arm"] == "prompt"].iloc[5]
    near = mm.nearest_tokens(planted(), mm.Prompt(SAMPLES[0].image), 3, pos=mm.Patch(1, 1))
    assert row["text"] == ", ".join(near["token"].str.strip())
    assert row["cosine"] == pytest.approx(near["cosine"][0], abs=1e-6)
    assert set(table.loc[table["arm"] == "nouns", "text"]) <= {"dog, dog", "dog, dog, dog"}
    out: Any = project.summary(table, SAMPLES)
    assert mean_of(out, arm="nouns", metric="word overlap F1", over="max") > 0
    distances = out[out["metric"] == "D of word overlap F1"]
    assert set(distances["arm"]) == {"prompt ~ random", "nouns ~ prompt"}
    for column in ("p", "p_equal", "p_beyond"):
        assert distances[column].between(0, 1).all()
    fewer = ask(project.nearest_words, planted(), SAMPLES[:1], vectors=3, caption=False)
    assert fewer["arm"].value_counts().to_dict() == {"prompt": 3, "random": 3, "nouns": 1}


# -- E3 and E7 -------------------------------------------------------------------------------------


def test_e3_a_mask_meets_itself_and_the_mask_of_a_map_is_its_top_share():
    random = torch.Generator().manual_seed(0)
    grids = torch.rand(3, 4, 4, generator=random)
    found = unit_masks.masks_of(grids, 64)
    assert found.float().mean((-2, -1)).tolist() == pytest.approx([0.05] * 3, abs=0.002)
    large: Any = torch.nn.functional.interpolate(grids[None], (64, 64), mode="bilinear")
    exact = large[0] > torch.quantile(large[0].flatten(1), 0.95, dim=1)[:, None, None]
    assert bool((found == exact).all())
    assert unit_masks.iou(found, found[0])[0] == 1.0
    assert unit_masks.iou(found[:1], ~found[0]).tolist() == [0.0]
    half = torch.zeros(64, 64, dtype=torch.bool)
    half[:32] = True
    assert unit_masks.ceiling(half) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_e3_the_planted_neuron_lies_on_the_white_patch(kind):
    table: Any = ask(regions.unit_regions, planted(kind), SAMPLES, k=10, **SHORT)
    own = table[(table["arm"] == "attributed") & (table["rank"] == 0)]
    assert own["neuron"].tolist() == [PLANTED] * 4
    assert own["named"].all()
    # a hand-made map of the white patch alone, through the same mask
    grid = torch.zeros(4, 4)
    grid[PLACES[0]] = 1.0
    truth = unit_masks.true_mask(planted(kind), SAMPLES[0].things[0].mask)
    by_hand = float(unit_masks.iou(unit_masks.masks_of(grid), truth))
    assert truth.float().mean() == pytest.approx(1 / 16, abs=1e-3)
    assert 0.7 < by_hand < 0.8  # at the corners the patch is left, at its middle it is not filled
    assert own["iou"].iloc[0] == pytest.approx(by_hand, abs=0.25)
    assert own["ceiling"].tolist() == pytest.approx([0.8] * 4, abs=0.01)
    assert (table["iou"] <= table["ceiling"] + 1e-3).all()  # a pixel more than 5 % is possible
    for _, part in table.groupby("sample"):
        arms = {arm: [n.layer for n in part.loc[part["arm"] == arm, "neuron"]]
                for arm in ("attributed", "random")}  # fmt: skip
        assert arms["attributed"] == arms["random"]
    out = regions.summary(table, things="named", over="max")
    assert mean_of(out, arm="attributed", metric="IoU", concept="dog") > 0.5
    assert mean_of(out, arm="attributed", metric="ceiling", concept="all") == pytest.approx(
        0.8, abs=0.01
    )


def test_e3_skips_a_picture_without_a_single_thing_before_the_model_runs():
    thing = SAMPLES[0].things[0]
    two = Sample("two", SAMPLES[0].image, (), (thing, thing))
    table = ask(regions.unit_regions, planted(), [two])
    assert "once" in table["skipped"][0]


def test_e7_the_sheet_shows_the_top_units_and_peaks_at_the_white_patch():
    found: Any = sheet.picture_sheet(planted(), SAMPLES[0], top=1, **SHORT)
    assert found["sheet"]["neuron"].tolist() == [PLANTED]
    assert found["sheet"]["words"][0][0] == " dog"
    assert len(found["sheet"]["words"][0]) == 2
    assert found["sheet_map"].to_frame(1)["pos"][0] == mm.Patch(2, 1)
    assert found["sheet_mask"].shape == (224, 224)
    assert found["sheet_mask"].values.float().mean() == pytest.approx(0.05, abs=0.002)


# -- E4 --------------------------------------------------------------------------------------------


def test_e4_a_neuron_of_one_class_is_quiet_on_the_other():
    dark = np.random.default_rng(0).integers(0, 60, (32, 32, 3), dtype=np.uint8)
    night = [Sample(f"night-{i}", Image.fromarray(dark), (), (Thing("night"),)) for i in range(2)]
    everything = [*SAMPLES, *night]
    table = ask(classes.top_units, planted(), SAMPLES, k=10, **SHORT)
    units = classes.chosen(table, everything, 1, keep="all")
    assert units == {"dog": [str(PLANTED)]}
    shown = ask(classes.class_activations, planted(), everything, units=units["dog"])
    out = classes.summary(shown, units)
    square = classes.matrix(out)
    assert square.loc["dog", "dog"] == 1.0
    assert square.loc["dog", "night"] < 0.5
    assert mean_of(out, metric="own class highest", arm="dog") == 1.0
    one = mm.activations(planted(), mm.Prompt(SAMPLES[0].image, "A picture of"), "neurons", PLANTED)
    rows = shown[shown["sample"] == SAMPLES[0].id]
    assert rows["activation"].iloc[0] == pytest.approx(
        one.sel(pos=mm.Patch).mean().item(), abs=1e-6
    )


# -- E5 --------------------------------------------------------------------------------------------


def test_e5_silencing_nothing_changes_nothing_and_the_planted_neuron_is_fatal():
    table = asked(ablation.ablations, ks=(0, 1, 0.5), where="image")
    assert sorted(set(table["k"])) == [0, 1, 192]
    start = table[table["k"] == 0]
    for one in SAMPLES[:2]:
        seen: Any = explain(planted(), one, max_new_tokens=1)
        plain = planted()(seen.soft)[0, -1].softmax(-1)[seen.token].item()
        mine = start[start["sample"] == one.id]
        assert mine["prob"].tolist() == pytest.approx([plain] * len(mine), abs=1e-5)
        assert set(mine["caption"]) == {seen.caption}
    out = ablation.summary(table)
    assert mean_of(out, arm="attributed", metric="drop", k=0) == pytest.approx(0.0, abs=1e-5)
    assert mean_of(out, arm="attributed", metric="caption unchanged", k=0) == 1.0
    assert mean_of(out, arm="attributed", metric="drop", k=1) > 0.5
    assert abs(mean_of(out, arm="random", metric="drop", k=1)) < 0.1
    assert mean_of(out, arm="attributed", metric="caption unchanged", k=1) == 0.0
    assert mean_of(out, arm="attributed", metric="word overlap F1", k=1) == 0.0
    gap = out[(out["arm"] == "attributed - random") & (out["metric"] == "drop") & (out["k"] == 1)]
    assert float(gap["low"].iloc[0]) > 0.4


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_e5_many_variants_at_once_are_what_edits_do_one_by_one(kind):
    model = planted(kind)
    seen: Any = explain(model, SAMPLES[0], max_new_tokens=2)
    lists: list[Any] = [[], [PLANTED], [], [mm.Neuron(0, 3), mm.Neuron(2, 7), mm.Neuron(1, 9)]]
    units = [units_of(neurons) for neurons in lists]
    for where, pos in (("all", None), ("image", mm.Patch), ("last", -1)):
        together = number_after(model, seen.soft, lambda y: y, units, where=where, batch=2)
        said = captions_after(model, seen.prompt, units, where=where, max_new_tokens=3)
        for i, neurons in enumerate(lists):
            edits = [mm.Edit("neurons", 0.0, neurons, pos=pos)] if neurons else []
            alone = model.edit(*edits)
            assert off(together[i], alone(seen.soft)[0, -1]) < 1e-4
            assert said[i] == alone.generate(seen.prompt, 3)
    mean = number_after(model, seen.soft, lambda y: y, units[3:], value="mean")
    level = lambda x: x.mean(0, keepdim=True)  # noqa: E731
    alone = model.edit(mm.Edit("neurons", level, lists[3]))
    assert off(mean[0], alone(seen.soft)[0, -1]) < 1e-4
    with pytest.raises(ArgumentError, match="no place 'text'"):
        number_after(model, seen.soft, lambda y: y, units, where="text")


def test_e5_random_units_have_the_same_layers_and_are_others():
    model = planted()
    order = ranked(scored(model, explain(model, SAMPLES[0], **SHORT)))  # type: ignore[arg-type]
    random = shuffle(model, torch.Generator().manual_seed(3))
    width = model.cfg.d_mlp
    for k in (1, 30, 60):
        other: Any = partners(model, order[:k], random)
        assert (other // width).tolist() == (order[:k] // width).tolist()
        assert len(set(other.tolist())) == k
        assert not set(other.tolist()) & set(order[:k].tolist())
    assert partners(model, order, random) is None
    assert partners(model, order, random, others=False) is not None
    variants = ablation.chosen(model, order, [0, 30], ablation.ARMS, random)
    assert not variants["interpretable", 0].numel()
    assert variants["random", 30].tolist() == partners(model, order[:30], random).tolist()


def test_e5_ranks_units_by_the_largest_or_summed_score_over_patches():
    model = planted()
    scores = scored(model, explain(model, SAMPLES[0], **SHORT))  # type: ignore[arg-type]
    for by in ("max", "sum"):
        best = numbers_of(model, mm.top_neurons(scores, 30, rank_by=by)["neuron"].tolist())
        assert ranked(scores, by)[:30].tolist() == best.tolist()
    pairs = mm.top_neurons(scores, 500)["neuron"].drop_duplicates().tolist()
    assert ranked(scores)[: len(pairs)].tolist() == numbers_of(model, pairs).tolist()


def test_e5_numbers_and_shares_of_units():
    assert ablation.numbers([0, 50, 0.25, 6400], 1000) == [0, 50, 250]
    assert ablation.numbers([1, 1.0], 10) == [1, 10]
    with pytest.raises(ExperimentError, match="shares from 0"):
        ablation.numbers([2.5], 10)


# -- on disk ---------------------------------------------------------------------------------------


def test_a_sweep_on_disk_gives_the_summary_of_asking_in_memory(tmp_path):
    from mmlens.sweep import sweep

    data = Samples("white patches", [one.id for one in SAMPLES], SAMPLES.__getitem__, "0")
    options = {"k": 10, **SHORT}
    done = sweep(
        translate.top_units, planted(), data, tmp_path / "e1", options=options, progress=False
    )
    on_disk, in_memory = (
        translate.summary(table, SAMPLES, keep="all")
        for table in (done.table("top_units"), asked(translate.top_units, k=10))
    )
    pd.testing.assert_frame_equal(on_disk, in_memory)
