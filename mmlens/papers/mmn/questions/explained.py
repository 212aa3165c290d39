"""What an experiment explains in a picture: the first noun of the model's own caption.

MMN 2.1: the caption is generated at T = 0; the explained token c is the first noun in it (of a noun
of several tokens the first), and the number y is read at the position that predicts c. Which tagger
the paper used is not said. Here `noun` is

    "pictos"     the first name of the bundled world, singular or plural
    "content"    the first word of three or more letters that is no function word
    "auto"       "pictos" for the bundled model, "content" for others
    a function   text -> its nouns in order, such as a part-of-speech tagger's (but a sweep takes
                 the name of a rule, which it can record)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from mmlens.datasets.sample import Sample
from mmlens.explore import NO_THINGS
from mmlens.model.targets import caption as said_after
from mmlens.model.targets import extend, one
from mmlens.papers.mmn.questions.question_options import RULES as RULES
from mmlens.papers.tables import ExperimentError
from mmlens.pictos.scene_captions import plural
from mmlens.towers.language.tokenization import word
from mmlens.values.arguments import function
from mmlens.values.errors import MMLensError, nearest
from mmlens.values.prompt import Prompt, SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Rule = str | Callable[[str], Sequence[str]]
"""The name of a rule, or a function from a text to its nouns in order."""
PROMPT = "A picture of"
_NO_NOUNS = NO_THINGS | frozenset(
    """words pictures drawings photos images one very also then than when where while what which who
    whom whose how why she him hers ours your yours you they them theirs will would can could shall
    should may might must does did done doing get gets got being both each every any all none
    only just most more other another such same through during before after about against
    inside outside along around across upon within without there here""".split()  # noqa: SIM905
)


@dataclass(frozen=True, eq=False)
class Explained:
    """A picture's prompt, its caption, and the token of it that is explained.

    Attributes:
        prompt: picture and words.
        caption: what the model says after it.
        noun: the word that is explained.
        token: id of its first token.
        soft: the prompt and the caption up to that token; its last position predicts it.
    """

    prompt: SoftPrompt = field(repr=False)
    caption: str
    noun: str
    token: int
    soft: SoftPrompt = field(repr=False)


def explain(
    model: HookedVLM,
    sample: Sample,
    *,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
) -> Explained | None:
    """The first noun of the model's caption of a picture, or None where it names nothing.

    Args:
        prompt: what follows the picture in the prompt.
        noun: how nouns are found (see the module's text).
    """
    read = one(model, Prompt(sample.image, prompt))
    ids = said_after(model, read, max_new_tokens)
    pieces = [word(model.lm, token) for token in ids]
    text = "".join(pieces)
    found = spans(text, rule_for(model, noun))
    if not found:
        return None
    begin, end = found[0]
    ends, at = [], 0
    for piece in pieces:
        at += len(piece)
        ends.append(at)
    place = next(i for i, stop in enumerate(ends) if stop > begin)
    soft = extend(model, read, ids[:place])
    return Explained(read, text, text[begin:end], ids[place], soft)


def nouns(text: str, rule: Rule) -> list[str]:
    """The nouns of a text, in order."""
    return [text[begin:end] for begin, end in spans(text, rule)]


def _named(rule: Callable[[str], Sequence[str]], text: str) -> list[str]:
    """What the caller's rule gives.

    Raises:
        ExperimentError: it fails.
    """
    write = "a function of a text that returns its nouns"
    function(rule, "noun", write, takes=1, error=ExperimentError)
    try:
        return [str(noun) for noun in rule(text)]
    except (MMLensError, MemoryError):
        raise
    except Exception as error:  # the caller's own code: whatever it raises is reported
        raise ExperimentError(
            f"The rule for nouns failed ({type(error).__name__}: {error}): it gets a text and gives"
            " a list of its nouns."
        ) from error


def spans(text: str, rule: Rule) -> list[tuple[int, int]]:
    """Where the nouns of a text begin and end, in order.

    Raises:
        ExperimentError: no such rule.
    """
    if callable(rule):
        found, at = [], 0
        for noun in _named(rule, text):
            # a word of its own: "cat" is not the beginning of "caterpillar"
            whole = re.compile(rf"(?<!\w){re.escape(noun)}(?!\w)").search(text, at)
            if whole and noun:
                at = whole.end()
                found.append(whole.span())
        return found
    if rule == "pictos":
        return [match.span() for match in _pictos().finditer(text)]
    if rule != "content":
        raise ExperimentError(f"There is no rule {rule!r} for nouns: {nearest(rule, RULES)}")
    words = re.finditer(r"[^\W\d_]{3,}", text)
    return [match.span() for match in words if match[0].lower() not in _NO_NOUNS]


def rule_for(model: HookedVLM, noun: Rule) -> Rule:
    """The rule that "auto" stands for with this model."""
    if noun != "auto":
        return noun
    return "pictos" if model.provenance.get("family") == "pictos" else "content"


def names_thing(noun: str, thing: str) -> bool:
    """Whether a noun is the name of a thing, in the singular or plural."""
    return noun.lower() in (thing.lower(), plural(thing.lower()))


@lru_cache(maxsize=1)
def _pictos() -> re.Pattern[str]:
    from mmlens.pictos.sprites import sprites

    names = {form for name in sprites().names for form in (name, plural(name))}
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)
