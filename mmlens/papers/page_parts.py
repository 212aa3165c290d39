"""What the page of a study is made of: claims, tables, figures in both themes, one HTML file.

Every text is escaped; figures travel as JSON whose `<` is escaped, in a light and a dark version;
plotly.js travels in the file, gzipped. A content security policy forbids the page every request and
every script but its own.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd

from mmlens.papers.claims import Row, Verdict
from mmlens.view.style import theme
from mmlens.view.style.html import filled, locked

SCROLL = '<div class="scroll" tabindex="0" role="group" aria-label="table">'
SIGNS = {True: "✓ holds", False: "✗ fails", None: "– undecided"}
KINDS = {True: "holds", False: "fails", None: "open"}


def both(draw: Callable[[], Any]) -> str:
    """A figure in both themes, as JSON for the page; empty where `draw` gives none."""
    before, parts = theme.chosen(), []
    try:
        for name in ("light", "dark"):
            theme.use_theme(name)
            drawn = draw()
            if drawn is None:
                return ""
            text = drawn.to_json(validate=False)
            parts.append(f'"{name}":{text}')
    finally:
        theme.use_theme(before)
    return ("{" + ",".join(parts) + "}").replace("<", "\\u003c")


def claim(verdict: Verdict) -> str:
    """A claim at the head of the page, with its verdict."""
    return (
        f'<li class="claim {KINDS[verdict.holds]}"><h3><a href="#{verdict.experiment}">'
        f'<span class="key">{verdict.experiment}</span>{escape(verdict.claim)}</a>'
        f'<span class="sign">{SIGNS[verdict.holds]}</span></h3>'
        f"<p>{in_page(verdict.says)}</p></li>"
    )


def beside(rows: Sequence[Row]) -> str:
    """Our numbers beside the paper's."""
    paper = any(row.paper for row in rows)
    head = ["", "here", *(("in the paper", "where") if paper else ())]
    lines = []
    for row in rows:
        cells = [row.what, row.here, *((row.paper or "–", row.source) if paper else ())]
        told = ("<br>".join(map(in_page, cell.split("; "))) for cell in cells)
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in told) + "</tr>")
    top = _heads(head)
    kind = ' class="beside"' if paper else ""
    return (
        f"{SCROLL}<table{kind}><thead><tr>{top}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def plain_table(table: Sequence[Sequence[str]]) -> str:
    """A table of numbers, its head first."""
    top = _heads(in_page(cell) for cell in table[0])
    lines = "".join(
        "<tr>" + "".join(f"<td>{in_page(cell)}</td>" for cell in line) + "</tr>"
        for line in table[1:]
    )
    return (
        f'{SCROLL}<table class="plain"><thead><tr>{top}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _heads(cells: Iterable[str]) -> str:
    """The head of a table; above what has no name stands an empty cell, and no heading."""
    return "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in cells)


def in_page(text: str) -> str:
    """Escaped; an interval, a p-value and a number with its sign stay in one line."""
    text = re.sub(r"\[[^\]]*\]|p [<=] |\d %", lambda found: found[0].replace(" ", "\u00a0"), text)
    return escape(text)


def tidy(summary: pd.DataFrame) -> str:
    """A whole table, folded."""
    table: Any = summary.drop(columns=["experiment", "skipped", "options"], errors="ignore")
    table = table.dropna(axis=1, how="all")
    numbers = {name for name in table.columns if pd.api.types.is_numeric_dtype(table[name])}
    top = "".join(
        f'<th scope="col"{" class=number" if name in numbers else ""}>{escape(str(name))}</th>'
        for name in table.columns
    )
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=number' if name in numbers else ''}>{escape(cell(value))}</td>"
            for name, value in row.items()
        )
        + "</tr>"
        for row in table.to_dict("records")
    )
    return (
        f"<details><summary>All {len(table)} numbers</summary>"
        f'<div class="scroll tidybox" tabindex="0"><table class="tidy"><thead><tr>{top}</tr>'
        f"</thead><tbody>{lines}</tbody></table></div></details>"
    )


def cell(value: Any) -> str:
    """A value of a table as text; nothing where it is missing."""
    if isinstance(value, float):
        if value != value:
            return ""
        return str(int(value)) if value.is_integer() and abs(value) >= 2 else f"{value:.4g}"
    return str(value)


@lru_cache(maxsize=1)
def _plotly() -> str:
    """plotly.js, gzipped, in base64."""
    packed = gzip.compress(_plotly_js().encode(), mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _static(name: str) -> str:
    return files("mmlens.papers").joinpath("static", name).read_text(encoding="utf-8")


def filled_page(figures: Mapping[str, str], **parts: str) -> str:
    """The skeleton with its parts, all of them escaped.

    Args:
        figures: what `both` gave, by the key of the section; empty ones are left out.
        parts: study, title, lead, tally, claims, nav, sections, how, about, cited.
    """
    drawn = ",".join(f'"{key}":{text}' for key, text in figures.items() if text)
    whole = {"css": _static("report.css"), "js": _static("report.js"), "plotly": _plotly()}
    found = filled(_static("report.html"), {**parts, **whole, "figures": "{" + drawn + "}"})
    return locked(found, _plotly_js())


def provenance_list(about: Mapping[str, Any]) -> str:
    """Names and values at the foot of the page."""
    return "\n".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in about.items()
    )
