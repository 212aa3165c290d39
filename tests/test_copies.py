"""A bridge can be copied, pickled and loaded anywhere, and nothing of this machine goes along."""

from __future__ import annotations

import copy
import json
import pickle
import re
from typing import Any

import pytest
import torch
from bridges import off
from huggingface_hub import errors as hub_errors

import mmlens as mm
from mmlens.checkpoints.folder import save
from mmlens.datasets.sources import open_pairs
from mmlens.families import load
from mmlens.families.parts import from_parts
from mmlens.families.toy import picture, tokenizer
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.towers.language.language_model import wrap_lm
from mmlens.train.features import cache_features
from mmlens.train.training import fit
from mmlens.values.errors import ArgumentError, CapabilityError, ModelError
from mmlens.values.hub_errors import unfound
from mmlens.values.placeless import placeless
from mmlens.values.prompt import Prompt

PROMPT = Prompt(picture(), "A picture of")
WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}


def halve(values: torch.Tensor, hook: Any) -> torch.Tensor:
    return values / 2


@pytest.fixture(scope="module", params=["toy-gptj", "toy-gpt2-folded", "limber-clip"])
def model(request) -> Any:
    if request.param.startswith("limber"):
        return load(request.param, twin=True)
    name, _, folded = request.param.partition("-folded")
    return load(name, fold_ln=bool(_) or bool(folded))


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_computes_the_same_and_has_weights_of_its_own(model, way):
    edited = model.edit(mm.Edit("neurons", 0.0, layer=0, unit=slice(0, 20)))
    edited.add_hook("blocks.1.hook_resid_pre", halve)
    with torch.no_grad():
        plain, changed = model(PROMPT), edited(PROMPT)
        assert off(plain, changed) > 1e-3
        twin, other = WAYS[way](model), WAYS[way](edited)
        assert torch.equal(twin(PROMPT), plain) and torch.equal(other(PROMPT), changed)
        assert twin.root is twin.lm.root and list(twin.hook_dict) == list(model.hook_dict)
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(model(PROMPT), plain)
    assert (twin.name, twin.provenance, twin.cfg.d_mlp) == (
        model.name,
        model.provenance,
        model.cfg.d_mlp,
    )


@pytest.mark.parametrize("way", WAYS)
def test_parts_and_prompts_can_be_copied_too(way):
    toy = load("toy-gptj")
    again = from_parts(WAYS[way](toy.vision), toy.projection, WAYS[way](toy.lm))
    soft = WAYS[way](toy.embed(PROMPT))
    with torch.no_grad():
        assert torch.equal(again(PROMPT), toy(PROMPT))
        assert torch.equal(toy(soft), toy(PROMPT))
    assert soft.labels == toy.embed(PROMPT).labels


def test_a_bridge_around_a_transformer_lens_model_is_copied_and_not_pickled():
    toy = load("toy-gptj")
    bare = HookedVLM(toy.vision, toy.projection, wrap_lm(toy.lm.root, tokenizer()), name="bare")
    twin = copy.deepcopy(bare)
    with torch.no_grad():
        plain = bare(PROMPT)
        assert torch.equal(twin(PROMPT), plain)
        for parameter in twin.root.parameters():
            parameter.zero_()
        assert torch.equal(bare(PROMPT), plain)
    with pytest.raises(CapabilityError, match=r"cannot be pickled.*wrap_lm\(hugging_face_model\)"):
        pickle.dumps(bare)


def test_a_function_that_cannot_be_pickled_is_named_and_copied_all_the_same():
    toy = load("toy-gptj")
    edited = toy.edit(mm.Edit("neurons", lambda values: values / 2, layer=0))
    with pytest.raises(CapabilityError, match="has edits whose function cannot be pickled"):
        pickle.dumps(edited)
    toy.add_hook("blocks.1.hook_resid_pre", lambda values, hook: values / 2)
    with pytest.raises(CapabilityError, match="has hooks whose function cannot be pickled"):
        pickle.dumps(toy)
    with torch.no_grad():
        for one in (edited, toy):
            assert torch.equal(copy.deepcopy(one)(PROMPT), one(PROMPT))


# --- inference mode -----------------------------------------------------------------------------


def test_inference_mode_changes_no_number_and_hinders_no_gradient():
    pair = mm.patching.Pair(PROMPT, Prompt(picture((0, 0)), "A picture of"))

    def answers(model: Any) -> list[torch.Tensor]:
        given: dict[str, Any] = {"of": " dog", "after": ""}
        soft = model.embed(PROMPT)
        return [
            model(PROMPT),
            mm.attribute(model, PROMPT, **given).values,
            mm.attribute(model, soft, **given).values,
            mm.integrated_gradients(model, PROMPT, **given, steps=2, layer=1).values,
            mm.attribute_picture(model, PROMPT, **given).values,
            mm.patching.attribution_patching(model, pair, lambda logits: logits[7]).values,
        ]

    before = load("toy-gptj")
    wanted = answers(before)
    with torch.inference_mode():
        made = load("toy-gptj")
        for model in (before, made):
            for ours, theirs in zip(answers(model), wanted, strict=True):
                assert off(ours, theirs) < 1e-5 and not ours.is_inference()
    for ours, theirs in zip(answers(made), wanted, strict=True):
        assert off(ours, theirs) < 1e-5


def test_without_gradients_integrated_gradients_are_the_same():
    toy = load("toy-gptj")
    given = {"of": " dog", "after": "", "steps": 2, "layer": 0}
    wanted = mm.integrated_gradients(toy, PROMPT, **given).values
    with torch.no_grad():
        assert torch.equal(mm.integrated_gradients(toy, PROMPT, **given).values, wanted)


def test_parts_made_in_inference_mode_are_refused_at_the_door():
    toy = load("toy-gptj")
    with torch.inference_mode():
        lm = type(toy.lm.hf)(toy.lm.hf.config)
        linear = torch.nn.Linear(16, 32)
        encoder = type(toy.vision.module)(toy.vision.module.config)
    for parts in ({"lm": lm}, {"projection": linear}, {"vision": encoder}):
        given: Any = {"vision": toy.vision, "lm": toy.lm, "tokenizer": tokenizer()} | parts
        with pytest.raises(CapabilityError, match=r"made inside torch.inference_mode\(\)"):
            from_parts(**given)


# --- options of load, and names -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name, option, sentence",
    [
        ("toy-gptj", {"dtpe": 1}, r"takes no dtpe="),
        ("toy-gptj", {"sead": 1}, r"takes no sead=: did you mean 'seed'"),
        ("pictos", {"verfy": False}, r"takes no verfy=: did you mean 'verify'"),
        ("limber-beit", {"project": "x"}, r"takes no project=: did you mean 'proj'"),
    ],
)
def test_an_unknown_option_is_answered_with_the_nearest(name, option, sentence, tmp_path):
    with pytest.raises(ArgumentError, match=sentence):
        load(name, **option)
    bridge = save(load("toy-gptj"), tmp_path / "bridge")
    with pytest.raises(ArgumentError, match="takes no colour="):
        load(bridge, colour="red")


def test_an_exact_name_that_cannot_be_fetched_is_not_answered_with_itself():
    toy = load("toy-gptj")
    for parts in ({"lm": "gpt2"}, {"vision": "google/vit-base-patch16-224"}):
        given: dict[str, Any] = {"vision": toy.vision, "lm": toy.lm} | parts
        with pytest.raises(ModelError, match=r"could not be fetched \(offline") as refused:
            from_parts(**given)
        assert "did you mean" not in str(refused.value)


@pytest.mark.parametrize(
    "kind, why",
    [
        ("RepositoryNotFoundError", "the hub has none of that name"),
        ("GatedRepoError", "asks for a login"),
        ("LocalEntryNotFoundError", "cannot be reached"),
    ],
)
def test_why_the_hub_gave_nothing_is_told_apart(kind, why, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = getattr(hub_errors, kind)
    cause = found.__new__(found)
    error = OSError("We could not do it")
    error.__cause__ = cause
    assert why in str(unfound("encoder", "me/mine", error, ["me/yours"]))


# --- no folder of this machine ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, kept",
    [
        ("'/home/ada/my photos/dog.jpg' is no picture", "'dog.jpg' is no picture"),
        ("cannot identify /data/x/cat.png.", "cannot identify cat.png."),
        (r"C:\Users\ada\cat.png is cut", "cat.png is cut"),
        ("'~/photos/a.png' and ~/b.png", "'a.png' and b.png"),
        ("https://hub.org/me/model and google/vit and 3/4", None),
        ("and/or, a / b, <picture 8x8>, 'blocks.1.mlp'", None),
    ],
)
def test_absolute_paths_are_cut_down_to_their_last_piece(text, kept):
    assert placeless(text) == (kept or text)
    assert placeless({text: [text, 1]}) == {kept or text: [kept or text, 1]}


def test_no_folder_of_this_machine_is_written_with_a_trained_bridge(tmp_path, monkeypatch):
    data = tmp_path / "my photos"
    data.mkdir()
    for i in range(5):
        picture(seed=i).save(data / f"{i}.png")
        (data / f"{i}.txt").write_text("a dog")
    (data / "broken.png").write_bytes(b"no picture")
    (data / "broken.txt").write_text("a cat")
    (tmp_path / "table").mkdir()
    rows = [{"file_name": str(data / name), "caption": "a dog"} for name in ("0.png", "gone.png")]
    (tmp_path / "table/captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    toy = load("toy-gptj")
    for number, source in enumerate((data, tmp_path / "table")):
        pairs = open_pairs(source, skip_bad=True)
        cached = cache_features(toy.vision, open_pairs(source, skip_bad=True), tmp_path / "cache")
        for kind, given in (("pixels", pairs), ("features", cached)):
            out = tmp_path / f"{kind}-{number}"
            trained = fit(toy, given, out=out, steps=3, batch_size=3)
            assert trained.provenance["bad_pictures"] == 1
            assert any(re.search("broken|gone", why) for why in trained.provenance["bad"].values())
    written = [*tmp_path.glob("pixels*/**/*"), *tmp_path.glob("features*/**/*")]
    written += [*tmp_path.glob("cache/**/*")]
    assert len([path for path in written if path.is_file()]) > 30
    for path in written:
        assert not path.is_file() or str(tmp_path).encode() not in path.read_bytes(), path
