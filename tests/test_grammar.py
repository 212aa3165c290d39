"""One grammar: a neuron, several of them, words, prompts and pictures are given in one way."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pandas as pd
import pytest
import torch

import mmlens as mm
from mmlens import patching, view
from mmlens.families import toy
from mmlens.model import targets
from mmlens.patching import Pair, metrics
from mmlens.values.errors import AddressError, ArgumentError, MMLensError, PromptError
from mmlens.values.labels import Marker
from mmlens.values.unit_lists import has_units, units_in

WORDS = "A picture of"
NEURONS = [mm.Neuron(1, 5), mm.Neuron(0, 82), mm.Neuron(2, 3)]


@pytest.fixture(scope="module")
def model() -> Any:
    return mm.load("toy-gptj-planted")


@pytest.fixture(scope="module")
def prompts() -> list[mm.Prompt]:
    return [mm.Prompt(toy.picture(at), WORDS) for at in ((2, 1), (0, 0))]


@pytest.fixture(scope="module")
def scores(model, prompts) -> mm.Scores:
    return mm.attribute(model, prompts[0], " dog", after="")


LABELS = [
    mm.Patch(5, 2), mm.Patch(5, 2, 1), mm.Patch(0, 3, 0, 2), mm.Neuron(3, 17),
    mm.Neuron(3, 17, "vision"), mm.Neuron(3, 17, expert=0), mm.Head(3, 5),
    mm.Head(3, 5, "vision"), mm.Token(" it's", 7), Marker("newline", 4),
]  # fmt: skip


@pytest.mark.parametrize("label", LABELS, ids=repr)
def test_what_a_label_prints_can_be_pasted(label):
    names = {"Patch": mm.Patch, "Neuron": mm.Neuron, "Head": mm.Head, "Token": mm.Token}
    assert eval(repr(label), {**names, "Marker": Marker}) == label
    assert pickle.loads(pickle.dumps(label)) == copy.deepcopy(label) == label
    if isinstance(label, mm.Neuron | mm.Head):
        assert type(label)(str(label)) == label and hash(type(label)(str(label))) == hash(label)


@pytest.mark.parametrize("wrong", [("nope",), (3,), ("L3.17", 4)], ids=repr)
def test_what_names_no_neuron_is_refused_in_a_sentence(wrong):
    with pytest.raises(MMLensError, match=r"L14\.2019"):
        mm.Neuron(*wrong)


FORMS: dict[str, Any] = {
    "list": NEURONS,
    "tuple": tuple(NEURONS),
    "texts": [str(one) for one in NEURONS],
    "series": pd.Series(NEURONS, name="neuron"),
    "array": pd.Series(NEURONS).to_numpy(),
    "table": pd.DataFrame({"score": [3.0, 2.0, 1.0], "neuron": NEURONS}),
}


@pytest.mark.parametrize("form", FORMS)
def test_several_neurons_are_read_from_every_form(form):
    assert has_units(FORMS[form]) and units_in(FORMS[form], "neurons") == NEURONS
    assert not has_units([*NEURONS, 5]) and not has_units(" dog") and not has_units([])
    with pytest.raises(AddressError, match="5 is none"):
        units_in([*NEURONS, 5], "neurons")


@pytest.mark.parametrize("form", FORMS)
def test_every_verb_takes_every_form_of_neurons_and_one_gives_the_same(
    form, model, prompts, scores
):
    several, metric = FORMS[form], metrics.logit(model, " dog")
    acts = mm.activations(model, prompts[0], several)
    whole = mm.activations(model, prompts[0], "neurons")
    for one in NEURONS:
        assert torch.equal(acts.sel(one).values, whole.sel(one).values)
        assert torch.equal(scores.sel(several).sel(one).values, scores.sel(one).values)
    assert scores.sel(several).axes == ("neuron", "pos")
    pair = Pair(*prompts)
    moved = patching.patch(model, pair, metric, "neurons", several)
    assert moved.of("neuron") == tuple(NEURONS)
    assert moved.sel(NEURONS[0]).item() == pytest.approx(
        patching.patch(model, pair, metric, "neurons", "L1.5").item(), abs=1e-5
    )
    assert list(mm.decode(model, several).neuron) == NEURONS
    assert patching.written_by(model, several).axes == ("neuron", "dim")
    gone = model.edit(mm.Edit("neurons", 0.0, several))
    assert not mm.activations(gone, prompts[0], several).values.any()
    sent = patching.path_patching(model, pair, metric, several)
    assert sent.of("sender") == tuple(NEURONS)


def test_one_neuron_is_taken_as_it_prints(model, prompts, scores):
    assert torch.equal(scores.sel("L1.5").values, scores.sel(NEURONS[0]).values)
    assert list(mm.decode(model, "L1.5").neuron) == [NEURONS[0]]
    explained = mm.attribute(model, prompts[0], of="L1.5", layer=0)
    assert torch.equal(
        explained.values, mm.attribute(model, prompts[0], of=NEURONS[0], layer=0).values
    )
    with pytest.raises(AddressError, match="names no layer|no layer|There is no"):
        mm.activations(model, prompts[0], "L9.5")


def test_heads_have_an_axis_of_their_own(model, prompts):
    heads = [mm.Head(1, 1), mm.Head(0, 0)]
    z = mm.activations(model, prompts[0], heads)
    assert z.axes == ("head", "pos", "dim")
    whole = mm.activations(model, prompts[0], "z")
    assert torch.equal(z.sel(heads[0]).values, whole.sel(layer=1, head=1).values)
    with pytest.raises(AddressError, match="no list of Neurons or Heads"):
        whole.sel([mm.Head(1, 1), mm.Neuron(0, 1)])


def test_several_words_are_explained_beside_each_other(model, prompts):
    words = [" dog", " cat"]
    both = mm.attribute(model, prompts[0], of=words, after="")
    assert both.axes == ("token", "layer", "pos", "unit") and list(both.of("token")) == words
    for word in words:
        alone = mm.attribute(model, prompts[0], of=word, after="")
        assert torch.equal(both.sel(token=word).values, alone.values)
    summed = mm.integrated_gradients(model, prompts[0], of=words, after="", steps=2, layer=0)
    seen = mm.attribute_picture(model, prompts[0], of=words, after="", steps=2)
    assert summed.axes[0] == seen.axes[0] == "token"
    assert all(word in both.about["of"] for word in words)


def test_words_of_one_caption_are_explained_where_each_stands(model, prompts, monkeypatch):
    words = [" dog", " cat"]
    said = [model.to_single_token(word) for word in words]
    monkeypatch.setattr(targets, "caption", lambda *args, **options: said)
    both = mm.attribute(model, prompts[0], of=words)
    for word in words:
        alone, found = mm.attribute(model, prompts[0], of=word), both.sel(token=word).values
        n = len(alone.of("pos"))
        assert torch.allclose(found[:, :n], alone.values, atol=1e-6)
        assert not found[:, n:].any()  # what comes after a word has no part in it
    assert len(both.of("pos")) == len(alone.of("pos"))


def test_several_prompts_are_asked_beside_each_other(model, prompts):
    both = mm.attribute(model, prompts, of=" dog", after="")
    assert both.axes == ("prompt", "layer", "pos", "unit")
    for at, prompt in enumerate(prompts):
        alone = mm.attribute(model, prompt, of=" dog", after="")
        assert torch.equal(both.sel(prompt=at).values, alone.values)
    assert len(both.about["prompt"]) == 2
    read = mm.logit_lens(model, prompts, [" dog"])
    assert torch.equal(read.values[1], mm.logit_lens(model, prompts[1], [" dog"]).values)
    table = mm.logit_lens(model, [*prompts, WORDS], k=2)
    assert list(table.columns[:2]) == ["prompt", "layer"] and set(table.prompt) == {0, 1, 2}
    with pytest.raises(PromptError, match="prompts of one layout"):
        mm.attribute(model, [prompts[0], WORDS], of=" dog", after="")
    with pytest.raises(PromptError, match="at least one"):
        mm.logit_lens(model, [])


def test_one_spelling_is_answered_with_the_other(model, prompts):
    for call in (
        lambda: mm.attribute(model, prompts[0], " dog", after="", layers=[0]),
        lambda: mm.activations(model, prompts[0], "neurons", layers=[0]),
        lambda: mm.logit_lens(model, prompts[0], layers=[0]),
        lambda: patching.knockout(0, -1, layers=[0]),  # type: ignore[call-arg]
    ):
        with pytest.raises(ArgumentError, match=r"write layer=, which takes one label or several"):
            call()
    with pytest.raises(ArgumentError, match="did you mean 'steps'"):
        mm.integrated_gradients(model, prompts[0], " dog", after="", step=2)  # type: ignore[call-arg]


def test_a_pair_of_numbers_is_a_patch_everywhere(model, prompts, scores):
    there = scores.sel(pos=mm.Patch(2, 1)).values
    assert torch.equal(scores.sel(pos=(2, 1)).values, there)
    metric, pair = metrics.logit(model, " dog"), Pair(*prompts)
    named = patching.patch(model, pair, metric, pos={"a": (2, 1)}, layer=0)
    alone = patching.patch(model, pair, metric, pos=[mm.Patch(2, 1)], layer=0)
    assert named.values.flatten().tolist() == pytest.approx(alone.values.flatten().tolist())
    with pytest.raises(AddressError, match="could be a patch or several positions"):
        patching.patch(model, pair, metric, pos={"a": (2, 1, 0)}, layer=0)


def test_views_take_the_numbers_first_and_the_picture_second(prompts, scores):
    (photo,), flat = prompts[0].pictures, scores.sum("unit")
    maps = flat.sum("layer")
    for drawn, numbers in ((view.on_image, maps), (view.panels, flat), (view.show, maps)):
        told, swapped = drawn(numbers, photo), drawn(photo, numbers)
        assert told.to_json() == swapped.to_json()
    assert view.heatmap(torch.eye(3)).data and view.show(torch.eye(3).numpy()).data


def test_what_is_looked_at_and_found_can_be_saved(model, prompts, tmp_path, scores):
    seen = mm.look(model, prompts[0].pictures[0], WORDS, k=2, max_new_tokens=1)
    page = view.save(seen, tmp_path / "seen.html").read_text()
    assert page == view.save(view.explore(seen), tmp_path / "again.html").read_text()
    assert page.startswith("<!") and "<iframe" in seen._repr_html_()
    assert view.save(scores.sum("unit"), tmp_path / "a.svg").stat().st_size > 0
    assert view.save(mm.decode(model, "L1.5"), tmp_path / "b.html").stat().st_size > 0
    with pytest.raises(AddressError, match="no figure"):
        view.save(3, tmp_path / "c.html")


def test_the_gallery_takes_the_data_that_was_asked(model):
    data = mm.dataset("pictos:held_out:2")
    table = mm.top_images(model, data, "L1.5", 1)
    by_hand = {sample: data[data.ids.index(sample)].image for sample in table["sample"]}
    assert view.gallery(table, data) == view.gallery(table, by_hand)
