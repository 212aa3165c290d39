"""What a notebook shows of prompts, tables and pictures that were looked at, and what it notes."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import mmlens as mm
from mmlens.explore.domain import flatness, note
from mmlens.families import toy
from mmlens.values.shown_table import SiteTable, spans
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


def test_a_single_pixel_is_no_photograph():
    assert flatness(Image.new("RGB", (1, 1))) == 1.0


def test_a_look_shows_the_explorer_and_its_note(model, monkeypatch):
    told = f"a {TRICK}"
    monkeypatch.setattr("mmlens.explore.look.note", lambda *_: told)
    seen = mm.look(model, toy.picture((2, 1)), "A picture of", k=2, max_new_tokens=1)
    html = seen._repr_html_()
    assert seen.note == told and html.startswith("<p>a &lt;script&gt;") and "<iframe" in html
    assert "<script" not in html  # the page stands in an attribute, escaped


def test_sites_show_every_row_with_layers_and_axes_as_words(model):
    table = model.sites
    shown, html = repr(table), table._repr_html_()
    assert len(table) > 20 and all(name in shown and name in html for name in table["site"])
    layers, axes = dict(zip(table["site"], table["layers"], strict=True)), table["axes"]
    assert layers["neurons"] == (0, 1, 2) and "0 to 2" in html and "(0, 1" not in shown + html
    assert ("pos", "unit") in set(axes) and "<td>pos, unit</td>" in html
    few = table[table["tower"] == "vision"]
    assert isinstance(few, SiteTable) and "blocks.{layer}.mlp" in few.to_csv()
    assert "0, 1" in repr(few[["site", "layers"]]) and few["axes"].iloc[0] != ""


def test_layers_with_gaps_are_told_by_their_runs():
    assert [spans(one) for one in ((), (3,), (0, 1), (0, 1, 2, 3), (0, 3, 5, 6, 7))] == [
        "", "3", "0, 1", "0 to 3", "0, 3, 5 to 7",
    ]  # fmt: skip


def test_a_bundled_model_shows_its_card_and_others_their_parts(model):
    folder = Path(mm.__file__).parent
    for name in ("pictos", "pictos-clip"):
        bundled = mm.load(name)
        text = (folder / name.replace("-", "_") / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert bundled.card == text == bundled.card._repr_markdown_() == repr(bundled.card)
        assert bundled.edit().card == text
    own = model.card
    assert "no card of its own" in own and "| lm | 3 |" in own
    odd = copy(model)
    odd.provenance = {"family": "../pictos"}
    assert odd.card == own  # a family's name is no path


def test_a_photograph_is_noted_on_the_page_too(model, monkeypatch):
    monkeypatch.setattr("mmlens.explore.look.note", lambda *_: f"a {TRICK}")
    seen = mm.look(model, toy.picture((2, 1)), "A picture of", k=2, max_new_tokens=1)
    page = mm.view.explore(seen).html
    assert '"domain":"a \\u003cscript' in page or "a &lt;script&gt;" in page
