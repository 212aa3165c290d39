"""Every view of the bundled model on one sheet, light and dark, as a browser shows them.

    python scripts/contact_sheet.py                    # docs/views.png and docs/views-dark.png

Nothing about the model is written here: the picture is the first held-out scene of two things, the
word is the first that its caption names, and neurons are those that attribution finds. With
`--keep FILE` what was read from the model is kept, so that it can be drawn again in seconds.
"""

from __future__ import annotations

import argparse
import pickle
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from chromium import opened, screenshot  # pyright: ignore[reportMissingImports]
from PIL import Image
from plotly.offline import get_plotlyjs

import mmlens as mm
from mmlens import patching, view
from mmlens.causal import measures
from mmlens.view.style import theme

DOCS = Path(__file__).parent.parent / "docs"
SCENES = "pictos:held_out:32"


def read(model: mm.HookedVLM) -> dict[str, Any]:
    """Everything that the figures show."""
    scenes = mm.dataset(SCENES)
    scene = next(s for s in scenes if len(s.things) == 2 and _named(model, s))
    photo, thing = scene.image, _named(model, scene)
    mask = next(one.mask for one in scene.things if one.name == thing)
    seen = mm.look(model, photo, of=thing)
    word, prompt = str(seen.token), mm.Prompt(photo, "A picture of" + _before(seen))
    scores = mm.attribute(model, prompt, of=word)
    best = seen.neurons
    metric = measures.probability(model, word)
    pair = patching.Pair.corrupted(prompt, patching.erased(mask))
    where = patching.patches_under(model, mask, photo, share=0.15)
    sets = {"the thing": where, "the rest": patching.other_patches(seen.maps.of("pos"), where)}
    routes = {f"{name} -> last": (spots, -1) for name, spots in sets.items()}
    tops = mm.top_images(model, scenes, list(dict.fromkeys(best.neuron))[:3], k=5)
    prompts = [mm.Prompt(s.image, "A picture of") for s in list(scenes)[:6]]
    return {
        "photo": photo,
        "mask": mask.numpy(),
        "seen": seen,
        "scores": scores,
        "lens": mm.logit_lens(model, prompt),
        "tracks": mm.logit_lens(model, prompt, [word, " a", " and"], pos=-1),
        "nearest": mm.nearest_tokens(model, prompt, 4, pos=mm.Patch),
        "grid": patching.recovered(patching.patch(model, pair, metric)),
        "tower": patching.attention(model, prompt, tower=True).sel(layer=-1),
        "heads": patching.attention(model, prompt, query=-1, key=mm.Patch),
        "text": patching.attention(model, mm.Prompt(photo, seen.prompt + seen.caption)).sel(
            layer=2
        ),
        "direct": patching.direct_logits(model, prompt, word, by="head"),
        "cut": patching.knockouts(model, prompt, metric, routes, window=3),
        "curve": _curves(model, prompts),
        "edited": _lens(
            model.edit(*(mm.Edit("neurons", 0.0, n) for n in best.neuron)), prompt, word
        ),
        "plain": _lens(model, prompt, word),
        "tops": tops,
        "pictures": {s.id: s.image for s in scenes},
        "maps": _maps(model, scenes, tops),
    }


def _named(model: mm.HookedVLM, scene: Any) -> str | None:
    said = model.generate(mm.Prompt(scene.image, "A picture of"))
    return next((one.name for one in scene.things if f" {one.name}" in said), None)


def _before(seen: mm.Look) -> str:
    """What the caption says before its target."""
    return "".join(str(token) for token in seen.tokens if token.at < seen.token.at)


def _lens(model: mm.HookedVLM, prompt: mm.Prompt, word: str) -> mm.Scores:
    return mm.logit_lens(model, prompt, [word], pos=-1).sel(token=word, pos=0)


def _curves(model: mm.HookedVLM, prompts: list[mm.Prompt]) -> mm.Scores:
    """Scores(prompt, arm, k): each caption's first thing without its strongest neurons."""
    found = []
    for prompt in prompts:
        seen = mm.look(model, prompt.pictures[0])
        here = mm.Prompt(prompt.pictures[0], seen.prompt + _before(seen))
        ranked = mm.top_neurons(
            mm.attribute(model, here, of=str(seen.token)), 30, rank_by="max"
        ).neuron
        metric = measures.probability(model, str(seen.token))
        found.append(patching.ablation_curve(model, here, metric, list(ranked), randoms=3))
    one = found[0]
    about = {key: value for key, value in one.about.items() if key != "clean"}
    values = torch.stack([scores.values for scores in found])
    return mm.Scores(values, ("prompt", *one.axes), one.labels, about)


def _maps(model: mm.HookedVLM, scenes: Any, tops: Any) -> dict[Any, mm.Scores]:
    images = {s.id: s.image for s in scenes}
    return {
        (row.neuron, row.sample): mm.activations(
            model,
            mm.Prompt(images[row.sample], "A picture of"),
            "neurons",
            row.neuron,
            pos=mm.Patch,
        )
        for row in tops.itertuples()
    }


def figures(found: dict[str, Any]) -> dict[str, Any]:
    """Every view by its name, in the theme in use."""
    photo, seen, scores, mask = found["photo"], found["seen"], found["scores"], found["mask"]
    here, words = seen.maps.sel(token=seen.token), mm.Token
    activation = seen.activations.sel(neuron=seen.neurons.neuron[0])
    said = seen.neurons.drop_duplicates("neuron")
    pattern = found["text"]
    return {
        "on_image": view.on_image(here, photo, mask=mask),
        "on_image, smooth": view.on_image(activation, photo, smooth=True),
        "panels": view.panels(seen.maps, photo),
        "panels of patching": view.panels(found["grid"].sel(pos=mm.Patch), photo, columns=4),
        "panels of heads": view.panels(found["heads"], photo, shared=False),
        "heatmap": view.heatmap(scores.sum("unit")),
        "heatmap of patching": view.heatmap(found["grid"]),
        "heatmap of heads": view.heatmap(found["direct"]),
        "bars": view.bars(scores.sum("pos", "unit")),
        "neurons": view.neurons(scores.sum("pos"), k=60),
        "neurons, decoded": view.neurons(seen.neurons),
        "lens": view.lens(found["lens"]),
        "lens at patches": view.lens(found["nearest"]),
        "curves": view.curves(found["curve"]),
        "curves of routes": view.curves(found["cut"]),
        "curves of words": view.curves(found["tracks"].sel(pos=0)),
        "compare": view.compare({"plain": found["plain"], "without its neurons": found["edited"]}),
        "compare on the picture": view.compare(
            {"this word": here, "last word": seen.maps.sel(token=seen.maps.of("token")[-1])},
            picture=photo,
            title="Two words of one caption on one scale",
        ),
        "compare as maps": view.compare(
            {"effect": found["direct"], "its size": found["direct"].abs()},
            title="Two results on one scale",
        ),
        "tokens": view.tokens(scores.sum("layer", "unit").sel(pos=words)),
        "attention_on_image": view.attention_on_image(found["tower"], photo),
        "attention_text": view.attention_text(pattern.sel(query=words, key=words)),
        "cards": view.cards(said.head(4), picture=photo, activations=seen.activations),
        "gallery": view.gallery(
            found["tops"], found["pictures"], maps=found["maps"], said=said[["neuron", "words"]]
        ),
    }


def page(shown: dict[str, Any]) -> str:
    """One page with every view: plotly.js once, three columns."""
    columns = [[], [], []]
    heights = [0, 0, 0]
    for name, one in shown.items():
        plotted = isinstance(one, go.Figure)
        at = heights.index(min(heights))
        html = (
            one.to_html(full_html=False, include_plotlyjs=False, config={"staticPlot": True})
            if plotted
            else str(one)
        )
        tall = (one.layout.height or 450) if plotted else _HEIGHTS.get(name, 420)
        columns[at].append(f"<section><p class=name>{escape('view.' + name)}</p>{html}</section>")
        heights[at] += tall + 50
    c = theme.colours()
    return (
        f"<!DOCTYPE html><meta charset=utf-8><script>{get_plotlyjs()}</script><style>"
        f"body{{margin:24px;background:{c['page']};display:flex;gap:28px;align-items:flex-start}}"
        f"main{{width:780px}}section{{border:1px solid {c['line']};margin-bottom:24px}}"
        f".name{{font:600 13px/1 monospace;color:{c['muted']};margin:0;padding:10px 16px;"
        f"border-bottom:1px solid {c['line']}}}</style>"
        + "".join(f"<main>{''.join(column)}</main>" for column in columns)
    )


_HEIGHTS = {
    "tokens": 130,
    "attention_on_image": 520,
    "cards": 420,
    "gallery": 560,
    "attention_text": 1000,
}


def photographed(html: str, dark: bool, single: Path | None) -> Image.Image:
    """The page, and each of its figures in the folder `single`."""
    with opened(html, 2470, 1200, dark=dark) as tab:
        tab.wait_for_function("document.querySelectorAll('.mm-view canvas').length > 2")
        if single is not None:
            single.mkdir(exist_ok=True)
            for one in tab.locator("section").all():
                name = one.locator(".name").inner_text().replace(" ", "-").replace(",", "")
                screenshot(one).save(single / f"{name}{'-dark' * dark}.png")
        return screenshot(tab, full_page=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="a file to keep what was read in, or to read")
    parser.add_argument("--single", type=Path, help="a folder for a picture of each view as well")
    parser.add_argument(
        "--themes", nargs="+", default=["light", "dark"], help="light, dark, or both"
    )
    asked = parser.parse_args()
    if asked.keep and asked.keep.exists():
        found = pickle.loads(asked.keep.read_bytes())
    else:
        found = read(mm.load("pictos"))
        if asked.keep:
            asked.keep.write_bytes(pickle.dumps(found))
    for name in asked.themes:
        view.use_theme(name)
        sheet = photographed(page(figures(found)), name == "dark", asked.single)
        path = DOCS / ("views.png" if name == "light" else "views-dark.png")
        sheet.save(path, optimize=True)  # fewer colours would tint the pale ends of the scales
        print(f"{path.name}: {sheet.width} x {sheet.height}, {path.stat().st_size / 1e6:.2f} MB")
    view.use_theme("light")


if __name__ == "__main__":
    main()
