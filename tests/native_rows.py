"""The rows of the table of whole vision-language models in the documentation.

`python scripts/native.py` measures them on the twins of `native_twins`, and `test_native` says
where they are not true any more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coca_twins import captioner
from native_twins import photo

from mmlens import Prompt
from mmlens.families.native import FAMILIES
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.laid_out import LaidOutReader
from mmlens.towers.language.telling import RowsAndColumns
from mmlens.values.labels import Marker, Patch, Token

STORED = Path(__file__).parents[1] / "docs" / "native.json"
SIZE = (72, 40)
OTHERS: dict[str, tuple[str, str, Callable[[], HookedVLM]]] = {
    "coca": (
        "CoCa (open_clip)",
        "open_clip:coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k",
        captioner,
    ),
}
"""Models of other libraries: class, example, and how a twin is made."""


def stored_rows() -> dict[str, Any]:
    """What the documentation shows, by the name of the twin."""
    return json.loads(STORED.read_text("utf-8")) if STORED.exists() else {}


def native_row(model: HookedVLM) -> dict[str, Any]:
    """What the documentation says of one family, about a picture of 72 x 40."""
    name = model.provenance["family"]
    family = None if name in OTHERS else FAMILIES[name]
    cls, example = (family.cls, family.example) if family else OTHERS[name][:2]
    picture, reader, vision = photo(*SIZE), model.image_reader, model.vision
    soft = model.embed(Prompt(picture, template=False))
    keys = soft.picture_keys
    labels = soft.labels[0] if keys is None else keys.labels[0]
    places = [at for at, label in enumerate(labels) if not isinstance(label, Token)]
    inside = [label for label in labels[places[0] : places[-1] + 1] if isinstance(label, Token)]
    names = Counter(str(one.name) for one in labels if isinstance(one, Marker))
    merged = vision.grid[0] // reader.grid(vision)[0]
    told = model.lm.telling
    points = [name for name in vision.hook_dict if name.startswith("blocks.0.")]
    return {
        "class": cls,
        "example": example,
        "crops": _crops(reader, vision),
        "positions": sum(isinstance(one, Patch) for one in labels),
        "merged": f"{merged} x {merged}" if merged > 1 else "",
        "markers": dict(names),
        "words inside": sorted({one.text for one in inside})[:3],
        "attention": "across"
        if keys is not None
        else "causal"
        if told is None or not told.both_ways
        else type(told).__name__,
        "rotary": type(told).__name__ if isinstance(told, RowsAndColumns) else "",
        "encoder attention": any("attn.hook_q" in name for name in points),
        "points": len(points),
    }


def _crops(reader: Any, vision: Any) -> list[str]:
    """The crops of the picture: their names and grids, equal ones counted."""
    if not isinstance(reader, LaidOutReader):
        rows, cols = reader.grid(vision)
        return [f"picture {rows} x {cols}"]
    crops = reader.layout(vision, *SIZE).crops
    found = Counter(f"{one.name} {one.grid[0]} x {one.grid[1]}" for one in crops)
    return [name if n == 1 else f"{n} {name}" for name, n in found.items()]
