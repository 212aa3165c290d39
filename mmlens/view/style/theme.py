"""Colours and plotly templates: the same look for every figure.

Blue raises and red lowers, symmetric around 0; unsigned numbers go from the page's colour to a
strong one. On a photo, hue is the sign and opacity the magnitude, because the dark ends of a
diverging map would hide the picture. All pairs were checked under simulated protanopia and
deuteranopia.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from mmlens.values.errors import AddressError
from mmlens.view.style.lab_theme import lab_is_dark

if TYPE_CHECKING:
    import plotly.graph_objects as go

CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,  # plotly 7 shows an upload button otherwise
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
    "toImageButtonOptions": {"format": "svg"},
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
WIDTH = 700
"""The width in pixels of a figure that has none, for line breaks and still pictures."""
TOOLBAR = 130
"""The pixels that plotly's toolbar takes beside a title."""
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

_LIGHT = {
    "page": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#5b6470",
    "line": "#d9dee5",
    "raises": "#2166ac",
    "lowers": "#c8372d",
    "diverging": ["#b2182b", "#d6604d", "#f4a582", "#f7f7f7", "#92c5de", "#4393c3", "#2166ac"],
    "categories": ["#0072b2", "#d98c00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#555555"],
    "sequential": ["#f7f7f7", "#d5e8cf", "#92cdc0", "#4ba5b0", "#26779a", "#1e4b80", "#182a5c"],
}
_DARK = {
    "page": "#14181d",
    "ink": "#e9edf2",
    "muted": "#a4afbc",
    "line": "#39424e",
    "raises": "#5aa9f7",
    "lowers": "#ff7a62",
    "diverging": ["#ff9d85", "#c9553e", "#5d2b25", "#1b1f24", "#1f3f63", "#3f7fc0", "#8cc1f2"],
    "categories": ["#5aa9f7", "#f0ad2e", "#2cc79a", "#e394c4", "#a5d8ff", "#ff8c5a", "#b8c0c8"],
    "sequential": ["#1b1f24", "#1b2f57", "#1f5382", "#2a7e9b", "#55aaab", "#9cd3bd", "#f6f3d5"],
}
_now = "auto"


def use_theme(name: str) -> None:
    """Set the theme of figures made from now on: "auto", "light" or "dark".

    "auto", as at the start, follows the page: views in HTML and saved pages are light or dark as
    JupyterLab, the documentation or the system is. A plotly figure in a notebook cannot follow, so
    it is made dark where JupyterLab's settings say "JupyterLab Dark".
    """
    global _now
    if name not in ("auto", "light", "dark"):
        raise AddressError(f"There is no theme {name!r}: write 'auto', 'light' or 'dark'.")
    _now = name


def chosen() -> str:
    """What `use_theme` was told: "auto", "light" or "dark"."""
    return _now


def colours() -> dict[str, Any]:
    """The palette in use: page, ink, muted, line, raises, lowers, categories, diverging,
    sequential.
    """
    return _DARK if _now == "dark" or (_now == "auto" and lab_is_dark()) else _LIGHT


def both() -> tuple[dict[str, Any], dict[str, Any]]:
    """The light palette and the dark one."""
    return _LIGHT, _DARK


def scale(name: str) -> list[list[Any]]:
    """The "diverging" or "sequential" map of the palette in use, as a plotly scale."""
    stops = colours()[name]
    return [[i / (len(stops) - 1), colour] for i, colour in enumerate(stops)]


def template() -> go.layout.Template:
    """The plotly template of the palette in use."""
    import plotly.graph_objects as go  # late: pages without figures do without it

    c = colours()
    axis = {
        "gridcolor": c["line"],
        "linecolor": c["line"],
        "zerolinecolor": c["muted"],
        "tickcolor": c["line"],
        "exponentformat": "power",
        "title": {"standoff": 8},
    }
    return go.layout.Template(
        # without a colour scale here, go.Heatmap(zmid=0) falls back to blue = low, red = high
        data={"heatmap": [go.Heatmap(colorscale=scale("sequential"))]},
        layout={
            "paper_bgcolor": c["page"],
            "plot_bgcolor": c["page"],
            "font": {"family": FONT, "size": 13, "color": c["ink"]},
            "title": {"x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 16}},
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
            "colorway": c["categories"],
            "colorscale": {"diverging": scale("diverging"), "sequential": scale("sequential")},
        },
    )


_BELOW, _LETTER = 90, 7.2
"""Pixels below a plot for ticks and their title; of a letter of an axis' name."""


def finish(figure: go.Figure, title: str, subtitle: str = "", **layout: Any) -> go.Figure:
    """Title, template and margins; texts are escaped here, because plotly reads them as HTML."""
    _no_upload()
    width = (layout.get("width") or WIDTH) - 32
    head = balanced(title, (width - TOOLBAR) / 8.6)
    about = wrapped(subtitle, width / 6.5)
    figure.update_layout(
        template=template(),
        title={
            "text": f"<b>{'<br>'.join(map(in_figure, head))}</b>",
            "font": {"size": 16},
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 14, "l": 16},
            "subtitle": {
                "text": "<br>".join(map(in_figure, about)),
                "font": {"size": 12.5, "color": colours()["muted"]},
            },
        },
        margin={"l": 70, "r": 20, "t": 76 + 21 * (len(head) - 1) + 16 * (len(about) - 1), "b": 50},
    )
    figure.update_layout(**layout)
    upright(figure)
    return figure


def upright(figure: go.Figure) -> None:
    """Names beside the vertical axes and colour bars in lines that are no longer than these."""
    layout: Any = figure.layout
    axes: Any = figure.select_yaxes()
    tall = (layout.height or 450) - layout.margin.t - _BELOW
    for axis in axes:
        if axis.visible is not False and axis.title.text:
            a, b = axis.domain or (0, 1)
            axis.update(automargin=True, title_text=_broken(axis.title.text, tall * (b - a)))
    traces: Any = figure.data
    for trace in traces:
        bar = _bar_of(trace)
        if bar is not None and bar.title.text:
            long = bar.len or 1
            room = long if bar.lenmode == "pixels" else tall * long
            bar.title.text = _broken(bar.title.text, room)


def _bar_of(trace: Any) -> Any:
    """The colour bar of a map, or of an empty trace that has one for pictures."""
    if trace.type == "heatmap":
        return trace.colorbar
    return trace.marker.colorbar if trace.type == "scatter" else None


def _broken(text: str, room: float | int) -> str:
    """A text of a figure in lines that fit into so many pixels."""
    return "<br>".join(balanced(text.replace("<br>", " "), max(12.0, room / _LETTER)))


def in_figure(text: str) -> str:
    """A text escaped for plotly; quotes are kept, since plotly prints their entities literally."""
    return escape(text, quote=False)


def wrapped(text: str, most: float) -> list[str]:
    """Lines of at most `most` letters, broken at spaces; plotly itself would clip a long title."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > most:
            lines.append(word)
        else:
            lines[-1] += (" " if lines[-1] else "") + word
    return lines


def balanced(text: str, most: float) -> list[str]:
    """As few lines as `wrapped` needs, of about the same length: no word is left for the last."""
    lines = wrapped(text, most)
    for fewer in range(int(most), 0, -1):
        tighter = wrapped(text, float(fewer))
        if len(tighter) > len(lines):
            break
        lines = tighter
    return lines


def colourbar(title: str, **options: Any) -> dict[str, Any]:
    """A slim colour bar, its title along it."""
    bar = {"text": in_figure(title), "side": "right"}
    return {
        "title": bar,
        "thickness": 12,
        "outlinewidth": 0,
        "len": 0.9,
        "exponentformat": "power",
        **options,
    }


def _no_upload() -> None:
    """Figures in a notebook offer no upload, unless the user's own config enables it."""
    import plotly.io as pio

    for name in ("plotly_mimetype", "notebook", "notebook_connected", "browser", "vscode"):
        if name in pio.renderers and hasattr(pio.renderers[name], "config"):
            renderer = pio.renderers[name]
            renderer.config = {"showSendToCloud": False, **(renderer.config or {})}
