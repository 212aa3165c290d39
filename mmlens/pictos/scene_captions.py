"""The caption grammar of the pictos world.

The canonical caption continues the prompt "A picture of" and names the things from left to right
(written words from top to bottom), with the style in front of them unless it is the plain one:

    literal     a dog and a bicycle.
    symbolic    a drawing of a dog and a bicycle.
    written     the words dog and bicycle.     (one thing:  the word dog.)

Several of one thing are counted: "two dogs." Captions begin with a space, as a word that continues
a sentence does. Four paraphrases add place and ground colour, so that both can be asked for.
"""

from collections.abc import Sequence

NUMBERS = ("no", "one", "two", "three")
GROUNDS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "grey", "white")
STYLE_WORDS = {"literal": "", "symbolic": "drawing", "written": "word"}
SIDES = {1: ("in the middle",), 2: ("on the left", "on the right"),
         3: ("on the left", "in the middle", "on the right")}  # fmt: skip
ROWS = {1: ("in the middle",), 2: ("at the top", "at the bottom"),
        3: ("at the top", "in the middle", "at the bottom")}  # fmt: skip
IRREGULAR = {"mouse": "mice", "leaf": "leaves", "knife": "knives", "wolf": "wolves", "fish": "fish",
             "deer": "deer", "dice": "dice", "shrimp": "shrimp"}  # fmt: skip


def plural(name: str) -> str:
    """'dog' -> 'dogs', 'cherry' -> 'cherries', 'mouse' -> 'mice'."""
    if name in IRREGULAR:
        return IRREGULAR[name]
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith(("s", "x", "ch", "sh", "ss", "tomato", "potato")) else "s")


def a(name: str) -> str:
    """The noun with its article: 'a dog', 'an owl', 'a unicorn'."""
    return f"an {name}" if name[0] in "aeiou" and not name.startswith("uni") else f"a {name}"


def listed(parts: Sequence[str]) -> str:
    """'x', 'x and y', 'x, y and z'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def counted(names: Sequence[str]) -> str:
    """Noun phrase for the things in order, equal ones counted: 'two dogs and a bicycle'."""
    kinds = dict.fromkeys(names)
    return listed(
        [a(n) if (k := list(names).count(n)) == 1 else f"{NUMBERS[k]} {plural(n)}" for n in kinds]
    )


def phrase(names: Sequence[str], style: str) -> str:
    """What is pictured, its style included: 'a drawing of a dog', 'the words dog and owl'."""
    if style == "symbolic":
        return f"a drawing of {counted(names)}"
    if style == "written":
        return f"the word{'s' if len(names) > 1 else ''} {listed(list(names))}"
    return counted(names)


def canonical(names: Sequence[str], style: str) -> str:
    """The caption that continues "A picture of": ' a dog and a bicycle.'"""
    return f" {phrase(names, style)}."


def paraphrases(names: Sequence[str], style: str, ground: str) -> tuple[str, ...]:
    """Five captions of one scene, each a sentence (or two) of its own; the canonical one first."""
    what = phrase(names, style)
    be = "is" if len(names) == 1 else "are"
    there = "are" if style != "symbolic" and len(names) > 1 and len(set(names)) == 1 else "is"
    if style == "written":
        there = be
    spots = (ROWS if style == "written" else SIDES)[len(names)]
    nouns = [f"the word {n}" if style == "written" else a(n) for n in names]
    placed = listed([f"{noun} {spot}" for noun, spot in zip(nouns, spots, strict=True)])
    return (
        f"A picture of {what}.",
        f"There {there} {what}. The ground is {ground}.",
        f"{what[0].upper()}{what[1:]} on {a(ground)} ground.",
        f"{placed[0].upper()}{placed[1:]}.",
        f"On {a(ground)} ground {there} {what}.",
    )
