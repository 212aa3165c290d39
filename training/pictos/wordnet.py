"""Sentences from WordNet 3.0: glosses, examples and is-a facts of common words.

Reads the database files of Debian's `wordnet-base` (permissive licence, see LICENSES.md). WordNet
orders the senses of a word by how common they are; only the first two senses of a word are used,
which keeps the prose close to everyday English.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from mmlens.pictos.scene_captions import a

DICT = Path("/usr/share/wordnet")
PLAIN = re.compile(r"^[a-z]+(_[a-z]+)?$")


@dataclass(frozen=True)
class Synset:
    """One meaning: its words, gloss, example sentences and the offsets of its hypernyms."""

    part: str
    words: tuple[str, ...]
    gloss: str
    examples: tuple[str, ...]
    above: tuple[str, ...]


def synsets(part: str) -> dict[str, Synset]:
    """Offset -> synset, of one part of speech: "noun", "verb", "adj" or "adv"."""
    found = {}
    for line in (DICT / f"data.{part}").read_text().splitlines():
        if line.startswith("  "):
            continue
        data, _, text = line.partition(" | ")
        field = data.split()
        n = int(field[3], 16)
        words = tuple(field[4 + 2 * k].split("(")[0] for k in range(n))
        links = field[5 + 2 * n :]
        above = tuple(links[k + 1] for k, s in enumerate(links) if s in ("@", "@i"))
        examples = tuple(e.strip() for e in re.findall(r'"([^"]+)"', text))
        gloss = re.sub(r'"[^"]*"', "", text)
        gloss = re.sub(r"\([^)]*\)", "", gloss).split(";")[0]
        found[field[0]] = Synset(part, words, " ".join(gloss.split()).strip(" ,;"), examples, above)
    return found


def first_senses(part: str, most: int = 2, common_only: bool = True) -> dict[str, list[str]]:
    """Word -> offsets of its most common senses."""
    senses = {}
    for line in (DICT / f"index.{part}").read_text().splitlines():
        if not line.startswith("  "):
            field = line.split()
            common = int(field[-int(field[2]) - 1]) > 0  # seen at least once in tagged text
            if common or not common_only:
                senses[field[0]] = field[-int(field[2]) :][:most]
    return senses


def sentences(always: set[str] = frozenset()) -> tuple[list[str], dict[str, list[str]]]:
    """Sentences on common words, and those about one noun (also the `always` ones)."""
    everything: list[str] = []
    about: dict[str, list[str]] = {}
    for part in ("noun", "verb", "adj", "adv"):
        data, senses = synsets(part), first_senses(part)
        rare = first_senses(part, 1, common_only=False) if part == "noun" else {}
        senses |= {word: rare[word] for word in always if word in rare and word not in senses}
        for word, offsets in senses.items():
            if not PLAIN.match(word):
                continue
            for offset in offsets:
                lines = _about(word.replace("_", " "), data[offset], data)
                about.setdefault(word, []).extend(lines if part == "noun" else [])
                everything.append(" ".join(lines))
    return list(dict.fromkeys(everything)), about


def _about(word: str, synset: Synset, data: dict[str, Synset]) -> list[str]:
    """A gloss, an is-a fact and up to two examples, as sentences."""
    lines = []
    if synset.part == "noun" and synset.above:
        kind = data[synset.above[0]].words[0].replace("_", " ")
        lines.append(f"{a(word).capitalize()} is a kind of {kind}.")
    if synset.gloss:
        lead = {"noun": f"{word}: ", "verb": f"to {word}: "}.get(synset.part, f"{word}: ")
        lines.append(f"{lead}{synset.gloss}.")
    for example in synset.examples[:2]:
        lines.append(example[0].upper() + example[1:] + ("" if example[-1] in ".?!" else "."))
    return lines
