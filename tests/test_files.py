"""A bridge survives its folder, and a folder can't hurt whoever opens it."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmlens.checkpoints.folder import load, save
from mmlens.checkpoints.hub import pull_projection, push_projection
from mmlens.checkpoints.weights import read_state, weights_hash
from mmlens.families import load as load_model
from mmlens.families.parts import from_parts
from mmlens.families.toy import picture, tokenizer
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.towers.language.language_model import wrap_lm
from mmlens.values.edit import Edit
from mmlens.values.errors import CapabilityError, CheckpointError, ModelError
from mmlens.values.prompt import Prompt

PROMPT = Prompt(picture(), "A picture of")


@pytest.fixture(scope="module")
def toy():
    return load_model("toy-gptj")


@pytest.fixture
def folder(toy, tmp_path):
    return save(toy, tmp_path / "bridge")


@pytest.mark.parametrize("name", ["toy-llama", "limber-beit", "limber-clip", "limber-nfrn50"])
def test_a_saved_bridge_gives_the_same_logits(name, tmp_path):
    model = load_model(name, **({"twin": True} if name.startswith(("limber", "smol")) else {}))
    again = load(save(model, tmp_path / "bridge"), verify=True)
    with torch.no_grad():
        assert torch.equal(again(PROMPT), model(PROMPT))
    assert again.name == name and again.provenance["family"] == model.provenance["family"]
    assert list(again.hook_dict) == list(model.hook_dict)
    twice = load(save(again, tmp_path / "twice"), verify=True)
    assert twice.provenance == again.provenance


def test_load_by_folder_is_load_by_name(folder, toy):
    with torch.no_grad():
        assert torch.equal(load_model(folder)(PROMPT), toy(PROMPT))


def test_saving_leaves_the_model_as_it_was(toy, tmp_path):
    before = {k: v.clone() for k, v in toy.lm.hf.state_dict().items()}
    with torch.no_grad():
        logits = toy(PROMPT)
        save(toy, tmp_path / "bridge")
        assert torch.equal(toy(PROMPT), logits)
    assert all(torch.equal(v, before[k]) for k, v in toy.lm.hf.state_dict().items())


def test_a_folder_written_by_hand_in_the_documented_form_is_read(toy, tmp_path):
    toy.vision.module.save_pretrained(tmp_path / "vision")
    toy.lm.hf.save_pretrained(tmp_path / "lm")
    tokenizer().save_pretrained(tmp_path / "lm")
    save_file(
        {k: v.contiguous() for k, v in toy.projection.state_dict().items()},
        tmp_path / "projection.safetensors",
    )
    spec = {
        "format": 1,
        "family": "pictos",
        "vision": {
            "kind": "hf",
            "class": "ViTModel",
            "drop_prefix_tokens": 1,
            "feature_layer": "last_hidden_state",
            "image_size": 32,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "interpolation": "bilinear",
        },
        "projection": {"kind": "linear", "d_in": 16, "d_out": 32},
        "lm": {"class": "GPTJForCausalLM"},
        "provenance": {"steps": 7},
    }
    (tmp_path / "bridge.json").write_text(json.dumps(spec))
    model = load(tmp_path)
    with torch.no_grad():
        assert torch.equal(model(PROMPT), toy(PROMPT))
    assert model.name == tmp_path.name and model.provenance["steps"] == 7


def test_a_number_format_is_kept_and_another_is_given_for_the_asking(toy, tmp_path):
    half = load(save(toy, tmp_path / "full"), dtype=torch.bfloat16)
    save(half, tmp_path / "half")
    assert load_file(tmp_path / "half/projection.safetensors")["weight"].dtype == torch.bfloat16
    kept = load(tmp_path / "half")
    assert {p.dtype for p in kept.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert torch.equal(kept(PROMPT), half(PROMPT))
    model = load(tmp_path / "half", dtype=torch.float32)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    spec = json.loads((tmp_path / "half/bridge.json").read_text())
    for part in ("vision", "projection", "lm"):
        del spec[part]["dtype"]
    (tmp_path / "half/bridge.json").write_text(json.dumps(spec))
    assert {p.dtype for p in load(tmp_path / "half").parameters()} == {torch.float32}


def test_the_hash_sees_values_names_and_shapes_but_not_storage():
    state = {"a": torch.arange(6.0), "b": torch.tensor([1, 2])}
    same = weights_hash({"b": state["b"], "a": state["a"].bfloat16()})
    assert same == weights_hash(state)
    others = [{"a": state["a"] + 1}, {"c": state["a"]}, {"a": state["a"].reshape(2, 3)}]
    assert len({weights_hash(o) for o in others} | {weights_hash({"a": state["a"]})}) == 4


def test_a_part_may_be_named_instead_of_copied(toy, tmp_path):
    source = save(toy, tmp_path / "whole")
    named = {"lm": str(source / "lm"), "vision": str(source / "vision")}
    thin = save(toy, tmp_path / "thin", by_reference=named)
    assert sorted(p.name for p in thin.iterdir()) == ["bridge.json", "projection.safetensors"]
    assert set(json.loads((thin / "bridge.json").read_text())["provenance"]["sha256"]) == {
        "projection"
    }
    with torch.no_grad():
        assert torch.allclose(load(thin)(PROMPT), toy(PROMPT), atol=1e-6)


# --- nothing is executed ----------------------------------------------------------------------


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(writer, tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "proj.ckpt"
    state = {"weight": torch.zeros(2, 2), "bias": Bomb(mark)}
    if writer == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps(state))
    with pytest.raises(CheckpointError, match=r"could run code; save its tensors alone"):
        read_state(path)
    assert not mark.exists()


def test_a_pickle_beside_the_folder_is_never_opened(folder, tmp_path):
    mark = tmp_path / "ran"
    (folder / "lm/model.safetensors").unlink()
    torch.save({"x": Bomb(mark)}, folder / "lm/pytorch_model.bin")
    with pytest.raises(CheckpointError, match="lm/ can't be loaded as a GPTJForCausalLM"):
        load(folder)
    assert not mark.exists()


# --- refusals ---------------------------------------------------------------------------------


def _rewrite(folder, **changes):
    path = folder / "bridge.json"
    spec = json.loads(path.read_text())
    for key, value in changes.items():
        spec[key] = spec[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(spec))


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"format": 2}, "format 2; this mmlens reads 1"),
        ({"projection": {"kind": "mlp"}}, "a 'mlp' projection"),
        ({"vision": {"class": "os"}}, "no model of transformers"),
        ({"lm": {"class": "AutoConfig"}}, "no model of transformers"),
        ({"vision": {"kind": "timm"}}, "Nothing says how to build"),
    ],
)
def test_a_folder_of_another_form_is_refused_in_a_sentence(folder, changes, sentence):
    _rewrite(folder, **changes)
    with pytest.raises(CheckpointError, match=sentence):
        load(folder)


def test_a_feature_layer_is_kept_and_a_wrong_one_refused(folder):
    model = load(folder)
    layer = "blocks.0.mlp.hook_post"
    early = from_parts(model.vision, None, model.lm, feature_layer=layer)
    save(early, folder)
    again = load(folder)
    pixels = torch.zeros(1, 3, *early.vision.image_size)
    assert again.vision.feature_layer == layer
    assert torch.equal(again.vision(pixels), early.vision(pixels))
    _rewrite(folder, vision={"feature_layer": "-2"})
    with pytest.raises(CheckpointError, match="bridge.json of 'bridge'.*no feature layer '-2'"):
        load(folder)


def test_missing_and_damaged_files_are_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match="has no bridge.json"):
        load(tmp_path)
    wrong = {"weight": torch.zeros(32, 15), "bias": torch.zeros(32)}
    save_file(wrong, folder / "projection.safetensors")
    with pytest.raises(CheckpointError, match=r"leads 15 -> 32, and bridge.json says 16 -> 32"):
        load(folder)
    _rewrite(folder, projection={"d_in": 15})
    with pytest.raises(CheckpointError, match=r"15 -> 32\) does not fit between ViTModel and GPTJ"):
        load(folder, verify=False)
    save_file({"weight": torch.zeros(3)}, folder / "projection.safetensors")
    with pytest.raises(CheckpointError, match="no linear map"):
        load(folder)
    (folder / "projection.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="can't be read"):
        load(folder)
    shutil.rmtree(folder / "vision")
    with pytest.raises(CheckpointError, match="lacks the file vision/config.json"):
        load(folder)
    with pytest.raises(CheckpointError, match="has no vision/"):
        load(folder, verify=False)
    (folder / "bridge.json").write_text("{")
    with pytest.raises(CheckpointError, match="is not JSON"):
        load(folder)


def test_verify_finds_a_changed_weight(folder):
    state = load_file(folder / "projection.safetensors")
    state["bias"][3] += 1e-3
    save_file(state, folder / "projection.safetensors")
    load(folder, verify=False)
    with pytest.raises(CheckpointError, match="weights of projection"):
        load(folder)


def test_what_cannot_be_saved_says_so(toy, tmp_path):
    with pytest.raises(CapabilityError, match="apply model.edit"):
        save(toy.edit(Edit("neurons", 0.0, layer=0, unit=1)), tmp_path / "a")
    deep = HookedVLM(toy.vision, nn.Sequential(nn.Linear(16, 32)), toy.lm, name="deep")
    with pytest.raises(CheckpointError, match="not with a Sequential"):
        save(deep, tmp_path / "b")
    bare = HookedVLM(toy.vision, toy.projection, wrap_lm(toy.lm.root, tokenizer()), name="bare")
    with pytest.raises(CheckpointError, match="wrap_lm"):
        save(bare, tmp_path / "c")
    assert not list(tmp_path.iterdir())


# --- the hub, without a network ---------------------------------------------------------------


class FakeHub:
    def __init__(self, root: Path):
        self.root, self.calls = root, []

    def create_repo(self, repo_id, private, exist_ok):
        self.calls.append((repo_id, private, exist_ok))

    def upload_folder(self, folder_path, repo_id, revision, commit_message):
        shutil.copytree(folder_path, self.root / repo_id / (revision or "main"))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def hf_hub_download(self, repo_id, filename, revision=None):
        path = self.root / repo_id / (revision or "main") / filename
        if not path.exists():
            raise FileNotFoundError(f"404: {repo_id}/{filename}")
        return str(path)


def test_a_projection_goes_to_the_hub_and_comes_back(toy, tmp_path):
    hub = FakeHub(tmp_path)
    assert push_projection(toy, "me/toy", revision="v1", private=True, api=hub).startswith("https")
    assert hub.calls == [("me/toy", True, True)]
    names = sorted(p.name for p in (tmp_path / "me/toy/v1").iterdir())
    assert names == ["README.md", "bridge.json", "projection.safetensors"]
    back = pull_projection("me/toy", "v1", api=hub)
    assert torch.equal(back.weight, toy.projection.weight)
    assert 'pull_projection("me/toy")' in (tmp_path / "me/toy/v1/README.md").read_text()
    with pytest.raises(ModelError, match="no projection 'me/toy' at v2"):
        pull_projection("me/toy", "v2", api=hub)
    _rewrite(tmp_path / "me/toy/v1", projection={"d_in": 99})
    with pytest.raises(CheckpointError, match="says 99 -> 32"):
        pull_projection("me/toy", "v1", api=hub)


# --- pictos -----------------------------------------------------------------------------------


def test_pictos_loads_from_its_folder_without_the_extras(folder, toy, monkeypatch, tmp_path):
    from mmlens.families import pictos

    for library in ("open_clip", "timm", "torchvision"):
        monkeypatch.setitem(sys.modules, library, None)  # importing it now fails
    monkeypatch.setattr(pictos, "FOLDER", folder)
    model = load_model("pictos")
    with torch.no_grad():
        assert torch.equal(model(PROMPT), toy(PROMPT))
    assert model.name == "pictos"
    monkeypatch.setattr(pictos, "FOLDER", tmp_path / "nowhere")
    with pytest.raises(ModelError, match="toy-gptj"):
        load_model("pictos")
