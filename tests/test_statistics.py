"""Intervals hold the truth as often as they say, and tests err as seldom as they say: simulated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bridges import bridge
from scipy.stats import beta, ks_2samp, norm, spearmanr
from test_experiments import SAMPLES

import mmlens as mm
from mmlens import patching
from mmlens.datasets.sample import Sample
from mmlens.model.targets import extend
from mmlens.papers.bootstrap import differences, intervals, summarise
from mmlens.papers.comparisons import distance, holm, sign_flips
from mmlens.papers.mmn.questions import (
    ablation,
    asked,
    classes,
    estimates,
    project,
    routes,
    translate,
)
from mmlens.papers.mmn.questions.explained import explain, nouns
from mmlens.papers.mmn.report.verdicts import verdict
from mmlens.papers.tables import ExperimentError, ask
from mmlens.towers.language.tokenization import ids_of
from mmlens.values.errors import ArgumentError

STUDIES = 1500
LEAST = 0.92 - 2 * (0.92 * 0.08 / STUDIES) ** 0.5  # two standard errors of the simulation


def covered(values: Any, truth: float, bases: Any = None, within: Any = None) -> float:
    """In which share of studies (columns) the interval holds the truth."""
    ranges = None if within is None else [within] * values.shape[1]
    found = intervals(values, bases, ranges, draws=600)
    return float(((found[:, 1] <= truth) & (truth <= found[:, 2])).mean())


# -- intervals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 8, 24])
def test_intervals_of_skewed_means_hold_the_truth_as_often_as_they_say(n):
    rng = np.random.default_rng(n)
    assert covered(rng.exponential(size=(n, STUDIES)), 1.0) > LEAST
    drops = rng.beta(0.5, 0.2, size=(n, STUDIES))  # most of them near 0 or 1
    assert covered(drops, 0.5 / 0.7, within=(0.0, 1.0)) > LEAST
    assert covered(rng.normal(size=(n, STUDIES)), 0.0) > LEAST


@pytest.mark.parametrize("n", [2, 4, 8, 24])
def test_intervals_of_proportions_hold_the_truth_even_where_all_pictures_agree(n):
    rng = np.random.default_rng(n)
    for p in (0.02, 0.1, 0.5, 0.9):
        yes = (rng.random((n, STUDIES)) < p).astype(float)
        assert covered(yes, p, within=(0.0, 1.0)) > LEAST
    change = rng.choice([-1.0, 0.0, 1.0], p=[0.03, 0.85, 0.12], size=(n, STUDIES))
    assert covered(change, 0.09, within=(-1.0, 1.0)) > LEAST


@pytest.mark.parametrize("n", [4, 8, 24])
def test_intervals_of_ratios_hold_the_ratio_of_the_means(n):
    rng = np.random.default_rng(n)
    before = rng.beta(1, 1, size=(n, STUDIES))  # some nouns have next to no probability
    left = rng.beta(0.3, 0.9, size=(n, STUDIES))  # most of them lose nearly all, some nothing
    assert covered(before * left, 0.25, before) > LEAST


def test_the_interval_of_yes_and_no_is_that_of_clopper_and_pearson():
    for yes, n in ((0, 5), (7, 9), (40, 40)):
        low, high = intervals([[1.0]] * yes + [[0.0]] * (n - yes), ranges=[(0.0, 1.0)])[0, 1:]
        wanted = beta.ppf(0.025, yes, n - yes + 1), beta.ppf(0.975, yes + 1, n - yes)
        assert (low, high) == pytest.approx(np.nan_to_num(wanted, nan=float(yes > 0)), abs=0.03)


def test_what_shows_no_spread_has_no_interval_of_zero_width():
    one, same = intervals([[0.4]])[0], intervals([[0.4]] * 30)[0]
    assert np.isnan(one[1:]).all() and np.isnan(same[1:]).all()
    low, high = intervals([[0.4]] * 30, ranges=[(0.0, 1.0)])[0, 1:]
    share = 1 - 0.025 ** (1 / 30)  # of pictures, at most, that may be otherwise
    assert (low, high) == pytest.approx((0.4 * (1 - share), 0.4 + 0.6 * share), abs=0.02)
    rows = pd.DataFrame({"sample": list("abc"), "arm": "a", "metric": "IoU", "value": 0.2})
    gap = differences(pd.concat([rows, rows.assign(arm="b")]), "a", "b")
    found = summarise(gap, ["arm", "metric"]).iloc[0]
    assert found["mean"] == 0 and found["low"] == pytest.approx(-found["high"], abs=0.1)
    assert found["high"] > 0.5


def test_a_drop_is_the_share_of_the_mean_probability_that_is_lost():
    before, after = {"a": 0.8, "b": 0.4, "c": 1e-6}, {"a": 0.2, "b": 0.1, "c": 5e-6}
    rows = [
        (name, "attributed", k, p[name], "") for k, p in ((0, before), (9, after)) for name in p
    ]
    table = pd.DataFrame(rows, columns=["sample", "arm", "k", "prob", "caption"])
    out: Any = ablation.summary(table.assign(caption=None, skipped="", options="{}"))
    drop = out[(out["metric"] == "drop") & (out["k"] == 9)]["mean"].item()
    assert drop == pytest.approx(1 - 0.300005 / 1.200001)  # and not (.75 + .75 - 4) / 3
    cut = [(n, "last", arm, before[n], p, 0.0) for n in before
           for arm, p in (("object", after[n]), ("background", before[n]))]  # fmt: skip
    columns = ["sample", "destination", "arm", "before", "probability", "said"]
    lost: Any = routes.summary(pd.DataFrame(cut, columns=columns).assign(skipped="", options="{}"))
    lost = lost[lost["metric"] == "lost"].set_index("arm")["mean"]
    assert lost["object"] == lost["object - background"] == pytest.approx(drop)


# -- comparisons -----------------------------------------------------------------------------------


def test_the_distance_of_two_arms_is_that_of_kolmogorov_and_smirnov():
    rng = np.random.default_rng(0)
    for digits in (1, 6):
        one, other = rng.normal(size=(2, 40)).round(digits)
        found = distance(one, other, draws=50)
        assert found.mean == pytest.approx(ks_2samp(one, other).statistic)
        assert found.low <= found.mean <= found.high
    values = rng.normal(size=20)
    assert distance(values, values, draws=50)[:2] == (0.0, 0.0)
    assert distance(values, values + 9, draws=50).mean == 1.0
    with pytest.raises(ArgumentError, match="margin=0.0: write a finite number above 0 to 1"):
        distance(values, values, margin=0.0)
    with pytest.raises(ExperimentError, match="nothing to compare"):
        distance([np.nan], [1.0])


@pytest.mark.parametrize("n", [16, 50])
@pytest.mark.parametrize("alike", [0.0, 0.6])
def test_equivalence_and_its_opposite_are_claimed_wrongly_in_at_most_a_twentieth(n, alike):
    rng, wrong, different = np.random.default_rng(n), [], []
    shift = 2 * norm.ppf(0.6)  # two normal distributions at a distance of exactly .2
    for seed in range(250):
        one = rng.normal(size=n)
        other = alike * one + (1 - alike**2) ** 0.5 * rng.normal(size=n)
        at_margin = distance(one + shift, other, draws=300, seed=seed)
        wrong.append((at_margin.p_equal <= 0.05, at_margin.p_beyond <= 0.05))
        different.append(distance(one, other, draws=300, seed=seed).p <= 0.05)
    most = 0.05 + 2 * (0.05 * 0.95 / 250) ** 0.5
    assert np.mean(wrong, axis=0).max() <= most
    assert np.mean(different) <= most


def test_equivalence_is_shown_where_arms_are_equal_and_pictures_are_many():
    rng, shown = np.random.default_rng(0), []
    for seed in range(40):
        found = distance(*rng.normal(size=(2, 400)), draws=300, seed=seed)
        shown.append(found.p_equal <= 0.05)
        assert found.p_beyond > 0.5
    assert np.mean(shown) > 0.95
    assert distance(*rng.normal(size=(2, 8)), draws=300).p_equal > 0.05


def test_holm_corrects_for_the_number_of_comparisons():
    nan = float("nan")
    assert holm([0.01, nan, 0.04, 0.03]) == pytest.approx([0.03, nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []
    rng = np.random.default_rng(1)
    chance = rng.random((2000, 8))  # eight true null hypotheses a study
    assert np.mean([min(holm(list(p))) <= 0.05 for p in chance]) <= 0.065


def test_flipped_signs_are_exact_for_few_pictures():
    assert sign_flips([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flips([0.5]) == 1.0 and sign_flips([0.0, 0.0, 0.0]) == 1.0
    assert sign_flips([0.1, float("nan"), 0.2, 0.3, 0.1, 0.2, 0.4]) == 2 / 64
    assert np.isnan(sign_flips([]))


# -- the experiments -------------------------------------------------------------------------------


def lists(n: int, alike: bool) -> tuple[pd.DataFrame, list[Sample]]:
    """A table of `nearest_words` of n pictures; prompts read like random vectors, or better."""
    rng, rows, samples = np.random.default_rng(0), [], []
    words = [f"word{i}" for i in range(40)]
    for i in range(n):
        said = rng.permutation(words)[:20]
        samples.append(Sample(f"s{i}", None, (" ".join(said),)))
        for arm in ("prompt", "random"):
            own = said if arm == "prompt" and not alike else words
            rows.append((f"s{i}", arm, 0, ", ".join(rng.permutation(own)[:10]), 0.1))
        rows.append((f"s{i}", "nouns", 0, ", ".join(said[:5]), np.nan))
    table = pd.DataFrame(rows, columns=["sample", "arm", "place", "text", "cosine"])
    return table.assign(skipped="", options="{}"), samples


@pytest.mark.parametrize(
    "n, alike, wanted", [(2, True, "undecided"), (16, True, "undecided"), (500, True, "holds"),
                         (500, False, "fails"), (4, False, "undecided")],
)  # fmt: skip
def test_e2_is_decided_by_pictures_and_not_by_the_lack_of_them(n, alike, wanted):
    out = project.summary(*lists(n, alike), draws=400)
    assert verdict("E2", out).word == wanted
    rows = out[out["metric"].str.startswith("D of")]
    assert (rows["margin"] == 0.2).all() and (rows["n"] == n).all()


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_pictures_decide_nothing(n):
    table = ask(
        ablation.ablations, bridge("toy-gptj-planted"), SAMPLES[:n], ks=(0, 1), max_new_tokens=1
    )
    out: Any = ablation.summary(table)
    found = verdict("E5", out)
    assert found.word == "undecided" and f"Measured on {n} picture" in found.says
    gap = out[(out["arm"] == "attributed - random") & (out["metric"] == "drop") & (out["k"] == 1)]
    low, high = float(gap["low"].iloc[0]), float(gap["high"].iloc[0])
    assert not high - low < 0.5  # none, or wide


def units(things: list[str]) -> Any:
    rows = [{"sample": thing, "neuron": mm.Neuron(0, i), "words": [thing], "interpretable": True,
             "caption": f"a {thing}", "skipped": "", "options": "{}"}
            for i, thing in enumerate(things)]  # fmt: skip
    return pd.DataFrame(rows), [Sample(thing, None, (f"a {thing}",)) for thing in things]


def test_e1_draws_the_wrong_pictures_several_times_and_takes_their_mean():
    table, samples = units(["dog", "dog house", "house", "cat", "cat food", "food"])
    found: Any = translate.summary(table, samples, times=40)
    random = found[found["arm"] == "random"]["mean"].item()
    every = []  # the expectation, over all pairs of two pictures
    f1 = translate.default_scorers()["word overlap F1"]
    for one in table.to_dict("records"):
        others = [s for s in samples if s.id != one["sample"]]
        every.append(np.mean(f1([one["words"][0]] * len(others), others).items))
    assert random == pytest.approx(np.mean(every), abs=0.02)
    single = [translate.summary(table, samples, times=1, seed=s) for s in range(6)]
    spread = np.std([one[one["arm"] == "random"]["mean"].item() for one in single])
    assert abs(random - np.mean(every)) < spread
    with pytest.raises(ArgumentError, match="times=0"):
        translate.summary(table, samples, times=0)


def test_e1_depends_little_on_which_wrong_pictures_were_drawn():
    table, samples = units(["dog", "dog house", "house", "cat", "cat food", "food"])
    found: list[Any] = [translate.summary(table, samples, seed=seed) for seed in range(12)]
    baseline = [one[one["arm"] == "random"]["mean"].item() for one in found]
    assert np.std(baseline) < 0.045  # a single draw of six pairs scatters by 0.07


def test_a_noun_is_a_word_of_its_own_and_not_a_part_of_one():
    text = " a caterpillar, two cats and a cat"
    assert nouns(text, lambda _: ["cat"]) == ["cat"]
    from mmlens.papers.mmn.questions.explained import spans

    assert spans(text, lambda _: ["cat"]) == [(text.rindex("cat"), len(text))]


def test_estimates_patch_the_prompt_that_was_said_and_rank_its_patches(monkeypatch):
    model, thing = bridge("toy-gptj-planted"), SAMPLES[0]
    seen: Any = explain(model, thing, max_new_tokens=1)
    before = ids_of(model.lm, " a hotdog")  # "dog" stands in a word before it is said
    soft = extend(model, seen.prompt, before)
    later = replace(seen, caption=" a hotdog dog", soft=soft)
    monkeypatch.setattr(asked, "explain", lambda *_, **__: later)
    table = ask(estimates.estimated, model, [thing], steps=(0,))
    blank = patching.erased(thing.things[0].mask)(thing.image)
    corrupt = extend(model, model.embed(mm.Prompt(blank, "A picture of")), before)
    pair, metric = patching.Pair(soft, corrupt), patching.metrics.logit(model, seen.token)
    true = patching.patch(model, pair, metric, pos=mm.Patch).values.flatten()
    guess = patching.attribution_patching(model, pair, metric).sel(pos=mm.Patch).values.flatten()
    assert table["places"].item() == len(true) == model.cfg.n_layers * 16
    wanted = spearmanr(true.numpy(), guess.numpy()).statistic
    assert table["spearman"].item() == pytest.approx(wanted, abs=1e-6)
    monkeypatch.undo()
    heads = ask(estimates.estimated, model, SAMPLES[:1], site="z", steps=(0,), max_new_tokens=1)
    assert heads["places"].item() == model.cfg.n_layers * 16 * model.cfg.n_heads


def test_a_share_of_the_largest_mean_has_no_interval_of_its_own():
    rows = [(f"{c}{i}", c, "L0.1", float(i + 1)) for c in ("dog", "cat") for i in range(3)]
    table = pd.DataFrame(rows, columns=["sample", "concept", "neuron", "activation"])
    out = classes.summary(table.assign(skipped="", options="{}"), {"dog": ["L0.1"]})
    relative = out[out["metric"] == "relative activation"]
    assert relative["mean"].tolist() == [1.0, 1.0] and relative["low"].isna().all()
