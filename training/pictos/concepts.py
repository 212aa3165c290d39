"""The things of the pictos world: code point, name, kind, usual colour and words that go with each.

One line of `concepts.txt` per thing, hand-picked: a single code point that both Noto Color Emoji
and Symbola draw, and a name of one English word (so that it can be one token). The words after
the colour are cues: the language model reads sentences made of them, so that it can know a koala
by its eucalyptus and not only by its name.
"""

from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).parent / "concepts.txt"


@dataclass(frozen=True)
class Concept:
    """A thing that scenes are made of."""

    char: str
    name: str
    kind: str
    colour: str
    cues: tuple[str, ...]


def concepts() -> list[Concept]:
    """All things, in the order of the sprite banks."""
    rows = [line.split() for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return [Concept(chr(int(r[0], 16)), r[1], r[2], r[3], tuple(r[4:])) for r in rows]
