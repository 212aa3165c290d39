"""Pictures of concepts by format: from the bundled world, or from a folder of one's own.

    world(["dog", "apple"], 8)       colour drawings, symbols and printed words of the bundled world
    folder("mine")                   mine/FORMAT/CONCEPT/*.png

A format holds every concept, so the pictures of the others are a concept's distractors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from mmlens.papers.tables import ExperimentError
from mmlens.pictos.sprites import sprites
from mmlens.pictos.world import World
from mmlens.values.arguments import count, path
from mmlens.values.picture_files import pictures

Formats = dict[str, dict[str, list[Any]]]
"""Format -> concept -> pictures."""
STYLES = {"drawing": "literal", "symbol": "symbolic", "written": "written"}
"""Formats of the bundled world, which has no photographs, by the style that draws them."""
SCENES = 12_000
"""So many scenes of a style are looked through at most."""


def world(concepts: Sequence[str], each: int, *, seed: int = 0) -> Formats:
    """Scenes of one thing alone: `each` per concept and format.

    Raises:
        ExperimentError: the world does not know a concept, or shows it too seldom.
    """
    known, wanted = sprites().names, list(concepts)
    for one in wanted:
        if one not in known:
            raise ExperimentError(f"The bundled world has no {one!r}; it has {known[:6]}, ...")
    found: Formats = {}
    for name, style in STYLES.items():
        here = World("held_out", seed, things=1, style=style)
        _, _, cast = here.cast(range(SCENES))
        found[name] = {}
        for one in wanted:
            at = (cast[:, 0] == known.index(one)).nonzero()[:, 0][: count(each, "each")].tolist()
            if len(at) < each:
                raise ExperimentError(f"Only {len(at)} scenes show {one!r} alone as {style}.")
            pixels = (here.batch(at).images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
            found[name][one] = [Image.fromarray(x) for x in pixels.numpy()]
    return found


def spread_things(n: int | None = None) -> list[str]:
    """So many things of the bundled world, evenly over its list; None for all."""
    names = sprites().names
    many = len(names) if n is None else min(count(n, "concepts"), len(names))
    return [names[i * len(names) // many] for i in range(many)]


def folder(root: str | Path) -> Formats:
    """The pictures of root/FORMAT/CONCEPT/.

    Raises:
        ExperimentError: fewer than two formats, or formats of different concepts.
    """
    here, found = path(root, "data"), {}
    for inside in sorted(one for one in here.glob("*/*") if one.is_dir()):
        files = sorted(one for one in inside.iterdir() if one.suffix.lower() in pictures())
        found.setdefault(inside.parent.name, {})[inside.name] = files
    concepts = {tuple(own) for own in found.values()}
    if len(found) < 2 or len(concepts) != 1:
        raise ExperimentError(
            f"{str(here)!r} holds {len(found)} formats of {len(concepts)} lists of concepts: make"
            " folders FORMAT/CONCEPT with the same concepts in two formats at least."
        )
    return found


def against_others(formats: Formats, concept: str) -> dict[str, tuple[list[Any], list[Any]]]:
    """Per format the pictures of a concept, and those of all others."""
    return {
        name: (own[concept], [one for other, seen in own.items() if other != concept
                              for one in seen])
        for name, own in formats.items()
    }  # fmt: skip
