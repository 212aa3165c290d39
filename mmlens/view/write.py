"""Figures as files: a page that needs no network, a still picture without a browser, the numbers.

view.save(figure, "page.html")     interactive, plotly.js included (5 MB); HTML views are small
view.save(figure, "paper.svg")     a still picture (`mmlens.view.still.drawing`)
view.save(figure, "paper.pdf")     the same, of vectors, with its letters embedded
view.save(figure, "paper.png")     the same as pixels
view.save(figure, "numbers.csv")   the numbers that it shows

Views in HTML are still pictures too: their rows, words and pictures one below the other.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from mmlens.values.arguments import number
from mmlens.values.arguments import path as checked
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.whole_files import printable, write_whole
from mmlens.view.style.html import Html, whole_page

FORMATS = (".html", ".svg", ".pdf", ".png", ".csv")
_SMALLEST, _LARGEST = 0.1, 16


def save(figure: Any, path: str | Path, *, scale: float | int = 2) -> Path:
    """Write a figure, an HTML view or a page; the suffix of `path` sets the format.

    Args:
        figure: what a view returned (of `view.explore` too), another plotly figure, or what `look`
            returns; of Scores or a table the view that fits them.
        path: ends in .html, .svg, .pdf, .png or .csv.
        scale: pixels of a PNG per pixel of the figure.

    Raises:
        AddressError: another suffix, or not a figure or view.
        CapabilityError: a still picture, or the numbers, of something that only a browser draws.
        WriteError: the system refuses the file.
    """
    from mmlens.view.explorer_page.page import Explorer

    path, scale = checked(path, "path"), number(scale, "scale", least=_SMALLEST, most=_LARGEST)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise AddressError(
            f"{path.name!r} is no format of figures: end it in .html, .svg, .pdf, .png or .csv."
        )
    figure = _drawn(figure)
    if isinstance(figure, Explorer):
        return _save_explorer(figure, path, kind, scale)
    if kind == ".html":
        return write_whole(path, _page(figure, printable(path.stem)))
    if kind == ".csv":
        from mmlens.view.style.numbers import csv_of

        return write_whole(path, csv_of(_rows(figure)))
    return write_whole(path, _picture(_still(figure, kind), kind, scale))


def _save_explorer(figure: Any, path: Path, kind: str, scale: float | int) -> Path:
    """A page of the explorer; its pictures and neurons as a still picture; its table."""
    from mmlens.view.explorer_page.still_page import still_page, table_of
    from mmlens.view.style.numbers import csv_of

    if kind == ".html":
        return figure.save(path)
    if kind == ".csv":
        return write_whole(path, csv_of(table_of(figure.looks)))
    drawn = still_page(figure.looks, printable(path.stem))
    return write_whole(path, _picture(drawn, kind, scale))


def _page(figure: Any, title: str) -> str:
    import plotly.graph_objects as go

    if not isinstance(figure, go.Figure):
        return whole_page(figure, title)
    from mmlens.view.figure_page import figure_page

    return figure_page(figure, title)


def _rows(figure: Any) -> Any:
    """The table of a figure's numbers."""
    if isinstance(figure, str):
        if isinstance(figure, Html) and figure.rows is not None:
            return figure.rows()
        raise CapabilityError(
            "This HTML has no numbers of its own: save what a view returned, not a part of it."
        )
    from mmlens.view.style.numbers import of_figure

    return of_figure(figure)


def _still(figure: Any, kind: str) -> Any:
    """The still picture of a figure or of a view."""
    if isinstance(figure, str):
        if isinstance(figure, Html) and figure.still is not None:
            return figure.still()
        raise CapabilityError(
            f"This view is HTML, which only a browser can turn into {kind}: save it as .html, and"
            " print or photograph that."
        )
    from mmlens.view.still.drawing import still

    return still(figure)


def _picture(drawn: Any, kind: str, scale: float | int) -> str | bytes:
    if kind == ".pdf":
        from mmlens.view.still.pdf import to_pdf

        return to_pdf(drawn)
    from mmlens.view.still.marks import to_svg

    text = to_svg(*drawn)
    if kind == ".svg":
        return text
    from mmlens.view.still.raster import to_picture

    buffer = io.BytesIO()
    to_picture(text, scale).save(buffer, "png")
    return buffer.getvalue()


def _drawn(figure: Any) -> Any:
    """What is written: a plotly figure, the HTML of a view, or an explorer.

    Raises:
        AddressError: it is none, and no view shows it.
    """
    import plotly.graph_objects as go

    from mmlens.values.scores import Scores
    from mmlens.view.choose import show
    from mmlens.view.explorer_page.page import Explorer, explore

    if isinstance(figure, (go.Figure, str, Explorer)):
        return figure
    if isinstance(figure, Scores) or hasattr(figure, "columns") or hasattr(figure, "pixels"):
        return show(figure)
    if hasattr(type(figure), "to_html"):  # a Look
        return explore(figure)
    raise AddressError(
        f"A {type(figure).__name__} is no figure: write view.save(view.show(x), path)."
    )
