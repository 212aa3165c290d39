"""The report as one HTML file: verdicts, figures, tables, provenance; it needs no network.

Every text is escaped; figures travel as JSON whose `<` is escaped, in a light and a dark version;
plotly.js travels in the file, gzipped. A content security policy forbids the page every request and
every script but its own.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd

from mmlens.papers.mmn.report.figures import figure
from mmlens.papers.mmn.report.outcomes import Outcome
from mmlens.papers.mmn.report.paper import CITED
from mmlens.papers.mmn.report.sheets import Sheet
from mmlens.papers.mmn.report.told import HOW, RULES, UNDECIDED, Finding, Row
from mmlens.papers.mmn.report.verdicts import Verdict
from mmlens.view.style import theme
from mmlens.view.style.html import filled, locked

SIGNS = {True: "✓ holds", False: "✗ fails", None: "– undecided"}
KINDS = {True: "holds", False: "fails", None: "open"}
NAMES = {"faithfulness": "methods", "sensitivity": "choices"}


def page(
    findings: Sequence[Finding],
    measured: Mapping[str, Outcome],
    sheets: Sequence[Sheet],
    *,
    title: str,
    lead: str,
    about: Mapping[str, Any],
) -> str:
    """The page as text."""
    drawn = {key: both(found) for key, found in measured.items()}
    figures = [f'"{key}":{text}' for key, text in drawn.items() if text]
    verdicts = [one.verdict for one in findings if one.verdict is not None]
    return _fill(
        title=escape(title),
        lead=escape(lead),
        css=_static("report.css"),
        js=_static("report.js"),
        tally=escape(tally(verdicts)),
        claims="\n".join(_claim(verdict) for verdict in verdicts),
        nav="\n".join(
            f'<a href="#{one.key}">{escape(NAMES.get(one.key, one.key))}</a>' for one in findings
        ),
        sections="\n".join(
            _section(one, measured[one.key], sheets, bool(drawn[one.key])) for one in findings
        ),
        about="\n".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
            for name, value in about.items()
        ),
        cited=escape(CITED),
        figures="{" + ",".join(figures) + "}",
        plotly=_plotly(),
    )


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many of the claims hold, in a sentence."""
    holds = [one.experiment for one in verdicts if one.holds]
    fails = [one.experiment for one in verdicts if one.holds is False]
    hold = "holds" if len(holds) == 1 else "hold"
    told = f"{len(holds)} of the paper's {len(verdicts)} claims {hold} here"
    if fails:
        several = f"{', '.join(fails[:-1])} and {fails[-1]} fail"
        told += f"; {several if fails[1:] else f'{fails[0]} fails'}"
    unknown = len(verdicts) - len(holds) - len(fails)
    return told + (f"; {unknown} {'is' if unknown == 1 else 'are'} undecided" if unknown else "")


def both(found: Outcome) -> str:
    """The figure of an experiment in both themes, as JSON for the page; empty without a figure."""
    before, parts = theme.colours()["page"], []
    try:
        for name in ("light", "dark"):
            theme.use_theme(name)
            drawn = figure(found)
            if drawn is None:
                return ""
            text = drawn.to_json(validate=False)
            parts.append(f'"{name}":{text}')
    finally:
        theme.use_theme("light" if before == "#ffffff" else "dark")
    return ("{" + ",".join(parts) + "}").replace("<", "\\u003c")


def _claim(verdict: Verdict) -> str:
    return (
        f'<li class="claim {KINDS[verdict.holds]}"><h3><a href="#{verdict.experiment}">'
        f'<span class="key">{verdict.experiment}</span>{escape(verdict.claim)}</a>'
        f'<span class="sign">{SIGNS[verdict.holds]}</span></h3>'
        f"<p>{_text(verdict.says)}</p></li>"
    )


def _section(one: Finding, found: Outcome, sheets: Sequence[Sheet], drawn: bool) -> str:
    sign = ""
    if one.verdict is not None:
        kind = KINDS[one.verdict.holds]
        sign = f'<span class="{kind}"><span class="sign">{SIGNS[one.verdict.holds]}</span></span>'
    key = f'<span class="key">{one.key}</span>' if one.key not in NAMES else ""
    parts = [
        f'<section class="part" id="{one.key}" aria-labelledby="{one.key}-title">',
        f'<header><h2 id="{one.key}-title">{key}{escape(one.title)}</h2>{sign}</header>',
        f'<p class="how">{_text(f"{HOW[one.key]} {one.pictures}")}</p>',
        f'<p class="says">{_text(one.says)}</p>',
    ]
    if drawn:
        parts.append(
            f'<div class="figure" data-figure="{one.key}" role="img"'
            f' aria-label="{escape(one.title, quote=True)} The tables hold its numbers."></div>'
        )
    if one.key == "E7":
        parts.append(f'<div class="sheets">{"".join(_sheet(sheet) for sheet in sheets)}</div>')
    if one.rows:
        parts.append(_beside(one.rows))
    if one.table:
        parts.append(_plain(one.table))
    if one.differs:
        items = "".join(f"<li>{_text(text)}</li>" for text in one.differs)
        parts.append(f'<ul class="differs">{items}</ul>')
    if one.key in RULES:
        parts.append(f'<p class="hint">Rule: {_text(f"{RULES[one.key]} {UNDECIDED}")}</p>')
    if len(found.summary) and one.key != "E7":
        parts.append(_tidy(found))
    if len(found.summary):
        parts.append(_from(found))
    return "\n".join([*parts, "</section>"])


def _beside(rows: Sequence[Row]) -> str:
    """Our numbers beside the paper's."""
    paper = any(row.paper for row in rows)
    head = ["", "here", *(("in the paper", "where") if paper else ())]
    lines = []
    for row in rows:
        cells = [row.what, row.here, *((row.paper or "–", row.source) if paper else ())]
        told = ("<br>".join(map(_text, cell.split("; "))) for cell in cells)
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in told) + "</tr>")
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    kind = ' class="beside"' if paper else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _plain(table: Sequence[Sequence[str]]) -> str:
    """A table of numbers, its head first."""
    top = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table[0])
    lines = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in line) + "</tr>" for line in table[1:]
    )
    return (
        f'<div class="scroll"><table class="plain"><thead><tr>{top}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _text(text: str) -> str:
    """Escaped; an interval, a p-value and a number with its sign stay in one line."""
    text = re.sub(r"\[[^\]]*\]|p [<=] |\d %", lambda found: found[0].replace(" ", "\u00a0"), text)
    return escape(text)


def _tidy(found: Outcome) -> str:
    """The whole summary, folded."""
    table: Any = found.summary.drop(columns=["experiment", "skipped", "options"], errors="ignore")
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


def _from(found: Outcome) -> str:
    """How it was asked: pictures, skipped ones, all options."""
    asked = ", ".join(f"sweep {name}: {n} pictures" for name, n in found.asked.items())
    if "experiment" in found.summary.columns:
        asked += f"; {int(found.summary['skipped'].iloc[0])} skipped"
    return (
        f"<details><summary>Where these numbers come from</summary><p>{escape(asked)}</p>"
        f"<p><code>{escape(str(found.summary['options'].iloc[0]))}</code></p></details>"
    )


def _sheet(sheet: Sheet) -> str:
    told = escape(sheet.caption.strip())
    noun = escape(sheet.noun)
    told = re.sub(
        rf"(?<!\w){re.escape(noun)}(?!\w)", lambda found: f"<b>{found[0]}</b>", told, count=1
    )
    small = ' class="small"' if sheet.small else ""
    units = "".join(
        f'<li><span class="unit">{escape(neuron)}</span>'
        f'<span class="words{" speaks" if speaks else ""}">{escape(words)}</span></li>'
        for neuron, words, speaks in sheet.units
    )
    return (
        f'<figure class="sheet"><div class="pair">'
        f'<img{small} src="{sheet.seen}" alt="The picture {escape(sheet.sample, quote=True)}">'
        f'<img src="{sheet.lit}" alt="Where its top units look"></div>'
        f"<figcaption>{told}<ol>{units}</ol></figcaption></figure>"
    )


@lru_cache(maxsize=1)
def _plotly() -> str:
    """plotly.js, gzipped, in base64."""
    packed = gzip.compress(_plotly_js().encode(), mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs

    return get_plotlyjs()


def _static(name: str) -> str:
    return files("mmlens.papers.mmn.report").joinpath("static", name).read_text(encoding="utf-8")


def _fill(**parts: str) -> str:
    """The skeleton with its parts."""
    return locked(filled(_static("report.html"), parts), _plotly_js())
