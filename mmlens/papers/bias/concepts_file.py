"""The concepts file of an audit: groups and concepts, each by pictures, written words or texts.

    groups:                                   # between whose members the model may tell apart
      women: {pictures: pictures/women, words: [woman, she, her]}
      men: {pictures: pictures/men/*.jpg, words: [man, he, his]}
    concepts:                                 # what may be associated with one of them
      doctor: {pictures: [doctor1.jpg, doctor2.jpg], texts: [a photo of a doctor]}
      nurse: {words: [nurse], texts: [a photo of a nurse]}

`pictures` are files, folders or patterns, beside the file. Pictures in a list of their own,
[[anna1.jpg, anna2.jpg], berta.jpg], count as one stimulus, of which the mean is taken: pictures of
one person, or by one hand, are no independent evidence. `pictos` names things of the bundled world,
of which `each` scenes are drawn, as one stimulus.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmlens.papers.goh.questions.formats import world
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import count, path, several
from mmlens.values.picture_files import pictures as endings

KINDS = ("pictures", "words", "texts")
"""As what a group or a concept may be shown: words are drawn as pictures, texts are read."""
LEAST = 3
"""So many stimuli of a kind make up a group or a concept at least."""
BUNDLED = Path(__file__).parent / "bundled.yaml"

Shown = dict[str, dict[str, list[Any]]]
"""Name -> kind -> stimuli."""


@dataclass(frozen=True)
class Concepts:
    """What is compared.

    Attributes:
        groups, concepts: name -> "pictures", "words", "texts" -> stimuli; one of pictures is a
            tuple of pictures.
        about: what it is, in a line.
        file: where it was read from.
    """

    groups: Shown
    concepts: Shown
    about: str
    file: Path

    def kinds(self, of: Shown) -> list[str]:
        """The kinds that every member of `groups` or `concepts` has."""
        return [kind for kind in KINDS if all(kind in own for own in of.values())]


def read_concepts(file: str | Path | None = None) -> Concepts:
    """Read a concepts file; None reads the one of the bundled world.

    Raises:
        ExperimentError: it can't be read, or there is nothing to compare in it; the sentence says
            what is missing.
    """
    import yaml

    here = BUNDLED if file is None else path(file, "concepts")
    try:
        given = yaml.safe_load(here.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = str(error).splitlines()[0]
        raise ExperimentError(f"The concepts file {str(here)!r} can't be read ({why}).") from error
    if not isinstance(given, Mapping) or not {"groups", "concepts"} <= set(given):
        raise ExperimentError(
            f"{str(here)!r} is no concepts file: write the keys groups and concepts, each with"
            " names and their pictures, words or texts."
        )
    each = count(given.get("each", 3), "each", error=ExperimentError)
    found = {part: _shown(part, given[part], here, each) for part in ("groups", "concepts")}
    made = Concepts(**found, about=str(given.get("about", "")), file=here)
    for part in ("groups", "concepts"):
        if not made.kinds(found[part]):
            raise ExperimentError(
                f"The {part} of {str(here)!r} have no kind in common: give all of them pictures, or"
                " all of them words."
            )
    if not set(made.kinds(made.groups)) - {"texts"}:
        raise ExperimentError(
            f"The groups of {str(here)!r} are texts alone: give them pictures or words."
        )
    return made


def _shown(part: str, given: Any, file: Path, each: int) -> Shown:
    if not isinstance(given, Mapping) or len(given) < 2:
        raise ExperimentError(f"{str(file)!r} has fewer than two {part}: nothing is compared.")
    found: Shown = {}
    for name, kinds in given.items():
        known = {*KINDS, "pictos"}
        if not isinstance(kinds, Mapping) or not set(kinds) <= known or not kinds:
            raise ExperimentError(
                f"{name!r} in {part} of {str(file)!r}: write its pictures, pictos, words or texts."
            )
        own = {kind: _stimuli(kind, kinds[kind], file, each) for kind in kinds}
        own["pictures"] = own.get("pictures", []) + own.pop("pictos", [])
        found[str(name)] = {kind: own[kind] for kind in KINDS if own.get(kind)}
        few = [kind for kind, those in found[str(name)].items() if len(those) < LEAST]
        if few:
            raise ExperimentError(
                f"{name!r} in {part} of {str(file)!r} has fewer than {LEAST} {few[0]}: give more."
            )
    return found


def _stimuli(kind: str, given: Any, file: Path, each: int) -> list[Any]:
    listed = several([given] if isinstance(given, str) else given, kind, error=ExperimentError)
    if kind in ("words", "texts"):
        return list(dict.fromkeys(map(str, listed)))
    if kind == "pictos":
        scenes = world([str(one) for one in listed], each)["drawing"]
        return [tuple(own) for own in scenes.values()]
    found: dict[tuple[Any, ...], None] = {}
    for one in listed:
        if isinstance(one, list):
            found[tuple(p for each in one for p in _files(file.parent, str(each)))] = None
        else:
            found |= dict.fromkeys((p,) for p in _files(file.parent, str(one)))
    return list(found)


def _files(folder: Path, pattern: str) -> list[Path]:
    """The pictures that a name, a folder or a pattern stands for, sorted."""
    at = folder / pattern
    if at.is_dir():
        return sorted(one for one in at.iterdir() if one.suffix.lower() in endings())
    found = [at] if at.is_file() else sorted(folder.glob(pattern))
    if not found:
        raise ExperimentError(f"There is no picture {pattern!r} in {str(folder)!r}.")
    return found
