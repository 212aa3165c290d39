"""The scripted views in a real browser, offline: what is seen, and that no token becomes markup."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mmlens import Patch, Scores, Token, view

EVIL = "<img src=x onerror=alert(1)>"
PHOTO = Image.new("RGB", (40, 30), (200, 30, 30))
PATCHES = tuple(Patch(row, col) for row in range(3) for col in range(4))
WORDS = (Token(" of", 12), Token(EVIL, 13), Token("</script>", 14))


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A page without a network; at the end nothing was requested and nothing failed."""
    context = browser.new_context(offline=True, viewport={"width": 1000, "height": 900})
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    opened.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    opened.on(
        "request",
        lambda one: (
            wrong.append(one.url) if not one.url.startswith(("file:", "data:", "blob:")) else None
        ),
    )
    yield opened
    assert wrong == []
    assert not re.search(r"\[object|NaN|undefined", opened.locator("body").inner_text())
    context.close()


def test_a_pattern_is_read_patch_by_patch_and_word_by_word(tab, tmp_path: Path):
    pattern = torch.zeros(15, 15)
    pattern[14, 6], pattern[14, 12] = 0.75, 0.25  # from the last word to patch (1, 2)
    pattern[0, 11] = 1.0
    pattern[1, 5] = 1.0
    labels = PATCHES + WORDS
    shown = view.attention_on_image(
        PHOTO, Scores(pattern, ("query", "key"), {"query": labels, "key": labels})
    )
    tab.goto(view.save(shown, tmp_path / "page.html").as_uri())
    told = tab.locator(".mm-told")
    tab.wait_for_function("document.querySelector('.mm-told').textContent.includes('patch')")
    assert "75.0 % of its attention" in told.inner_text()
    assert "most to patch (1, 2): 75.0 %. Words: “·of” 25" in told.inner_text()
    assert tab.locator(".mm-words button").all_inner_texts() == ["·of", EVIL, "</script>"]
    before = tab.evaluate("document.querySelector('canvas').toDataURL()")
    tab.locator("canvas").focus()
    tab.keyboard.press("ArrowRight")
    assert "patch (0, 0) gives 100 % of its attention" in told.inner_text()
    tab.keyboard.press("ArrowRight")
    assert "most to patch (1, 1)" in told.inner_text()
    assert tab.evaluate("document.querySelector('canvas').toDataURL()") != before
    tab.locator(".mm-words button").first.click()
    assert told.inner_text().startswith("“·of” gives 0.00 %")


def test_two_attention_views_share_one_bundle_and_leave_the_page_whole(tab, tmp_path: Path):
    pattern = torch.eye(3).expand(2, 3, 3)
    scores = Scores(pattern, ("head", "query", "key"), {"query": WORDS, "key": WORDS})
    two = view.attention_text(scores) + view.attention_text(scores) + "<p id=after>after</p>"
    page = tmp_path / "page.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8>{two}", encoding="utf-8")
    tab.goto(page.as_uri())
    tab.wait_for_function("document.querySelectorAll('[id^=mm-circuits] canvas').length >= 4")
    assert tab.locator("#after").inner_text() == "after"
    assert tab.locator("img").count() == 0
    assert tab.evaluate("typeof globalThis.mmlensCircuits.then") == "function"
    assert tab.locator("head script").count() == 1  # the bundle ran once


QUOTED = (Token(' "', 0), Token("'s", 1), Token(" a&b", 2), Token("<b>", 3))


def test_a_figure_s_page_runs_its_own_scripts_alone_and_prints_quotes_as_they_are(tab, tmp_path):
    scores = Scores(torch.rand(2, 4), ("layer", "pos"), {"pos": QUOTED})
    page = view.save(view.heatmap(scores), tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None and "default-src 'none'" in policy[1]
    scripts = policy[1].partition("script-src ")[2].partition(";")[0]
    assert "unsafe" not in scripts and scripts.count("sha256-") >= 2
    tab.goto(page.as_uri())
    tab.wait_for_selector(".js-plotly-plot .xtick text, .js-plotly-plot .ytick text")
    shown = tab.evaluate(
        "[...document.querySelectorAll('.xtick text, .ytick text')].map(e => e.textContent)"
    )
    for token in ('·"', "'s", "·a&b", "<b>"):
        assert token in shown, shown
    assert not any("&quot;" in one or "&#" in one or "&amp;" in one for one in shown)


def test_a_script_that_a_page_does_not_name_never_runs(browser, tmp_path):
    from mmlens.view.style.html import locked

    def title(*named: str) -> str:
        made = "const s = document.createElement('script'); s.textContent = 'document.title = 1';"
        own = f"<script>{made} document.head.append(s);</script>"
        page = locked(f'<!DOCTYPE html><meta charset="utf-8"><title>0</title>{own}', *named)
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        opened.goto((tmp_path / "page.html").as_uri())
        return opened.title()

    context = browser.new_context(offline=True)
    opened = context.new_page()
    assert title("document.title = 1") == "1"
    assert title() == "0"
    page = locked('<!DOCTYPE html><meta charset="utf-8"><title>0</title>')
    (tmp_path / "page.html").write_text(page + "<script>document.title = 2</script>")
    opened.goto((tmp_path / "page.html").as_uri())
    assert opened.title() == "0" and "script-src 'none'" in page
    context.close()
