"""The study as one HTML file and as Markdown, of the parts that studies share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mmlens.papers.claims import Verdict
from mmlens.papers.goh.report.goh_sections import CITED, HOW, READ, RULES, Section
from mmlens.papers.markdown_parts import marked_beside, marked_table, marked_text
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

TITLE = "Multimodal Neurons in Artificial Neural Networks, measured again"


def page(sections: Sequence[Section], lead: str, about: Mapping[str, Any]) -> str:
    """The page as text."""
    drawn = {one.key: both(one.draw) for one in sections}
    verdicts = _verdicts(sections)
    return filled_page(
        drawn,
        study="reproduce goh",
        title=escape(TITLE),
        lead=escape(lead),
        tally=escape(tally(verdicts)),
        claims="\n".join(claim(verdict) for verdict in verdicts),
        nav="\n".join(f'<a href="#{one.key}">{escape(one.key)}</a>' for one in sections),
        sections="\n".join(_section(one, bool(drawn[one.key])) for one in sections),
        how=escape(READ),
        about=provenance_list(about),
        cited=escape(CITED),
    )


def results(sections: Sequence[Section], lead: str, about: Mapping[str, Any]) -> str:
    """The Markdown as text."""
    verdicts = _verdicts(sections)
    claims = [[one.experiment, one.claim, f"**{one.word}**", one.says] for one in verdicts]
    lines = [
        f"# {marked_text(TITLE)}",
        f"{marked_text(lead)} The paper: {CITED}.",
        f"## {tally(verdicts)}",
        marked_table(["", "claim", "", "in numbers"], claims),
    ]
    for one in sections:
        lines += [f"## {one.key}: {one.title}", HOW[one.key], f"**{marked_text(one.says)}**"]
        lines += [marked_beside(one.rows)] if one.rows else []
        lines += [marked_table(one.table[0], one.table[1:])] if one.table else []
        lines += [f"The rule: {RULES[one.key]}"] if one.key in RULES else []
    lines += ["## Where the numbers come from"]
    lines += [marked_table(["", ""], [[name, str(value)] for name, value in about.items()])]
    return "\n\n".join(lines) + "\n"


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many of the claims hold, in a sentence."""
    words = [one.word for one in verdicts]
    parts = [f"{words.count(word)} {word}" for word in ("holds", "fails", "undecided")]
    return f"Of {len(words)} claims: {', '.join(parts)}"


def _verdicts(sections: Sequence[Section]) -> list[Verdict]:
    return [one.verdict for one in sections if one.verdict is not None]


def _section(one: Section, drawn: bool) -> str:
    sign = ""
    if one.verdict is not None:
        kind = KINDS[one.verdict.holds]
        sign = f'<span class="{kind}"><span class="sign">{SIGNS[one.verdict.holds]}</span></span>'
    parts = [
        f'<section class="part" id="{one.key}" aria-labelledby="{one.key}-title">',
        f'<header><h2 id="{one.key}-title"><span class="key">{one.key}</span>'
        f"{escape(one.title)}</h2>{sign}</header>",
        f'<p class="how">{in_page(HOW[one.key])}</p>',
        f'<p class="says">{in_page(one.says)}</p>',
    ]
    if drawn:
        parts.append(
            f'<div class="figure" data-figure="{one.key}" role="img"'
            f' aria-label="{escape(one.title, quote=True)} The tables hold its numbers."></div>'
        )
    parts += [beside(one.rows)] if one.rows else []
    parts += [plain_table(one.table)] if one.table else []
    parts += [f'<p class="hint">Rule: {in_page(RULES[one.key])}</p>'] if one.key in RULES else []
    parts += [tidy(one.summary)] if len(one.summary) else []
    return "\n".join([*parts, "</section>"])
