"""The audit of associations: what is planted is found, what is not there is not."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from clip_twins import flat
from dual_twins import hf_clip
from scipy.stats import kstest
from typer.testing import CliRunner

import mmlens as mm
from mmlens.cli.app import app
from mmlens.papers.bias import audit_bias, read_concepts
from mmlens.papers.bias.associations import associations, corrected, unit_associations, visible
from mmlens.papers.tables import ExperimentError

DRAW = np.random.default_rng(0)


def clouds(sizes: dict[str, int], moved: dict[str, np.ndarray] | None = None, rng=DRAW):
    """Float[stimulus, dim] by name: noise around 3, and around what is moved."""
    moved = moved or {}
    return {
        name: rng.normal(size=(n, 8)) + 3.0 + moved.get(name, np.zeros(8))
        for name, n in sizes.items()
    }


def test_a_planted_association_is_found_with_its_sign():
    along = np.eye(8)[0] * 4
    groups = clouds({"a": 14, "b": 14, "c": 14}, {"a": along})
    concepts = clouds({"near": 6, "else": 6, "other": 6}, {"near": along})
    table = corrected(associations(groups, concepts, same=True, draws=1999), "p")
    rows = table.set_index(["concept", "group"])
    near = rows.loc[("near", "a")]
    assert near["d"] > 1 and near["d_low"] > 0.8 and near["p_holm"] < 0.01
    assert rows.loc[("near", "b"), "d"] < 0


def test_d_is_the_effect_size_of_the_paper():
    groups, concepts = clouds({"x": 5, "y": 7}), clouds({"c": 4, "e": 4})
    found = associations(groups, concepts, same=False, draws=99).iloc[0]
    unit = lambda v: v / np.linalg.norm(v, axis=-1, keepdims=True)  # noqa: E731
    x = np.concatenate([groups["x"], groups["y"]])
    c = np.concatenate([concepts["c"], concepts["e"]])
    cosines = unit(x - x.mean(0)) @ unit(concepts["c"] - c.mean(0)).T
    s = cosines.mean(1)
    assert found["d"] == pytest.approx((s[:5].mean() - s[5:].mean()) / s.std())
    assert (found["concept"], found["group"], found["n"], found["n_others"]) == ("c", "x", 5, 7)


def test_where_nothing_is_planted_p_is_uniform():
    rng, p = np.random.default_rng(1), []
    for seed in range(250):
        groups, concepts = clouds({"a": 8, "b": 8}, rng=rng), clouds({"c": 5, "e": 5}, rng=rng)
        p.append(associations(groups, concepts, same=True, draws=199, seed=seed)["p"].iloc[0])
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) <= 0.05) < 0.09


def test_what_all_written_words_share_is_no_association():
    """One direction is in every word and in one group's pictures alike: black on white."""
    ink = np.eye(8)[1] * 30
    groups = clouds({"a": 10, "b": 10}, {"a": ink * 0, "b": ink * 0})
    words = clouds({"c": 6, "e": 6}, {"c": ink, "e": ink})
    apart = associations(groups, words, same=False, draws=999)
    assert (apart["p"] > 0.01).all()


def test_a_unit_is_found_where_it_answers_to_both_and_nowhere_else():
    rng = np.random.default_rng(3)
    groups = {name: rng.normal(size=(12, 40)) for name in "ab"}
    concepts = {name: rng.normal(size=(12, 40)) for name in ("c", "e")}
    groups["a"][:, 7] += 4
    concepts["c"][:, 7] += 4
    concepts["e"][:, 9] += 4  # answers to a concept and to no group
    table = corrected(unit_associations(groups, concepts, draws=499), "p_family")
    rows = table.set_index(["concept", "group"])
    planted = rows.loc[("c", "a")]
    assert planted["unit"] == 7 and planted["p_holm"] < 0.05 and planted["z_low"] > 2
    assert (rows.drop(index=("c", "a"))["p_holm"] > 0.05).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Groups and concepts by colour, with a concepts file."""
    root = tmp_path_factory.mktemp("colours")
    colours = {"warm": (220, 60, 50), "cold": (40, 60, 220), "fire": (250, 70, 40),
               "ice": (60, 70, 250)}  # fmt: skip
    for seed, (name, colour) in enumerate(colours.items()):
        (root / name).mkdir()
        for i, one in enumerate(flat(colour, 7, seed)):
            one.save(root / name / f"{i}.png")
    (root / "concepts.yaml").write_text(
        "groups:\n"
        "  warm: {pictures: warm, words: [dog, cat, cats]}\n"
        "  <b>cold: {pictures: [cold/*.png], words: [red, banana, word]}\n"
        "concepts:\n"
        "  fire: {pictures: fire, texts: [a dog, the dog, two cats]}\n"
        "  ice: {pictures: [ice], texts: [a cat, the cat, a word]}\n"
    )
    return root


def test_an_audit_of_pictures_is_a_page_tables_and_json_with_their_origin(folder, tmp_path):
    model = mm.from_model(*hf_clip())
    found = audit_bias(model, folder / "concepts.yaml", tmp_path / "out", draws=499)
    both = found.associations
    own = both[(both["concept_as"] == "pictures") & (both["group_as"] == "pictures")]
    rows = own.set_index(["concept", "group"])
    assert rows.loc[("fire", "warm"), "d"] > 1 and rows.loc[("ice", "warm"), "d"] < -1
    assert set(both["concept_as"]) == {"pictures", "texts"} and (both["p_holm"] >= both["p"]).all()
    assert set(found.units["concept_as"]) == {"pictures"}
    told = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert len(told["associations"]) == len(both) and told["about"]["draws"] == 499
    assert len(told["about"]["sha256"]) == 64 and told["limits"] == found.limits
    page = found.page.read_text()
    assert "<b>cold" not in page and "can&#x27;t show" in page and "audit-bias" in page
    assert all(word in page for word in ("independent", "no absence", "no decision"))
    assert len(pd.read_csv(tmp_path / "out" / "associations.csv")) == len(both)


def test_a_model_without_texts_is_audited_by_its_units(folder, tmp_path):
    found = audit_bias(mm.load("toy-gptj"), folder / "concepts.yaml", tmp_path / "out", draws=99)
    assert set(found.associations["concept_as"]) == {"pictures"}
    assert {"pictures", "words"} == set(found.associations["group_as"])


def test_pictures_in_a_list_of_their_own_count_as_one(folder):
    file = folder / "one.yaml"
    file.write_text(
        "groups:\n"
        "  a: {pictures: [[warm/0.png, warm/1.png], warm/2.png, warm/3.png]}\n"
        "  b: {pictures: cold}\n"
        "concepts:\n  c: {words: [dog, cat, cow]}\n  e: {words: [red, blue, green]}\n"
    )
    given = read_concepts(file)
    assert [len(one) for one in given.groups["a"]["pictures"]] == [2, 1, 1]
    assert len(given.groups["b"]["pictures"]) == 7 and given.kinds(given.concepts) == ["words"]


def test_the_bundled_file_names_things_of_the_bundled_world():
    given = read_concepts()
    assert given.kinds(given.groups) == ["pictures", "words"]
    assert given.kinds(given.concepts) == ["pictures", "words", "texts"]
    assert all(len(one) == 3 for one in given.groups["birds"]["pictures"])


@pytest.mark.parametrize(
    "text, says",
    [
        ("groups: [", "can't be read"),
        ("a: 1", "write the keys groups and concepts"),
        ("groups: {a: {words: [x, y, z]}}\nconcepts: {}", "fewer than two groups"),
        ("groups: {a: {words: [x]}, b: {words: [x, y, z]}}\nconcepts: {}", "fewer than 3 words"),
        ("groups: {a: {word: [x]}, b: {words: [x, y, z]}}\nconcepts: {}", "write its pictures"),
        ("groups: {a: {pictures: nowhere.png}, b: {}}\nconcepts: {}", "no picture 'nowhere.png'"),
        (
            "groups: {a: {texts: [x, y, z]}, b: {texts: [u, v, w]}}\n"
            "concepts: {c: {words: [x, y, z]}, d: {words: [u, v, w]}}",
            "texts alone",
        ),
        (
            "groups: {a: {words: [x, y, z]}, b: {words: [u, v, w]}}\n"
            "concepts: {c: {words: [x, y, z]}, d: {texts: [u, v, w]}}",
            "no kind in common",
        ),
    ],
)
def test_a_concepts_file_in_which_nothing_is_compared_is_refused(tmp_path, text, says):
    file = tmp_path / "concepts.yaml"
    file.write_text(text)
    with pytest.raises(ExperimentError, match=says):
        read_concepts(file)


def test_the_command_writes_a_report(folder, tmp_path):
    asked = ["audit-bias", "toy-gptj", "--concepts", str(folder / "concepts.yaml")]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "out"), "--draws", "99"])
    assert done.exit_code == 0 and "Report:" in done.stdout
    assert (tmp_path / "out" / "report.html").is_file()
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "file")])
    assert done.exit_code == 2 and "is no folder" in done.output


def test_what_a_test_of_these_sizes_can_see_is_what_it_finds_four_times_of_five():
    rng, d, found = np.random.default_rng(5), visible(40, 60), 0
    for _ in range(300):
        one, other = rng.normal(size=40) + d, rng.normal(size=60)
        gap = one.mean() - other.mean()
        found += abs(gap) > 1.96 * np.sqrt(1 / 40 + 1 / 60)
    assert found / 300 == pytest.approx(0.8, abs=0.07)
