"""The explorer: one file, no network, text from models and file names only, the right numbers."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from axe import pages, violations
from bridges import bridge
from PIL import Image

import mmlens as mm
from mmlens import Neuron, Patch, Scores, Token, view
from mmlens.explore.deeper import spread
from mmlens.families import toy
from mmlens.values.errors import AddressError

EVIL = "<img src=x onerror=alert(1)>"
CLOSE = "</script><script>document.title='PWNED'</script>"
PATCHES = tuple(Patch(row, col) for row in range(3) for col in range(4))
TOKENS = (Token(" a", 12), Token(" dog", 13), Token(EVIL, 14), Token(CLOSE, 15))
NEURONS = (Neuron(0, 5), Neuron(3, 17))
SAYS = {NEURONS[0]: [" a", " an"], NEURONS[1]: [" dog", EVIL, CLOSE]}
LENS = {(0, 5): 0.25, (1, 5): 0.75, (1, 6): 0.5}
"""Layer and patch at which the lens reads " dog", and how probable it is; elsewhere markup."""


def scores(values: Any, **labels: Any) -> Scores:
    return Scores(torch.tensor(values), tuple(labels), labels)


def read(shift: float = 0.0, **options: Any) -> Any:
    """What was read of a picture of 3 x 4 patches, all of its words hostile."""
    maps = torch.zeros(4, 12)
    maps[:, 5] = torch.tensor([0.5, 2.0 + shift, -1.0, 0.25])
    maps[1, 6] = -0.5
    active = torch.zeros(2, 12)
    active[0, 5], active[1, 11] = 3.0 + shift, 4.0
    rows = [(TOKENS[0], NEURONS[0], PATCHES[5], 0.4, SAYS[NEURONS[0]])]
    rows += [(TOKENS[1], NEURONS[1], PATCHES[11], 1.5, SAYS[NEURONS[1]])]
    rows += [(TOKENS[1], NEURONS[0], PATCHES[5], -0.5, SAYS[NEURONS[0]])]
    lens = [
        (layer, patch, 0, *((" dog", LENS[layer, at]) if (layer, at) in LENS else (EVIL, 0.125)))
        for layer in (0, 1)
        for at, patch in enumerate(PATCHES)
    ]
    fires = [(PATCHES[5], 0, NEURONS[0], 3.0 + shift), (PATCHES[11], 0, NEURONS[1], 4.0)]
    said = [(neuron, words, [0.5, 0.25, 0.125][: len(words)]) for neuron, words in SAYS.items()]
    without = [[0.5, 0.75, 0.5, 0.5], [0.5, 0.125, 0.5, 0.5]]
    parts = {
        "picture": Image.new("RGB", (160, 120), (200, 120, 30)),
        "prompt": f"A picture of {EVIL}",
        "caption": "".join(token.text for token in TOKENS),
        "tokens": TOKENS,
        "token": TOKENS[1],
        "maps": Scores(maps, ("token", "pos"), {"token": TOKENS, "pos": PATCHES}),
        "table": pd.DataFrame(rows, columns=["token", "neuron", "patch", "score", "words"]),
        "activations": Scores(active, ("neuron", "pos"), {"neuron": NEURONS, "pos": PATCHES}),
        "box": (0, 0, 160, 120),
        "about": {"model": f"toy {EVIL}", "versions": {"mmlens": "1"}, "edits": []},
        "before": scores([0.5, 0.875, 0.5, 0.5], token=TOKENS),
        "together": scores([0.5, 0.0625, 0.5, 0.5], token=TOKENS),
        "without": scores(without, neuron=NEURONS, token=TOKENS),
        "lens": pd.DataFrame(lens, columns=["layer", "pos", "rank", "token", "prob"]),
        "firing": pd.DataFrame(fires, columns=["patch", "rank", "neuron", "value"]),
        "decoded": pd.DataFrame(said, columns=["neuron", "words", "probs"]),
    }
    return SimpleNamespace(**(parts | options))


def top_pictures(*names: str) -> pd.DataFrame:
    """The pictures that excite L3.17 most, in this order."""
    photo, rows = Image.new("RGB", (64, 48), (20, 90, 200)), []
    for rank, name in enumerate(names):
        one = torch.zeros(12)
        one[rank] = 9.0 - rank
        rows.append(
            (NEURONS[1], rank, name, 9.0 - rank, photo, Scores(one, ("pos",), {"pos": PATCHES}))
        )
    return pd.DataFrame(rows, columns=["neuron", "rank", "sample", "value", "picture", "map"])


NAMES = ("first", f"second {EVIL}", "third")


def several() -> Any:
    return view.explore([read(i) for i in range(3)], NAMES, tops=top_pictures(NAMES[2], NAMES[0]))


def data_of(html: str, name: str) -> dict[str, Any]:
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.DOTALL
    )
    assert found is not None
    return json.loads(found[1])


# The file -----------------------------------------------------------------------------------------


def test_the_data_come_back_as_they_were():
    html = view.explore(read()).html
    data, shared = data_of(html, "p0"), data_of(html, "data")
    assert data["levels"][0]["grid"] == [3, 4] and data["target"] == 1
    assert [word["text"] for word in data["words"]] == ["a", "dog", EVIL, CLOSE]
    assert shared["neurons"]["L3.17"]["says"] == ["·dog", EVIL, CLOSE]
    assert [row["neuron"] for row in data["tops"][1]] == ["L3.17", "L0.5"]
    assert data["tops"][1][0]["at"] == PATCHES.index(Patch(2, 3))
    assert data["without"] == {"L0.5": [0.5, 0.75, 0.5, 0.5], "L3.17": [0.5, 0.125, 0.5, 0.5]}


def test_numbers_are_packed_within_a_thousandth():
    data = data_of(view.explore(read()).html, "p0")
    word = data["maps"][1]
    raw = np.frombuffer(base64.b64decode(word["data"]), "<i2")
    assert raw[5] * word["scale"] == pytest.approx(2.0, rel=1e-4)
    assert raw[6] * word["scale"] == pytest.approx(-0.5, rel=1e-3)
    probs = np.frombuffer(base64.b64decode(data["lens"]["probs"]), "<u2").reshape(2, 12, 1) / 65535
    assert probs[1, 5, 0] == pytest.approx(0.75, abs=1e-5)


def test_no_text_becomes_markup():
    for made in (view.explore(read(), title=f"{EVIL}{CLOSE}.png"), several()):
        assert "<img src=x" not in made.html and "PWNED'</script>" not in made.html
        assert made.html.count("<script") == made.html.count("</script>")
        assert "&lt;img src=x onerror=alert(1)&gt;" in made.html


def test_nothing_is_loaded_from_anywhere_and_no_script_but_one_runs():
    html = several().html
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(|innerHTML|eval\(", html)
    assert re.findall(r'<(?:link|iframe|object|embed)\b|src="(?!data:image/)', html) == []
    assert "default-src 'none'" in html and "script-src 'sha256-" in html


def test_a_part_that_looks_like_a_placeholder_stays_text():
    assert "{{js}}" in view.explore(read(), title="{{js}}.png").html


def test_an_overlay_covers_what_the_encoder_sees():
    data = data_of(view.explore(read(box=(20, 0, 140, 120))).html, "p0")
    assert data["window"] == [12.5, 0, 75, 100]


def test_without_the_full_reading_there_is_a_page_all_the_same():
    less = dict.fromkeys(("before", "together", "without", "lens", "firing", "decoded"))
    html = view.explore(read(**less)).html
    assert data_of(html, "p0")["lens"] is None
    assert data_of(html, "data")["neurons"]["L3.17"]["says"] == ["·dog", EVIL, CLOSE]


def test_a_word_that_is_not_explained_stands_there_without_a_map():
    """Of four tokens two are explained; the probabilities of all are known."""
    maps = read().maps.sel(token=[1, 2])
    whole: Any = read().table
    table = whole[whole["token"] == TOKENS[1]]
    one = read(maps=maps, table=table, together=read().together.sel(token=[1, 2]))
    data = data_of(view.explore(one).html, "p0")
    maps_of: Any = data["maps"]
    assert [one is None for one in maps_of] == [True, False, False, True]
    assert [len(rows) for rows in data["tops"]] == [0, 2, 0, 0] and data["target"] == 1
    assert [word["together"] for word in data["words"]] == [None, 0.0625, 0.5, None]
    assert [word["before"] for word in data["words"]] == [0.5, 0.875, 0.5, 0.5]


@pytest.mark.parametrize("layers, read", [(8, 8), (16, 16), (30, 15), (28, 14), (33, 11)])
def test_the_lens_of_a_deep_model_reads_some_layers_and_the_last(layers, read):
    chosen = spread(layers, 16)
    assert len(chosen) == read and chosen[-1] == layers - 1
    assert len({b - a for a, b in pairwise(chosen)}) == 1


def test_the_sizes_of_the_parts_add_up_to_the_file(tmp_path):
    made = several()
    size = made.save(tmp_path / "page.html").stat().st_size
    assert sum(made.sizes.values()) == pytest.approx(size / 1e6)
    assert re.fullmatch(r"0\.\d\d MB: (\w+ \d\.\d\d(, )?)+", made.told)


def test_a_budget_is_kept_by_showing_less_or_refused():
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    photo = read(picture=Image.fromarray(noise), box=(0, 0, 900, 900))
    whole = view.explore(photo)
    less = view.explore(photo, budget=0.3)
    assert sum(less.sizes.values()) <= 0.3 < sum(whole.sizes.values())
    with pytest.raises(
        AddressError, match=r"1 pictures do not fit into 0\.01 MB, at least 0\.\d\d"
    ):
        view.explore(photo, budget=0.01)


def test_what_is_no_page_is_refused():
    other = Scores(torch.zeros(1, 1), ("layer", "pos"))
    with pytest.raises(AddressError, match=re.escape("An explorer needs Scores(token, pos)")):
        view.explore(read(maps=other))
    with pytest.raises(AddressError, match="is none of the tokens"):
        view.explore(read(token=Token(" cat", 13)))
    for looks, names in (([], None), ([read()], ["a", "b"]), ([read(), read()], ["a", "a"])):
        with pytest.raises(AddressError, match="give at least one picture, and each its own name"):
            view.explore(looks, names)


def test_a_notebook_gets_the_page_in_a_frame_that_reaches_nothing():
    made = view.explore(read(), title=EVIL)
    frame = made._repr_html_()
    assert frame.startswith("<style>") and frame.count("<") == 4  # its style, and the frame
    assert '<iframe sandbox="allow-scripts allow-downloads" ' in frame
    assert "0." in repr(made) and EVIL not in frame


# In a browser -------------------------------------------------------------------------------------


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open pages without a network; at the end nothing was requested and nothing failed."""
    wrong: list[str] = []
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
    context.set_default_timeout(120_000)  # a busy machine is slow, not wrong
    tab = context.new_page()
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    tab.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    tab.on(
        "request",
        lambda one: wrong.append(one.url) if not one.url.startswith(("file:", "data:")) else None,
    )

    def opened(html: str, anchor: str = "") -> Any:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        tab.goto("about:blank")
        tab.goto(path.as_uri() + anchor)
        tab.wait_for_selector("html[data-ready]")
        return tab

    yield opened
    assert wrong == []
    assert not re.search(r"\[object|NaN|undefined", tab.locator("body").inner_text())
    assert tab.title() != "PWNED"  # the script in a token did not run
    context.close()


def painted(tab: Any) -> str:
    return tab.evaluate("document.getElementById('overlay').toDataURL()")


def number(shown: str) -> float:
    """A probability as the page writes it: `0.123`, `> 0.999`, `2e−5`."""
    return float(shown.removeprefix("> ").replace("−", "-"))


def text(tab: Any, id: str) -> str:
    return tab.locator(f"#{id}").inner_text()


def test_every_word_is_text(show):
    tab = show(view.explore(read(), title=EVIL).html)
    assert tab.title() == f"{EVIL} · mmlens" and text(tab, "shown") == EVIL
    assert tab.locator("#words button").all_inner_texts() == ["a", "dog", EVIL, CLOSE]
    assert EVIL in text(tab, "prompt")
    assert EVIL in tab.locator("#neurons .chips li").all_inner_texts()
    assert tab.locator("img").evaluate_all("all => all.every(i => i.src.startsWith('data:'))")


def test_the_caption_is_walked_by_arrow_keys_and_looked_at_by_pointing(show):
    tab = show(view.explore(read()).html)
    before = painted(tab)
    assert text(tab, "map-title") == "Attribution of “dog”"
    assert text(tab, "together") == (
        "“dog” has probability 0.875; with the first 2 neurons silenced 0.063."
    )
    tab.locator("#words button").first.hover()
    assert text(tab, "word-title") == "Neurons that speak for “a”"
    assert tab.locator("#neurons a.id").all_inner_texts() == ["L0.5"]
    tab.locator("footer").hover()
    assert painted(tab) == before and "dog" in text(tab, "word-title")
    tab.locator("#words [aria-checked=true]").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#words [aria-checked=true]").inner_text() == EVIL
    assert EVIL in text(tab, "map-title") and painted(tab) != before


def test_the_arrow_keys_pass_over_words_that_are_not_explained(show):
    maps = read().maps.sel(token=[1, 3])
    whole: Any = read().table
    table = whole[whole["token"] == TOKENS[1]]
    tab = show(view.explore(read(maps=maps, table=table)).html)
    assert [one.is_disabled() for one in tab.locator("#words button").all()] == [True, False] * 2
    tab.locator("#words [aria-checked=true]").focus()
    for shown in (CLOSE, "dog"):
        tab.keyboard.press("ArrowRight")
        assert tab.locator("#words [aria-checked=true]").inner_text() == shown


def test_a_neuron_shows_its_words_its_map_and_the_caption_without_it(show):
    tab = show(view.explore(read(), tops=top_pictures("one", EVIL)).html)
    before = painted(tab)
    tab.locator("#neurons a.id").first.click()
    tab.mouse.move(5, 5)
    assert tab.evaluate("location.hash") == "#L3.17"
    assert text(tab, "map-title") == "Where L3.17 is active" and painted(tab) != before
    assert tab.locator("#neuron-body .chips li").all_inner_texts() == ["·dog", EVIL, CLOSE]
    row = tab.locator(".ablation tbody tr").nth(1)
    assert row.inner_text().split() == ["dog", "0.875", "0.125", "−75.0"]
    assert tab.locator(".tops .value").all_inner_texts() == ["9", "8"]
    assert tab.locator(".tops .name").all_inner_texts() == ["one", EVIL]
    tab.keyboard.press("Escape")
    assert tab.locator("#panel-word").is_visible() and tab.evaluate("location.hash") == ""
    tab.locator("#neurons a.id").first.focus()  # from neuron to neuron without a mouse
    tab.keyboard.press("ArrowDown")
    assert text(tab, "map-title") == "Where L0.5 is active"
    tab.keyboard.press("Enter")
    assert text(tab, "neuron-title") == "L0.5"


def test_every_neuron_has_an_address(show):
    tab = show(view.explore(read()).html, "#L0.5")
    assert text(tab, "neuron-title") == "L0.5" and tab.locator("#panel-neuron").is_visible()
    tab.evaluate("location.hash = '#L3.17'")
    tab.wait_for_function("document.getElementById('neuron-title').textContent === 'L3.17'")


def test_a_patch_shows_the_lens_through_the_layers_and_the_neurons_that_fire(show):
    tab = show(view.explore(read()).html)
    tab.locator("#photo").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        tab.keyboard.press(key)
    readout = "Patch row 1, column 1: +2 to the logit of “dog”, rank 1 of 12."
    assert text(tab, "readout") == readout
    tab.keyboard.press("Enter")
    assert text(tab, "patch-title") == "Patch row 1, column 1"
    lens = [row.split() for row in tab.locator("#lens tr").all_inner_texts()]
    assert lens == [["0", "·dog", "0.250"], ["1", "·dog", "0.750"]]
    assert tab.locator("#fires a.id").all_inner_texts() == ["L0.5"]
    assert tab.locator("#fires .at").inner_text() == "activation 3"
    tab.locator("#lens button").last.hover()
    assert text(tab, "map-title") == "Where the lens reads “·dog” after layer 1"
    spots = tab.evaluate(
        """() => {
            const c = document.getElementById("overlay");
            const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
            return [...data].filter((_, i) => i % 4 === 3);
        }"""
    )
    assert [at for at, alpha in enumerate(spots) if alpha] == [5, 6] and spots[5] > spots[6]
    area = tab.locator("#overlay").bounding_box()
    tab.mouse.click(area["x"] + area["width"] * 7 / 8, area["y"] + area["height"] * 5 / 6)
    assert text(tab, "patch-title") == "Patch row 2, column 3"
    assert tab.locator("#fires a.id").all_inner_texts() == ["L3.17"]


def test_several_pictures_have_an_index_that_is_searched_and_walked(show):
    tab = show(several().html)
    # rows out of sight have no inner text before they are drawn (content-visibility: auto)
    assert tab.locator("#entries .at").all_text_contents() == list(NAMES)
    tab.locator("#entries button").nth(1).click()
    assert text(tab, "shown") == NAMES[1]
    tab.locator("#photo").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        tab.keyboard.press(key)
    assert text(tab, "readout").startswith("Patch row 1, column 1: +3 to the logit")
    tab.locator("#find").fill("third")
    assert text(tab, "found") == "1 of 3 pictures"
    tab.locator("#show-neurons").click()
    assert text(tab, "found") == "0 of 2 neurons"
    tab.locator("#find").fill("dog")
    assert tab.locator("#entries .id").all_text_contents() == ["L3.17"]
    tab.locator("#entries button").click()
    assert text(tab, "neuron-title") == "L3.17"
    assert "of 3 words in all pictures" in text(tab, "neuron-told")
    tab.locator(".tops button").first.click()
    assert text(tab, "shown") == NAMES[2] and text(tab, "neuron-title") == "L3.17"
    tab.evaluate(f"location.hash = 'picture=' + encodeURIComponent({NAMES[1]!r})")
    tab.wait_for_function(f"document.getElementById('shown').textContent === {NAMES[1]!r}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_the_page(show, scheme):
    """Contrast of the muted text, the faintest there is: at least 4.5 : 1 (WCAG AA)."""
    tab = show(view.explore(read()).html)
    tab.emulate_media(color_scheme="light")
    for _ in range({"light": 1, "dark": 2}[scheme]):
        tab.locator("#theme").click()
    assert text(tab, "theme") == f"Theme: {scheme}"

    def light(name: str) -> float:
        value = tab.evaluate(
            f"""() => {{
                const node = document.body.appendChild(document.createElement("i"));
                node.style.color = "var(--{name})";
                const colour = getComputedStyle(node).color;
                node.remove();
                return colour;
            }}"""
        )
        parts = [float(part) / 255 for part in re.findall(r"[\d.]+", value)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert (light("page") < 0.5) == (scheme == "dark")
    for ground in ("page", "panel"):
        low, high = sorted((light("muted"), light(ground)))
        assert (high + 0.05) / (low + 0.05) > 4.5


def test_a_narrow_window_needs_no_sideways_scrolling(show):
    tab = show(several().html)
    for width in (800, 400):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_axe_finds_nothing_wrong(browser, tmp_path):
    (tmp_path / "page.html").write_text(several().html, encoding="utf-8")
    with pages(browser) as tabs:
        for tab in tabs.values():
            tab.goto((tmp_path / "page.html").as_uri())
            for name in ("tab-word", "tab-neuron", "tab-patch"):
                tab.locator("#neurons a.id").first.click() if name == "tab-neuron" else None
                tab.locator("#photo").click() if name == "tab-patch" else None
                assert violations(tab) == []


def test_a_frame_of_a_notebook_shows_the_page(show):
    made = view.explore(read())
    path = show("<!doctype html><html data-ready><title>notebook</title>" + made._repr_html_())
    inside = path.frame_locator("iframe")
    inside.locator("#neurons a.id").first.click()
    assert inside.locator("#neuron-title").inner_text() == "L3.17"


# From a model to the page -------------------------------------------------------------------------

MODEL = "toy-gptj-planted"


@pytest.fixture(scope="module")
def seen() -> mm.Look:
    return mm.look(bridge(MODEL), toy.picture((2, 1)), max_new_tokens=3, full=True)


def test_what_is_silenced_is_what_an_edit_silences(seen):
    model, best = bridge(MODEL), Neuron(1, 5)
    before = " dog" * seen.tokens.index(seen.token)
    prompt = mm.Prompt(toy.picture((2, 1)), "A picture of" + before)
    word = model.to_single_token(" dog")
    for one, expected in (
        (model, seen.before.sel(token=seen.token)),
        (
            model.edit(mm.Edit("neurons", 0.0, best)),
            seen.without.sel(neuron=best, token=seen.token),
        ),
    ):
        prob = one(prompt)[0, -1].float().softmax(-1)[word].item()
        assert prob == pytest.approx(expected.item(), rel=1e-4, abs=1e-7)


def test_the_neurons_that_fire_at_a_patch_are_the_most_active_ones(seen):
    model, prompt = bridge(MODEL), mm.Prompt(toy.picture((2, 1)), "A picture of")
    there = mm.activations(model, prompt, "neurons", pos=Patch(2, 1))
    top = there.to_frame(k=8, name="value")
    rows = seen.firing[seen.firing["patch"] == Patch(2, 1)]
    assert [(n.layer, n.unit) for n in rows["neuron"]] == list(
        zip(top.layer, top.unit, strict=True)
    )
    assert np.allclose(rows["value"], top["value"], rtol=1e-4)


def test_the_page_of_a_model_shows_its_numbers(seen, show):
    made = view.explore(seen, title="white.png")
    assert sum(made.sizes.values()) < 6
    tab = show(made.html, "#L1.5")
    at = seen.tokens.index(seen.token)
    cells = tab.locator(".ablation tbody tr").nth(at).locator("td").all_inner_texts()
    numbers = seen.before, seen.without.sel(neuron=Neuron(1, 5))
    for shown, one in zip(cells, numbers, strict=False):
        assert number(shown) == pytest.approx(one.sel(token=seen.token).item(), abs=1.1e-3)
    tab.locator("#photo").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowDown", "Enter"):
        tab.keyboard.press(key)
    lens = seen.lens[(seen.lens["pos"] == Patch(2, 1)) & (seen.lens["rank"] == 0)]
    first = [row.split()[-1] for row in tab.locator("#lens tr td:nth-child(2)").all_inner_texts()]
    assert [number(shown) for shown in first] == pytest.approx(list(lens["prob"]), abs=1.1e-3)


def test_a_data_set_is_read_and_read_again_without_the_model(tmp_path):
    from mmlens.datasets import Sample, Samples
    from mmlens.explore import read_all, read_found

    def sample(i: int) -> Sample:
        return Sample(f"p{i}", toy.picture((i, 1), seed=i))

    samples = Samples("toys", [f"p{i}" for i in range(3)], sample, "toys 3")
    model = bridge(MODEL)
    found = read_all(model, samples, tmp_path / "toys", k=2, tops=2, progress=False)
    again = read_found(tmp_path / "toys", tops=2)
    assert found.names == again.names == ["p0", "p1", "p2"] and len(again.failed) == 0
    one, own = again.looks[1], mm.look(model, samples[1].image, k=2)
    assert one.caption == own.caption and list(one.neurons.neuron) == list(own.neurons.neuron)
    assert torch.allclose(one.maps.values, own.maps.values, atol=1e-5)
    best = again.tops[again.tops["neuron"] == Neuron(1, 5)]
    direct = {
        s.id: float(
            mm.activations(
                model, mm.Prompt(s.image), "neurons", Neuron(1, 5), pos=Patch
            ).values.max()
        )
        for s in samples
    }
    assert list(best["value"]) == pytest.approx(sorted(direct.values())[:0:-1], rel=1e-2)
    assert [direct[name] for name in best["sample"]] == pytest.approx(list(best["value"]), rel=1e-2)
    made = view.explore(again.looks, again.names, tops=again.tops)
    assert data_of(made.html, "data")["tops"]["L1.5"][0]["value"] == pytest.approx(
        best["value"].iloc[0], rel=1e-3
    )
