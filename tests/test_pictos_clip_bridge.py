"""The bridge between the two bundled models: both ends are theirs, and it names what it sees."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import mmlens as mm
from mmlens.families.pictos_clip_bridge import FOLDER, PROJECTION
from mmlens.pictos import World
from mmlens.pictos.world import STYLES
from mmlens.values.errors import ModelError

pytest.importorskip("open_clip")
NAMED = {"literal": 0.5, "symbolic": 0.5, "written": 0.35}  # below what the card tells
SCENES = 30


@cache
def bridge() -> Any:
    return mm.load("pictos-clip-bridge")


def test_its_ends_are_the_bundled_models():
    clip, pictos = mm.load("pictos-clip"), mm.load("pictos")
    scene = World("held_out", 3).scene(0).image
    pixels = clip.vision.preprocess(scene)[None]
    with torch.no_grad():
        features = bridge().vision(bridge().vision.preprocess(scene)[None])
        assert torch.equal(features, clip.vision(pixels))
    assert features.shape == (1, 4, 1280)
    ids = torch.tensor([[5, 7, 9]])
    assert torch.equal(bridge()(ids), pictos(ids))


def test_its_weights_are_small_and_in_half_precision():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 1e6
    state = load_file(PROJECTION)
    assert {one.dtype for one in state.values()} == {torch.float16}
    assert state["weight"].shape == (256, 1280) and state["bias"].shape == (256,)


@pytest.mark.parametrize("style", STYLES)
def test_it_names_a_thing_alone(style):
    world, right = World("held_out", 5, things=1, style=style), 0
    for i in range(SCENES):
        scene = world.scene(i)
        said = bridge().generate(mm.Prompt(scene.image, "A picture of"), 10)
        right += scene.objects[0].name in said.rstrip(".").split()
    assert right / SCENES >= NAMED[style]


def test_it_is_saved_and_read_again(tmp_path):
    bridge().save(tmp_path / "saved")
    again, scene = mm.load(tmp_path / "saved"), World("held_out", 3).scene(1).image
    prompt = mm.Prompt(scene, "A picture of")
    with torch.no_grad():
        assert torch.allclose(again(prompt), bridge()(prompt), atol=1e-5)


def test_a_neuron_is_traced_to_units_of_the_encoder():
    scene = World("held_out", 5, things=1, style="symbolic").scene(1)
    prompt = mm.Prompt(scene.image, "A picture of")
    name = f" {scene.objects[0].name}"
    table = mm.neuron_graph(bridge(), prompt, name, after=" a drawing of a", k=2, units=2)
    assert table["source"].map(str).str.startswith("features ").sum() >= 4
    assert (table["ablation"].abs() > 0).any()


def test_an_installation_without_its_weights_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("mmlens.families.pictos_clip_bridge.PROJECTION", tmp_path / "none")
    with pytest.raises(ModelError, match="no weights for 'pictos-clip-bridge'"):
        mm.load("pictos-clip-bridge")
