"""What a notebook shows of prompts, tables and pictures that were looked at, and what it notes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import mmlens as mm
from mmlens.explore.domain import flatness, note
from mmlens.families import toy
from mmlens.values.word_table import WordTable

TRICK = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def model() -> Any:
    return mm.load("toy-gptj-planted")


def test_a_prompt_shows_its_pictures_between_its_words_escaped():
    photo = toy.picture((2, 1))
    html = mm.Prompt(photo, TRICK, photo, " and")._repr_html_()
    assert html.count('<img src="data:image/png;base64,') == 2 and "<script" not in html
    assert "&lt;script&gt;" in html and html.index("<img") < html.index("&lt;script")
    chat = mm.Prompt.chat([photo, "What?"], TRICK, system=TRICK)._repr_html_()
    assert "<script" not in chat and chat.count("<br>") == 2


def test_a_decoded_table_shows_words_as_words_and_hides_their_probabilities(model):
    table = mm.decode(model, "L1.5", k=3)
    shown = table._repr_html_()
    assert (
        "probs" not in shown and "probs" not in repr(table) and "[" not in shown.split("<tbody>")[1]
    )
    first = table["words"].iloc[0][0].strip()
    assert f"<td>{first}, " in shown
    assert len(table["probs"].iloc[0]) == 3  # it is there, and only not shown
    assert isinstance(table.head(1), WordTable) and isinstance(table[["neuron"]], WordTable)
    odd = WordTable({"words": [[TRICK, " a"], [], None], "probs": [[1.0], [], []]})
    assert "<script" not in (odd._repr_html_() or "")
    assert "probs" in repr(odd[["probs"]])
    pd.testing.assert_frame_equal(mm.decode(model, "L1.5", k=3), table)


def test_a_photograph_shown_to_a_bundled_model_is_noted(model):
    class Bundled:
        name, provenance = "pictos", {"family": "pictos"}

    drawn = mm.dataset("pictos:held_out:8")
    assert all(note(Bundled(), sample.image) == "" for sample in drawn)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype("uint8")
    photo = Image.fromarray(noise).resize((128, 128), Image.Resampling.BICUBIC)
    assert flatness(photo) < 0.1 < flatness(drawn[0].image)
    assert "has seen drawings" in note(Bundled(), photo)
    assert note(model, photo) == ""  # of models that are not bundled nothing is known


def test_a_look_shows_the_explorer_and_its_note(model, monkeypatch):
    told = f"a {TRICK}"
    monkeypatch.setattr("mmlens.explore.look.note", lambda *_: told)
    seen = mm.look(model, toy.picture((2, 1)), "A picture of", k=2, max_new_tokens=1)
    html = seen._repr_html_()
    assert seen.note == told and html.startswith("<p>a &lt;script&gt;") and "<iframe" in html
    assert "<script" not in html  # the page stands in an attribute, escaped
