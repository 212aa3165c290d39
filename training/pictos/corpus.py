"""The language model's text: WordNet prose, and written scenes that mention things again.

Five kinds of document, all of words alone:

- *prose*    WordNet glosses, is-a facts and example sentences;
- *facts*    what a thing is, its colour and the words that go with it;
- *stories*  short scenes in sentences, which come back to the same things;
- *lists*    "koala grey guitar koala eucalyptus strings. A picture of a koala and a guitar.":
             unordered, repeated mentions by name or only by words that go with it, among words for
             the ground, laid out as a raster of rows. They teach to gather what a crowd of words is
             about, which is all that a linear soft prompt can offer;
- *letters*  the same for printed words: "k o al l a ... A picture of the word koala."

A list and its sentence are joined by a full stop, a new line or nothing at all, the last as words
follow a picture. Pairs of things that the world keeps unseen are not mentioned together here.

    python training/pictos/corpus.py --work DIR    # tokenizer/, corpus.npy, corpus-listed.npy
"""

import argparse
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from concepts import Concept, concepts
from tokenizer import train_tokenizer
from transformers import PreTrainedTokenizerFast
from wordnet import sentences

from mmlens.pictos.scene_captions import (
    GROUNDS,
    NUMBERS,
    a,
    canonical,
    counted,
    paraphrases,
    plural,
)
from mmlens.pictos.world import pair_is_unseen

Word = tuple[str, str]  # a word of a list, and what it is about: "eucalyptus", "koala"

THINGS = concepts()
BY_NAME = {t.name: t for t in THINGS}
STYLES = ("literal", "symbolic", "written")
STYLE_CUES = {"literal": (), "symbolic": ("drawing", "line", "outline"), "written": ("word",)}
FILLERS = ("ground", "plain", "empty", "nothing", "light", "dark", "smooth")
PLACES = ("next to", "near", "beside", "behind", "in front of", "to the left of", "with")
PEOPLE = ("I", "Tom", "Anna", "We", "She", "He", "They", "My brother", "The girl", "The boy")
SHARES = {"prose": 0.12, "facts": 0.11, "stories": 0.18, "lists": 0.56, "letters": 0.03}
SIZES = ((3, 4), (3, 5), (4, 5), (4, 6), (5, 6), (6, 6), (7, 8), (9, 10))  # rows, columns of lists
OFTEN = (4, 4, 3, 3, 2, 2, 1, 1)  # a short list teaches to gather as well as a long one
WIDE_SHARES = {"prose": 0.04, "facts": 0.04, "stories": 0.08, "lists": 0.82, "letters": 0.02}
WIDE_SIZES = ((7, 8), (9, 10), (10, 10), (10, 10))
BRIEF_SHARES = {"prose": 0.05, "facts": 0.12, "stories": 0.23, "lists": 0.60, "letters": 0.0}
BRIEF_SIZES = ((1, 3), (2, 3), (2, 4), (2, 5), (3, 4), (3, 5), (4, 5))


def cast(rng: random.Random) -> list[Concept]:
    """One to three things; different ones, or one thing several times."""
    many = rng.choices((1, 2, 3), (0.32, 0.54, 0.14))[0]
    first = rng.choice(THINGS)
    if many > 1 and rng.random() < 0.12:
        return [first] * many
    chosen = [first]
    while len(chosen) < many:
        other = rng.choice(THINGS)
        if other not in chosen and not any(pair_is_unseen(other.name, c.name) for c in chosen):
            chosen.append(other)
    return chosen


def say(rng: random.Random, names: list[str], style: str, ground: str) -> str:
    """What follows a list: the canonical caption or a paraphrase, at times both."""
    picture, *others = paraphrases(names, style, ground)
    one = picture if rng.random() < 0.65 else rng.choice(others)
    if rng.random() < 0.25:
        side = ask(rng, names, style, ground)
        return f"{one} {side}"
    return one


def ask(rng: random.Random, names: list[str], style: str, ground: str) -> str:
    """One more true sentence on the scene."""
    spots = (
        ("on the left", "on the right") if style != "written" else ("at the top", "at the bottom")
    )
    choices = [f"The ground is {ground}."]
    if len(names) == 2 and names[0] != names[1]:
        k = rng.randrange(2)
        choices += [f"The {names[k]} is {spots[k]}.", f"{spots[k].capitalize()} is the {names[k]}."]
    if style != "written" and len(set(names)) == len(names):
        choices.append(f"The {rng.choice(names)} is {a(BY_NAME[names[0]].kind)}."
                       if len(names) == 1 else f"There are {len(names)} things.")  # fmt: skip
    return rng.choice(choices)


def raster(rng: random.Random, blobs: list[list[Word]], back: list[Word], stacked: bool,
           sizes: Sequence[tuple[int, int]]) -> list[Word]:  # fmt: skip
    """A few rows of words: each blob's words in its own part of the rows, `back` elsewhere."""
    rows, cols = rng.choices(sizes, OFTEN)[0] if sizes is SIZES else rng.choice(sizes)
    fill = rng.uniform(0.6, 1.0) if sizes is BRIEF_SIZES else rng.uniform(0.25, 0.75)
    share = (rows if stacked else cols) / len(blobs)
    spots = [(int((k + 0.5) * share), cols // 2) if stacked
             else (rows // 2, int((k + 0.5) * share)) for k in range(len(blobs))]  # fmt: skip
    if sizes is WIDE_SIZES and rng.random() < 0.85:
        return scattered(rng, blobs, back, stacked, spots, (rows, cols))
    words = []
    for r in range(rows):
        for c in range(cols):
            k = min(int((r if stacked else c) / share), len(blobs) - 1)
            of_it = rng.random() < fill or (r, c) == spots[k]  # nothing is left out
            words.append(rng.choice(blobs[k] if of_it else back))
    if rng.random() < 0.4:  # less empty ground
        words = [w for w in words if w not in back or rng.random() < 0.3]
    return words


def scattered(rng: random.Random, blobs: list[list[Word]], back: list[Word], stacked: bool,
              spots: list[tuple[int, int]], size: tuple[int, int]) -> list[Word]:  # fmt: skip
    """A raster as things lie on their ground: each of its own size, one often far smaller."""
    tall, wide = ([rng.uniform(0.05, 0.3) * side for _ in blobs] for side in size)
    if stacked:
        tall, wide = [rng.uniform(0.4, 1.1) for _ in blobs], [w + 1 for w in wide]
    spots = [(r + rng.uniform(-1, 1), c + rng.uniform(-1, 1)) for r, c in spots]
    holes, words = rng.uniform(0.0, 0.3), []
    for r in range(size[0]):
        for c in range(size[1]):
            off = [((r - y) / t) ** 2 + ((c - x) / w) ** 2
                   for (y, x), t, w in zip(spots, tall, wide, strict=True)]  # fmt: skip
            k = off.index(min(off))
            words.append(rng.choice(blobs[k] if off[k] < 1 and rng.random() > holes else back))
    for k, (y, x) in enumerate(spots):  # nothing is left out
        words[min(max(round(y), 0), size[0] - 1) * size[1] + round(x)] = rng.choice(blobs[k])
    return words


def list_document(rng: random.Random, sizes: Sequence[tuple[int, int]]) -> tuple[list[Word], str]:
    """A raster of mentions and what it is a picture of."""
    things, ground = cast(rng), rng.choice(GROUNDS)
    style = rng.choices(STYLES, (0.50, 0.30, 0.20))[0]
    named = rng.choices((1.0, 0.5, 0.2, 0.0), (0.28, 0.38, 0.22, 0.12))[0]
    blobs = []
    for t in things:
        cues = [*t.cues, t.kind] + ([t.colour] if style == "literal" else [])
        words = rng.sample(cues, min(len(cues), rng.randint(2, 6)))
        weight = len(words) * named / max(1 - named, 0.05)
        blob = words if named < 1 else []
        blob = blob + [t.name] * (round(weight) if named else 0)
        marks = list(STYLE_CUES[style]) * max(1, len(blob) // 5)
        blobs.append([(word, t.name) for word in blob or [t.name]] + own(marks))
    if len(things) > 1 and things[0] is things[1]:
        blobs[0] += own([NUMBERS[len(things)]] * max(1, len(blobs[0]) // 5))
    back = own([ground] * 3 + rng.sample(FILLERS, rng.randint(0, 3)))
    words = raster(rng, blobs, back, style == "written", sizes)
    return words, say(rng, [t.name for t in things], style, ground)


def own(words: list[str]) -> list[Word]:
    """Words that are about themselves."""
    return [(word, word) for word in words]


def letter_document(rng: random.Random) -> tuple[list[Word], str]:
    """Printed words in pieces: letters and pairs of letters in order, with gaps and repeats."""
    things, ground = cast(rng)[:2], rng.choice(GROUNDS)
    back = [ground] * 3 + rng.sample(FILLERS, 1)
    words: list[str] = []
    for t in things:
        words += rng.choices(back, k=rng.randint(0, 8))
        for _ in range(rng.randint(1, 2)):  # a word is cut by one or two rows of patches
            words += [rng.choice(back)] * rng.randint(0, 2)
            for k in range(len(t.name)):
                if rng.random() < 0.85:
                    words.append(t.name[k : k + rng.randint(1, 2)])
                if rng.random() < 0.12:
                    words.append("word")
    words += rng.choices(back, k=rng.randint(0, 8))
    return [(w, "") for w in words], say(rng, [t.name for t in things], "written", ground)


def fact_document(rng: random.Random, about: dict[str, list[str]]) -> str:
    """What a thing is, in changing words."""
    t = rng.choice(THINGS)
    cues = rng.sample(t.cues, min(len(t.cues), rng.randint(2, 4)))
    it = a(t.name)
    group = [o.name for o in THINGS if o.kind == t.kind]
    others = rng.sample(group, min(3, len(group)))
    forms: list[Callable[[], str]] = [
        lambda: f"{it.capitalize()} is {a(t.kind)}. Words for {it}: {', '.join(cues)}.",
        lambda: f"{', '.join(cues)}: that is {it}.",
        lambda: f"{a(t.colour).capitalize()} {t.kind}: {', '.join(cues)}. It is {it}.",
        lambda: f"What is {t.colour} and goes with {cues[0]} and {cues[1]}? {it.capitalize()}.",
        lambda: f"{t.name}: {', '.join([t.kind, t.colour, *cues])}.",
        lambda: f"The {t.name} is often {t.colour}. Think of {cues[0]} and {cues[1]}.",
        lambda: f"{', '.join(plural(o) for o in others)}: each is {a(t.kind)}.",
        lambda: f"{', '.join(cues)}. A picture of {it}.",
    ]
    said = [rng.choice(forms)() for _ in range(rng.randint(1, 2))]
    if t.name in about and rng.random() < 0.6:
        said.insert(rng.randrange(len(said) + 1), rng.choice(about[t.name]))
    return " ".join(said)


def story_document(rng: random.Random) -> str:
    """A scene told in sentences that mention the same things again."""
    things, ground, who = cast(rng), rng.choice(GROUNDS), rng.choice(PEOPLE)
    names = [t.name for t in things]
    style = rng.choices(STYLES, (0.6, 0.3, 0.1))[0]
    first = things[0]
    saw = rng.choice(("saw", "found", "had", "bought", "liked", "took a photo of", "looked for"))
    if style == "symbolic":
        saw = "drew" if rng.random() < 0.5 else f"{saw} a drawing of"
    said = [f"{who} {saw} {counted(names)}."]
    if len(set(names)) == 2 and style != "symbolic":
        said = [rng.choice((said[0], f"There was {a(names[0])} {rng.choice(PLACES)} {a(names[1])}.",
                            f"{a(names[0]).capitalize()} was {rng.choice(PLACES)} {a(names[1])}."
                            ))]  # fmt: skip
    more = [
        f"The {rng.choice(names)} was {rng.choice(('old', 'new', 'big', 'small', first.colour))}.",
        f"It was on {a(ground)} ground.",
        f"{who} liked the {rng.choice(names)}.",
        f"There was {rng.choice(first.cues)} and {rng.choice(first.cues)} too.",
        f"The {rng.choice(names)} was on the {rng.choice(('table', 'grass', 'floor', 'road'))}.",
        f"It is {a(first.kind)}." if len(names) == 1 else f"Where is the {names[-1]}?",
    ]
    said += rng.sample(more, rng.randint(0, 3))
    if rng.random() < 0.75:
        said.append(f"A picture of{canonical(names, style if style != 'written' else 'literal')}")
    return " ".join(said)


def documents(
    rng: random.Random,
    prose: list[str],
    about: dict[str, list[str]],
    kind: str,
    sizes: Sequence[tuple[int, int]],
) -> tuple[list[Word], str]:
    """One document of this kind, as (list, sentence); prose has no list."""
    if kind == "prose":
        return [], rng.choice(prose)
    if kind == "facts":
        return [], fact_document(rng, about)
    if kind == "stories":
        return [], story_document(rng)
    return list_document(rng, sizes) if kind == "lists" else letter_document(rng)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/pictos"))
    parser.add_argument("--documents", type=int, default=300_000)
    parser.add_argument("--vocabulary", type=int, default=6144)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="corpus", help="writes NAME.npy")
    parser.add_argument("--brief", action="store_true", help="short lists: a first, easier text")
    parser.add_argument(
        "--wide", action="store_true", help="lists as long as a picture: the last text"
    )
    parser.add_argument("--keep-tokenizer", action="store_true", help="use DIR/tokenizer as it is")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rng, besides = random.Random(args.seed), random.Random(args.seed + 1)
    prose, about = sentences({t.name for t in THINGS})
    shares, sizes = (BRIEF_SHARES, BRIEF_SIZES) if args.brief else (SHARES, SIZES)
    shares, sizes = (WIDE_SHARES, WIDE_SIZES) if args.wide else (shares, sizes)
    kinds = rng.choices(list(shares), list(shares.values()), k=args.documents)
    texts = [documents(rng, prose, about, kind, sizes) for kind in kinds]
    names = [t.name for t in THINGS]
    if args.keep_tokenizer:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(args.work / "tokenizer")
    else:
        seen = [f"{spelt(x)}. {y}" for x, y in texts[:80_000]] + prose
        tokenizer = train_tokenizer(seen, names, args.vocabulary)
        tokenizer.save_pretrained(args.work / "tokenizer")
    joined, listed, abouts = zip(
        *(encode(tokenizer, *text, rng.choice((". ", "\n", "")), besides) for text in texts),
        strict=True,
    )
    np.save(args.work / f"{args.name}.npy", np.concatenate(joined).astype(np.uint16))
    of_lists = [np.arange(len(ids)) < most for ids, most in zip(joined, listed, strict=True)]
    np.save(args.work / f"{args.name}-listed.npy", np.concatenate(of_lists))
    np.save(args.work / f"{args.name}-about.npy", np.concatenate(abouts).astype(np.uint16))
    (args.work / f"{args.name}-sample.txt").write_text(
        "\n\n".join(f"{spelt(words)}|{text}" for words, text in texts[:300])
    )
    report(tokenizer, names, sum(map(len, joined)), len(prose))


def spelt(listed: list[Word]) -> str:
    """A list as text, with its leading space."""
    return "".join(f" {word}" for word, _ in listed)


def encode(
    tokenizer: PreTrainedTokenizerFast,
    listed: list[Word],
    text: str,
    joint: str,
    rng: random.Random,
) -> tuple[list[int], int, list[int]]:
    """Token ids, how many of them are the list's, and a word for what each is about (0: nothing).

    With the empty joint the sentence starts afresh, as it does after a picture.
    """
    words = [(piece(tokenizer, word), of) for word, of in listed]
    most = sum(len(ids) for ids, _ in words)
    about = [about_token(tokenizer, rng, of) for ids, of in words for _ in ids]
    ids = [i for ids, _ in words for i in ids]
    ids += tokenizer.encode(joint + text if listed else text)
    ids.append(tokenizer.eos_token_id)
    return ids, most, about + [0] * (len(ids) - most)


def about_token(tokenizer: PreTrainedTokenizerFast, rng: random.Random, of: str) -> int:
    """The name of a thing or, as often, one of the words that go with it; 0 for nothing."""
    if of in BY_NAME and rng.random() < 0.5:
        thing = BY_NAME[of]
        field = [piece(tokenizer, w) for w in (plural(of), thing.kind, *thing.cues)]
        of_one = [ids[0] for ids in field if len(ids) == 1]
        return rng.choice(of_one or piece(tokenizer, of))
    return piece(tokenizer, of)[0] if of else 0


@cache
def piece(tokenizer: PreTrainedTokenizerFast, word: str) -> list[int]:
    """The tokens of a word with its leading space."""
    return tokenizer.encode(f" {word}")


def report(tokenizer: PreTrainedTokenizerFast, names: list[str], tokens: int, prose: int) -> None:
    """How many names are single tokens, and how much text there is."""
    single = [n for n in names if len(tokenizer.encode(" " + n)) == 1]
    plurals = [n for n in names if len(tokenizer.encode(" " + plural(n))) == 1]
    print(f"{tokens:,} tokens, {prose:,} WordNet entries, vocabulary {len(tokenizer)}")
    print(f"{len(single)} of {len(names)} names are one token, {len(plurals)} plurals;"
          f" not: {sorted(set(names) - set(single))}")  # fmt: skip


if __name__ == "__main__":
    main()
