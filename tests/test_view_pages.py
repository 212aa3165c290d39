"""Saved pages in a real browser: any width, light and dark, and files of every format."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from axe import pages, violations
from PIL import Image

import mmlens as mm
from mmlens import Neuron, Patch, Scores, Token, view
from mmlens.families import toy
from mmlens.values.errors import AddressError
from mmlens.values.labels import Head
from mmlens.view.style import lab_theme, theme

PHOTO = Image.new("RGB", (40, 30), (120, 120, 120))
PATCHES = tuple(Patch(row, col) for row in range(3) for col in range(4))
WORDS = (Token(" of", 12), Token(" a", 13))
TOP = pd.DataFrame({"neuron": [Neuron(0, 5)], "sample": ["s"], "value": [3.0]})


NAMES = ("heatmap", "panels", "tokens", "cards", "gallery", "head_texts", "attention_on_image",
         "attention_text")  # fmt: skip


def maps(*axes: str) -> Scores:
    values = torch.arange(12.0).reshape(1, 12) - 3
    return Scores(values, axes, {axes[0]: (Neuron(0, 5),), "pos": PATCHES})


def pattern() -> Scores:
    values = torch.zeros(2, 3, 14, 14)
    values[:, :, :, 0] = 0.1
    values[1, 2, 13, 5] = 0.8  # the strongest: layer 1, head 2
    labels = PATCHES + WORDS
    return Scores(values, ("layer", "head", "query", "key"), {"query": labels, "key": labels})


def made() -> dict[str, Any]:
    """A view of each kind."""
    words = pd.DataFrame({"neuron": [Neuron(0, 5)], "words": [[" dog", " cat"]]})
    texts = {"head": [Head(0, 1)], "place": [0], "text": ["a dog"], "explained": [0.5]}
    square = Scores(torch.rand(2, 2, 2), ("head", "query", "key"), {"query": WORDS, "key": WORDS})
    return {
        "heatmap": view.heatmap(Scores(torch.randn(2, 3), ("layer", "head"))),
        "panels": view.panels(PHOTO, maps("neuron", "pos")),
        "tokens": view.tokens([" a", " b"], [1.0, -0.5]),
        "cards": view.cards(words, picture=PHOTO, activations=maps("neuron", "pos")),
        "gallery": view.gallery(TOP, {"s": PHOTO}, maps={(Neuron(0, 5), "s"): maps("x", "pos")[0]}),
        "head_texts": view.head_texts(pd.DataFrame(texts)),
        "attention_on_image": view.attention_on_image(PHOTO, pattern()),
        "attention_text": view.attention_text(square),
    }


@pytest.fixture(scope="module")
def views() -> dict[str, Any]:
    return made()


def others() -> dict[str, Any]:
    """A figure of each further kind."""
    units, steps = torch.randn(3, 4), {"arm": ("ranked", "random 1"), "k": (0, 1, 3)}
    table = pd.DataFrame({"source": [Neuron(0, 1), Neuron(1, 2)], "target": [Neuron(1, 2), " dog"],
                          "score": [1.0, -0.5]})  # fmt: skip
    curves = Scores(torch.randn(2, 3), ("arm", "k"), steps)
    photo = Scores(torch.randn(12), ("pos",), {"pos": PATCHES})
    return {
        "bars": view.bars(Scores(units[0], ("unit",))),
        "compare": view.compare({"one": curves.sel(arm="ranked"), "two": curves.sel(arm="ranked")}),
        "curves": view.curves(curves),
        "graph": view.graph(table),
        "neurons": view.neurons(Scores(units, ("layer", "unit"))),
        "on_image": view.on_image(photo, PHOTO),
    }


BUNDLED = ("heading-order", "role-img-alt")
"""Rules that the markup of CircuitsVis breaks, which draws patterns among words."""


def test_axe_finds_nothing_wrong_in_saved_figures(views, browser, tmp_path):
    wrong = {}
    with pages(browser) as tabs:
        for name, figure in {**views, **others()}.items():
            page = view.save(figure, tmp_path / f"{name}.html")
            for scheme, tab in tabs.items():
                tab.goto(page.as_uri())
                tab.wait_for_timeout(200)
                known = BUNDLED if name == "attention_text" else ()
                if found := [one for one in violations(tab) if one[0] not in known]:
                    wrong[name, scheme] = found
    assert wrong == {}


@pytest.fixture(scope="module")
def explorer() -> Any:
    model = mm.load("toy-gptj-planted")
    seen = mm.look(model, toy.picture((2, 1)), k=4, max_new_tokens=2, full=True)
    own = list(dict.fromkeys(seen.neurons.neuron))
    traits = pd.DataFrame({"neuron": own, "cross-format z": np.arange(len(own), dtype=float)})
    return view.explore([seen, seen], ["one", "two"], traits=traits)


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """A function that opens a page offline; nothing may fail or be requested."""
    contexts, wrong = [], list[str]()

    def go(path: Path, width: int = 1000, scheme: str = "light") -> Any:
        context = browser.new_context(
            offline=True, viewport={"width": width, "height": 800}, color_scheme=scheme
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        tab.on("request", lambda one: wrong.append(one.url) if one.url[:4] == "http" else None)
        tab.goto(path.as_uri())
        return tab

    yield go
    assert wrong == []
    for context in contexts:
        context.close()


def background(tab: Any, selector: str) -> int:
    """The mean of a background's colour, 0 to 255."""
    told = tab.evaluate(f"getComputedStyle(document.querySelector('{selector}')).backgroundColor")
    return round(sum(map(int, re.findall(r"\d+", told)[:3])) / 3)


@pytest.mark.parametrize("name", NAMES)
def test_every_view_is_written_in_every_format(views, name, tmp_path):
    for kind in (".html", ".svg", ".pdf", ".png", ".csv"):
        view.save(views[name], tmp_path / f"view{kind}")
    page = (tmp_path / "view.html").read_text(encoding="utf-8")
    assert 'name="viewport"' in page and 'content="light dark"' in page
    assert (tmp_path / "view.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "view.svg").read_text().startswith("<svg")
    picture = np.asarray(Image.open(tmp_path / "view.png").convert("L"))
    assert picture.std() > 5  # something is drawn
    assert len((tmp_path / "view.csv").read_text().splitlines()) > 1


def test_numbers_are_those_of_the_view(tmp_path):
    scores = Scores(torch.tensor([[1.5, -2.0]]), ("layer", "pos"), {"pos": WORDS})
    rows = pd.read_csv(view.save(view.heatmap(scores), tmp_path / "a.csv"))
    assert list(rows["value"]) == [1.5, -2.0]
    assert list(rows["layer"]) == [0, 0]
    assert list(rows["position"]) == ["·of, position 12", "·a, position 13"]
    rows = pd.read_csv(view.save(view.panels(PHOTO, maps("neuron", "pos")), tmp_path / "b.csv"))
    assert list(rows["panel"].unique()) == ["L0.5"] and rows["value"].sum() == 30
    rows = pd.read_csv(view.save(view.attention_on_image(PHOTO, pattern()), tmp_path / "c.csv"))
    assert len(rows) == 2 * 3 * 14 * 14


@pytest.mark.parametrize("name", ["heatmap", "panels", "gallery", "attention_on_image"])
def test_a_saved_page_follows_the_system_and_fits_a_phone(views, name, opened, tmp_path):
    page = view.save(views[name], tmp_path / "page.html")
    shades = {}
    for scheme in ("light", "dark"):
        tab = opened(page, 390, scheme)
        if name in ("heatmap", "panels"):
            tab.wait_for_selector(".mm-part[data-ready]")
            ink = tab.evaluate("getComputedStyle(document.querySelector('.gtitle')).fill")
            assert (sum(map(int, re.findall(r"\d+", ink)[:3])) > 384) == (scheme == "dark")
        shades[scheme] = background(tab, "body")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert shades["light"] > 230 and shades["dark"] < 60


BOXES = """(selector) => [...document.querySelectorAll(selector)].map((one) => {
  const { left, top, right, bottom } = one.getBoundingClientRect();
  return [left, top, right, bottom];
})"""


def test_on_a_phone_names_of_panels_lie_over_no_panel_and_nothing_is_cut(opened, tmp_path):
    values = torch.randn(8, 12)
    many = Scores(values, ("layer", "pos"), {"pos": PATCHES}, {"method": "attribution_patching",
                  "metric": "logit difference ' dog' − ' cat'", "model": "toy"})  # fmt: skip
    tab = opened(view.save(view.panels(many, PHOTO), tmp_path / "page.html"), 390)
    tab.wait_for_selector(".mm-part[data-ready]")
    tab.wait_for_timeout(300)
    photos, names = (tab.evaluate(BOXES, one) for one in (".imagelayer image", ".annotation-text"))
    assert len(photos) == len(names) == 8
    for left, top, right, bottom in names:
        for x0, y0, x1, y1 in photos:
            assert not (left < x1 and right > x0 and top < y1 - 2 and bottom > y0 + 2)
    [room] = tab.evaluate(BOXES, ".mm-room")
    texts = [box for box in tab.evaluate(BOXES, ".mm-room text") if box[2] > box[0]]
    assert len(texts) > 10
    for left, top, _, bottom in texts:
        assert top >= room[1] - 2 and bottom <= room[3] + 2 and left >= room[0] - 2


def crowded() -> dict[str, Any]:
    """Figures whose names have little room on a phone."""
    told = {"model": "toy", "method": "patch", "quantity": "recovered", "metric": "logit of ' dog'"}
    # numbers between others of a bar push its name outwards
    rise = torch.linspace(-0.066, 0.05, 12)
    names = ("<start_of_text>", "a", "dog", "<end_of_text>")
    few = Scores(torch.randn(4, 12) * 5e-5, ("token", "pos"), {"token": names, "pos": PATCHES},
                 {"method": "bilinear_attribution", "of": "a dog"})  # fmt: skip
    units = torch.zeros(3, 1000)
    units[2, 500:600:4] = 1.0
    return {
        "map": view.on_image(Scores(rise, ("pos",), {"pos": PATCHES},
                                    {"method": "rise", "of": " dog", "target": "logit"}), PHOTO),
        "short bar": view.panels(Scores(torch.randn(3, 12), ("layer", "pos"), {"pos": PATCHES},
                                        told), PHOTO),
        "long names": view.panels(few, PHOTO),
        "neurons": view.neurons(Scores(units, ("layer", "unit"))),
        "two rows": view.graph(_crossed()),
        "parts": view.bars(Scores(torch.randn(9), ("part",), {"part": tuple(PARTS)})),
    }  # fmt: skip


PARTS = ["embed", *(f"{kind} {at}" for at in range(4) for kind in ("attn", "mlp"))]


def _crossed() -> Any:
    import pandas as pd

    layers = [[f"L{i}.{17 * i + 300 * j}" for j in range(2)] for i in range(5)] + [[" moon"]]
    edges = [(a, b, 1.0) for one, two in pairwise(layers) for a in one for b in two]
    return pd.DataFrame(edges, columns=["source", "target", "score"])


@pytest.mark.parametrize("x", ["dim", "part"])
def test_a_phone_shows_all_bars_and_columns_without_scrolling(x, opened, tmp_path):
    labels = {"part": tuple(PARTS)} if x == "part" else {}
    for scores in (
        Scores(torch.randn(len(PARTS) if labels else 200), (x,), labels),
        Scores(torch.randn(3, len(PARTS) if labels else 200), ("layer", x), labels),
    ):
        tab = opened(view.save(view.show(scores), tmp_path / "page.html"), 390)
        tab.wait_for_selector(".mm-part[data-ready]")
        tab.wait_for_timeout(300)
        [paper] = tab.evaluate(BOXES, ".js-plotly-plot")
        assert paper[2] <= 390
        ticks = [one for one in tab.evaluate(BOXES, ".xtick text") if one[2] > one[0]]
        assert len(ticks) == len(PARTS) if labels else 8 < len(ticks) < 25
        assert all(a[2] <= b[0] + 1 for a, b in pairwise(ticks))


@pytest.mark.parametrize("name", ["map", "short bar", "long names", "neurons", "two rows", "parts"])
def test_on_a_phone_no_text_of_a_figure_is_cut_or_covers_another(name, opened, tmp_path):
    tab = opened(view.save(crowded()[name], tmp_path / "page.html"), 390)
    tab.wait_for_selector(".mm-part[data-ready]")
    tab.wait_for_timeout(500)
    [paper] = tab.evaluate(BOXES, ".js-plotly-plot")
    texts = [box for box in tab.evaluate(BOXES, ".js-plotly-plot text:not([style*=hidden])")
             if box[2] > box[0]]  # fmt: skip
    assert len(texts) > 6
    for at, (left, top, right, bottom) in enumerate(texts):
        assert left >= paper[0] - 1 and right <= paper[2] + 1 and bottom <= paper[3] + 1
        for x0, y0, x1, y1 in texts[:at]:
            across, down = min(right, x1) - max(left, x0), min(bottom, y1) - max(top, y0)
            assert across <= 2 or down <= 4


@pytest.mark.parametrize(
    "dark, light",
    [("data-jp-theme-light=false", "data-jp-theme-light=true"),
     ("data-theme=dark", "data-theme=light")],
)  # fmt: skip
def test_a_view_in_a_notebook_follows_the_notebook(views, dark, light, opened, tmp_path):
    page = tmp_path / "page.html"
    for around, scheme in ((dark, "light"), (light, "dark")):
        text = f"<!DOCTYPE html><meta charset=utf-8><body {around}>{views['tokens']}</body>"
        page.write_text(text, encoding="utf-8")
        assert (background(opened(page, scheme=scheme), ".mm-view") < 60) == (around == dark)


def test_a_theme_that_was_chosen_stays(opened, tmp_path):
    try:
        view.use_theme("dark")
        bars = view.bars(Scores(torch.ones(2), ("layer",)))
        two = {"a": view.tokens([" a"], [1.0]), "b": bars}
        pages = [view.save(one, tmp_path / f"{name}.html") for name, one in two.items()]
    finally:
        view.use_theme("auto")
    assert all(background(opened(page), "body") < 60 for page in pages)
    with pytest.raises(AddressError, match="write 'auto', 'light' or 'dark'"):
        view.use_theme("blue")


def test_figures_are_dark_where_jupyterlab_is(tmp_path, monkeypatch):
    settings = tmp_path / "@jupyterlab" / "apputils-extension" / "themes.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    monkeypatch.setenv("JUPYTERLAB_SETTINGS_DIR", str(tmp_path))
    monkeypatch.setitem(lab_theme.sys.modules, "ipykernel", lab_theme)
    for name, dark in (("JupyterLab Light", False), ("JupyterLab Dark", True)):
        settings.write_text('{\n  // chosen\n  "theme": ' + json.dumps(name) + "\n}")
        lab_theme._dark.cache_clear()
        assert (theme.colours()["page"] == "#14181d") == dark
    lab_theme._dark.cache_clear()


def saved(tab: Any, selector: str) -> bytes:
    with tab.expect_download() as waiting:
        tab.locator(selector).click()
    return Path(waiting.value.path()).read_bytes()


@pytest.mark.parametrize("name", ["heatmap", "gallery", "attention_on_image"])
def test_buttons_save_the_picture_and_the_numbers(views, name, opened, tmp_path):
    tab = opened(view.save(views[name], tmp_path / "page.html"))
    if name == "heatmap":
        tab.wait_for_selector(".mm-part[data-ready]")
    assert b"<svg" in saved(tab, "[data-as=svg]")[:100]
    picture = np.asarray(Image.open(io.BytesIO(saved(tab, "[data-as=png]"))).convert("L"))
    assert picture.shape[1] > 1000 and picture.std() > 3
    rows = list(csv.reader(io.StringIO(saved(tab, "[data-as=csv]").decode())))
    assert len(rows) == {"heatmap": 7, "gallery": 2, "attention_on_image": 15}[name]


def test_attention_opens_on_the_strongest_head_and_shows_every_head_small(opened, tmp_path):
    tab = opened(view.save(view.attention_on_image(PHOTO, pattern()), tmp_path / "page.html"))
    heads = tab.locator(".mm-overview button")
    assert heads.all_inner_texts() == [f"L{layer}H{head}" for layer in (0, 1) for head in range(3)]
    assert tab.locator(".mm-overview [aria-pressed=true]").inner_text() == "L1H2"
    told = tab.locator(".mm-told")
    tab.wait_for_function("document.querySelector('.mm-told').textContent.includes('patch')")
    assert "in L1H2, most to patch (1, 1): 80.0 %" in told.inner_text()
    heads.first.click()
    assert "in L0H0, most to patch (0, 0): 10.0 %" in told.inner_text()


def test_one_query_of_one_head_is_drawn_as_it_was_asked_for(opened, tmp_path):
    one = pattern().sel(layer=1, query=-1)
    tab = opened(view.save(view.attention_on_image(PHOTO, one), tmp_path / "page.html"))
    tab.wait_for_function("document.querySelector('.mm-told').textContent.includes('patch')")
    told = tab.locator(".mm-told").inner_text()
    assert "in head 2, most to patch (1, 1): 80.0 %" in told
    single = view.attention_on_image(PHOTO, one.sel(head=2))
    assert "mm-overview" in single and '"heads": [""]' in single


# -- the explorer ------------------------------------------------------------------------------


def test_neurons_of_the_explorer_are_sorted_and_filtered(explorer, opened, tmp_path):
    tab = opened(view.save(explorer, tmp_path / "page.html"), 1280)
    names = lambda: tab.locator("#neurons a.id").all_inner_texts()  # noqa: E731
    first = names()
    layers = [int(re.findall(r"L(\d+)", name)[-1]) for name in first]
    tab.locator("#arrange select").first.select_option("layer")
    assert [int(re.findall(r"L(\d+)", name)[-1]) for name in names()] == sorted(layers)
    tab.locator("#arrange select").first.select_option("trait cross-format z")
    assert names() == first[::-1]
    tab.locator("#arrange select").nth(1).select_option(str(layers[0]))
    assert len(names()) == layers.count(layers[0])
    assert "raises, " in tab.locator(".underlines").inner_text()


def test_a_search_shows_the_word_that_matched(explorer, opened, tmp_path):
    tab = opened(view.save(explorer, tmp_path / "page.html"), 1280)
    tab.locator("#show-neurons").click()
    tab.locator("#find").fill("dog")
    assert set(tab.locator("#entries mark").all_inner_texts()) == {"dog"}
    assert tab.locator("#entries li").count() == tab.locator("#entries li:has(mark)").count()


def test_the_explorer_saves_its_picture_its_neurons_and_itself(explorer, opened, tmp_path):
    for kind in (".svg", ".pdf", ".png", ".csv"):
        assert view.save(explorer, tmp_path / f"e{kind}").stat().st_size > 500
    tab = opened(view.save(explorer, tmp_path / "page.html"), 1280)
    assert b"<svg" in saved(tab, "#save-svg")[:100]
    assert Image.open(io.BytesIO(saved(tab, "#save-png"))).width == 2 * 672
    rows = list(csv.reader(io.StringIO(saved(tab, "#save-csv").decode())))
    assert rows[0][:2] == ["neuron", "score"] and rows[1][0].startswith("L")
