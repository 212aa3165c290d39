"""Captions of the pictures that pictos-clip learns from, and its tokenizer.

A thing is called by its name alone, or by a phrase that also says what kind of picture it is; a
written word likewise. So the plain contrastive loss may put the photograph, the drawing and the
written word of one thing side by side, and may tell them apart: what a unit makes of it is its own.
"""

import gzip
import random
from itertools import pairwise
from pathlib import Path

from mmlens.pictos.scene_captions import GROUNDS, a, plural

INKS = (*GROUNDS, "black")
ONE = ("{n}", "{a}", "a picture of {a}", "{a} on {aground} ground")
TEMPLATES = {
    "colour": (*ONE, "a cartoon of {a}", "an emoji of {a}", "{a}, a kind of {kind}"),
    "photo": (*ONE, "a photo of {a}", "a photograph of {a}", "a photo of {a}"),
    "outline": (*ONE, "a drawing of {a}", "a line drawing of {a}", "an outline of {a}"),
    "silhouette": (*ONE, "a silhouette of {a}", "a drawing of {a}"),
    "symbol": (*ONE, "a drawing of {a}", "a symbol of {a}"),
    "word": ("{w}", "the word {w}", "the word {w} in {ink} ink", "the word {w} on {aground} ground",
             "a text that says {w}", "a picture of the word {w}", "the written word {w}"),
    "both": ("{a} with the word {w} on it", "{a} with the word {w} on it",
             "the word {w} on {a}", "{a} and the word {w}", "{n}", "{w}",
             "the word {w} in {ink} ink on {a}"),
}  # fmt: skip
# words of the bundled world's captions, and some that people ask with
ASKED = """
there is are ground one two three words left right at in middle top bottom an picture image of
no not this it with text sign label logo icon sketch photo several
"""
PLAIN = 0.5  # the share of captions that are the name alone or the name with its article


def caption(form: str, dice: random.Random, **facts: str) -> str:
    """One caption; `facts`: n (the thing), w (the word), ground, ink, kind, as far as known."""
    choices = TEMPLATES[form]
    if form != "both" and dice.random() < PLAIN:
        text = choices[dice.randrange(1 if form == "word" else 2)]
    else:
        text = dice.choice(choices)
    thing = facts.get("n", "")
    return text.format(a=a(thing) if thing else "", aground=a(facts["ground"]), **facts)


def vocabulary(names: tuple[str, ...], kinds: tuple[str, ...]) -> list[str]:
    """Every word of the captions, and some that people ask with."""
    texts = [t for group in TEMPLATES.values() for t in group]
    words = [w for t in texts for w in t.replace(",", " ").split() if "{" not in w]
    words += ASKED.split()
    return list(dict.fromkeys([*words, *INKS, *names, *map(plural, names), *kinds]))


def write_merges(words: list[str], file: Path) -> None:
    """Byte-pair merges that make one token of each word, as open_clip's SimpleTokenizer reads them.

    A word's merges come after those of the words before it, which they therefore can't change.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            pairs = list(pairwise(pieces))
            best = min(pairs, key=lambda p: ranks.get(p, len(ranks)))
            ranks.setdefault(best, len(ranks))
            at = pairs.index(best)
            pieces[at : at + 2] = ["".join(best)]
    with gzip.GzipFile(file, "wb", mtime=0) as stream:
        lines = ["#version: pictos-clip", *(" ".join(p) for p in ranks)]
        stream.write("\n".join(lines).encode())
