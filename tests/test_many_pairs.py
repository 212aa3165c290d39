"""Causal verbs over many pairs: the same numbers as by turns, with means, intervals and tests."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wilcoxon

import mmlens as mm
from mmlens import patching, view
from mmlens.families import toy
from mmlens.patching import Pair, metrics
from mmlens.runtime import progress
from mmlens.sweep import SweepError
from mmlens.tally.intervals import intervals
from mmlens.tally.paired import signed_ranks
from mmlens.values.errors import AddressError, MMLensError, PromptError, TargetError

WORDS = "A picture of"
DOCS = Path(__file__).parent.parent / "docs" / "patching.md"


@pytest.fixture(scope="module")
def model() -> Any:
    return mm.load("toy-gptj-planted")


@pytest.fixture(scope="module")
def pictos() -> Any:
    return mm.load("pictos")


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    shown = [
        mm.Prompt(toy.picture(at, seed=i), WORDS) for i, at in enumerate([(2, 1), (0, 3), (1, 1)])
    ]
    other = mm.Prompt(toy.picture((3, 3), seed=9), WORDS)
    words = (" dog", " cat", " dog")
    return [
        Pair(prompt, other, of=word, minus=" cow", patches=(mm.Patch(i, 1),))
        for i, (prompt, word) in enumerate(zip(shown, words, strict=True))
    ]


def calls(model: Any) -> dict[str, Any]:
    """Every causal verb, asked of pairs or of one."""
    few: dict[str, Any] = {"layer": 1, "pos": [0, -1]}
    return {
        "patch": lambda of: patching.patch(model, of, "logit", **few),
        "noise": lambda of: patching.patch(model, of, "logit", direction="noise", **few),
        "ablate": lambda of: patching.ablate(model, of, "logit_difference", **few),
        "attribution": lambda of: patching.attribution_patching(model, of, "logit", layer=1),
        "paths": lambda of: patching.path_patching(model, of, "probability", mm.Head(0, 1)),
        "direct": lambda of: patching.direct_logits(model, of),
        "curve": lambda of: patching.ablation_curve(
            model, of, "logit", ["L1.5"], k=(0, 1), randoms=1
        ),
        "knockouts": lambda of: patching.knockouts(
            model, of, "logit", lambda pair: {"thing": (list(pair.patches), -1)}
        ),
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["patch", "noise", "ablate", "attribution", "paths", "direct",
                                  "curve", "knockouts"])  # fmt: skip
def test_many_pairs_give_the_numbers_of_each(model, pairs, verb):
    ask = calls(model)[verb]
    many = ask(pairs)
    assert many.axes[0] == "pair" and many.about["pairs"] == 3
    for at, pair in enumerate(pairs):
        assert torch.allclose(many.values[at], ask(pair).values, atol=1e-6)


def test_a_named_metric_is_that_of_the_own_word_of_a_pair(model, pairs):
    one = pairs[1]
    named = patching.patch(model, one, "logit", layer=1, pos=-1)
    given = patching.patch(model, one, metrics.logit(model, " cat"), layer=1, pos=-1)
    assert torch.equal(named.values, given.values)
    with pytest.raises(TargetError, match="of=' dog'"):
        patching.patch(model, Pair(one.clean, one.corrupt), "logit")
    with pytest.raises(TargetError, match="did you mean 'logit'"):
        patching.patch(model, one, "logits")
    with pytest.raises(PromptError, match="at least one"):
        patching.patch(model, [], "logit")


@pytest.mark.parametrize("verb", ["patch", "noise", "ablate", "attribution", "paths"])
def test_what_differs_from_pair_to_pair_is_told_of_none_alone(model, pairs, verb):
    found, alone = calls(model)[verb](pairs), [calls(model)[verb](one) for one in pairs]
    for name, told in found.about.items():
        each = [one.about.get(name) for one in alone]
        if name == "metric":
            assert "dog" not in told and told.endswith(" of the word of each pair")
        elif any(str(one) != str(each[0]) for one in each):
            assert list(map(str, told)) == list(map(str, each)), name
    shown = view.show(found.mean("pair")).to_json()
    drawn = view.show(patching.effects(found).mean("pair")).to_json()
    assert "dog" not in shown and "of the word of each pair" in shown
    assert "change of the " in drawn and "dog" not in drawn
    same = calls(model)[verb](pairs[::2])  # of one word
    assert "' dog'" in same.about["metric"]


def test_what_fails_in_one_pair_names_it(model, pairs):
    bad = Pair(pairs[0].clean, mm.Prompt(toy.picture((0, 0)), "A"), of=" dog", name="short")
    with pytest.raises(PromptError, match="^Pair short: The clean and the corrupt prompt"):
        patching.patch(model, [pairs[0], bad], "logit")


def test_means_are_those_of_the_effects_with_their_intervals_and_tests(model, pairs):
    many = patching.patch(model, pairs, "logit", "z", pos=-1)
    each = [patching.patch(model, pair, "logit", "z", pos=-1) for pair in pairs]
    effect = np.stack([one.numpy() - one.about["corrupt"] for one in each])
    table = patching.means(many, draws=200)
    assert list(table.columns) == ["head", "mean", "low", "high", "p", "p_holm", "n"]
    assert (table["mean"].diff().dropna() <= 0).all() and (table["n"] == 3).all()
    for row in table.itertuples():
        own = effect[:, row.head.layer, row.head.head]
        assert row.mean == pytest.approx(own.mean(), abs=1e-5)
        low, high = intervals(own[:, None], draws=200)[0, 1:]
        assert (row.low, row.high) == pytest.approx((low, high), abs=1e-4, nan_ok=True)
    found = dict(zip(table["head"], table["mean"], strict=True))
    recovered = patching.means(patching.recovered(many), draws=50)
    way = np.array([one.about["clean"] - one.about["corrupt"] for one in each])
    first = recovered["head"].iloc[0]
    expected = (effect[:, first.layer, first.head] / way).mean()
    assert recovered["mean"].iloc[0] == pytest.approx(expected, rel=1e-4)
    nothing = patching.means(many, control=many, draws=50)
    assert (nothing["mean"] == 0).all() and (nothing["p"] == 1).all() and found


def test_the_paired_test_is_wilcoxons(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(0.4, 1, (20, 5))
    values[:, 4] = 0
    expected = [wilcoxon(column).pvalue for column in values[:, :4].T]
    assert signed_ranks(values) == pytest.approx([*expected, 1.0])


def test_results_that_have_no_pairs_or_other_places_are_refused(model, pairs):
    many = patching.patch(model, pairs, "logit", layer=1, pos=-1)
    with pytest.raises(AddressError, match="are of one pair"):
        patching.means(patching.patch(model, pairs[0], "logit", layer=1, pos=-1))
    with pytest.raises(AddressError, match="no control"):
        patching.means(many, control=patching.patch(model, pairs[:2], "logit", layer=1, pos=-1))


def test_a_sweep_of_pairs_is_stopped_and_goes_on(model, pairs, tmp_path):
    options = {"metric": "logit", "site": "z", "pos": -1}
    how: dict[str, Any] = {"options": options, "progress": False, "chunk": 1}
    short = mm.Prompt(toy.picture((0, 0)), "A")
    broken = [*pairs[:2], Pair(pairs[2].clean, short, of=" dog")]
    with pytest.raises(SweepError, match="'2' of pairs failed"):
        mm.sweep.sweep(patching.patch, model, broken, tmp_path / "stopped", **how)
    done = mm.sweep.sweep(patching.patch, model, pairs, tmp_path / "whole", **how)
    kept = dict(done.each("patch"))
    direct = patching.means(patching.patch(model, pairs, "logit", "z", pos=-1), draws=50)
    swept = patching.means(kept, draws=50)
    assert list(swept["head"]) == list(direct["head"])
    assert swept["mean"].tolist() == pytest.approx(direct["mean"].tolist(), abs=1e-6)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole").rglob("*.safetensors")}
    mm.sweep.sweep(patching.patch, model, pairs, tmp_path / "whole", **how)
    assert before == {path: path.stat().st_mtime_ns for path in before}  # nothing is asked twice
    with pytest.raises(SweepError, match="data.hash"):
        mm.sweep.sweep(patching.patch, model, pairs[::-1], tmp_path / "whole", **how)


def test_a_bar_appears_after_two_seconds_and_only_the_outermost(monkeypatch):
    shown: list[tuple[str, int]] = []

    class Live:
        def add_task(self, what: str, total: int) -> int:
            shown.append((what, total))
            return 0

        def start(self) -> None: ...
        def stop(self) -> None: ...
        def update(self, task: int, completed: int) -> None:
            shown.append(("done", completed))

    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    monkeypatch.setattr(progress, "_live", Live)
    for _ in progress.tracked(range(3), "quick"):
        now[0] += 0.5
    assert shown == []
    for _ in progress.tracked(range(3), "slow"):
        now[0] += 1.5
        for _ in progress.tracked(range(2), "inside"):
            now[0] += 0.1
    assert shown[0] == ("slow", 3) and shown[-1] == ("done", 3)
    assert not any(what == "inside" for what, _ in shown)
    for _ in progress.tracked(range(3), "silent", False):
        now[0] += 9
    told: list[tuple[int, int]] = []
    for _ in progress.tracked("ab", "told", lambda done, of: told.append((done, of))):
        now[0] += 9
    assert told == [(1, 2), (2, 2)] and not any(what == "silent" for what, _ in shown)
    assert time.monotonic() > 0


def test_progress_of_routes_counts_every_window(model, pairs):
    told: list[tuple[int, int]] = []
    routes = {"one": (mm.Patch(1, 1), -1), "two": (mm.Patch(2, 1), -1)}
    patching.knockouts(
        model, pairs[0].clean, metrics.logit(model, " dog"), routes, window=1, stride=2,
        progress=lambda done, of: told.append((done, of)),
    )  # fmt: skip
    assert told == [(done, 4) for done in (1, 2, 3, 4)]  # layers 0 and 2, for each route


def test_progress_over_pairs_prompts_and_words_is_one_count(model, pairs):
    told: list[tuple[int, int]] = []
    hear: dict[str, Any] = {"progress": lambda done, of: told.append((done, of))}
    few: dict[str, Any] = {"layer": 1, "pos": [0, -1], "batch": 1}
    patching.patch(model, pairs[0], "logit", **few, **hear)
    alone = told.copy()
    told.clear()
    patching.patch(model, pairs, "logit", **few, **hear)
    n = alone[-1][1]
    assert told == [(at * n + done, 3 * n) for at in range(3) for done, _ in alone]
    graph: dict[str, Any] = {"after": "", "k": 1, "units": 1, **hear}
    told.clear()
    mm.neuron_graph(model, [pairs[0].clean] * 2, [" dog", " cat"], **graph)
    done, of = zip(*told, strict=True)
    assert list(done) == sorted(set(done)) and len(set(of)) == 1 and done[-1] == of[-1]
    told.clear()
    part = progress.over_all(hear["progress"], 2)
    part(0)(2, 4), part(0)(4, 4), part(1)(1, 2), part(1)(2, 2)
    assert told == [(2, 8), (4, 8), (6, 8), (8, 8)]
    assert progress.over_all(False, 3)(1) is False and progress.over_all(None, 3)(1) is None


def test_pairs_of_a_data_set_erase_the_thing_or_as_much_ground_in_the_same_pictures(pictos):
    model, data = pictos, mm.dataset("pictos:held_out:6")
    pairs = patching.thing_pairs(model, data, n=3)
    ground = patching.thing_pairs(model, data, n=3, control=True)
    assert [one.name for one in pairs] == [one.name for one in ground] and len(pairs) == 3
    for one, other in zip(pairs, ground, strict=True):
        sample = data[data.ids.index(one.name)]
        things = torch.stack([t.mask for t in sample.things]).any(0).numpy()
        clean, gone, bare = (
            np.asarray(p.pictures[0], int) for p in (one.clean, one.corrupt, other.corrupt)
        )
        assert not ((gone != clean).any(-1) & ~things).any()
        assert not ((bare != clean).any(-1) & things).any()
        assert one.patches and other.patches
    with pytest.raises(PromptError, match="No sample has a thing"):
        patching.thing_pairs(model, [mm.Sample("a", data[0].image)])


def test_a_strangers_experiment_takes_twelve_lines(pictos, tmp_path, monkeypatch, capsys):
    block = re.search(r"with a control and a figure:.*?```python\n(.*?)```", DOCS.read_text(), re.S)
    assert block is not None
    lines = [line for line in block[1].splitlines() if line.strip()]
    assert len(lines) <= 12 and block[1].count("n=50") == 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"pictos": pictos}
    few = block[1].replace("n=50", "n=3").replace('mm.load("pictos")', "pictos")
    exec(few, names)
    best = {str(head) for head in names["table"]["head"].head(4)}
    assert len(best & {"L5H1", "L5H2", "L5H3", "L5H7"}) >= 3  # those of 50 pairs
    assert (tmp_path / "heads.svg").stat().st_size > 1000 and "L5H" in capsys.readouterr().out
    assert isinstance(names["pairs"][0], Pair) and issubclass(PromptError, MMLensError)


LOOPING = ("patch", "ablate", "ablation_curve", "attribution_patching", "path_patching",
           "knockouts", "captions", "integrated_gradients", "neuron_graph", "occlusion",
           "rise")  # fmt: skip


def looping(model: Any, pair: Pair, progress: Any) -> dict[str, Any]:
    """Every verb that loops over places of one prompt, with this bar."""
    metric, how = metrics.logit(model, " dog"), {"progress": progress}
    clean, said = pair.clean, {"of": " dog", "after": ""}
    routes = {"one": ([mm.Patch(1, 1)], -1), "two": ([mm.Patch(2, 1)], -1)}
    heads = [mm.Head(0, 1), mm.Head(0, 0)]
    return {
        "patch": lambda: patching.patch(model, pair, metric, layer=1, pos=[0, -1], **how),
        "ablate": lambda: patching.ablate(model, clean, metric, layer=1, pos=[0, -1], **how),
        "ablation_curve": lambda: patching.ablation_curve(
            model, clean, metric, ["L1.5"], k=(0, 1), randoms=1, **how),
        "attribution_patching": lambda: patching.attribution_patching(
            model, pair, metric, steps=4, **how),
        "path_patching": lambda: patching.path_patching(model, pair, metric, heads, **how),
        "knockouts": lambda: patching.knockouts(model, clean, metric, routes, **how),
        "captions": lambda: patching.captions(model, clean, {"as it is": []}, **how,
                                              max_new_tokens=1),
        "integrated_gradients": lambda: mm.integrated_gradients(model, clean, **said, **how),
        "neuron_graph": lambda: mm.neuron_graph(model, clean, **said, k=1, units=1, **how),
        "occlusion": lambda: mm.relevance.occlusion(model, clean, **said, batch=4, **how),
        "rise": lambda: mm.relevance.rise(model, clean, **said, masks=64, batch=4, **how),
    }  # fmt: skip


@pytest.mark.parametrize("verb", LOOPING)
@pytest.mark.filterwarnings("ignore:The (integrated|attributions)")
def test_a_loop_tells_how_far_it_is_and_a_stop_leaves_the_model_as_it_was(model, pairs, verb):
    told: list[tuple[int, int]] = []
    before = model(pairs[0].clean)
    found = looping(model, pairs[0], lambda done, of: told.append((done, of)))[verb]()
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert len({of for _, of in told}) == 1 and told[-1][0] == told[-1][1] > 1

    def stop(done: int, of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        looping(model, pairs[0], stop)[verb]()
    assert torch.equal(model(pairs[0].clean), before)
    again = looping(model, pairs[0], False)[verb]()
    if isinstance(again, mm.Scores):
        assert torch.equal(again.values, found.values)
    else:
        assert again.equals(found)


def test_pairs_that_are_stopped_say_how_to_keep_what_is_done(model, pairs):
    def stopped(logits: torch.Tensor) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as told:
        patching.patch(model, pairs, stopped, layer=1, pos=-1)
    [note] = told.value.__notes__
    assert "after 0 of 3 pairs" in note and "mm.sweep.sweep(patch" in note


def test_captions_of_pairs_have_the_edits_of_each(model, pairs):
    few: dict[str, Any] = {"max_new_tokens": 3}
    cut = lambda pair: {"cut": patching.knockout(list(pair.patches), -1)}  # noqa: E731
    table = patching.captions(model, pairs, cut, contains=lambda pair: pair.of, **few)
    assert list(table.columns) == ["pair", "edit", "caption", "contains"] and len(table) == 6
    for at, pair in enumerate(pairs):
        own = patching.captions(model, pair.clean, cut(pair), contains=pair.of, **few)
        part = table[table["pair"] == at].drop(columns="pair").reset_index(drop=True)
        assert part.equals(own)
    prompts = [pair.clean for pair in pairs[:2]]
    assert list(patching.captions(model, prompts, {}, **few)["caption"]) == [
        model.generate(prompt, 3) for prompt in prompts
    ]
    told = table.attrs["about"]
    assert told["method"] == "captions" and told["contains"] == [" dog", " cat", " dog"]


def test_tables_of_prompts_stand_below_each_other_with_what_each_tells(model, pairs):
    prompts = [pair.clean for pair in pairs[:2]]
    ask: dict[str, Any] = {
        "caption": lambda of: mm.attribute_caption(model, of, 2, caption=" dog"),
        "graph": lambda of: mm.neuron_graph(model, of, " dog", after="", k=1, units=1),
    }
    for verb in ask.values():
        many = verb(prompts)
        assert many.columns[0] == "prompt"
        for at, prompt in enumerate(prompts):
            own = many[many["prompt"] == at].drop(columns="prompt").reset_index(drop=True)
            assert own.equals(verb(prompt))
    said = [" dog", " cat"]
    each: Any = mm.attribute_caption(model, prompts, 2, caption=said)
    assert [token.text for token in each["token"]] == [" dog", " dog", " cat", " cat"]
    for at, (prompt, words) in enumerate(zip(prompts, said, strict=True)):
        own = each[each["prompt"] == at].drop(columns="prompt").reset_index(drop=True)
        assert own.equals(mm.attribute_caption(model, prompt, 2, caption=words))
    for of, many in ((prompts, 3), (prompts[0], 1)):
        with pytest.raises(PromptError, match=f"caption= is a list of {many}"):
            mm.attribute_caption(model, of, caption=[" dog"] * many)
    graph = ask["graph"](prompts)
    assert graph.attrs["about"]["method"] == "neuron_graph" and graph.attrs["words"]
    with pytest.raises(AddressError, match="edges of 2 prompts"):
        mm.view.show(graph)
    words = mm.neuron_graph(model, prompts[0], [" dog", " cat"], after="", k=1, units=1)
    assert list(dict.fromkeys(words["token"])) == [" dog", " cat"]
    assert words.attrs["about"]["of"] == [" dog", " cat"]


def test_draws_without_spread_leave_an_interval_open_and_never_bound_it_by_rounding():
    few = intervals([[0.0], [0.0], [1.0], [1.0], [1.0]], draws=50)[0]
    assert few[1] == -np.inf
    draw = np.random.default_rng(0)
    for n in (8, 12, 20):
        named = draw.integers(1, 4, (n, 60)).astype(float)
        found = intervals(draw.binomial(named.astype(int), 0.1).astype(float), named, draws=500)
        bounds = found[:, 1:][np.isfinite(found[:, 1:])]
        assert np.abs(bounds).max() < 1e3


@pytest.mark.parametrize(
    "verb", ["sink_units", "stream_before", "modality_importance", "active_share"]
)
def test_verbs_over_prompts_tell_how_many_they_have_read(model, pairs, verb):
    told: list[tuple[int, int]] = []
    hear: dict[str, Any] = {"progress": lambda done, of: told.append((done, of))}
    prompts = [pair.clean for pair in pairs[:2]]
    if verb == "stream_before":
        mm.stream_before(model, prompts, " dog", after="", **hear)
    elif verb == "active_share":
        mm.active_share(model, {"one": prompts, "other": prompts[:1]}, **hear)
        prompts = [*prompts, prompts[0]]
    else:
        getattr(mm, verb)(model, prompts, **hear)
    assert told == [(done, len(prompts)) for done in range(1, len(prompts) + 1)]
