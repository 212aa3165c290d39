"""Words as pictures: the published cover and places of the attack, and words that are never cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from clip_twins import noise
from PIL import Image

from mmlens.datasets.written_words import (
    ATTACK_PLACES,
    attack_canvas,
    pixel_cover,
    written,
    written_over,
)
from mmlens.values.errors import ArgumentError, PictureError

GOH = json.loads((Path(__file__).parent / "data/goh/goh_typographic_attacks.json").read_text())
PHOTO = noise(1, 288)[0]


@pytest.mark.parametrize("attack", GOH["attacks"], ids=lambda one: one["text"])
def test_a_word_covers_as_many_pixels_as_was_published(attack):
    cover = pixel_cover(PHOTO, written_over(PHOTO, attack["text"]))
    assert abs(cover - attack["avg_img_l0_norm_diff"]) < 0.003


def test_the_eight_places_are_the_published_ones_and_nothing_changes_elsewhere():
    assert [list(place) for place in ATTACK_PLACES] == GOH["render"]["pillow_draw_text_xy"]
    changed = (np.asarray(PHOTO) != np.asarray(written_over(PHOTO, "pizza"))).any(-1)
    one = (np.asarray(PHOTO) != np.asarray(written_over(PHOTO, "pizza", at=[(22, 22)]))).any(-1)
    expected = np.zeros_like(changed)
    for x, y in ATTACK_PLACES:  # the same marks, moved
        expected |= np.roll(one, (y - 22, x - 22), axis=(0, 1))
    assert (changed == expected).mean() > 0.999  # a pixel of noise may have the ink's colour
    assert not changed[:20].any() and not changed[:, :18].any()


def test_the_letters_are_white_with_a_black_rim():
    grey = Image.new("RGB", (288, 288), (128, 128, 128))
    drawn = np.asarray(written_over(grey, "pizza"))
    assert drawn.max() == 255 and drawn.min() == 0
    white, black = (drawn == 255).all(-1), (drawn == 0).all(-1)
    assert black.sum() > white.sum() > 0
    assert (np.asarray(grey) == 128).all()  # the picture that was given is left as it was


@pytest.mark.parametrize("word", ["i", "dog", "incomprehensibilities"])
@pytest.mark.parametrize("at", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_a_written_word_lies_whole_within_its_picture(word, at):
    large = written(word, (400, 400), size=0.1)
    small = np.asarray(written(word, (96, 64), size=0.3, at=at))
    ink = (small < 250).any(-1)
    assert ink.sum() > 0
    assert (np.asarray(large)[0] == 255).all()
    rows, cols = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    spare = 64 - (rows[-1] - rows[0] + 1), 96 - (cols[-1] - cols[0] + 1)
    assert abs(rows[0] - at[1] * spare[0]) <= 2 and abs(cols[0] - at[0] * spare[1]) <= 3


def test_a_canvas_is_the_middle_square():
    wide = Image.new("RGB", (60, 20), "red")
    wide.paste(Image.new("RGB", (20, 20), "blue"), (20, 0))
    assert set(map(tuple, np.asarray(attack_canvas(wide, 30)).reshape(-1, 3))) == {(0, 0, 255)}


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ArgumentError, match="size"):
        written("dog", (20, 20), size=0.0)
    with pytest.raises(ArgumentError, match="word"):
        written_over(PHOTO, "")
    with pytest.raises(PictureError, match="288"):
        pixel_cover(PHOTO, noise(1)[0])
