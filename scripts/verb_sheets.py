"""What `view.show` makes of every result of every verb, as sheets to look at.

    python scripts/verb_sheets.py OUT                        # a bridge, a CLIP, a tiled model
    python scripts/verb_sheets.py OUT --models pictos --verbs mmlens.attribute

Every verb is called once as the tests call it (`tests/verb_calls.py`), on a scene of the bundled
world; its result is shown with the picture as on a page that `view.save` writes, and photographed
in Chromium, light and dark, wide (900 pixels) and on a phone (390). OUT holds a sheet of each, and
`verbs.txt` what has no view, and why. A console error or a request fails the command.
"""

from __future__ import annotations

import argparse
import sys
from html import escape
from pathlib import Path
from typing import Any

from chromium import opened, screenshot  # pyright: ignore[reportMissingImports]
from PIL import Image

import mmlens as mm
from mmlens import view
from mmlens.values.errors import MMLensError
from mmlens.view.figure_page import CSS, figure_part

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from verb_calls import calls, verbs  # pyright: ignore[reportMissingImports]

MODELS = {"pictos": "words", "pictos-clip": "similarity", "toy-tiled": "words"}
NO_RESULT = ("mmlens.audit", "mmlens.audit_bias", "mmlens.microscope")
"""They take minutes, and write pages or a plain table."""
SIZES, COLUMNS = {"wide": 900, "phone": 390}, {"wide": 3, "phone": 7}


def shown(name: str, kind: str, wanted: list[str]) -> tuple[dict[str, str], list[str]]:
    """Verb -> the HTML of its result, and a line for each that has no view."""
    import plotly.graph_objects as go

    model = mm.load(name)
    scenes = list(mm.dataset("pictos:held_out:2"))
    photos = tuple(one.image.resize((160, 160)) for one in scenes)
    word = 5
    if kind == "words" and name == "pictos":
        word = int(model.to_single_token(" " + scenes[0].things[0].name))
    found, lines = {}, []
    asked = calls(kind, photos, word)
    for verb in wanted or [one for one in asked if one not in NO_RESULT]:
        args, options = asked[verb]
        try:
            result = verbs()[verb](model, *args, **options)
            figure = _drawn(result, photos[0])
        except MMLensError as error:
            lines.append(f"{name} {verb}: {error}")
            continue
        plotted = isinstance(figure, go.Figure)
        found[verb] = figure_part(figure, verb) if plotted else str(figure)
        print(f"{name} {verb}: {type(result).__name__}", flush=True)
    return found, lines


def _drawn(result: Any, photo: Image.Image) -> Any:
    """The view of a result, with the picture where it takes one."""
    if hasattr(result, "neurons") and hasattr(result, "to_html"):  # a Look
        return view.show(result.maps, photo)
    try:
        return view.show(result, photo)
    except MMLensError:
        return view.show(result)


def page(found: dict[str, str]) -> str:
    """All results below each other, plotly.js once."""
    from plotly.offline import get_plotlyjs

    sections = "".join(
        f"<section><p class=name>{escape(name)}</p>{html}</section>" for name, html in found.items()
    )
    return (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport"'
        f' content="width=device-width,initial-scale=1"><script>{get_plotlyjs()}</script><style>'
        f":root{{color-scheme:light dark;--page:light-dark(#fff,#14181d)}}{CSS}"
        "section{border-bottom:1px solid #8888}.name{font:600 12px/1 monospace;margin:0;"
        f"padding:8px 12px}}</style><main>{sections}</main></html>"
    )


def photographed(html: str, width: int, dark: bool) -> list[Image.Image]:
    """Every section of a page."""
    with opened(html, width, dark=dark, narrow=True) as tab:
        return [screenshot(one) for one in tab.locator("section").all()]


def sheet(pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures in columns, each where most room is left."""
    wide, heights, places = max(one.width for one in pictures), [0] * columns, []
    for one in pictures:
        at = heights.index(min(heights))
        places.append((at * (wide + 12), heights[at]))
        heights[at] += one.height + 12
    made = Image.new("RGB", (columns * (wide + 12) - 12, max(heights) - 12), "#888888")
    for one, place in zip(pictures, places, strict=True):
        made.paste(one, place)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the folder of the sheets")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--verbs", nargs="+", default=[], help="of these alone")
    asked = parser.parse_args()
    asked.out.mkdir(exist_ok=True, parents=True)
    lines: list[str] = []
    for name in asked.models:
        found, why = shown(name, MODELS[name], asked.verbs)
        lines += why
        html = page(found)
        for size, width in SIZES.items():
            for theme in ("light", "dark"):
                pictures = photographed(html, width, theme == "dark")
                path = asked.out / f"{name}-{size}-{theme}.png"
                sheet(pictures, COLUMNS[size]).save(path)
                print(path)
    (asked.out / "verbs.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
