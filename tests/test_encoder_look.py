"""A picture held against texts or classes: the units behind each, measured by silencing them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from clip_twins import classifier
from dual_twins import DUALS, timm_clip
from PIL import Image

import mmlens as mm
from mmlens import Edit, Neuron, Patch, Token, view
from mmlens.datasets.sample import Sample, Samples
from mmlens.explore.encoder_units import shown_grid
from mmlens.explore.look import look
from mmlens.explore.many import read_all
from mmlens.values.errors import ArgumentError, CapabilityError, TargetError

pytest.importorskip("open_clip")
DRAW = np.random.default_rng(0)
PHOTO, OTHER = (Image.fromarray((DRAW.random((40, 56, 3)) * 255).astype("uint8")) for _ in range(2))
TEXTS = ("a photo of a dog", "two cats", "a red banana")


def convolutions() -> tuple[Any, Any, Any]:
    """Grids of 16, 8, 4 and 2 rows; 8 are shown."""
    return timm_clip("convnext_atto", dims=(8, 8, 16, 16), depths=(1, 1, 1, 1))


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    made = {"ViT": DUALS["open_clip ViT"](), "ConvNeXt": convolutions()}
    return {name: mm.from_model(*parts, name=name) for name, parts in made.items()} | {
        "classes": classifier()
    }


@pytest.fixture(scope="module", params=["ViT", "ConvNeXt", "classes"])
def case(request, models) -> tuple[Any, Any, Any]:
    """(model, what it is held against, what was seen)."""
    model = models[request.param]
    of = ("dog", "pizza", "red") if request.param == "classes" else TEXTS
    return model, of, look(model, PHOTO, of=of, k=4, full=True)


def logits(model: Any, of: tuple[str, ...]) -> torch.Tensor:
    if model.can("similarity"):
        return model.run([PHOTO, *of])[0]
    return model.run(PHOTO)[0, [model.vision.class_names.index(name) for name in of]]


def probabilities(model: Any, of: tuple[str, ...]) -> torch.Tensor:
    if model.can("similarity"):
        return logits(model, of).softmax(-1)
    every = model.run(PHOTO)[0].softmax(-1)
    return every[[model.vision.class_names.index(name) for name in of]]


def test_the_text_that_fits_best_is_explained_first_and_each_has_its_probability(case):
    model, of, seen = case
    best = int(logits(model, of).argmax())
    assert seen.caption == of[best] and seen.token == Token(of[best], best)
    assert [token.text for token in seen.tokens] == list(of)
    torch.testing.assert_close(seen.before.values, probabilities(model, of))


def test_a_score_is_what_silencing_a_little_takes_from_the_logit(case):
    model, of, seen = case
    for at, token in enumerate(seen.tokens):
        for row in seen.table[seen.table.token == token].head(2).to_dict("records"):
            site = mm.model.readouts.unit_site(model, row["neuron"]).name
            changed = [
                logits(model.edit(Edit(site, lambda x, t=t: x * (1 + t), row["neuron"])), of)[at]
                for t in (-1e-2, 1e-2)
            ]
            slope = float(changed[1] - changed[0]) / 2e-2
            assert row["score"] == pytest.approx(slope, rel=0.05, abs=1e-3)


def test_without_is_the_probability_when_the_unit_is_silent_everywhere(case):
    model, of, seen = case
    for neuron in list(seen.without.of("neuron"))[::5]:
        site = mm.model.readouts.unit_site(model, neuron).name
        right = probabilities(model.edit(Edit(site, 0.0, neuron)), of)
        torch.testing.assert_close(seen.without.sel(neuron=neuron).values, right)
    edits = [
        Edit(mm.model.readouts.unit_site(model, one).name, 0.0, one) for one in seen.neurons.neuron
    ]
    at = seen.tokens.index(seen.token)
    together = seen.together.sel(token=seen.token).item()
    assert together == pytest.approx(float(probabilities(model.edit(*edits), of)[at]), abs=1e-6)


def test_maps_and_activations_stand_on_one_grid_and_no_value_is_lost(models, case):
    model, _, seen = case
    rows, cols = shown_grid(model)
    assert (rows, cols) == ((8, 8) if model is models["ConvNeXt"] else (4, 4))
    patches = tuple(Patch(row, col) for row in range(rows) for col in range(cols))
    assert seen.maps.of("pos") == seen.activations.of("pos") == patches
    total, token = 0.0, seen.token
    given = {"of": token.text, "point": "post"}
    for layer in range(model.vision.n_layers):
        scores = mm.attribute(model, PHOTO, layer=layer, **given)
        scores = scores.sel(pos=Patch) if "pos" in scores.axes else scores
        total += float(scores.values.sum())
    assert float(seen.maps.sel(token=token).values.sum()) == pytest.approx(total, rel=1e-3)
    best = seen.neurons.iloc[0]
    acts = mm.activations(model, PHOTO, None, best.neuron)
    acts = acts.sel(pos=Patch) if "pos" in acts.axes else acts
    shown = seen.activations.sel(neuron=best.neuron)
    if acts.values.numel() >= len(patches):  # of finer cells the largest
        assert float(shown.values.max()) == pytest.approx(float(acts.values.max()))
    fires = seen.firing[(seen.firing["patch"] == patches[0]) & (seen.firing["rank"] == 0)].iloc[0]
    value = seen.activations.sel(neuron=fires.neuron, pos=patches[0]).item()
    assert fires.value == pytest.approx(value)


def test_a_classifier_is_held_against_its_most_probable_classes_unless_some_are_named(models):
    model = models["classes"]
    seen = look(model, PHOTO, k=2)
    order = model.run(PHOTO)[0].argsort(descending=True).tolist()
    assert [token.text for token in seen.tokens] == [model.vision.class_names[i] for i in order]
    assert seen.caption == seen.tokens[0].text
    assert seen.before is None and seen.firing is None
    assert [token.text for token in look(model, PHOTO, of=3).tokens] == ["dog"]


def test_one_text_has_no_probability_of_its_own_where_a_softmax_gives_it(models):
    seen = look(models["ViT"], PHOTO, of=TEXTS[0], full=True)
    assert seen.before is None and seen.without is None
    siglip = mm.from_model(*DUALS["open_clip SigLIP"]())
    seen = look(siglip, PHOTO, of=TEXTS[0], full=True, k=2)
    assert float(seen.before.values) == pytest.approx(
        float(siglip.run([PHOTO, TEXTS[0]]).sigmoid())
    )


def test_what_is_held_against_nothing_is_refused_in_a_sentence(models):
    clip = models["ViT"]
    with pytest.raises(ArgumentError, match="write of='a photo of a dog', or several texts"):
        look(clip, PHOTO)
    with pytest.raises(ArgumentError, match="write every text once"):
        look(clip, PHOTO, of=[TEXTS[0]] * 2)
    with pytest.raises(ArgumentError, match="says nothing and takes no prompt="):
        look(clip, PHOTO, "A picture of", of=TEXTS)
    with pytest.raises(TargetError, match="called 'horse'"):
        look(models["classes"], PHOTO, of="horse")
    features = mm.from_parts(vision=DUALS["open_clip ViT"]()[0].visual, name="bare")
    with pytest.raises(CapabilityError, match="neither compares pictures with texts nor has"):
        look(features, PHOTO, of="dog")


def test_pictures_of_a_data_set_are_read_and_shown_without_the_model(models, tmp_path):
    samples = [Sample(name, one) for name, one in (("a", PHOTO), ("b", OTHER))]
    data = Samples("two", ["a", "b"], samples.__getitem__, "hash")
    found = read_all(models["ViT"], data, tmp_path, of=TEXTS, k=2, progress=False)
    assert found.names == ["a", "b"] and not len(found.failed)
    again = look(models["ViT"], PHOTO, of=TEXTS, k=2, full=True)
    assert found.looks[0].caption == again.caption
    torch.testing.assert_close(found.looks[0].maps.values, again.maps.values)
    neuron = again.neurons.neuron[0]
    assert neuron in set(found.tops.neuron) and isinstance(neuron, Neuron)
    page = view.explore(found.looks, found.names, tops=found.tops)
    assert 'data-says="texts"' in page.html and str(neuron) in page.html
    alone = look(models["ViT"], PHOTO, of=TEXTS[0], k=2, full=True)
    assert "a photo of a dog" in view.explore(alone).html
