"""A plotly figure as a page of its own: any width, light or dark, with buttons that save it."""

from __future__ import annotations

from html import escape
from typing import Any

from PIL import ImageColor

from mmlens.view.style import theme
from mmlens.view.style.html import heading, locked, props, static
from mmlens.view.style.numbers import csv_of, of_figure
from mmlens.view.style.paint import legend

_LARGEST = 2_000_000
"""The most letters of CSV in a page."""


def figure_page(figure: Any, title: str) -> str:
    """The document, plotly.js included."""
    light, dark = (one["page"] for one in theme.both())
    page = {"auto": f"light-dark({light},{dark})", "light": light, "dark": dark}[theme.chosen()]
    scheme = "light dark" if theme.chosen() == "auto" else theme.chosen()
    return locked(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title>"
        f"<style>:root{{color-scheme:{scheme};--page:{page}}}{CSS}</style></head>"
        f"<body><main>{heading(title)}{figure_part(figure, title, plotly=True)}</main>"
        "</body></html>"
    )


def figure_part(figure: Any, name: str, *, plotly: bool = False) -> str:
    """A figure as a part of a page: as wide as there is room, with its buttons.

    Args:
        name: of the files that it saves.
        plotly: with plotly.js; otherwise the page brings it.
    """
    drawn = figure.to_html(
        full_html=False, include_plotlyjs=plotly, post_script=static("figure.js"),
        config={**theme.CONFIG, "displayModeBar": False, "responsive": False},
    )  # fmt: skip
    pairs = to_dark() if theme.chosen() == "auto" else {"marks": {}, "scales": {}}
    meta = figure.layout.meta or {}
    told = {**pairs, "least": meta.get("least", 320), "names": meta.get("names"),
            "turn": meta.get("turn"), "name": name}  # fmt: skip
    numbers = csv_of(of_figure(figure))
    kinds = ("png", "svg", *(("csv",) if len(numbers) <= _LARGEST else ()))
    buttons = "".join(f'<button type="button" data-as="{k}">{k.upper()}</button>' for k in kinds)
    title = escape(_bare(figure.layout.title.text or name), quote=True)
    return (
        '<div class="mm-part">'
        f'<script type="application/json" class="mm-told">{props(told)}</script>'
        f'<script type="application/json" class="mm-numbers">'
        f"{props(numbers if 'csv' in kinds else '')}</script>"
        f'<div class="mm-room" tabindex="0" role="group" aria-label="{title}">{drawn}</div>'
        f'<p class="tools">Save as {buttons}</p></div>'
    )


def to_dark() -> dict[str, dict[str, str]]:
    """The colours of a light figure and those that they are on a dark page: of marks, of scales."""
    light, dark = theme.both()
    marks = {"#000000": "#ffffff"}  # words on a scale's colour
    for name, colour in light.items():
        if isinstance(colour, str):
            marks[colour] = dark[name]
    marks |= dict(zip(light["categories"], dark["categories"], strict=True))
    scales: dict[str, str] = {}
    for name in ("diverging", "sequential"):
        scales |= dict(zip(light[name], dark[name], strict=True))
    grounds = [round(sum(ImageColor.getrgb(one["page"])) / 3) for one in (light, dark)]
    for signed in (True, False):  # over paper
        pale, deep = (legend(signed, under) for under in grounds)
        scales |= {a[1]: b[1] for a, b in zip(pale, deep, strict=True)}
    return {"marks": marks, "scales": scales}


def _bare(text: str) -> str:
    return text.replace("<b>", "").replace("</b>", "").replace("<br>", " ")


CSS = f"""
body{{margin:0;background:var(--page);color:light-dark(#5b6470,#a4afbc);font:12px/1.5 {theme.FONT}}}
main{{max-width:1000px}}
.mm-room{{overflow-x:auto;overflow-y:hidden}}
.mm-room:focus-visible{{outline:2px solid #2166ac;outline-offset:-2px}}
.tools{{margin:0;padding:4px 16px 16px;display:flex;gap:6px;align-items:baseline}}
.tools button{{font:inherit;color:inherit;background:none;cursor:pointer;border-radius:5px;
border:1px solid light-dark(#d9dee5,#39424e);padding:1px 8px}}
@media print{{.tools{{display:none}}}}
"""
