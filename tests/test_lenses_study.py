"""Lenses at the patches of one thing: words by a second route, claims that tables decide."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pandas as pd
import pytest
import torch
from bridges import bridge
from judging import all_judged
from native_twins import twin
from typer.testing import CliRunner

import mmlens as mm
from mmlens.cli.app import app
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.families import toy
from mmlens.papers import lenses
from mmlens.papers.lenses import fitted_lenses, lens_fits
from mmlens.papers.lenses.lens_fits import FittedLenses, asked_layers
from mmlens.papers.lenses.lenses_claims import CLAIMS, contests, every_lens, judged, told_of_texts
from mmlens.papers.lenses.lenses_report import passes_of
from mmlens.papers.lenses.questions.words_at_patches import (
    GROUPS,
    INTO,
    LENSES,
    PIECES,
    UNCOVERED,
    UNSHOWN,
    lens_words,
    points,
    summary,
    third,
)
from mmlens.papers.tables import ExperimentError, ask
from mmlens.sweep import sweeping
from mmlens.sweep.record import SweepError
from mmlens.values.errors import CapabilityError

NAMES = ("dog", "cat", "dog", "bird")
FEW: Any = {"pool": 3, "draws": 50, "progress": False}
UNFITTED = ("nearest", "logit", *INTO)


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Any:
    """Lenses are trained in few steps here: what they say does not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lens_fits, "STEPS", 2)
        yield


@pytest.fixture(scope="module")
def model() -> Any:
    return bridge("toy-gptj-planted")


@cache
def one(at: int) -> Sample:
    """A picture of one thing of one patch.

    The planted model says "dog" at all patches behind the white one: attention carries there what
    the planted unit writes. A dog lies behind it, another thing before it.
    """
    name, col = NAMES[at % len(NAMES)], at // 4 % 4
    above, below = (0, col), (3, col)
    white, (row, _) = (above, below) if name == "dog" else (below, above)
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[row * 8 : row * 8 + 8, col * 8 : col * 8 + 8] = True
    picture = toy.picture(white, seed=at)
    return Sample(f"{at} {name}", picture, (f"a {name} and a tree",), (Thing(name, mask),))


def pictures(n: int = 7, first: int = 0) -> Samples:
    ids = [one(at).id for at in range(first, first + n)]
    return Samples("planted", ids, lambda at: one(first + at), f"planted {first}")


@pytest.fixture(scope="module")
def fits(model, tmp_path_factory, few_steps) -> FittedLenses:
    found, refused = fitted_lenses(model, pictures(3), tmp_path_factory.mktemp("fits"), [*LENSES])
    assert not refused
    return found


def words_of(table: Any, layer: int, patches: list[Any], k: int = 5) -> dict[str, float]:
    """By word, at which share of the patches it is among the k best of a lens's table."""
    rows = table if "layer" not in table.columns else table[table["layer"] == layer]
    found: dict[str, float] = {}
    for patch in patches:
        here = rows[(rows["pos"] == patch) & (rows["rank"] < k)]
        for word in {token.strip().lower() for token in here["token"]}:
            found[word] = found.get(word, 0) + 1 / len(patches)
    return found


def test_words_are_those_of_each_verb_at_the_patches_of_the_thing(model, fits):
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[0:8, 8:24] = True  # two patches
    seen = Sample("two", one(0).image, (), (Thing("dog", mask),))
    patches = [mm.Patch(0, 1), mm.Patch(0, 2)]
    table = lens_words(model, seen, lenses=list(LENSES), fits=fits)
    prompt, held = mm.Prompt(seen.image, "A picture of"), fits.held
    how: Any = {"pos": mm.Patch}
    index = held["index"]
    routes = {
        "nearest": mm.nearest_tokens(model, prompt, 5, **how),
        "logit": mm.logit_lens(model, prompt, **how),
        "tuned": mm.logit_lens(model, prompt, through=held["tuned"], **how),
        "jacobian": mm.logit_lens(model, prompt, through=held["jacobian"], **how),
        "identity": mm.patchscope(model, prompt, **how),
        "caption": mm.patchscope(model, prompt, into="A picture of a", **how),
        "place": mm.patchscope(model, prompt, into=", A picture of a", into_pos=0, **how),
        "neighbours": mm.contextual_neighbours(model, prompt, index, **how),
        "centred": mm.contextual_neighbours(model, prompt, index, centred=True, **how),
        "same": mm.contextual_neighbours(model, prompt, index, text_layer="same", **how),
    }
    assert set(table["patches"]) == {2} and set(table["layers"]) == {model.cfg.n_layers}
    for lens, route in routes.items():
        here: Any = table[table["lens"] == lens].set_index("layer")["words"]
        assert list(here.index) == ([-1] if lens == "nearest" else asked_layers(model))
        for layer, words in here.items():
            assert json.loads(words) == pytest.approx(words_of(route, layer, patches)), lens
    every = list(range(model.lm.n_words))
    for layer, maps in held["heads"].items():
        said: Any = mm.head_lens(model, prompt, every, layer=layer, pos=patches, through=maps)
        best = said.sum("head").values.topk(5).indices.tolist()
        both = [{model.to_string([i]).strip().lower() for i in row} for row in best]
        shares = {w: sum(w in some for some in both) / 2 for w in both[0] | both[1]}
        row = table[(table["lens"] == "heads") & (table["layer"] == layer)]
        assert json.loads(row["words"].item()) == pytest.approx(shares)


def test_the_planted_word_is_read_where_it_is_written_and_nowhere_else(model):
    table = ask(lens_words, model, pictures(8), lenses=["logit"])
    found = points(table).merge(table[["sample", "noun"]].drop_duplicates())
    late = found[found["metric"] == "late"].set_index("noun")
    assert late.loc["dog", "own"].eq(100).all() and late.loc["dog", "other"].eq(0).all()
    assert len(late.loc["dog"]) == 4 and len(late) == 8


def test_a_picture_without_one_thing_of_one_token_is_skipped_with_its_reason(model):
    image = one(0).image
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[0, 0] = True  # a sixty-fourth of a patch
    reasons = {
        UNSHOWN: [Sample("none", image), Sample("bare", image, (), (Thing("dog"),)),
                  Sample("two", image, (), (Thing("dog", mask), Thing("cat", mask)))],
        PIECES: [Sample("long", image, (), (Thing("hippopotamus", mask),))],
        UNCOVERED: [Sample("small", image, (), (Thing("dog", mask),))],
    }  # fmt: skip
    for reason, samples in reasons.items():
        for sample in samples:
            assert lens_words(model, sample)["skipped"].tolist() == [reason]
    read = lens_words(model, reasons[UNCOVERED][0], share=0.001)
    assert set(read["skipped"]) == {""}


def test_at_most_so_many_patches_are_read_evenly_spread(model):
    every = Sample("all", one(0).image, (), (Thing("dog", torch.ones(32, 32) > 0),))
    for most, read in ((8, 8), (5, 4), (16, 16), (1, 1)):
        assert set(lens_words(model, every, lenses=["nearest"], most=most)["patches"]) == {read}


def test_what_cannot_be_read_is_said_in_a_sentence(model, fits, tmp_path):
    with pytest.raises(ExperimentError, match="'tuned' is fitted: give fits="):
        lens_words(model, one(0), lenses=["tuned"])
    with pytest.raises(ExperimentError, match="lenses"):
        lens_words(model, one(0), lenses=["glass"])
    with pytest.raises(ExperimentError, match="pool=7 takes all 7 pictures"):
        lenses.reproduce(model, pictures(), tmp_path, **{**FEW, "pool": 7})
    same = Samples("dogs", ["a", "b"], lambda at: one(2 * at), "dogs")
    with pytest.raises(ExperimentError, match="All pictures show a dog"):
        points(ask(lens_words, model, same, lenses=["logit"]))
    with pytest.raises(CapabilityError, match="unembed"):
        lenses.reproduce(bridge("pictos-clip"), pictures(), tmp_path, **FEW)


PICTURES = [f"s{i}" for i in range(12)]
HERE = {"nearest": [-1], "other": [0, 3, 6]}


def planted(said: dict[tuple[str, int], float], elsewhere: float = 0.1, n: int = 12) -> Any:
    """Pictures of two things, whose word is read at a known share, and at others' by chance."""
    noise = torch.Generator().manual_seed(0)
    rows = []
    for at, name in enumerate(PICTURES[:n]):
        own, other = ("dog", "cat") if at % 2 else ("cat", "dog")
        for (lens, layer), share in said.items():
            little = 0.02 * float(torch.rand((), generator=noise))
            words = json.dumps({own: share + little, other: elsewhere})
            rows.append((name, own, lens, layer, 9, 8, words))
    table = pd.DataFrame(rows, columns=["sample", "noun", "lens", "layer", "layers", "patches",
                                        "words"])  # fmt: skip
    return table.assign(skipped="", options="{}")


def shares(**said: Any) -> dict[tuple[str, int], float]:
    """Of a lens one share in all layers, or one for each third."""
    found = {}
    for lens, each in said.items():
        for at, layer in enumerate(HERE.get(lens, HERE["other"])):
            found[lens, layer] = each[at] if isinstance(each, tuple) else each
    return found


def verdict(key: str, table: Any) -> bool | None:
    part = judged(key, points(table), draws=200, seed=0)
    assert part.verdict is not None
    return part.verdict.holds


def test_points_are_the_share_less_that_of_the_same_word_at_pictures_of_other_things():
    rows = [("a", "dog", {"dog": 0.5, "cat": 0.25}), ("b", "cat", {"dog": 0.25}),
            ("c", "cat", {"cat": 1.0, "dog": 0.75}), ("d", "sun", {"cat": 0.5})]  # fmt: skip
    table = pd.DataFrame(
        [(name, noun, "logit", 4, 9, 8, json.dumps(words)) for name, noun, words in rows],
        columns=["sample", "noun", "lens", "layer", "layers", "patches", "words"],
    ).assign(skipped="", options="{}")
    found = points(table).set_index("sample")
    assert set(found["metric"]) == {"middle"}
    assert found["own"].to_dict() == pytest.approx({"a": 50, "b": 0, "c": 100, "d": 0})
    others = {"a": 100 * (0.25 + 0.75 + 0) / 3, "b": 100 * (0.25 + 0.5) / 2,
              "c": 100 * (0.25 + 0.5) / 2, "d": 0}  # fmt: skip
    assert found["other"].to_dict() == pytest.approx(others)
    assert found["value"].tolist() == pytest.approx((found["own"] - found["other"]).tolist())


def test_layers_are_told_by_thirds():
    told = [third(layer, 12) for layer in range(-1, 12)]
    assert told == [GROUPS[0]] + [name for name in GROUPS[1:] for _ in range(4)]
    assert [third(layer, 30) for layer in (0, 9, 10, 19, 20, 29)] == [
        "early", "early", "middle", "middle", "late", "late"]  # fmt: skip


@pytest.mark.parametrize(("key", "lens"), [("G1", "logit"), ("A1", "heads")])
def test_a_lens_names_the_thing_where_it_is_ahead_of_other_pictures(key, lens):
    assert verdict(key, planted(shares(**{lens: 0.6}))) is True
    assert verdict(key, planted(shares(**{lens: 0.1}), elsewhere=0.5)) is False
    assert verdict(key, planted(shares(**{lens: 0.6}), n=7)) is None
    judging = {"G1": 2, "A1": 1}[key]  # the third that it is judged by
    one_third = tuple(0.6 if at == judging else 0.02 for at in range(3))
    assert verdict(key, planted(shares(**{lens: one_third}), elsewhere=0.3)) is True
    others = tuple(0.02 if at == judging else 0.6 for at in range(3))
    assert verdict(key, planted(shares(**{lens: others}), elsewhere=0.3)) is False


@pytest.mark.parametrize("key", [key for key, one in CLAIMS.items() if one.other])
def test_a_lens_is_ahead_of_another_where_the_paired_difference_says_so(key):
    claim = CLAIMS[key]
    more, less = {claim.lens: 0.7, claim.other: 0.3}, {claim.lens: 0.3, claim.other: 0.7}
    assert verdict(key, planted(shares(**more))) is True
    assert verdict(key, planted(shares(**less))) is False
    assert verdict(key, planted(shares(**more), n=7)) is None
    part = judged(key, points(planted(shares(**more))), draws=200, seed=0)
    row = part.summary.set_index("group").loc[claim.group]
    assert row["mean"] == pytest.approx(40, abs=1.5) and row["n"] == 12
    at = {"early": 0, "middle": 1}[claim.group]  # the other thirds do not decide
    own = tuple(0.7 if i == at else 0.02 for i in range(3))
    assert verdict(key, planted(shares(**{claim.lens: own, claim.other: 0.3}))) is True


def test_a_lens_that_was_not_asked_decides_nothing():
    each = points(planted(shares(logit=0.5)))
    for key, claim in CLAIMS.items():
        part = judged(key, each, draws=50, seed=0)
        assert part.verdict is not None
        asked = claim.lens == "logit"
        assert part.says.startswith("Not measured") is not asked
        assert (part.verdict.holds is None) is not asked


def test_a_third_that_a_small_model_lacks_decides_nothing():
    two = planted(shares(logit=0.5)).query("layer < 6").assign(layers=9)
    part = judged("G1", points(two), draws=50, seed=0)
    assert part.says == "Not measured: logit_lens was not asked (late)."
    found = every_lens(summary(two, draws=50), {})
    assert list(found.table[0]) == ["lens", "early", "middle"]


def test_the_table_of_all_lenses_and_the_contest_say_the_same():
    said = shares(nearest=0.5, logit=(0.2, 0.7, 0.9), neighbours=(0.6, 0.02, 0.1))
    table = planted(said)
    found = summary(table, draws=200)
    part = every_lens(found, {"heads": "there is a norm."})
    assert part.notes == ["head_lens through attention_lens is left out: there is a norm."]
    assert part.says == "In the middle layers logit_lens names most: 61 points."
    [contest] = contests(points(table), passes_of(table, [0, 3, 6]))
    told = all_judged([contest], draws=200).set_index("method")
    means = found.set_index(["arm", "metric"])["mean"]
    for lens, group in (("nearest", GROUPS[0]), ("logit", "middle"), ("neighbours", "middle")):
        row = told.loc[LENSES[lens]]
        assert 100 * row["gap"] == pytest.approx(means[lens, group])
        assert row["control mean"] == pytest.approx(0.1)
    assert told["beats"].tolist() == [True, True, False]
    assert told["passes"].tolist() == [0, 1, 1]


def test_things_that_the_texts_do_not_have_are_told_apart():
    table = planted(shares(neighbours=0.5), elsewhere=0)
    told = told_of_texts(
        points(table), table, ["A picture of a dog.", "A dogcart and a catalogue."]
    )
    assert "6 of 12" in told and "at 51 points (early), at the others at 51" in told
    assert told_of_texts(points(table), table, ["a cat, a dog"]).startswith("The texts have the w")
    only = table.assign(words=[w if n == "dog" else "{}" for w, n in
                               zip(table["words"], table["noun"], strict=True)])  # fmt: skip
    assert "at the others at 0" in told_of_texts(points(only), only, ["a dog"])


def test_the_study_is_a_page_of_its_claims_and_goes_on_where_it_was(model, tmp_path, monkeypatch):
    folder, samples = tmp_path / "new", pictures(22)  # a folder that is not there yet
    asked, broken = [], {samples.ids[21]}

    def seed_of(seed: int, name: str) -> int:
        """Called once for each picture that is asked about."""
        asked.append(name)
        if name in broken:
            raise RuntimeError("the power is gone")
        return seed

    monkeypatch.setattr(sweeping, "seed_of", seed_of)
    some = ["logit", "tuned", "jacobian", "neighbours", "heads"]
    how: Any = {**FEW, "lenses": some}
    with pytest.raises(SweepError, match="the power is gone"):
        lenses.reproduce(model, samples, folder, **how)
    made = {file: file.read_bytes() for file in (folder / "fits").rglob("*") if file.is_file()}
    assert {file.name for file in made} > {"tuned.safetensors", "jacobian.safetensors",
                                           "heads-0.safetensors", "index.json"}  # fmt: skip
    for name in ("tuned_lens", "jacobian_lens", "attention_lens"):
        monkeypatch.setattr(lens_fits, name, None)  # no lens is fitted a second time
    assert asked == list(samples.ids[3:])
    asked.clear()
    broken.clear()
    command = "mmlens reproduce lenses"
    report = lenses.reproduce(model, samples, folder, command=command, **how)
    assert asked == list(samples.ids[19:])  # the first sixteen were kept
    assert {file: file.read_bytes() for file in made} == made
    assert list(report.verdicts["experiment"]) == list(CLAIMS)
    text, page = report.results.read_text(), report.page.read_text()
    assert f"`{command}`" in text and "LatentLens" in page and LENSES["heads"] in text
    assert len(all_judged(report.contests, draws=50)) == len(some)
    asked.clear()
    again = lenses.reproduce(model, samples, folder, **how)
    assert asked == []
    pd.testing.assert_frame_equal(again.verdicts, report.verdicts)
    with pytest.raises(SweepError, match="other pictures"):
        lenses.reproduce(model, samples, folder, **{**how, "pool": 4})
    with pytest.raises(SweepError, match="another model"):
        lenses.reproduce(mm.load("toy-gptj-planted", seed=1), samples, folder, **how)
    with pytest.raises(SweepError):
        lenses.reproduce(model, samples, folder, **{**how, "lenses": ["logit"]})
    assert {file: file.read_bytes() for file in made} == made  # of another study they stay


def test_fits_of_another_pool_or_model_are_not_taken_where_no_study_stands(model, tmp_path):
    few = ["tuned", "neighbours"]
    first, _ = fitted_lenses(model, pictures(3), tmp_path, few)
    kept, _ = fitted_lenses(model, pictures(3), tmp_path, few)
    assert dict(kept) == dict(first) and set(first) == {"tuned", "index"}
    assert torch.equal(kept.held["tuned"].matrices, first.held["tuned"].matrices)
    other, _ = fitted_lenses(model, pictures(3, first=4), tmp_path, few)
    assert other["tuned"] != first["tuned"]
    random = mm.load("toy-gptj-planted", seed=1)
    anew, _ = fitted_lenses(random, pictures(3), tmp_path, few)
    anew.held["tuned"].check(random)
    assert anew["tuned"] not in (first["tuned"], other["tuned"])


def test_a_pool_without_captions_leaves_fitted_lenses_out_with_the_reason(model, tmp_path):
    bare = [Sample(s.id, s.image, (), s.things) for s in pictures()]
    samples = Samples("bare", [one.id for one in bare], bare.__getitem__, "bare")
    report = lenses.reproduce(model, samples, tmp_path, **FEW)
    text = report.results.read_text()
    assert "no captions whose states could be neighbours" in text
    assert "no pictures with captions to fit a lens on" in text
    assert set(report.sections[0].summary["arm"]) == set(UNFITTED)


@pytest.mark.parametrize(("name", "lacks"), [("llava", set()), ("gemma3", {"heads"})])
def test_it_runs_on_native_models_and_says_which_lens_one_cannot_take(name, lacks, tmp_path):
    whole: Any = mm.from_model(*twin(name), name=name)
    chosen = ["nearest", "logit", "tuned", "identity", "neighbours", "heads"]
    report = lenses.reproduce(whole, pictures(), tmp_path, lenses=chosen, share=0.05, **FEW)
    assert set(report.sections[0].summary["arm"]) == set(chosen) - lacks
    assert len(report.sections[0].notes) == len(lacks)
    if lacks:
        assert "do not add up to what attention writes" in report.sections[0].notes[0]


def test_the_command_hands_over_what_is_asked(monkeypatch, tmp_path):
    asked: dict[str, Any] = {}

    def noted(model: Any, samples: Any, out: Any, **how: Any) -> Any:
        asked.update(how, samples=samples)
        raise ExperimentError("Enough.")

    monkeypatch.setattr(lenses, "reproduce", noted)
    command = ["reproduce", "lenses", "--model", "toy-gptj", "--lenses", "logit", "--lenses",
               "same", "--pool", "5", "--pictures", "4", "--out", str(tmp_path)]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and "Enough." in result.stderr
    assert asked["lenses"] == ["logit", "same"] and asked["pool"] == 5
    assert len(asked["samples"]) == 9 and len(asked["samples"][8].things) == 1
    wanted = "--lenses logit --lenses same"
    assert wanted in asked["command"] and "--out" not in asked["command"]
