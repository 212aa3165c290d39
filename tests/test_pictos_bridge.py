"""The bundled model names what is in pictures it has never seen, and its neurons say so too."""

from __future__ import annotations

from functools import cache

import pytest

import mmlens as mm
from mmlens.metrics import caption_words
from mmlens.pictos import World
from mmlens.pictos.world import STYLES
from mmlens.reading import look

SCENES = 24
NAMED = 0.6  # well below what training/pictos/evaluate.py measures: things differ


@cache
def model() -> mm.HookedVLM:
    return mm.load("pictos")


def pictures(style: str, count: int = SCENES, things: int = 1):
    world = World("held_out", 31, things=things, style=style)
    return [world.scene(index) for index in range(count)]


@pytest.mark.parametrize("style", STYLES)
def test_a_thing_in_a_held_out_scene_is_named(style):
    scenes = pictures(style)
    said = model().generate([mm.Prompt(s.image, "A picture of") for s in scenes], 12)
    named = [s.objects[0].name in caption_words(text) for s, text in zip(scenes, said, strict=True)]
    assert sum(named) / SCENES >= NAMED


def test_look_explains_the_thing_and_its_top_neurons_decode_to_it():
    found = tried = 0
    for scene in pictures("literal", 12):
        seen = look(model(), scene.image, k=30)
        name = f" {scene.objects[0].name}"
        if name not in seen.caption:
            continue
        assert seen.target.text == name
        tried += 1
        found += any(name in words for words in seen.neurons.words)
    assert tried >= 5
    assert found / tried >= 0.5


def test_silencing_the_neurons_that_say_it_takes_the_word_away():
    lost = []
    for scene in pictures("literal", 6):
        prompt = mm.Prompt(scene.image, "A picture of")
        name = f" {scene.objects[0].name}"
        if name not in model().generate(prompt):
            continue
        best = mm.top_neurons(mm.attribute(model(), prompt, of=name), 200, by="max")
        quiet = model().edit(*(mm.Edit("neurons", 0.0, n, pos=mm.Patch) for n in best.neuron))
        lost.append(name not in quiet.generate(prompt))
    assert lost
    assert sum(lost) / len(lost) >= 0.5
