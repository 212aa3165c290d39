"""Cosines and skipped MLPs of picture and words by a second route; claims that tables decide."""

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
from mmlens.papers import alignment
from mmlens.papers.alignment.alignment_claims import CLAIMS, judged
from mmlens.papers.alignment.questions.cosines import BETWEEN, PICTURE, WORDS, mean_cosines
from mmlens.papers.alignment.questions.skips import (
    EARLIER,
    LATER,
    OF_WORDS,
    skipped_mlps,
    summary,
)
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.tables import ask
from mmlens.sweep.record import SweepError

ONE: dict[str, Any] = {"max_new_tokens": 1}


@pytest.fixture(scope="module")
def model() -> Any:
    return bridge("toy-gptj-planted")


def test_cosines_are_those_of_every_pair_of_positions(model):
    table: Any = mean_cosines(model, SAMPLES[0], **ONE)
    seen: Any = explain(model, SAMPLES[0], **ONE)
    stream = mm.activations(model, seen.soft, "resid_post")
    labels = stream.of("pos")
    kinds = {"picture": [i for i, one in enumerate(labels) if isinstance(one, mm.Patch)],
             "words": [i for i, one in enumerate(labels) if isinstance(one, mm.Token)]}  # fmt: skip
    assert sum(map(len, kinds.values())) == len(labels)
    for layer in range(model.cfg.n_layers):
        x = stream.values[layer].double()
        for pair in (BETWEEN, PICTURE, WORDS):
            one, other = (kinds[name] for name in pair.split(" - "))
            every = [
                torch.cosine_similarity(x[i], x[j], dim=0) for i in one for j in other if i != j
            ]
            row = table[(table["pair"] == pair) & (table["layer"] == layer)]
            assert row["cosine"].item() == pytest.approx(float(torch.stack(every).mean()), abs=1e-5)
    assert len(table) == 3 * model.cfg.n_layers


def test_mlps_that_pass_a_kind_of_position_by_write_nothing_there_and_all_elsewhere(model):
    """A second route: hooks of TransformerLens that set the MLP's output to 0."""
    table: Any = skipped_mlps(model, SAMPLES[1], **ONE)
    seen: Any = explain(model, SAMPLES[1], **ONE)
    n, labels = model.cfg.n_layers, seen.soft.labels[0]
    early, late = range(n // 2), range(n // 2, n)
    arms = ((LATER, mm.Patch, late), (EARLIER, mm.Patch, early), (OF_WORDS, mm.Token, late))
    for arm, kind, layers in arms:
        places = [at for at, label in enumerate(labels) if isinstance(label, kind)]

        def silent(value, hook, places=places):
            value = value.clone()
            value[:, places] = 0
            return value

        hooks = [(f"blocks.{layer}.hook_mlp_out", silent) for layer in layers]
        with torch.no_grad():
            logits = model.run_with_hooks(seen.soft, fwd_hooks=hooks)
        prob = float(logits[0, -1].softmax(-1)[seen.token])
        row = table[table["arm"] == arm].iloc[0]
        assert row["probability"] == pytest.approx(prob, abs=1e-6) and row["layers"] == len(layers)


def test_the_planted_word_needs_the_mlps_at_the_patch_that_hold_it(model):
    out = summary(ask(skipped_mlps, model, SAMPLES, **ONE))
    assert model.cfg.n_layers // 2 <= 1  # the planted unit, of layer 1, is in the later half
    assert mean_of(out, arm=LATER, metric="lost") > 0.8
    assert mean_of(out, arm=OF_WORDS, metric="lost") < 0.5


PICTURES = [f"s{i}" for i in range(12)]


def tables(cosine: dict[str, float], rise: float = 0.0, lost: float = 0.0) -> dict[str, Any]:
    """Tables of pictures whose cosines and losses are known, a little more or less in each."""
    noise = torch.Generator().manual_seed(0)
    little = lambda: 0.01 * float(torch.rand((), generator=noise))  # noqa: E731
    rows = [
        {"sample": one, "pair": pair, "layer": layer, "cosine": value + rise * layer + little()}
        for one in PICTURES for pair, value in cosine.items() for layer in range(3)
    ]  # fmt: skip
    skips = [
        {"sample": one, "arm": arm, "layers": 2, "before": 0.5,
         "probability": 0.5 * (1 - (lost if arm == LATER else 0.5)) + little()}
        for one in PICTURES for arm in (LATER, EARLIER, OF_WORDS)
    ]  # fmt: skip
    told = {"skipped": "", "options": "{}"}
    return {"mean_cosines": pd.DataFrame(rows).assign(**told),
            "skipped_mlps": pd.DataFrame(skips).assign(**told)}  # fmt: skip


def verdict(key: str, found: Any) -> bool | None:
    part = judged(key, found, draws=200, seed=0)
    assert part.verdict is not None
    return part.verdict.holds


FAR = {BETWEEN: 0.1, PICTURE: 0.5, WORDS: 0.5}


@pytest.mark.parametrize(
    ("cosine", "holds"), [(FAR, True), ({BETWEEN: 0.4, PICTURE: 0.6, WORDS: 0.2}, False)]
)
def test_cones_are_their_own_where_both_kinds_are_nearer_within_than_between(cosine, holds):
    found = tables(cosine)
    assert verdict("I1", found) is holds
    few = {name: table[table["sample"].isin(PICTURES[:7])] for name, table in found.items()}
    assert verdict("I1", few) is None


@pytest.mark.parametrize(("rise", "holds"), [(0.1, True), (-0.1, False)])
def test_cones_come_nearer_where_the_cosine_between_them_rises(rise, holds):
    assert verdict("I2", tables(FAR, rise=rise)) is holds


@pytest.mark.parametrize(("lost", "holds"), [(0.0, True), (0.4, False)])
def test_little_is_less_than_a_tenth(lost, holds):
    assert verdict("I3", tables(FAR, lost=lost)) is holds


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(model, tmp_path):
    tmp_path = tmp_path / "new"  # a folder that is not there yet
    samples = Samples("planted", [one.id for one in SAMPLES], SAMPLES.__getitem__, "planted")
    how: Any = {"draws": 50, "progress": False, **ONE}
    report = alignment.reproduce(model, samples, tmp_path, command="mmlens reproduce x", **how)
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    assert not any(one in (True, False) for one in report.verdicts["holds"])  # of four pictures
    assert "`mmlens reproduce x`" in report.results.read_text() and "I3" in report.page.read_text()
    found = all_judged(report.contests, draws=50).iloc[0]
    told = report.sections[2].summary.set_index("arm")["mean"]
    assert [found["mean"], found["control mean"]] == pytest.approx([told[LATER], told[OF_WORDS]])
    answers = (tmp_path / "sweeps").rglob("*.parquet")
    before = {file: file.stat().st_mtime_ns for file in answers}
    assert len(before) == 2
    alignment.reproduce(model, samples, tmp_path, **how)
    assert all(file.stat().st_mtime_ns == at for file, at in before.items())
    with pytest.raises(SweepError):
        alignment.reproduce(model, samples, tmp_path, **{**how, "prompt": "I see"})
