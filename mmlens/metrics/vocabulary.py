"""Which words of a text name which objects.

A vocabulary maps phrases to objects: "puppy" -> dog, "hot dog" -> hot dog. Singular and plural are
one ("men", "knives", "wine glasses"), the longest phrase counts ("hot dog" names no dog), and a
phrase may be mapped to None, which makes it name nothing ("home plate").
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmlens.metrics.ptb import caption_words
from mmlens.metrics.result import MetricError
from mmlens.pictos.scene_captions import plural
from mmlens.values.arguments import shown
from mmlens.values.errors import nearest

_IRREGULAR = {"child": "children", "person": "people", "sheep": "sheep", "calf": "calves",
              "goose": "geese", "foot": "feet", "ox": "oxen", "scarf": "scarves"}  # fmt: skip

# The special cases of Rohrbach et al.'s program: a baby elephant is no person, ...
_YOUNG = (
    ("bird", "cat", "dog", "horse", "sheep", "cow")
    + ("elephant", "bear", "zebra", "giraffe", "animal", "cub")
)  # fmt: skip
_OTHER_NAMES = {f"{age} {animal}": animal for age in ("baby", "adult") for animal in _YOUNG} | {
    "passenger jet": "jet",
    "passenger train": "train",
    "toilet seat": "toilet",
    "bow tie": "tie",
}
# ... and these are one word each, which names something only if the file says so
_PAIRS = (
    ("motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal")
    + ("stop light", "fire hydrant", "stop sign", "parking meter", "suit case", "sports ball")
    + ("baseball bat", "baseball glove", "tennis racket", "wine glass", "hot dog", "cell phone")
    + ("mobile phone", "teddy bear", "hair drier", "potted plant", "laptop computer", "home plate")
)


@dataclass(frozen=True)
class Vocabulary:
    """Phrases in the singular, lower case, and the object that each names (None: none).

    Vocabulary("pets", {"dog": "dog", "puppy": "dog", "hot dog": None})
    """

    name: str
    objects: Mapping[str, str | None]

    @cached_property
    def phrases(self) -> dict[tuple[str, ...], str | None]:
        """Each phrase as words, its plurals with it; what the user spelt wins."""
        given = {tuple(caption_words(phrase)): name for phrase, name in self.objects.items()}
        many = {
            (*words[:-1], other): name
            for words, name in given.items()
            if words
            for other in _plurals(words[-1])
        }
        return many | given

    @cached_property
    def longest(self) -> int:
        return max(map(len, self.phrases), default=0)

    def mentions(self, text: str) -> list[tuple[str, str]]:
        """(phrase as it stands in the text, object) of each mention, in order."""
        words, found, at = caption_words(text), [], 0
        while at < len(words):
            for size in range(min(self.longest, len(words) - at), 0, -1):
                phrase = tuple(words[at : at + size])
                if phrase in self.phrases:
                    name = self.phrases[phrase]
                    if name is not None:
                        found.append((" ".join(phrase), name))
                    at += size
                    break
            else:
                at += 1
        return found

    def named(self, name: str) -> str:
        """The object behind a name of the ground truth; MetricError if the vocabulary has none."""
        known = self.phrases.get(tuple(caption_words(name)))
        if known is None:
            names = sorted({known for known in self.phrases.values() if known is not None})
            raise MetricError(
                f"{name!r} is no object of the vocabulary {self.name!r}: {nearest(name, names)}"
            )
        return known


def pictos_vocabulary() -> Vocabulary:
    """The things of the bundled world, each under its one name."""
    from mmlens.pictos.world import World

    return Vocabulary("pictos", {name: name for name in World().names})


def coco_vocabulary(path: str | Path) -> Vocabulary:
    """The 80 categories of COCO with the synonyms of a file, and Rohrbach et al.'s special cases.

    Args:
        path: one object a line, `object, synonym, synonym`: the synonyms.txt of the authors'
            repository (LisaAnne/Hallucination). It is not bundled.

    Two things differ from their program, which lets a library make each word singular: plurals are
    built from the file's words, and "seat" is silent in "toilet seat" only, not wherever the
    caption has a toilet as well.

    Raises:
        MetricError: there is no such file, or no line in it.
    """
    if not isinstance(path, str | Path):
        raise MetricError(f"path={shown(path)}: write the path of a file of synonyms.")
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise MetricError(
            f"There is no file of synonyms {path.name!r} ({error.strerror}): take synonyms.txt"
            " from the repository LisaAnne/Hallucination."
        ) from error
    objects: dict[str, str | None] = {}
    for line in text.splitlines():
        names = [name.strip() for name in line.split(",") if name.strip()]
        objects |= dict.fromkeys(names, names[0] if names else None)
    if not objects:
        raise MetricError(f"{path.name!r} has no line `object, synonym, synonym`.")
    special = {pair: objects.get(pair) for pair in _PAIRS}
    special |= {phrase: objects.get(name) for phrase, name in _OTHER_NAMES.items()}
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Vocabulary(f"coco ({path.name} sha256:{digest})", objects | special)


def _plurals(word: str) -> set[str]:
    if len(word) < 2:
        return set()
    many = {plural(word)}
    if word in _IRREGULAR:
        many.add(_IRREGULAR[word])
    if word.endswith("man") and word != "human":
        many.add(f"{word[:-3]}men")
    return many
