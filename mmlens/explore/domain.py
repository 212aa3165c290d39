"""A note where a bundled model is shown what it cannot know: a photograph.

The models that are trained in the bundled world have seen drawings alone, and answer a photograph
of a cat with the drawings that it resembles. Drawings have areas of one colour; photographs seldom
do. The note goes by the share of neighbouring pixels that are (nearly) equal: at least 0.44 in the
bundled world, 0.15 to 0.34 in the three photographs that were measured. It is a note and no proof:
a smooth photograph passes, and a drawing that was compressed hard is called a photograph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

FAMILIES = ("pictos", "pictos-clip", "pictos-clip-bridge")
FLAT = 0.36
"""Below this share of equal neighbours a picture is taken for a photograph."""
_SIDE, _EQUAL = 256, 2


def flatness(picture: Image.Image) -> float:
    """The share of neighbouring pixels whose colours differ by at most 2 of 255 levels."""
    if max(picture.size) == 1:
        return 1.0  # a single pixel has no neighbours that differ
    small = picture.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    levels = np.asarray(small, int)
    steps = (np.abs(np.diff(levels, axis=axis)).max(-1).ravel() for axis in (0, 1))
    return float((np.concatenate(list(steps)) <= _EQUAL).mean())


def note(model: Any, picture: Image.Image) -> str:
    """A sentence where the picture looks like nothing that the model was trained on; else ""."""
    if model.provenance.get("family", model.name) not in FAMILIES or flatness(picture) >= FLAT:
        return ""
    return (
        f"This looks like a photograph, and {model.name!r} has seen drawings of the bundled world"
        " alone: what it says here means little."
    )
