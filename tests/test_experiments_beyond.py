"""Bootstrap intervals, the faithfulness of attribution methods, and what each option changes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bridges import bridge, off
from scipy.stats import spearmanr
from test_experiments import PLANTED, SAMPLES, mean_of

import mmlens as mm
from mmlens import patching
from mmlens.papers.bootstrap import differences, intervals, summarise
from mmlens.papers.mmn.questions import (
    estimates,
    faithfulness,
    rankings,
    regions,
    routes,
    sensitivity,
)
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.tables import ExperimentError, ask
from mmlens.values.errors import ArgumentError

GRADIENT = "gradient x activation (pre)"


# -- bootstrap -------------------------------------------------------------------------------------


def test_the_bootstrap_is_repeatable_and_leaves_missing_values_out():
    values = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, np.nan], [2.0, 5.0]])
    one, again = intervals(values, seed=4), intervals(values, seed=4)
    assert np.array_equal(one, again, equal_nan=True)
    assert one[:, 0].tolist() == [2.0, 5.0]
    assert np.isnan(one[1, 1:]).all()  # twice the same value: nothing is known of its spread
    with pytest.raises(ArgumentError, match="picture, quantity"):
        intervals(np.zeros(3))


def test_paired_differences_are_narrower_than_the_arms():
    rng = np.random.default_rng(0)
    level = rng.normal(size=40) * 10  # pictures differ a lot, the arms by 1
    rows = pd.DataFrame(
        [
            {"sample": f"s{i}", "arm": arm, "metric": "m", "value": level[i] + shift}
            for i in range(40)
            for arm, shift in (("a", 1.0 + (-1) ** i * 0.01), ("b", 0.0))
        ]
    )
    gap = summarise(differences(rows, "a", "b"), ["arm", "metric"]).iloc[0]
    assert gap["arm"] == "a - b"
    assert (gap["mean"], gap["n"]) == pytest.approx((1, 40))
    assert 0.99 < gap["low"] < 1 < gap["high"] < 1.01
    alone = summarise(rows, ["arm", "metric"]).iloc[0]
    assert alone["high"] - alone["low"] > 2


# -- faithfulness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gptj", "llama"])
def test_gradient_x_activation_is_more_faithful_than_chance_and_recovers_the_planted(kind):
    model = bridge(f"toy-{kind}-planted")
    options: dict[str, Any] = {"ks": [0, 1, 2, 4, 8], "max_new_tokens": 1, "top": 1, "steps": 4}
    table = ask(faithfulness.faithful, model, SAMPLES[:2], **options)
    out: Any = faithfulness.summary(table)
    image = out[out["at"] == "image"]
    for method in (GRADIENT, "gradient x activation (post)", "integrated gradients"):
        assert mean_of(image, arm=method, metric="planted") == 1.0
        assert mean_of(image, arm=method, metric="IoU of units") > 0.5
        own = mean_of(image, arm=method, metric="area")
        assert own < mean_of(image, arm="random", metric="area") - 0.2
    gap = image[(image["arm"] == f"{GRADIENT} - random") & (image["metric"] == "area")].iloc[0]
    assert gap["mean"] < -0.2
    assert set(out["at"]) == {"image", "last"}
    curve = image[(image["arm"] == GRADIENT) & (image["metric"] == "probability")]
    assert curve["k"].tolist() == [0, 1, 2, 4, 8]
    last = out[(out["at"] == "last") & (out["metric"] == "IoU of map")]
    assert last.empty


def test_the_direct_contribution_is_what_the_unit_writes_towards_the_word():
    model = bridge("toy-gptj-planted")
    seen: Any = explain(model, SAMPLES[0], max_new_tokens=1)
    ((_, scores),) = rankings.rankings(model, seen, torch.Generator(), ["direct contribution"])
    for neuron in (PLANTED, mm.Neuron(2, 9)):
        active = mm.activations(model, seen.soft, "neurons", neuron).values
        row = model.blocks[neuron.layer].mlp.W_out[neuron.unit]
        wanted = active * (row @ model.W_U[:, seen.token])
        assert off(scores.sel(neuron).values, wanted) < 1e-5
    with pytest.raises(ExperimentError, match="no method 'shap'"):
        next(rankings.rankings(model, seen, torch.Generator(), ["shap"]))


def test_the_area_is_one_when_nothing_happens_and_small_when_all_is_lost_at_once():
    assert faithfulness.area([0.4, 0.4, 0.4]) == pytest.approx(1.0)
    assert faithfulness.area([0.4, 0.0, 0.0]) == pytest.approx(0.25)
    assert np.isnan(faithfulness.area([0.0, 0.1]))


# -- sensitivity -----------------------------------------------------------------------------------


def test_each_option_is_measured_against_the_default():
    model = bridge("toy-gptj-planted")
    table = ask(
        sensitivity.option_effects, model, SAMPLES[:2], k=20, silence=0.01, max_new_tokens=1
    )
    out = sensitivity.summary(table)
    assert mean_of(out, arm="default", metric="units shared") == 1.0
    assert 0 < mean_of(out, arm="rank_by=sum", metric="units shared") <= 1.0
    assert mean_of(out, arm="default", metric="drop") > 0.5
    # the decode alone does not change which units are found, nor the ablation which are listed
    for arm in ("gain=True", "value=mean", "where=image"):
        assert mean_of(out, arm=f"{arm} - default", metric="units shared") == 0.0
    assert mean_of(out, arm="gain=True - default", metric="drop") == pytest.approx(0.0, abs=1e-6)
    told = json.loads(out["options"][0])
    assert told["default"]["point"] == "pre"
    with pytest.raises(ExperimentError, match="no change 'rank_by=luck'"):
        sensitivity.option_effects(model, SAMPLES[0], changes=["rank_by=luck"])


# -- on the patching bench -------------------------------------------------------------------------


def test_the_planted_word_takes_the_route_from_its_patch():
    model = bridge("toy-gptj-planted")
    table = ask(routes.route_effects, model, SAMPLES, max_new_tokens=1)
    first = table[table["sample"] == SAMPLES[0].id].set_index(["arm", "destination"])
    soft = explain(model, SAMPLES[0], max_new_tokens=1).soft
    token, last = model.to_single_token(" dog"), soft.ids.shape[1] - 1
    cut = model.edit(patching.knockout([mm.Patch(2, 1)], [last]))
    with torch.no_grad():
        by_hand = cut(soft)[0, -1].softmax(-1)
    assert first.loc[("object", "last"), "probability"] == pytest.approx(
        float(by_hand[token]), rel=1e-4
    )
    assert first.loc[("object", "last"), "said"] == float(by_hand.argmax() == token)
    assert (table["patches"] == 1).all()
    found = routes.summary(table)
    lost = found[(found["metric"] == "lost") & (found["destination"] == "last")].set_index("arm")
    assert lost.loc["object", "low"] > 0.5 > 0.2 > lost.loc["background", "high"]
    assert lost.loc["object - background", "low"] > 0.3 and (lost["n"] == 4).all()


def test_a_picture_without_room_for_the_control_is_skipped_with_its_reason():
    model = bridge("toy-gptj-planted")
    full = torch.ones(32, 32, dtype=torch.bool)
    crowded = replace(SAMPLES[0], things=(replace(SAMPLES[0].things[0], mask=full),))
    unknown = replace(SAMPLES[0], things=())
    table = ask(routes.route_effects, model, [crowded, unknown], max_new_tokens=1)
    assert table["skipped"].tolist() == [routes.CROWDED, regions.UNMASKED]
    guess = ask(estimates.estimated, model, [unknown], max_new_tokens=1)
    assert guess["skipped"].tolist() == [regions.UNMASKED]


def test_estimates_are_ranked_against_true_patches():
    model = bridge("toy-gptj-planted")
    table = ask(estimates.estimated, model, SAMPLES[:2], steps=(0, 4), max_new_tokens=1)
    seen = explain(model, SAMPLES[0], max_new_tokens=1)
    erased = patching.erased(SAMPLES[0].things[0].mask)
    pair = patching.Pair.corrupted(seen.prompt.prompts[0], erased)
    metric = patching.metrics.logit(model, seen.token)
    true = patching.patch(model, pair, metric, pos=mm.Patch).values.flatten()
    guess = patching.attribution_patching(model, pair, metric, steps=4)
    guess = guess.sel(pos=mm.Patch).values.flatten()
    own = table[(table["sample"] == SAMPLES[0].id) & (table["arm"] == "steps 4")]
    by_scipy = spearmanr(true.numpy(), guess.numpy()).statistic
    assert own["spearman"].item() == pytest.approx(by_scipy, abs=1e-6)
    assert own["places"].item() == len(true) == 3 * 16  # layers and patches, no words
    found = estimates.summary(table)
    assert found["arm"].tolist() == ["steps 0", "steps 4"] and (found["n"] == 2).all()
