"""Which way of reading a unit fits the picture: known answers, and what chance does."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bridges import bridge
from test_experiments import SAMPLES, mean_of, sample

import mmlens as mm
from mmlens.papers.comparisons import pairing
from mmlens.papers.mmn.questions import ablation, readings
from mmlens.papers.mmn.report.outcomes import Outcome
from mmlens.papers.mmn.report.readings_table import readings_table, readings_told
from mmlens.papers.tables import ExperimentError, ask

WORDS = ("dog", "cat", "sun", "cup", "tree")
PLANTED = mm.Neuron(1, 5)


def test_the_planted_unit_fits_by_every_reading_and_random_units_do_not():
    model = bridge("toy-gptj-planted")
    prompt = mm.Prompt(SAMPLES[0].image, "A picture of")
    lens = readings.keep_lens(model, mm.jacobian_lens(model, prompt, pos=mm.Patch))
    table: Any = ask(
        readings.unit_readings, model, SAMPLES[:2], k=3, lenses=[lens], max_new_tokens=1
    )
    assert list(table["through"].unique()) == ["unembed", "effect", "jacobian"]
    planted = table[table["neuron"] == PLANTED]
    assert len(planted) == 6 and all(words[0] == " dog" for words in planted["words"])
    own, random = (table[table["arm"] == arm] for arm in ("attributed", "random"))
    assert sorted(random["draw"].unique()) == [0, 1] and len(random) == 2 * len(own)
    for _, part in table.groupby(["sample", "through"]):
        layers = {key: sorted(rows["layer"]) for key, rows in part.groupby(["arm", "draw"])}
        assert len({tuple(one) for one in layers.values()}) == 1
        chosen = set(part.loc[part["arm"] == "attributed", "neuron"])
        assert chosen.isdisjoint(part.loc[part["arm"] == "random", "neuron"])
    out: Any = readings.summary(table)
    for through in ("unembed", "effect", "jacobian"):
        where = {"through": through, "metric": "one fits", "layer": "all"}
        assert mean_of(out, arm="attributed", **where) == 1.0
    assert lens.startswith("jacobian (") and lens in table["options"].iloc[0]


def test_a_wrong_caption_is_left_out_and_told():
    model = bridge("toy-gptj-planted")
    table = ask(
        readings.unit_readings, model, [SAMPLES[0], sample((0, 3), "cat")], k=2, max_new_tokens=1
    )
    skipped = table[table["skipped"] != ""]
    assert skipped["sample"].tolist() == ["cat-03"]
    assert skipped["skipped"].tolist() == ["the caption names nothing that is there"]


def table_of(says: Any, pictures: int = 20, units: int = 4, randoms: int = 2) -> pd.DataFrame:
    """A table whose unit u of picture i says `says(through, arm, word, i, u)`."""
    rows = [
        {"sample": f"s{i}", "through": through, "arm": arm, "draw": draw, "layer": unit % 2,
         "neuron": mm.Neuron(unit % 2, unit), "words": [f" {one}" for one in
         says(through, arm, WORDS[i % 5], i, unit)], "noun": WORDS[i % 5],
         "forms": [WORDS[i % 5]], "skipped": "", "options": "{}"}
        for i, unit, through in itertools.product(range(pictures), range(units), ("true", "blind"))
        for arm, draw in [("attributed", 0), *(("random", draw) for draw in range(randoms))]
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_a_true_reading_lies_above_both_controls_and_a_blind_one_does_not():
    """By the true one, units of layer 1 say their word; the blind one says "dog" of everything."""

    def says(through: str, arm: str, word: str, i: int, unit: int) -> list[str]:
        if through == "blind":
            return ["dog", "the"]
        return [word, "the"] if arm == "attributed" and unit % 2 else ["of", "the"]

    out: Any = readings.summary(table_of(says))
    where: dict[str, Any] = {"metric": "fits", "through": "true"}
    assert mean_of(out, arm="attributed", layer="all", **where) == 0.5
    assert mean_of(out, arm="attributed", layer="1", **where) == 1.0
    assert mean_of(out, arm="attributed", layer="0", **where) == 0.0
    assert mean_of(out, arm="other pictures", layer="all", **where) == 0.0
    gaps = out[(out["metric"] == "fits") & (out["layer"] == "all")].set_index(["through", "arm"])
    for control in ("other pictures", "random"):
        arm = f"attributed - {control}"
        assert gaps.loc[("true", arm), "mean"] == 0.5 and gaps.loc[("true", arm), "p"] < 0.01
        assert gaps.loc[("blind", arm), "mean"] == pytest.approx(0.0, abs=1e-9)
        assert gaps.loc[("blind", arm), "p"] > 0.5
    told = Outcome("readings", out)
    says_, rows, _ = readings_told(told)
    assert says_.startswith("By true a picture's units fit it most above")
    assert [row.what for row in rows] == ["true", "blind"]
    assert readings_table(told)[0] == ["layer", "true", "blind"]
    assert readings_table(told)[-1] == ["all", "50 % (+50)", "20 %"]
    assert readings_table(told)[1] == ["0", "0 %", "20 %"]


def test_a_synonym_of_the_list_counts_as_the_word():
    def says(through: str, arm: str, word: str, i: int, unit: int) -> list[str]:
        return ["puppy"] if arm == "attributed" else ["of"]

    table = table_of(says)
    where = {"arm": "attributed", "metric": "fits", "layer": "all", "through": "true"}
    assert mean_of(readings.summary(table), **where) == 0.0
    assert mean_of(readings.summary(table, {"dog": ["puppy"]}), **where) == 0.2


def test_dealing_anew_says_how_often_chance_fits_as_well():
    assert pairing(np.eye(8), draws=999) == pytest.approx(1 / 1000)  # 1 of 40,320 is as good
    assert pairing(np.ones((8, 8)), draws=999) == 1.0
    exact = [sum(np.eye(3)[range(3), list(p)]) >= 3 for p in itertools.permutations(range(3))]
    assert pairing(np.eye(3), draws=4000) == pytest.approx(np.mean(exact), abs=0.02)
    assert np.isnan(pairing([[1.0]]))


def test_a_lens_that_is_not_there_is_refused():
    model = bridge("toy-gptj-planted")
    with pytest.raises(ExperimentError, match=r"no lens 'tuned \(0\)' beside 'toy-gptj-planted'"):
        readings.unit_readings(model, SAMPLES[0], lenses=["tuned (0)"])
    with pytest.raises(ExperimentError, match="a lens goes into lenses="):
        readings.unit_readings(model, SAMPLES[0], through=["jacobian"])


# -- units that are no words -----------------------------------------------------------------------


def test_a_unit_that_is_huge_at_the_first_position_is_a_sink_and_no_other_is():
    model = bridge("toy-llama")
    prompts = ["A picture of a dog", mm.Prompt(SAMPLES[0].image, "A picture of")]
    assert len(mm.sink_units(model, prompts)) == 0
    sunk = model.edit(mm.Edit("neurons", -900.0, mm.Neuron(1, 7), pos=0))
    table: Any = mm.sink_units(sunk, prompts)
    assert table["neuron"].tolist() == [mm.Neuron(1, 7)] and table["value"].tolist() == [-900.0]
    active = mm.activations(sunk, prompts[int(table["prompt"][0])], "neurons", layer=1)
    rest = active.sel(pos=slice(1, None)).values
    assert table["times"][0] == pytest.approx(900 / float(rest.pow(2).mean().sqrt()), rel=1e-4)
    elsewhere = model.edit(mm.Edit("neurons", 900.0, mm.Neuron(1, 7), pos=2))
    assert len(mm.sink_units(elsewhere, prompts[0])) == 0


def test_sinks_are_silenced_apart_and_random_units_are_drawn_several_times():
    model = bridge("toy-gptj-planted")
    options: dict[str, Any] = {"ks": [0, 4], "max_new_tokens": 1, "captions": False}
    plain: Any = ask(ablation.ablations, model, SAMPLES[:1], **options)
    several: Any = ask(ablation.ablations, model, SAMPLES[:1], randoms=3, **options)
    first = several[several["draw"] == 0].reset_index(drop=True)
    assert first["prob"].tolist() == pytest.approx(plain["prob"].tolist(), rel=1e-4)
    random = several[(several["arm"] == "random") & (several["k"] == 4)]
    assert random["draw"].tolist() == [0, 1, 2] and random["prob"].nunique() == 3
    told: Any = ask(
        ablation.ablations, model, SAMPLES[:1], **{**options, "captions": True}, randoms=2
    )
    assert told["caption"].notna().tolist() == (told["draw"] == 0).tolist()
    found = ablation.summary(several)
    drop = mean_of(found, arm="random", metric="drop", k=4)
    before = float(first.loc[first["k"] == 0, "prob"].iloc[0])
    assert drop == pytest.approx(1 - random["prob"].mean() / before)
    sunk = model.edit(mm.Edit("neurons", 900.0, mm.Neuron(0, 3), pos=0))
    apart = ask(ablation.ablations, sunk, SAMPLES[:1], sinks="apart", **options)
    assert apart.loc[apart["arm"] == "sinks", "k"].tolist() == [1]
    kept = ask(ablation.ablations, sunk, SAMPLES[:1], **options)
    assert "sinks" not in set(kept["arm"])
