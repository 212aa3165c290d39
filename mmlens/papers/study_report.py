"""The report of a study, as one HTML page and as Markdown: claims, parts, provenance.

A study words its experiments as `Part`s and itself as a `Frame`; both forms are made of the same
texts, so that they say the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import pandas as pd

from mmlens.papers.claims import Row, Verdict
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


@dataclass(frozen=True, eq=False)
class Part:
    """One experiment, as the report shows it.

    Attributes:
        key: of its figure and its anchor, and with `numbered` before its title.
        name: in the list of parts.
        how: how it was asked. says: what was found, in a sentence; of a claim, its verdict's.
        rule: by which its claim holds.
        rows: numbers beside the paper's. table: another table, its head first.
        notes: what is to be known of the numbers.
        summary: all numbers, folded; `source`: where they come from, and with which options.
        draw: makes the figure in the theme in use. inner: HTML below it, escaped.
    """

    key: str
    title: str
    how: str
    says: str
    verdict: Verdict | None = None
    rule: str = ""
    rows: Sequence[Row] = ()
    table: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()
    summary: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    source: tuple[str, str] | None = None
    draw: Callable[[], Any] = field(default=lambda: None, repr=False)
    inner: str = field(default="", repr=False)
    name: str = ""
    numbered: bool = True


@dataclass(frozen=True)
class Frame:
    """What stands around the parts.

    Attributes:
        study: its name on the command line. read: how the page is read. cited: the paper.
        about: provenance by name.
        told: more about the Markdown, behind the paper.
        several: whether the claims are those of several papers; None where they are of none.
        headline: what stands in the place of how many claims hold, where there are none.
    """

    study: str
    title: str
    lead: str
    read: str
    cited: str
    about: Mapping[str, Any]
    told: str = ""
    several: bool | None = False
    headline: str = ""


def report_page(frame: Frame, parts: Sequence[Part]) -> str:
    """The page as text."""
    drawn = {one.key: both(one.draw) for one in parts}
    verdicts = verdicts_of(parts)
    return filled_page(
        drawn,
        study=f"reproduce {frame.study}",
        title=escape(frame.title),
        lead=escape(frame.lead),
        tally=escape(frame.headline or tally(verdicts, frame.several)),
        claims="\n".join(claim(verdict) for verdict in verdicts),
        nav="\n".join(
            f'<a href="#{key}">{escape(name)}</a>' for name, key in _first(parts).items()
        ),
        sections="\n".join(_section(one, bool(drawn[one.key])) for one in parts),
        how=escape(frame.read),
        about=provenance_list(frame.about),
        cited=escape(frame.cited),
    )


def _first(parts: Sequence[Part]) -> dict[str, str]:
    """The key of the first part of each name."""
    found: dict[str, str] = {}
    for one in parts:
        found.setdefault(one.name or one.key, one.key)
    return found


def report_markdown(frame: Frame, parts: Sequence[Part]) -> str:
    """The Markdown as text."""
    verdicts = verdicts_of(parts)
    claims = [[one.experiment, one.claim, f"**{one.word}**", one.says] for one in verdicts]
    cited = (
        f"The paper{'' if frame.several is False else 's'}: {frame.cited}. " if frame.cited else ""
    )
    cited = f"{cited}{frame.told}".rstrip()
    lines = [
        f"# {marked_text(frame.title)}",
        f"{marked_text(frame.lead)} {cited}",
        f"## {marked_text(frame.headline) or tally(verdicts, frame.several)}",
    ]
    lines += [marked_table(["", "claim", "", "in numbers"], claims)] if claims else []
    for one in parts:
        named = f"{one.key}: {one.title}" if one.numbered else one.title
        lines += [f"## {named}", one.how, f"**{marked_text(one.says)}**"]
        lines += [marked_beside(one.rows)] if one.rows else []
        lines += [marked_table(one.table[0], one.table[1:])] if one.table else []
        lines += [f"The rule: {one.rule}"] if one.rule else []
        lines += ["\n".join(f"- {marked_text(text)}" for text in one.notes)] if one.notes else []
    lines += ["## Where the numbers come from"]
    lines += [marked_table(["", ""], [[name, str(value)] for name, value in frame.about.items()])]
    return "\n\n".join(lines) + "\n"


def verdicts_of(parts: Sequence[Part]) -> list[Verdict]:
    """The verdicts of the parts that make a claim."""
    return [one.verdict for one in parts if one.verdict is not None]


def tally(verdicts: Sequence[Verdict], several: bool | None = False) -> str:
    """How many of the claims of a paper (of `several`) hold, in a sentence."""
    holds = [one.experiment for one in verdicts if one.holds]
    fails = [one.experiment for one in verdicts if one.holds is False]
    whose = "" if several is None else "papers' " if several else "paper's "
    hold = "holds" if len(holds) == 1 else "hold"
    told = f"{len(holds)} of the {whose}{len(verdicts)} claims {hold} here"
    if fails:
        many = f"{', '.join(fails[:-1])} and {fails[-1]} fail"
        told += f"; {many if fails[1:] else f'{fails[0]} fails'}"
    unknown = len(verdicts) - len(holds) - len(fails)
    return told + (f"; {unknown} {'is' if unknown == 1 else 'are'} undecided" if unknown else "")


def _section(one: Part, drawn: bool) -> str:
    sign = ""
    if one.verdict is not None:
        kind = KINDS[one.verdict.holds]
        sign = f'<span class="{kind}"><span class="sign">{SIGNS[one.verdict.holds]}</span></span>'
    key = f'<span class="key">{one.key}</span>' if one.numbered else ""
    lines = [
        f'<section class="part" id="{one.key}" aria-labelledby="{one.key}-title">',
        f'<header><h2 id="{one.key}-title">{key}{escape(one.title)}</h2>{sign}</header>',
        f'<p class="how">{in_page(one.how)}</p>',
        f'<p class="says">{in_page(one.says)}</p>',
    ]
    if drawn:
        lines.append(
            f'<div class="figure" data-figure="{one.key}" role="group"'
            f' aria-label="{escape(one.title, quote=True)} The tables hold its numbers."></div>'
        )
    lines += [one.inner] if one.inner else []
    lines += [beside(one.rows)] if one.rows else []
    lines += [plain_table(one.table)] if one.table else []
    if one.notes:
        items = "".join(f"<li>{in_page(text)}</li>" for text in one.notes)
        lines.append(f'<ul class="differs">{items}</ul>')
    lines += [f'<p class="hint">Rule: {in_page(one.rule)}</p>'] if one.rule else []
    lines += [tidy(one.summary)] if len(one.summary) else []
    if one.source is not None:
        lines.append(
            "<details><summary>Where these numbers come from</summary>"
            f"<p>{escape(one.source[0])}</p><p><code>{escape(one.source[1])}</code></p></details>"
        )
    return "\n".join([*lines, "</section>"])
