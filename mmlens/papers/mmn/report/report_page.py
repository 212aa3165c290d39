"""The report as one HTML file: verdicts, figures, tables, provenance; it needs no network.

What it is made of lies in `mmlens.papers.page_parts`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

from mmlens.papers.claims import Verdict
from mmlens.papers.mmn.report.figures import figure
from mmlens.papers.mmn.report.outcomes import Outcome
from mmlens.papers.mmn.report.paper import CITED
from mmlens.papers.mmn.report.sheets import Sheet
from mmlens.papers.mmn.report.told import HOW, READ, RULES, UNDECIDED, Finding
from mmlens.papers.page_parts import (
    KINDS,
    SIGNS,
    beside,
    both,
    claim,
    filled_page,
    in_page,
    plain_table,
    provenance_list,
    tidy,
)

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
    drawn = {key: both(partial(figure, found)) for key, found in measured.items()}
    verdicts = [one.verdict for one in findings if one.verdict is not None]
    return filled_page(
        drawn,
        study="reproduce mmn",
        title=escape(title),
        lead=escape(lead),
        tally=escape(tally(verdicts)),
        claims="\n".join(claim(verdict) for verdict in verdicts),
        nav="\n".join(
            f'<a href="#{one.key}">{escape(NAMES.get(one.key, one.key))}</a>' for one in findings
        ),
        sections="\n".join(
            _section(one, measured[one.key], sheets, bool(drawn[one.key])) for one in findings
        ),
        how=escape(READ),
        about=provenance_list(about),
        cited=escape(CITED),
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


def _section(one: Finding, found: Outcome, sheets: Sequence[Sheet], drawn: bool) -> str:
    sign = ""
    if one.verdict is not None:
        kind = KINDS[one.verdict.holds]
        sign = f'<span class="{kind}"><span class="sign">{SIGNS[one.verdict.holds]}</span></span>'
    key = f'<span class="key">{one.key}</span>' if one.key not in NAMES else ""
    parts = [
        f'<section class="part" id="{one.key}" aria-labelledby="{one.key}-title">',
        f'<header><h2 id="{one.key}-title">{key}{escape(one.title)}</h2>{sign}</header>',
        f'<p class="how">{in_page(f"{HOW[one.key]} {one.pictures}")}</p>',
        f'<p class="says">{in_page(one.says)}</p>',
    ]
    if drawn:
        parts.append(
            f'<div class="figure" data-figure="{one.key}" role="img"'
            f' aria-label="{escape(one.title, quote=True)} The tables hold its numbers."></div>'
        )
    if one.key == "E7":
        parts.append(f'<div class="sheets">{"".join(_sheet(sheet) for sheet in sheets)}</div>')
    if one.rows:
        parts.append(beside(one.rows))
    if one.table:
        parts.append(plain_table(one.table))
    if one.differs:
        items = "".join(f"<li>{in_page(text)}</li>" for text in one.differs)
        parts.append(f'<ul class="differs">{items}</ul>')
    if one.key in RULES:
        parts.append(f'<p class="hint">Rule: {in_page(f"{RULES[one.key]} {UNDECIDED}")}</p>')
    if len(found.summary) and one.key != "E7":
        parts.append(tidy(found.summary))
    if len(found.summary):
        parts.append(_from(found))
    return "\n".join([*parts, "</section>"])


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
