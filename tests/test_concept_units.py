"""Cross-format index, conditional probabilities, probes, attacks, Stroop, the blank picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from clip_twins import NAMES, classifier, flat, noise
from PIL import Image

import mmlens as mm
from mmlens import view
from mmlens.methods.linear_probe import LinearProbe
from mmlens.methods.named_classes import named_logits
from mmlens.methods.stroop import AXES
from mmlens.methods.typographic_attack import fractions
from mmlens.values.errors import AddressError, ArgumentError, CapabilityError

GOH = Path(__file__).parent / "data/goh"
FORMATS = ("photo", "drawing", "symbol", "written")


# -- cross-format index ----------------------------------------------------------------------------


def planted(n: int = 12, m: int = 40, units: int = 6, seed: int = 0) -> dict:
    """Responses: unit 0 means the concept, 1 its photos, 2 any written word; the rest is noise."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in FORMATS:
        concept, others = rng.normal(size=(n, units)), rng.normal(size=(m, units))
        concept[:, 0] += 4
        concept[:, 1] += 6 * (name == "photo")
        concept[:, 2] += 50 * (name == "written")
        others[:, 2] += 50 * (name == "written")
        found[name] = (concept, others)
    return found


def test_a_unit_of_the_concept_is_first_and_one_of_photos_or_of_letters_is_nothing():
    table = mm.cross_format_index(planted(), draws=400).set_index("unit")
    assert table.index[0] == 0
    assert table.loc[0, "z"] == pytest.approx(4, abs=0.8) and table.loc[0, "auroc"] > 0.98
    assert table.loc[0, "z_low"] > 2 and table.loc[0, "p_family"] < 0.02
    for unit, strong in ((1, "photo"), (2, None)):
        row = table.loc[unit]
        assert abs(row["z"]) < 0.8 and row["auroc_low"] < 0.5 and row["p"] > 0.05
        if strong:
            assert row[f"z {strong}"] > 4 and row["weakest"] != strong


def test_z_and_auroc_are_the_least_over_formats_of_plain_formulas():
    responses = planted(5, 7, 3)
    row = mm.cross_format_index(responses, draws=50).set_index("unit").loc[1]
    centred = np.concatenate([others[:, 1] - others[:, 1].mean() for _, others in
                              responses.values()])  # fmt: skip
    spread = np.sqrt((centred**2).sum() / (len(centred) - len(FORMATS)))
    for name, (concept, others) in responses.items():
        z = (concept[:, 1].mean() - others[:, 1].mean()) / spread
        area = np.mean([a > b for a in concept[:, 1] for b in others[:, 1]])
        assert row[f"z {name}"] == pytest.approx(z)
        assert row[f"auroc {name}"] == pytest.approx(area)
    assert row["auroc"] == min(row[f"auroc {name}"] for name in FORMATS)


def test_the_p_value_is_not_smaller_than_chance_makes_it_where_three_formats_are_given():
    """A unit that answers in all formats but one is called multimodal in 5 % of worlds at most."""
    ps = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        responses = {}
        for name in FORMATS:
            concept, others = rng.normal(size=(6, 1)), rng.normal(size=(12, 1))
            responses[name] = (concept + 9 * (name != "written"), others)
        ps.append(mm.cross_format_index(responses, draws=200, seed=seed)["p"][0])
    assert np.mean(np.array(ps) <= 0.05) < 0.15 and 0.3 < np.median(ps) < 0.7


def test_a_unit_that_never_moves_has_index_0_and_not_infinity():
    responses = {name: (np.zeros((3, 2)), np.zeros((4, 2))) for name in FORMATS}
    table = mm.cross_format_index(responses, draws=20)
    assert (table["z"] == 0).all() and (table["auroc"] == 0.5).all() and (table["p"] == 1).all()


def test_pictures_are_read_through_any_vision_tower():
    shown = {
        "red": (flat((220, 30, 30), 3), noise(4)),
        "dark": (flat((90, 10, 10), 3, 1), noise(4, seed=1)),
    }
    for model in (classifier(), mm.load("toy-gptj")):
        table = mm.cross_format(model, shown, draws=50)
        assert isinstance(table["neuron"][0], mm.Neuron) and table["neuron"][0].tower == "vision"
        assert table["z"].is_monotonic_decreasing
    with pytest.raises(ArgumentError, match="two formats"):
        mm.cross_format(classifier(), {"red": shown["red"]})


# -- conditional probability -----------------------------------------------------------------------


def test_probabilities_of_a_bucket_are_shares_and_its_edges_count_from_zero():
    values, labels = [0.0, 1.0, 9.0, 10.0], ["cat", "cat", "dog", "cat"]
    table = mm.label_given_activation(values, labels, buckets=2, sd=2.0)
    top = table[table["start"] == 2.5].set_index("label")
    assert table["start"].min() == 0 and top.loc["dog", "end"] == 5
    assert top.loc["dog", "probability"] == 0.5 and top.loc["dog", "n"] == 2
    assert top.loc["dog", "low"] == pytest.approx(0.0126, abs=1e-3)  # Clopper and Pearson, 1 of 2
    assert table.groupby("start")["probability"].sum().tolist() == pytest.approx([1, 1])


def test_activations_of_a_label_are_told_in_standard_deviations_from_zero():
    values = [2.0, 4.0, 6.0, -2.0, -2.0]
    table = mm.activation_given_label(values, ["a", "a", "a", "b", "b"], sd=2.0)
    assert table["label"].tolist() == ["a", "b"]
    assert table["median"].tolist() == [2.0, -1.0] and table["spread"][0] == pytest.approx(1.0)


def test_as_many_pictures_of_each_bucket_are_chosen_for_labelling():
    rng = np.random.default_rng(0)
    values = rng.normal(size=2000)
    chosen = mm.to_label(values, 5, buckets=6)
    sizes = [len(one) for one in chosen.values()]
    assert max(sizes) == 5 and len(sizes) == 6
    means = [values[one].mean() for one in chosen.values() if one]
    assert means == sorted(means)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_directions_are_drawn_with_the_tables_numbers(theme, tmp_path):
    values, labels = list(range(40)), ["dog" if i > 25 else "cat" for i in range(40)]
    view.use_theme(theme)
    try:
        one = view.conditional(mm.label_given_activation(values, labels, buckets=4))
        drawn = {t.name: list(t.y) for t in one.data if t.name}
        assert drawn["dog"][-1] == 1.0 and drawn["cat"][0] == 1.0
        other = view.conditional(mm.activation_given_label(values, labels))
        medians = next(t for t in other.data if t.mode == "markers")
        assert list(medians.text) == ["dog", "cat"] and medians.x[0] > medians.x[1]
        for figure in (one, other):
            assert "zero" in view.save(figure, tmp_path / f"{theme}.svg").read_text()
    finally:
        view.use_theme("auto")
    with pytest.raises(AddressError, match="activation_given_label"):
        view.conditional(pd.DataFrame({"label": ["a"]}))


# -- probes ----------------------------------------------------------------------------------------


def coloured() -> tuple[list[Image.Image], list[str]]:
    shades = {"red": (220, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 220)}
    pictures = [one for i, c in enumerate(shades.values()) for one in flat(c, 12, i)]
    return pictures, [name for name in shades for _ in range(12)]


def test_a_linear_probe_tells_classes_apart_that_are_linear_in_the_units():
    pictures, labels = coloured()
    for model in (classifier(), mm.load("toy-gptj")):
        probe = mm.linear_probe(model, pictures[::2], labels[::2])
        assert probe.accuracy(model, pictures[1::2], labels[1::2]) > 0.9
        assert probe.accuracy(model, pictures[1::2], labels[1::2], k=3) == 1.0
    assert set(probe.classes) == {"red", "green", "blue"}


def test_the_probe_is_at_the_minimum_of_its_loss():
    pictures, labels = coloured()
    model = classifier()
    probe = mm.linear_probe(model, pictures, labels, l2=0.1)
    x = mm.unit_responses(model, pictures, over="mean").values
    spread = x.std(0, correction=0)
    w = (probe.weights * spread).clone().requires_grad_()
    target = torch.tensor([probe.classes.index(one) for one in labels])
    logits = (x / spread) @ w.T + probe.bias
    loss = torch.nn.functional.cross_entropy(logits, target) + 0.05 * (w**2).sum()
    assert torch.autograd.grad(loss, w)[0].abs().max() < 1e-3


def test_a_sparse_probe_has_so_many_units_per_class_and_finds_the_planted_ones(monkeypatch):
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(300, 20)), dtype=torch.float32)
    labels = ["a" if row[3] + row[7] > 0 else "b" for row in x]
    fake = mm.Scores(x, ("picture", "unit"), {}, {"layer": 1, "site": "vision.neurons"})
    monkeypatch.setattr("mmlens.methods.linear_probe.unit_responses", lambda *a, **k: fake)
    probe = mm.sparse_probe(classifier(), [None] * 300, labels, 2)
    assert ((probe.weights != 0).sum(1) == 2).all()
    assert {one.unit for one in probe.units(2)["neuron"]} == {3, 7}
    right = [
        probe.classes[i] == want for i, want in zip(probe.on(x).argmax(1), labels, strict=True)
    ]
    assert np.mean(right) > 0.95


def test_labels_and_pictures_are_as_many_and_of_two_classes():
    with pytest.raises(ArgumentError, match="as many"):
        mm.linear_probe(classifier(), noise(2), ["a"])
    with pytest.raises(ArgumentError, match="two classes"):
        mm.linear_probe(classifier(), noise(2), ["a", "a"])


# -- attacks ---------------------------------------------------------------------------------------


def test_the_four_fractions_are_counted_as_the_paper_counts_them():
    before = ["pizza", "pizza", "dog", "dog", "dog"]
    after = ["pizza", "dog", "pizza", "dog", "cat"]
    found = fractions(before, after, "pizza")
    assert found["fraction_changed_to"] == 0.2 and found["fraction_already_equal"] == 0.2
    assert found["fraction_changed_away"] == 0.2
    assert found["fraction_both_results_not_target"] == pytest.approx(0.4)


def test_the_table_of_attacks_has_the_columns_of_the_published_one():
    published = json.loads((GOH / "goh_typographic_attacks.json").read_text())
    model, pictures = classifier(), noise(4, 60)
    labels = named_logits(model, [one.resize((288, 288)) for one in pictures]).best
    table = mm.typographic_attack(model, pictures, {"pizza": "pizza", "dog": "$$$"}, labels=labels)
    assert set(published["attacks"][0]) <= set(table.columns)
    parts = [c for c in table.columns if c.startswith("fraction_")]
    assert table[parts].sum(axis=1).tolist() == pytest.approx([1, 1])
    assert (table["avg_img_l0_norm_diff"].between(0.05, 0.1)).all()
    assert (table["low"] <= table["fraction_changed_to"]).all()


def test_a_probe_that_reads_white_letters_is_fooled_and_says_so():
    model, pictures = classifier(), flat((20, 20, 20), 1) * 6
    attacked = [mm.datasets.written_over(one.resize((288, 288)), "iPod") for one in pictures]
    probe = mm.linear_probe(
        model, [*pictures[:3], *attacked[:3]], ["dog"] * 3 + ["iPod"] * 3, layer=0
    )
    table = mm.typographic_attack(
        model, pictures[3:], {"iPod": "iPod"}, probe=probe, labels=["dog"] * 3
    )
    row = table.iloc[0]
    assert row["classifier"] == "linear probe" and row["fraction_changed_to"] == 1.0
    assert row["baseline_accuracy"] == 1.0 and row["accuracy"] == 0.0


def test_an_attack_needs_a_target_that_can_be_answered():
    with pytest.raises(ArgumentError, match="toaster"):
        mm.typographic_attack(classifier(), noise(1), {"toaster": "toaster"})
    with pytest.raises(CapabilityError, match="linear_probe"):
        mm.typographic_attack(mm.load("toy-gptj"), noise(1), {"dog": "dog"}, ["dog"])


# -- Stroop ----------------------------------------------------------------------------------------


def published() -> mm.Scores:
    probs = json.loads((GOH / "goh_stroop.json").read_text())["probs"]
    inks, words = list(probs), list(next(iter(probs.values())))
    values = torch.tensor([[[probs[i][w][a] for a in inks] for w in words] for i in inks])
    return mm.Scores(
        values, AXES, {"ink": tuple(inks), "word": tuple(words), "answer": tuple(inks)}
    )


def test_rates_of_the_published_table_are_the_published_ones():
    rates = mm.stroop_rates(published()).set_index("condition")
    assert rates["n"].to_dict() == {"congruent": 7, "incongruent": 49, "neutral": 8}
    assert rates.loc["incongruent", ["ink", "word"]].tolist() == [0.0, 1.0]
    assert rates.loc["congruent", "ink"] == 1.0 and rates.loc["neutral", "ink"] == 1.0
    assert np.isnan(rates.loc["neutral", "word"])
    assert rates.loc["incongruent", "ink_high"] == pytest.approx(0.0725, abs=1e-3)


def test_a_table_is_told_in_the_form_of_the_published_one():
    probs = json.loads((GOH / "goh_stroop.json").read_text())["probs"]
    told = mm.stroop_probs(published())
    assert told["red"]["green"]["green"] == pytest.approx(probs["red"]["green"]["green"], rel=1e-5)
    assert {ink: list(row) for ink, row in told.items()} == {i: list(r) for i, r in probs.items()}


def test_pictures_of_every_ink_and_word_are_asked_in_order():
    inks, words = ["red", "green", "blue"], ["example", "red", "blue"]
    found = mm.stroop(classifier(), inks=inks, words=words, size=0.4)
    assert found.axes == AXES and found.shape == (3, 3, 3)
    assert torch.allclose(found.values.sum(-1), torch.ones(3, 3), atol=1e-5)
    picture = mm.datasets.written("blue", (32, 32), size=0.4, ink="green")
    alone = named_logits(classifier(), [picture], inks).values[0].softmax(-1)
    assert torch.allclose(found.sel(ink="green", word="blue").values, alone, atol=1e-5)
    with pytest.raises(ArgumentError, match="no colour"):
        mm.stroop(classifier(), inks=["red", "reddish"])


# -- the blank picture -----------------------------------------------------------------------------


def test_raising_a_unit_on_a_blank_picture_moves_logits_as_a_hook_does():
    model, neuron = classifier(), mm.Neuron(1, 5, "vision")
    table = mm.blank_check(model, neuron, list(NAMES), [2.0], randoms=4)
    blank = Image.new("RGB", (224, 224), "grey")

    def lift(value, hook):
        value[..., 5] += 2.0
        return value

    with torch.no_grad():
        plain = model.run(blank)[0]
        with model.hooks(fwd_hooks=[("vision.blocks.1.mlp.hook_post", lift)]):
            raised = model.run(blank)[0]
    assert np.allclose(table["change"], (raised - plain).numpy(), atol=1e-4)
    assert table["p"].between(1 / 5, 1).all()


def test_a_planted_unit_raises_its_text_more_than_all_others_do():
    model = classifier(3)
    neuron = mm.Neuron(1, 7, "vision")
    w_out = model.vision.weights(1)[1]
    head = next(
        m for m in model.vision.classifier.modules()
        if isinstance(m, torch.nn.Linear) and m.out_features == len(NAMES)
    )  # fmt: skip
    with torch.no_grad():
        before = w_out[7].clone()
        w_out[7] = 3 * head.weight[NAMES.index("pizza")]
    try:
        table = mm.blank_check(model, neuron, list(NAMES), [1.0], randoms=19)
    finally:
        with torch.no_grad():
            w_out[7] = before
    best = table.sort_values("change").iloc[-1]
    assert best["text"] == "pizza" and best["p"] == pytest.approx(1 / 20)


def test_a_unit_of_another_tower_is_refused():
    with pytest.raises(AddressError, match="vision"):
        mm.blank_check(classifier(), mm.Neuron(1, 5), ["dog"])
    assert LinearProbe.__name__ == "LinearProbe"


# -- dual encoders ---------------------------------------------------------------------------------


def test_a_dual_encoder_is_asked_by_its_texts_in_every_question():
    from dual_twins import DUALS

    module, preprocess, tokenizer = next(iter(DUALS.values()))()
    model, pictures = mm.from_model(module, preprocess, tokenizer), noise(2)
    found = named_logits(model, pictures, ["dog", "cat"])
    assert found.classifier == "zero-shot"
    texts = ["a photo of a dog", "a photo of a cat"]
    expected = mm.zero_shot(model, pictures, texts).sel(quantity="logit").values
    assert torch.allclose(found.values, expected.float(), atol=1e-4)
    table = mm.typographic_attack(model, pictures, {"cat": "cat"}, ["dog", "cat"])
    assert table["classifier"].tolist() == ["zero-shot"]
    raised = mm.blank_check(model, mm.Neuron(1, 3, "vision"), texts, [2.0], randoms=2)
    edited = model.edit(mm.Edit("vision.neurons", 2.0, mm.Neuron(1, 3, "vision"), add=True))
    blank = Image.new("RGB", (224, 224), "grey")
    own = mm.zero_shot(edited, blank, texts).sel(quantity="logit").values.flatten()
    assert np.allclose(raised["logit"], own.numpy(), atol=1e-3)
    assert mm.word_probe(model, ["dog"], sizes=[0.4], at=[(0.5, 0.5)]).axes == ("word", "unit")
