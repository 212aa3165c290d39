"""The study of hallucination: its numbers are those of planted captions, counted another way."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from bridges import bridge
from judging import all_judged

import mmlens as mm
from mmlens import decoding, metrics
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.families import toy
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.papers.hallucination import (
    HallucinationReport,
    decoding_report,
    reproduce,
    said_things,
    summary,
)
from mmlens.papers.hallucination.decoding_report import confidence, way
from mmlens.papers.hallucination.questions.said_things import plain
from mmlens.papers.hallucination.told_apart import apart
from mmlens.papers.tables import ExperimentError, ask
from mmlens.runtime import progress
from mmlens.sweep.record import SweepError
from mmlens.towers.language.tokenization import follow
from mmlens.values.errors import CapabilityError

PETS = metrics.Vocabulary("pets", {"dog": "dog", "cat": "cat", "bird": "bird", "puppy": "dog"})
SHOWN = [("dog",), ("dog", "cat"), ("bird",), ("cat", "bird"), ("dog",), (), ("cat",), ("bird",),
         ("dog", "bird"), ("cat",), ("dog",)]  # fmt: skip
SAID = [" a dog.", " a dog and two birds.", " cats and a cat.", " a cat.", " nothing.", " a dog.",
        " a puppy and a cat.", " a bird.", " a cat.", " cat and bird.", " dogs."]  # fmt: skip
OTHER = [" a dog.", " a dog.", " a bird.", " a cat.", " a cat.", " a dog.", " a cat.", " a bird.",
         " a bird.", " cat and bird.", " dogs and dogs."]  # fmt: skip


def pictures() -> Samples:
    samples = [
        Sample(f"s{i}", toy.picture((i % 4, i // 4)), ("a dog and a bird",),
               tuple(Thing(name) for name in shown))
        for i, shown in enumerate(SHOWN)
    ]  # fmt: skip
    return Samples("pets", [one.id for one in samples], samples.__getitem__, "pets")


def saying(texts: list[str]) -> Any:
    """A way of decoding that says of each picture its text, whatever the model says."""
    told = {one.image.tobytes(): text for one, text in zip(pictures(), texts, strict=True)}

    def decode(model: Any, prompt: mm.Prompt) -> dict[str, Any]:
        row = follow(model.tokenizer, told[prompt.pictures[0].tobytes()])

        def force(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            now = row[min(ids.shape[1], len(row) - 1)]
            return torch.full_like(logits, -math.inf).index_fill(1, torch.tensor([now]), 0.0)

        return {"logits_processor": force}

    return decode


@pytest.fixture(scope="module")
def report() -> Any:
    arms = {"said": saying(SAID), "other": saying(OTHER)}
    return mm.hallucination(bridge("toy-gptj"), pictures(), edited=arms, vocabulary=PETS, draws=400)


def number(report: Any, arm: str, metric: str) -> Any:
    table = report.summary
    return table[(table["arm"] == arm) & (table["metric"] == metric)].iloc[0]


KNOWN = [i for i, shown in enumerate(SHOWN) if shown]


@pytest.mark.parametrize(("arm", "texts"), [("said", SAID), ("other", OTHER)])
def test_chair_of_a_study_is_that_of_the_metric_on_the_same_captions(report, arm, texts):
    some = [texts[i] for i in KNOWN]
    said = report.mentions[report.mentions["arm"] == arm].drop_duplicates("sample")
    assert said["caption"].dropna().tolist() == some
    for metric, per in (("CHAIR-i", "instance"), ("CHAIR-s", "sentence")):
        right = metrics.chair(some, [SHOWN[i] for i in KNOWN], PETS, per=per)
        found = number(report, arm, metric)
        assert found["mean"] == pytest.approx(right.corpus)
        assert found["low"] <= right.corpus <= found["high"]
        assert (found["n"], found["skipped"]) == (len(KNOWN), 1)
    mentions = metrics.chair(some, [SHOWN[i] for i in KNOWN], PETS).settings["mentions"]
    assert number(report, arm, "mentions")["mean"] == pytest.approx(mentions / len(KNOWN))


def test_recall_is_the_share_of_things_that_are_named(report):
    named = [len({name for _, name in PETS.mentions(SAID[i])} & set(SHOWN[i])) / len(SHOWN[i])
             for i in KNOWN]  # fmt: skip
    assert number(report, "said", "recall")["mean"] == pytest.approx(np.mean(named))


def test_differences_are_taken_picture_by_picture():
    arms = {"other": saying(OTHER)}
    study: Any = {"vocabulary": PETS, "edited": arms, "draws": 400, "confidence": False}
    found = mm.hallucination(bridge("toy-gptj"), pictures(), **study)
    for metric in ("CHAIR-s", "mentions", "recall"):
        gap = number(found, "other - plain", metric)["mean"]
        both = [number(found, arm, metric)["mean"] for arm in ("other", "plain")]
        assert gap == pytest.approx(both[0] - both[1])


def rows_of(rng: Any, n: int, wrong: float, arm: str) -> pd.DataFrame:
    """Captions of 1 to 4 mentions, each not there with this chance, more often in some pictures."""
    rows = []
    for i in range(n):
        chance = np.clip(wrong * rng.gamma(2.0) / 2, 0, 1)
        for _ in range(rng.integers(1, 5)):
            there = bool(rng.random() > chance)
            rows.append((f"p{i}", arm, "x", "dog", "dog", there, rng.random(), 2, 1, "", "{}"))
    names = ["sample", "arm", "caption", "mention", "thing", "there", "confidence", "things"]
    return pd.DataFrame(rows, columns=[*names, "recalled", "skipped", "options"])


def test_the_interval_of_a_difference_of_shares_is_that_of_drawing_pictures_of_both():
    rng = np.random.default_rng(0)
    table = pd.concat([rows_of(rng, 400, 0.3, "plain"), rows_of(rng, 400, 0.2, "edited")])
    found = summary(table, draws=2000)
    gap = found[(found["arm"] == "edited - plain") & (found["metric"] == "CHAIR-i")].iloc[0]
    wide = table.assign(wrong=~table["there"]).groupby(["sample", "arm"])["wrong"]
    sums: Any = wide.agg(["sum", "count"]).unstack("arm")
    draws = rng.integers(0, 400, (3000, 400))
    wrong, named = (
        {arm: sums[how, arm].to_numpy()[draws].sum(1) for arm in ("plain", "edited")}
        for how in ("sum", "count")
    )
    shares = [wrong[arm] / named[arm] for arm in ("edited", "plain")]
    low, high = np.quantile(shares[0] - shares[1], [0.025, 0.975])
    assert gap["low"] == pytest.approx(low, abs=0.006)
    assert gap["high"] == pytest.approx(high, abs=0.006)


def test_internal_confidence_is_the_largest_probability_at_the_patches(report):
    model = bridge("toy-gptj")
    rows = report.mentions[report.mentions["thing"].notna()]
    sample = pictures()[1]
    seen = mm.Prompt(sample.image, "A picture of")
    is_patch = [isinstance(one, mm.Patch) for one in model.embed(seen).labels[0]]
    with torch.no_grad():
        _, cache = model.run_with_cache(seen)
        most: Any = 0.0
        for layer in range(model.cfg.n_layers):
            stream = cache[f"blocks.{layer}.hook_resid_post"][0][torch.tensor(is_patch)]
            hf = model.lm.hf
            most = torch.maximum(
                torch.as_tensor(most), hf.lm_head(hf.transformer.ln_f(stream)).softmax(-1).amax(0)
            )
    mine = rows[(rows["sample"] == "s1") & (rows["arm"] == "said")].set_index("thing")["confidence"]
    for thing in ("dog", "bird"):
        pieces = follow(model.tokenizer, f" {thing}")
        assert mine[thing] == pytest.approx(float(most[pieces].max()), rel=1e-4)
    assert rows["confidence"].notna().all()


def test_what_people_said_counts_where_it_is_asked_for():
    both: list[Any] = [
        ask(said_things, bridge("toy-gptj"), pictures(), vocabulary=plain(PETS),
            captions=captions, decode=saying(SAID))
        for captions in (False, True)
    ]  # fmt: skip
    strict, kind = both
    bird = lambda table: table[(table["sample"] == "s1") & (table["thing"] == "bird")]  # noqa: E731
    assert not bird(strict)["there"].item() and bird(kind)["there"].item()
    assert (strict["skipped"] != "").sum() == 1 and not (kind["skipped"] != "").any()


# -- told apart -----------------------------------------------------------------------------------


def test_auroc_is_how_often_one_is_above_the_other():
    rng = np.random.default_rng(1)
    one, other = rng.integers(0, 6, 30).astype(float), rng.integers(0, 5, 20).astype(float)
    names, others = [f"a{i // 2}" for i in range(30)], [f"a{i // 2}" for i in range(20)]
    found = apart(one, other, names, others, draws=3000)
    wins = [(a > b) + 0.5 * (a == b) for a in one for b in other]
    assert found.auroc == pytest.approx(np.mean(wins)) and (found.n, found.n_others) == (15, 10)
    drawn = []
    for _ in range(1500):  # pictures drawn one by one, with their mentions
        chosen = [f"a{i}" for i in rng.integers(0, 15, 15)]
        a = [v for name in chosen for v, of in zip(one, names, strict=True) if of == name]
        b = [v for name in chosen for v, of in zip(other, others, strict=True) if of == name]
        drawn += [np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b])] if a and b else []
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_few_pictures_of_a_kind_leave_it_undecided_and_none_leave_nothing():
    few = apart(np.ones(20), np.zeros(7), range(20), range(7))
    assert few.auroc == 1.0 and math.isnan(few.low) and math.isnan(few.high)
    enough = apart(np.ones(20), np.zeros(8), range(20), range(8))
    assert (enough.low, enough.high) == (1.0, 1.0)
    assert math.isnan(apart(np.ones(20), [], range(20), []).auroc)


def test_confidence_that_tells_what_is_there_is_found_in_the_summary():
    rng = np.random.default_rng(2)
    table = rows_of(rng, 120, 0.3, "plain")
    there = table["there"].to_numpy()
    random: Any = summary(table, draws=400).set_index("metric").loc["AUROC"]
    told = table.assign(confidence=there + rng.random(len(table)))
    found: Any = summary(told, draws=400).set_index("metric").loc["AUROC"]
    assert random["low"] < 0.5 < random["high"] and found["low"] > 0.9


# -- arms and folders -----------------------------------------------------------------------------


def test_a_study_goes_on_where_it_was_and_its_arms_are_the_models_that_they_name(
    tmp_path, monkeypatch
):
    model, quiet = bridge("toy-gptj"), mm.Edit("mlp_out", 0.0, layer=1)
    arms = {"edit": quiet, "model": model.edit(quiet), "both": [quiet, "words"]}
    how: Any = {"vocabulary": PETS, "edited": arms, "max_new_tokens": 2, "draws": 20}
    few = pictures()[:3]
    first = mm.hallucination(model, few, tmp_path, progress=False, **how)
    said: Any = first.mentions.set_index(["sample", "arm"])["caption"].unstack("arm")
    assert said["edit"].equals(said["model"].rename("edit"))
    in_memory = mm.hallucination(model, few, **how)
    assert in_memory.mentions["caption"].tolist() == first.mentions["caption"].tolist()
    written = pd.read_csv(tmp_path / "summary.csv")
    assert written["mean"].tolist() == pytest.approx(first.summary["mean"].tolist(), nan_ok=True)
    monkeypatch.setattr(HookedVLM, "generate", lambda *a, **k: pytest.fail("asked again"))
    again = mm.hallucination(model, few, tmp_path, progress=False, **how)
    pd.testing.assert_frame_equal(again.summary, first.summary)
    with pytest.raises(SweepError, match="holds a sweep with"):
        mm.hallucination(model, pictures()[:2], tmp_path, progress=False, **how)


def test_a_study_in_memory_shows_one_bar_over_all_arms(monkeypatch):
    steps: list[tuple[str, int]] = []

    class Live:
        def add_task(self, what: str, total: int) -> int:
            steps.append((what, total))
            return 0

        def start(self) -> None: ...
        def stop(self) -> None: ...
        def update(self, task: int, completed: int) -> None:
            steps.append(("done", completed))

    how: Any = {"vocabulary": PETS, "max_new_tokens": 1, "draws": 20, "confidence": False}
    how["edited"] = {"edit": mm.Edit("mlp_out", 0.0, layer=1)}
    monkeypatch.setattr(progress, "AFTER", -1.0)
    monkeypatch.setattr(progress, "_live", Live)
    mm.hallucination(bridge("toy-gptj"), pictures()[:2], **how)
    assert steps == [("hallucination", 4), *(("done", at) for at in (1, 2, 3, 4))]
    steps.clear()
    mm.hallucination(bridge("toy-gptj"), pictures()[:2], progress=False, **how)
    assert steps == []


def test_a_report_shows_its_table_and_escapes_what_it_names(report):
    shown = repr(report)
    assert shown.startswith("HallucinationReport of toy-gptj, ") and "CHAIR-s" in shown
    assert "plain, said, other" in shown and "0x" not in shown + report._repr_html_()
    about = {**report.about, "model": "<script>"}
    html = HallucinationReport(report.summary, report.mentions, about)._repr_html_()
    assert "<script" not in html and html.count("<tr") == len(report.summary) + 1


def test_functions_as_arms_are_for_studies_in_memory(tmp_path):
    with pytest.raises(SweepError, match="cannot be recorded"):
        mm.hallucination(bridge("toy-gptj"), pictures()[:2], tmp_path, vocabulary=PETS,
                         edited={"mine": saying(SAID)}, max_new_tokens=2)  # fmt: skip


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an arm called plain": ({"edited": {"plain": mm.Edit("mlp_out", 0.0)}}, "called 'plain'"),
    "a path as a name": ({"edited": {"../x": mm.Edit("mlp_out", 0.0)}}, "cannot be called"),
    "a decoder": ({"edited": {"x": "nose"}}, "did you mean 'noise'"),
    "two decoders": ({"edited": {"x": ["noise", "words"]}}, "give a model, Edits"),
    "a number": ({"edited": {"x": 3}}, "give a model, Edits"),
    "nothing": ({"edited": {"x": []}}, "give a model, Edits"),
    "one processor": (
        {"edited": {"x": decoding.contrast(bridge("toy-gptj"), "A")}},
        "processor of one prompt",
    ),
    "no options": ({"edited": {"x": lambda m, p: decoding.contrast(m, "A")}}, "return options"),
    "the study's own": ({"edited": {"x": lambda m, p: {"stop": "."}}}, "which the study gives"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arms_that_are_none_are_refused_in_one_sentence(name):
    how, told = WRONG[name]
    with pytest.raises(ExperimentError, match=told):
        mm.hallucination(bridge("toy-gptj"), pictures()[:1], vocabulary=PETS, **how)


def test_pictures_of_which_nothing_is_known_are_no_study():
    with pytest.raises(ExperimentError, match="nothing is known"):
        mm.hallucination(bridge("toy-gptj"), pictures().pick([5]), vocabulary=PETS)


def test_an_encoder_captions_nothing():
    encoder: Any = mm.from_parts(vision=bridge("toy-gptj").vision)
    with pytest.raises(CapabilityError, match="generates text"):
        mm.hallucination(encoder, pictures())


def test_no_bound_lies_beyond_what_a_metric_can_be():
    draw = np.random.default_rng(0)
    for n in (4, 8, 12):
        rows = [{"sample": str(i), "arm": arm, "caption": "", "thing": "dog", "there": bool(there),
                 "confidence": None, "things": 1, "recalled": 1, "skipped": "", "options": "{}"}
                for arm in ("plain", "x") for i in range(n)
                for there in draw.random(draw.integers(1, 4)) < 0.8]  # fmt: skip
        found: Any = summary(pd.DataFrame(rows), draws=200)
        shares = found[found["metric"] != "mentions"]
        bounds = shares[["low", "high"]].to_numpy(float)
        assert np.nanmax(np.abs(bounds)) <= 1.0
        assert np.nanmin(shares[~shares["arm"].str.contains(" - ")]["low"]) >= 0.0


@pytest.mark.parametrize(
    ("low", "high", "n", "holds"),
    [(-0.3, -0.1, 20, True), (0.1, 0.3, 20, False), (-0.1, 0.2, 20, None), (-0.3, -0.1, 7, None)],
)
def test_a_way_helps_where_the_interval_of_its_difference_lies_below_zero(low, high, n, holds):
    rows = [{"arm": arm, "metric": metric, "mean": 0.3, "low": 0.2, "high": 0.4, "n": n}
            for arm in ("plain", "VCD") for metric in ("CHAIR-i", "recall")]  # fmt: skip
    gap = {"arm": "VCD - plain", "metric": "CHAIR-i", "mean": (low + high) / 2}
    table = pd.DataFrame([*rows, {**gap, "low": low, "high": high, "n": n}])
    part = way("D1", table)
    assert part.verdict is not None and part.verdict.holds is holds
    assert way("D2", table).says.startswith("Not measured")


def test_confidence_is_held_against_chance():
    row = {"arm": "plain", "metric": "AUROC", "mean": 0.7, "n": 12}
    told = [confidence(pd.DataFrame([{**row, "low": low, "high": low + 0.2}])).verdict
            for low in (0.6, 0.4, 0.2)]  # fmt: skip
    assert [one and one.holds for one in told] == [True, None, False]


def test_every_way_is_held_against_plain_decoding():
    rows = [("plain", 0.4, 0.3, 0.5), ("VCD", 0.2, 0.1, 0.3), ("VCD - plain", -0.2, -0.3, -0.1),
            ("PAI", 0.4, 0.3, 0.5)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["arm", "mean", "low", "high"])
    [one] = decoding_report.contest(table.assign(metric="CHAIR-i", n=20))
    found = all_judged([one])
    assert list(found["method"]) == ["VCD"]  # PAI mentions nothing, and has no difference
    assert found["beats"].tolist() == [True]
    assert decoding_report.contest(table.iloc[:0].assign(metric="CHAIR-i", n=20)) == []


def test_the_papers_claims_are_one_page_and_the_arms_are_kept(tmp_path, monkeypatch):
    arms = importlib.import_module("mmlens.papers.hallucination.arms_of_papers")
    monkeypatch.setattr(arms, "PAIRS", 2)  # of VTI's directions
    monkeypatch.setattr(arms, "MASKS", 1)
    two = mm.datasets.pictos("held_out", 2, things=3)
    how: Any = {"max_new_tokens": 3, "draws": 50, "progress": False}
    report = reproduce("pictos", two, tmp_path, **how)
    assert list(report.verdicts["experiment"]) == ["C1", "D1", "D2", "D3", "D4"]
    assert report.verdicts["holds"].isna().all()
    for one in report.contests:
        assert set(all_judged([one])["control"]) == {"greedy decoding"}
    assert "of the papers' 5 claims" in report.results.read_text()
    for arm in ("plain", "VCD", "PAI", "over-trust penalty", "VTI"):
        assert (tmp_path / arm).is_dir()
