"""The words of a caption, cut as coco-caption cuts them: Penn Treebank style, in lower case.

coco-caption runs Stanford's PTBTokenizer (CoreNLP 3.4.1, `-preserveLines -lowerCase`) and drops
seventeen punctuation tokens. The same rules in Python: "a man's dog isn't here, is it?" becomes
a | man | 's | dog | is | n't | here | is | it. tests/metrics/ptb.json holds what the Java program
itself makes of captions with contractions, quotes, hyphens, numbers, abbreviations and dashes.

What coco-caption keeps is kept here: brackets, whose lower-cased names (-lrb-) are missing from its
list, and runs such as "?!". Where this differs: abbreviations are those that the Java program knows
among the words of `values.english`, slang is cut for "gonna", "wanna", "gotta", "lemme" and "gimme"
only, not for "'tis", "d'you" or "y'all", and addresses of web pages fall apart at their slashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mmlens.values.arguments import text as checked_text

DROPPED = frozenset(
    ("''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-")
    + (".", "?", "!", ",", ":", "-", "--", "...", ";")
)
"""The tokens that coco-caption drops. Brackets arrive as -lrb- and so survive, there as here."""

_ALIKE = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "—": " -- ", "–": " -- ", "…": " ... ",
     "(": " -lrb- ", ")": " -rrb- ", "[": " -lsb- ", "]": " -rsb- ", "{": " -lcb- ",
     "}": " -rcb- ", "€": "$", "£": "#", "¢": " cents", "\u00a0": " "}
)  # fmt: skip
_TWO_WORDS = re.compile(
    r"(?<![\w-])(?:(can)(not)|(gon)(na)|(wan)(na)|(got)(ta)|(lem)(me)|(gim)(me))\b"
)
_ABBREVIATIONS = (
    "adj adv al ala alex apr ariz assn assoc asst atty aug ave bldg blvd brig bros calif capt cf "
    "co col colo conn corp ct dec dept dr esq est etc feb fla fri ft ga gen gov hon inc ind jan "
    "jr jul jun kans ky lt ltd maj mar md mfg mich minn mo mon mont mr mrs ms mt natl nev nov oct "
    "okla penn pfc ph pres prof profs rd rep reps rev rt sen sep sept sgt sq sr st tel thurs "
    "treas tues va vs vt wed wis wm wyo"
)
_TOKEN = re.compile(
    r"""
      -[lr][srcl]b-                                  # a bracket, as the treebank names it
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+                   # an address of e-mail
    | (?:[a-z]\.)+(?![\w])                           # u.s.  a.m.  n.
    | (?:{abbreviations})\.(?!\w)
    | no\.(?=\s*\d)                                  # no. 1, but: he says no.
    | '\d\ds?\b | 'n'                                # the '60s, rock 'n' roll
    | n't\b | '(?:s|re|ve|ll|d|m)\b                  # the second half of a contraction
    | \d+(?:[:.,/]\d+)+ | o'(?!s\b)\w+
    | [^\W_](?:[\w]|[-./&](?=\w))*?(?=n't\b)         # is | n't
    | [^\W_]\w*(?:[-./&]\w+)*                       # t-shirt, black/white, at&t
    | [?!]+ | \.{{2,}} | -{{2,}} | \S
    """.format(abbreviations="|".join(_ABBREVIATIONS.split())),
    re.VERBOSE,
)
_ELLIPSIS = re.compile(r"\.{2,}|-{2,}")


def caption_words(text: str) -> list[str]:
    """The words of one caption: list[str], lower case, punctuation dropped."""
    plain = checked_text(text, "text").lower().translate(_ALIKE)
    plain = _TWO_WORDS.sub(lambda m: " ".join(part for part in m.groups() if part), plain)
    return [
        token
        for token in _TOKEN.findall(plain)
        if token not in DROPPED and token != '"' and not _ELLIPSIS.fullmatch(token)
    ]


def words_beside(
    candidates: Sequence[str], references: Sequence[Sequence[str]]
) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The words of each candidate, and those of each of its references."""
    for text, texts in zip(candidates, references, strict=True):
        yield caption_words(text), [caption_words(other) for other in texts]
