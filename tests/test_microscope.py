"""The microscope: what its site shows is right, it is made the same however often it is stopped."""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from axe import pages, violations
from bridges import bridge

import mmlens as mm
from mmlens import Neuron, Patch
from mmlens.datasets.sample import Sample, Samples, Thing
from mmlens.explore.unit_labels import BINS, label_table, labels_of_units
from mmlens.explore.unit_neighbours import directions, nearest
from mmlens.explore.unit_weights import connections, wirings
from mmlens.families import toy
from mmlens.values.errors import AddressError, ArgumentError, CapabilityError
from mmlens.view.microscope_page import shards

making = importlib.import_module("mmlens.explore.microscope")  # the name is also a function
PLACES = [(row, col) for row in range(4) for col in range(4)]
EVIL = "<img src=x onerror=alert(1)>"
CLOSE = "</script><script>document.title='PWNED'</script>"
NAMES = (EVIL, "left", CLOSE, "right")


def pictures(n: int = 24, broken: int | None = None) -> Samples:
    """Noise with one white patch, labelled by its column; reading one may be interrupted."""

    def read(place: int) -> Sample:
        if place == broken:
            raise KeyboardInterrupt
        at = PLACES[place % 16]
        return Sample(ids[place], toy.picture(at, seed=place), (), (Thing(NAMES[at[1]]),))

    ids = [f"scene-{place}" for place in range(n)]
    return Samples("scenes", ids, read, "hash")


def shard(site: Path, name: str) -> dict[str, Any]:
    text = (site / "units" / name).read_text()
    return json.loads(re.fullmatch(r"microscope\.take\(\"[^\"]+\",(.*)\);\n", text)[1])  # type: ignore[index]


def contents(site: Path) -> dict[str, str]:
    return {
        path.relative_to(site).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in site.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: Any) -> Path:
    """A site of the toy's encoder."""
    folder = tmp_path_factory.mktemp("microscope")
    return mm.microscope(bridge("toy-gptj"), pictures(), folder, chunk=4).parent


def test_the_top_pictures_are_those_of_top_images_and_their_maps_are_the_activations(made):
    model, data = bridge("toy-gptj"), pictures()
    rows = shard(made, "vision.L1/units-0000.js")["rows"]
    wanted = mm.top_images(model, data, [Neuron(1, unit, "vision") for unit in range(4)], k=9)
    for unit in range(4):
        own = wanted[(wanted["neuron"] == Neuron(1, unit, "vision")) & (wanted["value"] > 0)]
        found = rows[unit]["t"]
        assert [name for _, name, _, _ in found] == list(own["sample"])
        assert np.allclose([value for _, _, value, _ in found], own["value"], rtol=2e-3)
        number, name, _, packed = found[0]
        assert data.ids[number] == name
        prompt = mm.Prompt(data[number].image)
        values = mm.activations(model, prompt, "vision.neurons", Neuron(1, unit, "vision"),
                                pos=Patch).values.clamp(min=0)  # fmt: skip
        data_ = np.frombuffer(base64.b64decode(packed), np.uint8)
        levels = np.stack([data_ >> 4, data_ & 15], 1).ravel()
        assert np.array_equal(levels, (15 * values / values.max()).round().numpy())
        assert (made / f"pictures/000/{number:06d}.jpg").is_file()


def test_a_site_that_was_interrupted_at_any_step_ends_with_the_same_bytes(
    made, tmp_path, monkeypatch
):
    model = bridge("toy-gptj")
    with pytest.raises(KeyboardInterrupt):  # in the sweep
        mm.microscope(model, pictures(broken=9), tmp_path, chunk=4)
    real, seen = making.write_layer, []

    def stops(folder: Path, key: str, *rest: Any) -> Any:
        seen.append(key)
        if key == "vision.L1":
            raise KeyboardInterrupt
        return real(folder, key, *rest)

    monkeypatch.setattr(making, "write_layer", stops)
    with pytest.raises(KeyboardInterrupt):  # after the first layer
        mm.microscope(model, pictures(), tmp_path, chunk=4)
    assert seen == ["vision.L0", "vision.L1"]
    monkeypatch.setattr(making, "write_layer", lambda *a: (seen.append(a[1]), real(*a))[1])
    mm.microscope(model, pictures(), tmp_path, chunk=4)
    assert seen[2] == "vision.L1"  # the finished layer is not made again
    assert contents(tmp_path) == contents(made)
    (tmp_path / "units/vision.L0/list-0000.js").write_text("damaged")
    mm.microscope(model, pictures(), tmp_path, chunk=4)
    assert contents(tmp_path) == contents(made)


def test_no_file_is_larger_than_its_bound_and_a_unit_alone_that_is_says_so(made, tmp_path):
    sizes = {p: p.stat().st_size for p in made.rglob("*") if p.is_file() and "work" not in p.parts}
    assert max(sizes.values()) < 300_000
    texts = [f'"{"x" * 3000}"'] * 300
    each, files = shards.write_shards(tmp_path, "L0", "units", texts, "stamp")
    assert each == 64 and len(files) == 5
    assert all((tmp_path / name).stat().st_size < 300_000 for name in files)
    assert [shard(tmp_path, f"L0/units-{i:04d}.js")["start"] for i in range(5)] == [
        0, 64, 128, 192, 256]  # fmt: skip
    with pytest.raises(AddressError, match="show fewer top pictures"):
        shards.split(['"' + "x" * shards.LIMIT + '"'])


def test_units_of_a_language_model_say_what_they_decode_to_and_tables_of_others_are_shown(tmp_path):
    model = bridge("toy-gptj")
    words = pd.DataFrame({"neuron": ["L2.3", "L2.3"], "word": ["cat", "dog"], "value": [1.0, 2.0]})
    formats = pd.DataFrame({"neuron": [Neuron(2, 3)], "z": [0.5], "z_low": [0.1], "z photo": [0.7]})
    others = {"top_words": words, "cross_format": formats}
    draw = lambda neuron: toy.picture((0, neuron.unit % 4))  # noqa: E731
    mm.microscope(model, pictures(6), tmp_path, tower="lm", layer=2, drawn=draw, **others)
    unit = shard(tmp_path, "L2/units-0000.js")["rows"][3]
    said = mm.decode(model, [Neuron(2, 3)]).iloc[0]
    assert [word.replace("·", " ") for word, _ in unit["d"]] == list(said["words"])
    assert unit["p"] == [["dog", 2], ["cat", 1]]
    assert unit["f"] == {"index": 0.5, "low": 0.1, "photo": 0.7}
    assert (tmp_path / unit["v"][0]).is_file()
    assert "o" not in unit and len(unit["i"]) == 6 and unit["i"][0][0] == 1  # the last layer


@pytest.fixture(scope="module")
def clip_site(tmp_path_factory: Any) -> tuple[Any, Path, dict[str, Any]]:
    """The bundled CLIP, a site of its last layer, and how that was asked for."""
    pytest.importorskip("open_clip")
    from mmlens.papers.goh.questions.formats import world

    model = mm.load("pictos-clip")
    asked = {"layer": 7, "words": ["dog", "cat", "chair", "sock"], "visualise": 2, "k": 4,
             "formats": world(["dog", "chair", "sock"], 4)}  # fmt: skip
    folder = tmp_path_factory.mktemp("clip")
    return model, mm.microscope(model, "pictos:held_out:8", folder, **asked).parent, asked


def test_units_of_the_bundled_clip_show_words_formats_and_visualisations(clip_site, monkeypatch):
    model, site, asked = clip_site
    row = units_of(site)[158]  # the unit of chairs
    scores = mm.word_probe(model, asked["words"], layer=7)
    values = dict(zip(scores.of("word"), scores.values[:, 158].tolist(), strict=True))
    assert row["p"][0][0] == "chair" and len(row["p"]) == 4
    assert all(abs(value - values[word]) <= 1e-3 * abs(value) for word, value in row["p"])
    assert row["f"]["concept"] == "chair" and row["f"]["low"] > 0
    parts = {name: row["f"][name] for name in ("drawing", "symbol", "written")}
    assert row["f"]["index"] == min(parts.values())
    drawn = [unit for unit, found in enumerate(units_of(site)) if "v" in found]
    assert len(drawn) == 2 and all((site / units_of(site)[u]["v"][0]).is_file() for u in drawn)
    files = [one for one in site.rglob("*") if one.is_file() and "work" not in one.parts]
    assert max(one.stat().st_size for one in files) < 300_000
    before = contents(site)
    for name in ("word_probe", "cross_format_index", "visualise"):  # nothing is made twice
        monkeypatch.delattr(f"mmlens.explore.unit_probes.{name}")
    (site / "units/vision.L7/list-0000.js").unlink()
    mm.microscope(model, "pictos:held_out:8", site, **asked)
    assert contents(site) == before


def test_the_bundled_clips_unit_is_shown_whole_in_a_browser(clip_site, browser):
    _, site, _ = clip_site
    drawn = next(unit for unit, found in enumerate(units_of(site)) if "v" in found)
    for width, scheme in ((1280, "light"), (390, "dark")):
        context = browser.new_context(
            offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error, wrong=wrong: wrong.append(str(error)))
        page.goto(f"{(site / 'index.html').as_uri()}#vision.L7.{drawn}")
        page.wait_for_selector("html[data-ready=yes]", state="attached")
        text = page.locator("main").inner_text()
        for title in ("Top pictures", "Feature visualisation", "Top words", "Across formats"):
            assert title in text
        assert page.evaluate("document.querySelector('.drawn img').naturalWidth") == 64
        assert page.evaluate("document.documentElement.scrollWidth") <= width and wrong == []
        context.close()


def units_of(site: Path) -> list[dict[str, Any]]:
    """What is shown of the units of the last layer, in their order."""
    names = sorted(one.name for one in (site / "units/vision.L7").glob("units-*.js"))
    return [row for name in names for row in shard(site, f"vision.L7/{name}")["rows"]]


def test_what_is_asked_of_a_vision_tower_is_refused_elsewhere_and_bad_formats_at_once(tmp_path):
    model, data = bridge("toy-gptj"), pictures(2)
    with pytest.raises(CapabilityError, match="tower='vision'"):
        mm.microscope(model, data, tmp_path, tower="lm", words=["dog"])
    few = {"photo": {name: [data[0].image] * 4 for name in ("dog", "cat")}}
    with pytest.raises(ArgumentError, match="two at least"):
        mm.microscope(model, data, tmp_path, layer=0, formats=few)
    assert not list(tmp_path.iterdir())


def test_channels_of_convolutions_are_units_and_each_layer_has_its_own_grid(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", pretrained=False).eval()
    model = mm.from_parts(vision=net)
    mm.microscope(model, pictures(3), tmp_path)
    page = (tmp_path / "index.html").read_text()
    layers = json.loads(re.search(r'id="data">(.*?)</script>', page)[1])["layers"]  # type: ignore[index]
    assert {one["site"] for one in layers} == {"vision.resid_post"}
    assert len({tuple(one["grid"]) for one in layers}) > 1
    assert len({one["units"] for one in layers}) > 1


def test_what_a_unit_adds_to_one_of_the_next_layer_is_the_change_of_its_pre_activation():
    # in GPT-J an MLP reads the stream beside attention, so that nothing lies between
    model, prompt = bridge("toy-gptj"), mm.Prompt(toy.picture())
    wiring = wirings(model, "lm", [0, 1], toy.picture())
    told = connections(0, wiring)
    assert wiring[1].measured and told is not None
    step, seen = 1e-2, []

    def run(unit: int | None) -> torch.Tensor:
        def add(value: torch.Tensor, hook: Any) -> torch.Tensor:
            if unit is not None:
                value[..., unit] += step
            return value

        kept: list[torch.Tensor] = []
        hooks = [("blocks.0.mlp.hook_post", add),
                 ("blocks.1.mlp.hook_pre", lambda x, hook: kept.append(x[0].clone()))]  # fmt: skip
        with torch.no_grad(), model.hooks(fwd_hooks=hooks):
            model.run_to("lm", prompt)
        return kept[0]

    plain = run(None)
    for unit in range(8):
        seen.append(((run(unit) - plain) / step).mean(0))
    both = torch.corrcoef(torch.stack([torch.stack(seen).flatten(), told[:8].flatten()]))
    assert both[0, 1] > 0.95
    assert 0.8 < float(torch.stack(seen).norm() / told[:8].norm()) < 1.2


def test_nearest_units_are_those_of_largest_correlation_over_all_layers():
    draw = torch.Generator().manual_seed(0)
    rows = {layer: torch.randn(6, 40, generator=draw) for layer in (0, 1)}
    rows[1][2] = 3 * rows[0][4] + 5 + 0.1 * rows[1][2]  # the nearest by far, and no tie
    rows[1][5] = 7.0  # never changes
    found = nearest(0, {n: lambda n=n: directions(rows[n], centred=True) for n in rows}, k=3)
    whole = np.corrcoef(torch.cat([rows[0], rows[1][:5]]).numpy())
    np.fill_diagonal(whole, -np.inf)
    for unit in range(6):
        order = np.argsort(-whole[unit])[:3]
        assert [(layer, at) for layer, at, _ in found.of(unit)] == [divmod(i, 6) for i in order]
        assert np.allclose([r for *_, r in found.of(unit)], whole[unit][order], atol=1e-5)
    assert next(iter(found.of(4)))[:2] == (1, 2)
    alone = nearest(1, {n: lambda n=n: directions(rows[n], centred=True) for n in rows}, k=3)
    assert list(alone.of(5)) == []


def test_labels_are_those_whose_pictures_have_high_peaks_and_the_histograms_count_pictures():
    draw = torch.Generator().manual_seed(0)
    labels = [["dog"] if i % 4 == 0 else ["cat", "cat"] for i in range(80)] + [["rare"]]
    peaks = torch.randn(3, 81, generator=draw)
    peaks[1, 0:80:4] += 4
    peaks[2] = 2.0
    table = label_table(labels)
    assert table.names == ("cat", "dog")
    found = labels_of_units(peaks, table)
    assert found.counts.sum(1).tolist() == [81] * 3 and found.counts.shape[1] == BINS
    assert table.names[found.label[1, 0]] == "dog" and found.label[1, 1] == -1
    assert found.having[1, 0].sum() == 20 and found.strong[1, 0] == found.n_strong == 5
    values, dog = peaks[1].numpy(), np.array([i < 80 and i % 4 == 0 for i in range(81)])
    apart = (values[dog].mean() - values[~dog].mean()) / values.std()
    assert abs(float(found.apart[1, 0]) - apart) < 1e-4
    edges = np.linspace(values.min(), values.max(), BINS + 1)
    assert found.counts[1].tolist() == np.histogram(values, edges)[0].tolist()
    assert found.label[2].tolist() == [-1, -1]  # the same everywhere: no label goes with it


def test_what_cannot_be_looked_at_is_refused_in_a_sentence(tmp_path):
    model, data = bridge("toy-gptj"), pictures(2)
    with pytest.raises(AddressError, match="no tower 'text'"):
        mm.microscope(model, data, tmp_path, tower="text")
    with pytest.raises(CapabilityError, match="tower='vision'"):
        mm.microscope(model, data, tmp_path, tower="projection")
    with pytest.raises(AddressError):
        mm.microscope(model, data, tmp_path, layer=7)
    table = pd.DataFrame({"neuron": ["vision.L0.1"], "word": ["dog"]})
    with pytest.raises(AddressError, match="no 'value'"):
        mm.microscope(model, data, tmp_path, layer=0, top_words=table)


def test_axe_finds_nothing_wrong_in_the_site(made, browser):
    with pages(browser) as tabs:
        for tab in tabs.values():
            for address in ("", "#vision.L1.3"):
                tab.goto(f"{(made / 'index.html').as_uri()}{address}")
                tab.wait_for_selector("html[data-ready=yes]", state="attached")
                assert violations(tab) == []


def test_the_site_opens_from_a_disk_without_a_request_and_finds_its_units(made, browser):
    context = browser.new_context(offline=True, viewport={"width": 1000, "height": 900})
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    page.on("request", lambda one: None if one.url.startswith(("file:", "data:"))
            else wrong.append(one.url))  # fmt: skip
    ready = "html[data-ready=yes]"  # a policy without eval lets no function be waited for

    def open_at(address: str) -> str:
        page.goto(f"{(made / 'index.html').as_uri()}#{address}")
        page.wait_for_selector(ready, state="attached")
        text = page.locator("main").inner_text()
        assert not re.search(r"\[object|NaN|undefined", text)
        return text

    text = open_at("")
    assert page.locator("#cards .card").count() == 48 and "64 of 64 units" in text
    page.locator("#more").click()
    assert page.locator("#cards .card").count() == 64
    page.locator("#find").fill("L1.31")
    assert page.locator("#cards .card .id").all_inner_texts() == ["vision.L1.31"]
    page.locator("#find").fill(EVIL)
    found = page.locator("#cards .card .about").all_inner_texts()
    assert found and set(found) == {EVIL}
    page.locator("#find").fill("")
    page.locator("#sort").select_option("sharp")
    page.locator("#more").click()
    values = [float(x) for x in page.locator("#cards .card .at").all_inner_texts()]
    assert values == sorted(values, reverse=True) and len(values) == 64
    page.locator("#layer").select_option("vision.L1")
    page.wait_for_selector(ready, state="attached")
    page.wait_for_selector("#found:text-is('32 of 32 units')")

    text = open_at("vision.L1.5")
    row = shard(made, "vision.L1/units-0000.js")["rows"][5]
    assert "vision.L1.5" in text and row["t"][0][1] in text and "Activation and labels" in text
    page.wait_for_selector(".shot canvas[width]")
    drawn = page.evaluate(
        "[...document.querySelector('.shot canvas').getContext('2d').getImageData(0, 0, 300, 300)"
        ".data].filter((x, i) => i % 4 === 3 && x === 0).length"
    )
    assert 100 < drawn < 80_000  # some of it is inside the outline, and some outside
    near = page.locator(".others a").first
    name = near.get_attribute("title")
    near.click()
    page.wait_for_selector(f"#unit-title:text-is('{name}')")
    page.keyboard.press("ArrowRight")
    layer, unit = name.rsplit(".", 1)
    wanted = f"{layer}.{min(int(unit) + 1, 31)}"
    page.wait_for_selector(f"#unit-title:text-is('{wanted}')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#all")
    assert "no unit “vision.L9.1”" in open_at("vision.L9.1")
    assert page.title() != "PWNED" and wrong == []
    context.close()
