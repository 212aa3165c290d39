"""Figures as files: a page that needs no network, or a still picture that needs no browser.

view.save(figure, "page.html")     interactive, plotly.js included (5 MB); HTML views are small
view.save(figure, "paper.svg")     a still picture (`mmlens.view.still.drawing`)
view.save(figure, "paper.png")     the same as pixels
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from mmlens.values.arguments import number
from mmlens.values.arguments import path as checked
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.whole_files import printable, write_whole
from mmlens.view.style.html import locked, whole_page

_SMALLEST, _LARGEST = 0.1, 16


def save(figure: Any, path: str | Path, *, scale: float | int = 2) -> Path:
    """Write a figure, an HTML view or a page; the suffix of `path` sets the format.

    Args:
        figure: what a view returned, another plotly figure, or what `look` and `view.explore`
            return (as .html); of Scores or a table the view that fits them.
        path: ends in .html, .svg or .png.
        scale: pixels of a PNG per pixel of the figure.

    Raises:
        AddressError: another suffix, or not a figure or view.
        CapabilityError: a still picture of something that only a browser draws.
        WriteError: the system refuses the file.
    """
    import plotly.graph_objects as go

    from mmlens.view.style.theme import CONFIG

    path, scale = checked(path, "path"), number(scale, "scale", least=_SMALLEST, most=_LARGEST)
    kind = path.suffix.lower()
    if kind not in (".html", ".svg", ".png"):
        raise AddressError(f"{path.name!r} is no format of figures: end it in .html, .svg or .png.")
    figure = _drawn(figure)
    if kind == ".html":
        if isinstance(figure, go.Figure):
            return write_whole(path, locked(figure.to_html(config=CONFIG, include_plotlyjs=True)))
        page = figure if isinstance(figure, _Page) else whole_page(figure, printable(path.stem))
        return write_whole(path, page)
    if not isinstance(figure, go.Figure):
        raise CapabilityError(
            f"This view is HTML, which only a browser can turn into {kind}: save it as .html, and"
            " print or photograph that."
        )
    from mmlens.view.still.drawing import png, svg

    if kind == ".svg":
        return write_whole(path, svg(figure))
    buffer = io.BytesIO()
    png(figure, scale).save(buffer, "png")
    return write_whole(path, buffer.getvalue())


class _Page(str):
    """HTML that is a whole page already."""


def _drawn(figure: Any) -> Any:
    """What is written: a plotly figure, the HTML of a view, or a page.

    Raises:
        AddressError: it is none, and no view shows it.
    """
    import plotly.graph_objects as go

    from mmlens.values.scores import Scores
    from mmlens.view.choose import show

    if isinstance(figure, (go.Figure, str)):
        return figure
    if isinstance(figure, Scores) or hasattr(figure, "columns") or hasattr(figure, "pixels"):
        return show(figure)
    if isinstance(getattr(figure, "html", None), str):  # what view.explore returns
        return _Page(figure.html)
    if hasattr(type(figure), "to_html"):  # a Look
        return _Page(figure.to_html())
    raise AddressError(
        f"A {type(figure).__name__} is no figure: write view.save(view.show(x), path)."
    )
