"""Metrics of texts: the published values of coco-caption's kin, and what each must do by itself."""

from __future__ import annotations

import json
from itertools import pairwise
from math import exp, isclose
from pathlib import Path

import pytest

from mmlens import metrics
from mmlens.metrics import MetricError, MetricResult, Vocabulary
from mmlens.metrics.subsequence import common_subsequence

TABLES = Path(__file__).parent / "metrics"


def table(name: str):
    return json.loads((TABLES / f"{name}.json").read_text(encoding="utf-8"))


def all_of(candidates, references) -> dict[str, MetricResult]:
    made = [metrics.bleu(candidates, references, n=n) for n in (1, 2, 3, 4)]
    made += [metrics.rouge_l(candidates, references), metrics.cider_d(candidates, references)]
    return {metric.name: metric for metric in made}


# Against other programs ---------------------------------------------------------------------------


@pytest.mark.parametrize("example", table("published"), ids=lambda e: e["candidates"][0])
def test_published_values_come_out(example):
    ours = all_of(example["candidates"], example["references"])
    for name, value in example["values"].items():
        assert ours[name].corpus == pytest.approx(value, abs=example["tolerance"]), name


def test_captions_with_punctuation_score_as_in_coco_caption_item_by_item():
    golden = table("coco_caption")
    candidates = [item["candidate"] for item in golden["items"]]
    ours = all_of(candidates, [item["references"] for item in golden["items"]])
    for name, values in golden["values"].items():
        assert ours[name].corpus == pytest.approx(values["corpus"], abs=1e-6), name
        assert ours[name].items == pytest.approx(values["items"], abs=1e-6), name


@pytest.mark.parametrize("caption, words", table("ptb")["captions"])
def test_captions_are_cut_as_the_java_tokenizer_cuts_them(caption, words):
    assert " ".join(metrics.caption_words(caption)) == words


# By themselves ------------------------------------------------------------------------------------


def test_a_perfect_caption_has_the_best_score_of_every_metric():
    texts = ["a dog on a mat near a door", "two red birds fly over the sea"]
    ours = all_of(texts, [[text] for text in texts])
    assert ours["CIDEr-D"].corpus == pytest.approx(10)
    for name in ("BLEU-1", "BLEU-4", "ROUGE-L"):
        assert ours[name].corpus == pytest.approx(1, abs=1e-6)
    assert metrics.word_overlap_f1(texts, [[text] for text in texts]).items == (1.0, 1.0)


def test_saying_nothing_scores_zero_and_not_an_error():
    ours = all_of(["", "a dog"], [["a dog runs"], ["a dog runs"]])
    assert all(metric.items[0] == pytest.approx(0, abs=1e-12) for metric in ours.values())
    assert metrics.word_overlap_f1([""], [["a dog"]]).corpus == 0


def test_bleu_adds_up_counts_before_it_divides():
    said, true = ["dog cat", "a b c d"], [["dog cat"], ["x y z w"]]
    bleu = metrics.bleu(said, true, n=1)
    assert bleu.corpus == pytest.approx(2 / 6)
    assert bleu.items == pytest.approx((1, 0))


def test_bleu_penalises_what_is_shorter_than_the_closest_reference():
    bleu = metrics.bleu(["a dog"], [["a dog runs on sand", "a dog on sand now and then"]], n=1)
    assert bleu.corpus == pytest.approx(exp(1 - 5 / 2), abs=1e-6)


def test_a_repeated_word_matches_no_more_often_than_a_reference_has_it():
    assert metrics.bleu(["dog dog dog dog"], [["dog cat", "a dog dog"]], n=1).corpus == (
        pytest.approx(2 / 4)
    )


def test_a_common_subsequence_keeps_order_and_allows_gaps():
    assert common_subsequence("adogonamat", "abigdogonmat") == 9
    assert common_subsequence(["b", "a"], ["a", "b"]) == 1
    assert common_subsequence([], ["a"]) == 0


def test_what_every_reference_says_is_worth_nothing_to_cider():
    references = [["a picture of a dog"], ["a picture of a cat"], ["a picture of a bus"]]
    told = metrics.cider_d(["a picture of a", "dog", "bus"], references)
    assert told.items[0] == pytest.approx(0)
    assert told.items[2] > 0 == told.items[1]


def test_one_item_alone_has_no_cider_because_nothing_is_rare():
    assert metrics.cider_d(["a dog"], [["a dog"]]).corpus == 0


# Objects ------------------------------------------------------------------------------------------

PETS = Vocabulary(
    "pets", {"dog": "dog", "puppy": "dog", "cat": "cat", "man": "person", "hot dog": None}
)


@pytest.mark.parametrize(
    "text, objects",
    [
        ("Two DOGS, a puppy and cats.", ["dog", "dog", "cat"]),
        ("The men eat hot dogs.", ["person"]),
        ("a hot dog and a dog's bowl", ["dog"]),
        ("a catalogue of doggerel", []),
    ],
)
def test_a_text_names_objects_in_singular_and_plural_longest_phrase_first(text, objects):
    assert [name for _, name in PETS.mentions(text)] == objects


def test_chair_counts_mentions_per_instance_and_captions_per_sentence():
    said = ["a dog, a cat and a cat", "a dog", "nothing at all"]
    true = [["dog"], ["puppy"], []]
    instance = metrics.chair(said, true, PETS)
    assert (instance.name, instance.corpus) == ("CHAIR-i", pytest.approx(2 / 4))
    assert instance.items == pytest.approx((2 / 3, 0, 0))
    assert {k: instance.settings[k] for k in ("mentions", "hallucinated", "without_mention")} == {
        "mentions": 4, "hallucinated": 2, "without_mention": 1,
    }  # fmt: skip
    sentence = metrics.chair(said, true, PETS, per="sentence")
    assert (sentence.name, sentence.corpus) == ("CHAIR-s", pytest.approx(1 / 3))
    assert sentence.items == (1.0, 0.0, 0.0)


def test_what_a_true_caption_mentions_is_no_hallucination():
    said, true = ["a dog and a cat"], [["dog"]]
    assert metrics.chair(said, true, PETS).corpus == 0.5
    assert metrics.chair(said, true, PETS, captions=[["A cat, asleep."]]).corpus == 0


def test_chair_of_silence_is_zero_and_the_settings_say_why():
    silent = metrics.chair(["it is late"], [["dog"]], PETS)
    assert (silent.corpus, silent.settings["mentions"]) == (0.0, 0)


SYNONYMS = """person, girl, man, child, adult, baby, passenger
dog, puppy
elephant
train, metro
tie
toilet, urinal
chair, seat
wine glass
traffic light, street light
"""


def test_the_synonyms_of_coco_come_from_a_file_with_the_authors_special_cases(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text(SYNONYMS)
    coco = metrics.coco_vocabulary(path)
    said = {
        "a baby elephant": ["elephant"],
        "two men and their children": ["person", "person"],
        "a passenger train in a bow tie": ["train", "tie"],
        "a toilet seat and a seat": ["toilet", "chair"],
        "wine glasses under street lights": ["wine glass", "traffic light"],
        "a hot dog on home plate": [],
        "an adult bear": [],
    }
    assert {text: [name for _, name in coco.mentions(text)] for text in said} == said
    assert coco.name.startswith("coco (synonyms.txt sha256:")


def test_every_caption_of_the_bundled_world_names_what_is_in_the_scene():
    from mmlens.pictos.scene_captions import canonical, paraphrases
    from mmlens.pictos.world import STYLES, World

    vocabulary = metrics.pictos_vocabulary()
    names = World().names
    scenes = [(a,) for a in names] + list(pairwise(names))
    scenes += [(a, a) for a in names]
    for style in STYLES:
        said = [canonical(scene, style) for scene in scenes]
        assert metrics.chair(said, scenes, vocabulary).corpus == 0
        assert metrics.world_score(said, scenes).items == (1.0,) * len(said)
    told = [paraphrases(scene, "literal", "red") for scene in scenes[:50]]
    for texts, scene in zip(told, scenes, strict=False):
        assert metrics.world_score(texts, [scene] * 5, vocabulary).corpus == 1


def test_world_score_is_the_share_of_named_things_that_are_there():
    world = metrics.world_score(["dogs, dog, cat", "fog", "a puppy"], [["dog"]] * 3, PETS)
    assert world.items == (0.5, 0.0, 1.0)
    assert world.settings["without_mention"] == 1


def test_word_overlap_takes_the_best_or_the_mean_reference():
    said, true = ["a red dog"], [["a dog", "a red cat here"]]
    best = metrics.word_overlap_f1(said, true)
    assert best.corpus == pytest.approx(2 * 2 / 5)
    assert metrics.word_overlap_f1(said, true, over="mean").corpus == pytest.approx(
        (4 / 5 + 4 / 7) / 2
    )


# Refusals and form --------------------------------------------------------------------------------

TEXT_METRICS = [metrics.bleu, metrics.rouge_l, metrics.cider_d, metrics.word_overlap_f1]


@pytest.mark.parametrize("metric", TEXT_METRICS)
@pytest.mark.parametrize(
    "candidates, references, sentence",
    [
        ([], [], "there are no candidates"),
        (["a"], [["a"], ["b"]], "1 candidates and 2 references"),
        (["a", "b"], [["a"], []], "item 1 has no reference; leave the item out"),
        ("a dog", [["a dog"]], r"the candidates are one text; write a list, \['a dog'\]"),
        (["a dog"], ["a dog"], r"the references of item 0 are one text; write a list"),
    ],
)
def test_texts_that_do_not_pair_up_are_refused_in_a_sentence(
    metric, candidates, references, sentence
):
    with pytest.raises(MetricError, match=sentence):
        metric(candidates, references)


@pytest.mark.parametrize("metric", [metrics.chair, metrics.world_score])
def test_objects_that_do_not_pair_up_or_do_not_exist_are_refused(metric):
    with pytest.raises(MetricError, match="there are no candidates"):
        metric([], [], PETS)
    with pytest.raises(MetricError, match="1 candidates and 2 lists of objects"):
        metric(["a"], [[], []], PETS)
    with pytest.raises(MetricError, match="'dgo' is no object of the vocabulary 'pets': did you"):
        metric(["a"], [["dgo"]], PETS)
    with pytest.raises(MetricError, match="the objects of item 0 are one text"):
        metric(["a"], ["dog"], PETS)


def test_wrong_options_are_told_the_right_ones(tmp_path):
    with pytest.raises(MetricError, match="write 'instance' or 'sentence'"):
        metrics.chair(["a"], [["dog"]], PETS, per="word")
    with pytest.raises(MetricError, match="write 'best' or 'mean'"):
        metrics.word_overlap_f1(["a"], [["a"]], over="last")
    with pytest.raises(MetricError, match="bleu: n=0: write a whole number from 1 to 100"):
        metrics.bleu(["a"], [["a"]], n=0)
    with pytest.raises(MetricError, match="There is no file of synonyms 'synonyms.txt'"):
        metrics.coco_vocabulary(tmp_path / "synonyms.txt")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(MetricError, match="'empty.txt' has no line"):
        metrics.coco_vocabulary(tmp_path / "empty.txt")


def test_a_metric_says_what_made_it_and_can_be_saved():
    metric = metrics.cider_d(["a dog", "a cat"], [["a dog"], ["a cat"]])
    assert str(metric) == f"CIDEr-D {metric.corpus:.4f} over 2"
    assert isclose(float(metric), metric.corpus)
    assert json.loads(json.dumps(dict(metric.settings))) == {
        "n": 4, "sigma": 6.0, "documents": 2, "tokens": "ptb", "after": "coco-caption",
    }  # fmt: skip


def test_the_table_of_names_is_what_type_checkers_and_users_see():
    for name in metrics.__all__:
        assert getattr(metrics, name).__name__ == name
        assert not (Path(metrics.__file__).parent / f"{name}.py").exists()
    with pytest.raises(AttributeError, match="mmlens.metrics has no 'blue': did you mean 'bleu'"):
        _ = metrics.blue  # type: ignore[attr-defined]


def test_metrics_of_texts_load_no_torch():
    from test_import import loaded_by

    loaded = loaded_by("from mmlens import metrics; metrics.cider_d(['a dog'], [['a dog']])")
    assert not loaded & {"torch", "transformers", "torchmetrics", "numpy", "pandas"}
