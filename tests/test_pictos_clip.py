"""The bundled CLIP names what it sees in three formats, and some of its units answer to all three.

The pictures are of the bundled world's held-out scenes; hands and fonts that training never saw are
measured by training/pictos_clip/evaluate_clip.py, for they don't ship.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

import mmlens as mm
from mmlens.families.pictos_clip import FOLDER
from mmlens.pictos import World
from mmlens.pictos.world import STYLES
from mmlens.values.errors import ModelError

open_clip = pytest.importorskip("open_clip")
NAMED = {"literal": 0.8, "symbolic": 0.75, "written": 0.75}  # below what the card tells
TIMES = 4  # scenes of each thing and style, on average


@cache
def model() -> Any:
    return mm.load("pictos-clip")


@cache
def plain() -> Any:
    """The same folder as open_clip reads it: (model, transform)."""
    clip, _, transform = open_clip.create_model_and_transforms(f"local-dir:{FOLDER}")
    return clip.eval(), transform


@cache
def seen(style: str) -> tuple[Tensor, Tensor, Tensor]:
    """Of held-out scenes: things, unit embeddings, responses before the last ReLU."""
    kept: list[Tensor] = []
    clip, world = plain()[0], World("held_out", 17, side=64, things=1, style=style)
    hook = clip.visual.trunk.bn2.act.register_forward_pre_hook(
        lambda _, args: kept.append(args[0].mean((2, 3)))
    )
    scenes = world.batch(range(len(world.names) * TIMES))
    with torch.no_grad():
        rows = [clip.encode_image(x * 2 - 1, normalize=True) for x in scenes.images.split(128)]
    hook.remove()
    return scenes.concepts[:, 0], torch.cat(rows), torch.cat(kept)


def test_its_weights_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 12e6


@pytest.mark.parametrize("style", STYLES)
def test_a_held_out_thing_is_nearest_to_its_name_among_all_names(style):
    things, embeddings, _ = seen(style)
    names = mm.embed(model(), list(World().names))
    right = (embeddings @ names.T).argmax(1) == things
    assert right.float().mean() > NAMED[style]


def test_it_is_the_model_that_open_clip_reads_from_the_folder():
    clip, transform = plain()
    scene = World("held_out", 3).scene(5).image
    texts = ["a dog", "the word dog in red ink", "a photo of a QUOKKA!"]
    with torch.no_grad():
        picture = clip.encode_image(transform(scene)[None], normalize=True)
        tokens = open_clip.get_tokenizer(f"local-dir:{FOLDER}")(texts)
        words = clip.encode_text(tokens, normalize=True)
    assert torch.allclose(mm.embed(model(), [scene]), picture, atol=1e-5)
    assert torch.allclose(mm.embed(model(), texts), words, atol=1e-5)
    found = mm.zero_shot(model(), scene, texts).sel(quantity="logit").values
    assert torch.allclose(found, clip.logit_scale.exp() * picture @ words.T, atol=1e-3)


def test_every_name_of_the_world_is_one_token():
    words = open_clip.get_tokenizer(f"local-dir:{FOLDER}")
    ids = words(list(World().names))
    assert (ids.argmax(1) == 2).all() and len(set(ids[:, 1].tolist())) == len(ids)


def least_z(parts: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Float[thing, unit]: the least over formats of a thing's mean response, in standard deviations
    of the responses to the other things; minus infinity for a thing that is not shown.
    """
    formats = []
    for things, found in parts:
        shows = torch.nn.functional.one_hot(things, len(World().names)).T.double()
        x = found.double() - found.double().mean(0)
        n, rest = shows.sum(1, keepdim=True), len(x) - shows.sum(1, keepdim=True)
        own, squares = shows @ x, shows @ x.square()
        mean = -own / rest  # of the others: all together sum to nothing
        spread = ((x.square().sum(0) - squares) / rest - mean.square()).sqrt()
        formats.append(torch.where(n > 0, (own / n - mean) / spread, -torch.inf))
    return torch.stack(formats).amin(0)


def test_units_answer_to_one_thing_as_picture_as_drawing_and_as_written_word():
    """Chosen on one half of the scenes and judged on the other; names mixed up between formats
    are what chance gives.
    """
    halves = [[(seen(s)[0][k::2], seen(s)[2][k::2]) for s in STYLES] for k in (0, 1)]
    n, draw = len(World().names), torch.Generator().manual_seed(0)

    def judged(names: list[Tensor]) -> Tensor:
        first, second = (
            least_z([(new[t], f) for new, (t, f) in zip(names, half, strict=True)])
            for half in halves
        )
        return second.gather(0, first.argmax(0)[None])[0]

    found = judged([torch.arange(n)] * 3)
    mixed = judged([torch.randperm(n, generator=draw) for _ in STYLES])
    assert (found > mixed.max()).sum() >= 3, (found.topk(5), mixed.topk(5))


def test_an_installation_without_its_weights_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("mmlens.families.pictos_clip.FOLDER", tmp_path)
    with pytest.raises(ModelError, match="no weights for 'pictos-clip'"):
        mm.load("pictos-clip")


def test_a_picture_of_another_size_is_read_too():
    large = Image.new("RGB", (300, 200), "red")
    assert mm.embed(model(), [large]).shape == (1, 192)


def test_its_last_convolution_is_a_layer_whose_units_are_the_features():
    scene = mm.Prompt(World("held_out", 3).scene(5).image)
    read = lambda site, **at: mm.activations(model(), scene, site, **at).values  # noqa: E731
    features, after = read("features"), read("vision.resid_post", layer=7)
    assert torch.equal(after.flatten(1).T, features) and features.shape[1] == 1280
    assert torch.equal(read("vision.resid_pre", layer=7), read("vision.resid_post", layer=6))
    assert torch.equal(read("vision.conv1_pre", layer=7).clamp(0, 6), after)  # ReLU6
    scores = mm.attribute(model(), scene, of="a dog", site="vision.resid_post", layer=7)
    assert scores.labels["layer"] == (7,) and scores.values.abs().sum() > 0


def test_a_site_that_the_first_layers_lack_is_read_and_edited_in_the_layer_asked_for():
    scene = mm.Prompt(World("held_out", 3).scene(5).image)
    wide = {layer: mm.activations(model(), scene, "vision.conv2_pre", layer=layer).values.shape[0]
            for layer in (2, 6)}  # fmt: skip
    assert wide == {2: 144, 6: 1152}  # six times what enters: 24 and 192
    unit = mm.Neuron(6, 1100, "vision")
    dead = model().edit(mm.Edit("vision.conv2", 0.0, unit))
    assert mm.activations(dead, scene, "vision.conv2", unit).values.abs().max() == 0
    assert mm.activations(model(), scene, "vision.conv2", unit).values.abs().max() > 0


def test_the_card_tells_of_attacks_and_stroop_what_the_report_measured():
    card = (FOLDER / "MODEL_CARD.md").read_text()
    told = card[card.index("## Attacks and Stroop") : card.index("## Limits")]
    report = (Path(__file__).parents[1] / "docs" / "results-goh.md").read_text()
    numbers = re.findall(r"-?[\d.]+ % \[-?[\d.]+ %, [\d.]+ %\]|[\d.]+ %", told)
    assert len(numbers) == 11 and all(number in report for number in numbers), numbers
