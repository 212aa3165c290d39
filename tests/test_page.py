"""The page of a picture: one file, no network, nothing but text from models and file names."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mmlens import Neuron, Patch, Scores, Token
from mmlens.errors import AddressError
from mmlens.view.page import page

EVIL = "<img src=x onerror=alert(1)>"
CLOSE = "</script><script>document.title='PWNED'</script>"
PATCHES = tuple(Patch(row, col) for row in range(3) for col in range(4))
TOKENS = (Token(" a", 12), Token(" dog", 13), Token(EVIL, 14), Token(CLOSE, 15))
NEURONS = (Neuron(0, 5), Neuron(3, 17))


def made(title: str = "dog.png", **options: Any) -> str:
    maps = torch.zeros(4, 12)
    maps[:, 5] = torch.tensor([0.5, 2.0, -1.0, 0.25])
    maps[1, 6] = -0.5
    activations = torch.zeros(2, 12)
    activations[0, 5] = activations[1, 11] = 3.0
    rows = [(TOKENS[0], NEURONS[0], PATCHES[5], 0.4, [" a", " an"])]
    rows += [(TOKENS[1], NEURONS[1], PATCHES[11], 1.5, [" dog", EVIL, CLOSE])]
    rows += [(TOKENS[1], NEURONS[0], PATCHES[5], -0.5, [" a", " an"])]
    table = pd.DataFrame(rows, columns=["token", "neuron", "patch", "score", "words"])
    options = {
        "target": TOKENS[1],
        "prompt": f"A picture of {EVIL}",
        "about": {"model": f"toy {EVIL}", "versions": {"mmlens": "1"}, "edits": []},
    } | options
    return page(
        Image.new("RGB", (160, 120), (200, 120, 30)),
        Scores(maps, ("token", "pos"), {"token": TOKENS, "pos": PATCHES}),
        table,
        Scores(activations, ("neuron", "pos"), {"neuron": NEURONS, "pos": PATCHES}),
        title=title,
        **options,
    )


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_the_data_come_back_as_they_were():
    data = data_of(made())
    assert data["grid"] == [3, 4] and data["target"] == 1
    assert [word["text"] for word in data["words"]] == ["a", "dog", EVIL, CLOSE]
    assert data["neurons"]["L3.17"]["says"] == ["·dog", EVIL, CLOSE]
    assert [row["neuron"] for row in data["tops"][1]] == ["L3.17", "L0.5"]
    assert data["tops"][1][0]["patch"] == [2, 3]


def test_numbers_are_packed_within_a_thousandth():
    import base64

    word = data_of(made())["words"][1]
    raw = np.frombuffer(base64.b64decode(word["data"]), "<i2")
    assert raw[5] * word["scale"] == pytest.approx(2.0, rel=1e-4)
    assert raw[6] * word["scale"] == pytest.approx(-0.5, rel=1e-3)


def test_no_text_becomes_markup():
    html = made(title=f"{EVIL}{CLOSE}.png")
    assert "<img src=x" not in html and "PWNED'</script>" not in html
    assert html.count("<script") == html.count("</script>") == 2
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


def test_nothing_is_loaded_from_anywhere():
    html = made()
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", html)
    assert re.findall(r'<(?:link|iframe|object|embed)\b|src="(?!data:image/)', html) == []
    assert "default-src 'none'" in html


def test_a_part_that_looks_like_a_placeholder_stays_text():
    assert "{{js}}" in made(title="{{js}}.png")


def test_an_overlay_covers_what_the_encoder_sees():
    assert "left:12.5000%;top:0.0000%;width:75.0000%" in made(box=(20, 0, 140, 120))


def test_what_is_no_page_is_refused():
    scores = Scores(torch.zeros(1, 1), ("layer", "pos"))
    with pytest.raises(AddressError, match=re.escape("A page needs Scores(token, pos)")):
        page(Image.new("RGB", (8, 8)), scores, pd.DataFrame(), scores, target=0)
    with pytest.raises(AddressError, match="is none of the tokens"):
        made(target=Token(" cat", 13))


# In a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; the tests skip where there is none."""
    sync = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync.sync_playwright() as play:
        try:
            opened = play.chromium.launch(
                executable_path=path, args=["--no-sandbox", "--disable-gpu"]
            )
        except sync.Error:
            pytest.skip("there is no Chromium")
        yield opened
        opened.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """The page, opened without a network; at the end nothing was requested and nothing failed."""
    path = tmp_path / "page.html"
    path.write_text(made(title=EVIL), encoding="utf-8")
    context = browser.new_context(offline=True, viewport={"width": 1000, "height": 900})
    tab = context.new_page()
    wrong: list[str] = []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    tab.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    tab.on(
        "request",
        lambda one: wrong.append(one.url) if not one.url.startswith(("file:", "data:")) else None,
    )
    tab.goto(path.as_uri())
    yield tab
    text = tab.locator("body").inner_text()
    assert wrong == []
    assert not re.search(r"\[object|NaN|undefined", text)
    assert tab.title() == f"{EVIL} · mmlens"  # the script in a token did not run
    context.close()


def painted(tab: Any) -> str:
    return tab.evaluate("document.getElementById('overlay').toDataURL()")


def test_arrow_keys_walk_along_the_caption(opened):
    before = painted(opened)
    assert "dog" in opened.locator("#map-title").inner_text()
    opened.locator("#words [aria-checked=true]").focus()
    opened.keyboard.press("ArrowRight")
    assert opened.locator("#words [aria-checked=true]").inner_text() == EVIL
    assert EVIL in opened.locator("#map-title").inner_text()
    assert painted(opened) != before
    opened.keyboard.press("Home")
    assert opened.locator("#words [aria-checked=true]").inner_text() == "a"
    assert opened.locator("#neurons tr").count() == 1


def test_every_word_of_the_caption_and_of_the_neurons_is_text(opened):
    assert opened.locator("#words button").all_inner_texts() == ["a", "dog", EVIL, CLOSE]
    assert EVIL in opened.locator("#neurons .chips li").all_inner_texts()
    assert EVIL in opened.locator(".file").inner_text()
    assert opened.locator("img").evaluate_all("all => all.every(i => i.src.startsWith('data:'))")


def test_hovering_a_word_shows_its_map_and_leaving_brings_the_chosen_one_back(opened):
    before = painted(opened)
    opened.locator("#words button").first.hover()
    assert painted(opened) != before or "“a”" in opened.locator("#map-title").inner_text()
    opened.locator("footer").hover()
    assert painted(opened) == before


def test_a_neuron_is_shown_on_the_picture_and_has_an_address(opened):
    before = painted(opened)
    button = opened.locator("[id='L3.17'] button")
    button.click()
    opened.mouse.move(5, 5)
    assert button.get_attribute("aria-pressed") == "true"
    assert "L3.17" in opened.locator("#map-title").inner_text()
    assert painted(opened) != before
    opened.evaluate("location.hash = '#L0.5'")
    opened.wait_for_function("document.getElementById('map-title').textContent.includes('L0.5')")


def test_arrow_keys_read_the_patches(opened):
    opened.locator("#photo").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        opened.keyboard.press(key)
    readout = opened.locator("#readout")
    assert readout.inner_text() == "Patch row 1, column 1: +2 to the logit of “dog”, rank 1 of 12."
    opened.keyboard.press("Escape")
    assert readout.inner_text().startswith("All patches together: +1.5")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page(opened, scheme):
    """Contrast of the muted text, the faintest there is: at least 4.5 : 1 (WCAG AA)."""
    opened.emulate_media(color_scheme=scheme)

    def light(name: str) -> float:
        value = opened.evaluate(
            f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()"
        )
        parts = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for ground in ("page", "panel"):
        low, high = sorted((light("muted"), light(ground)))
        assert (high + 0.05) / (low + 0.05) > 4.5


def test_a_narrow_window_needs_no_sideways_scrolling(opened):
    opened.set_viewport_size({"width": 400, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth <= innerWidth")
