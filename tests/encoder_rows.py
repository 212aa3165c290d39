"""The rows of the table of encoders in the documentation, measured on the twins of `encoders`.

`python scripts/encoders.py` writes them; `test_vision_classes` says where they are not true any
more.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmlens.towers.vision.encoder import HookedVision

STORED = Path(__file__).parents[1] / "docs" / "encoders.json"
_PLACES = (
    *("hook_embed", "hook_resid_pre", "hook_attn_out", "mlp.hook_pre", "mlp.hook_post"),
    *("hook_mlp_out", "conv", "hook_resid_add", "hook_resid_post"),
)


def stored_rows() -> dict[str, Any]:
    """What the documentation shows, by the name of the twin."""
    return json.loads(STORED.read_text("utf-8")) if STORED.exists() else {}


def encoder_row(name: str, found: HookedVision | str) -> dict[str, Any]:
    """What the documentation says of one encoder.

    Args:
        found: the encoder, or the sentence that it is refused with.
    """
    library, _, kind = name.partition(":")
    if isinstance(found, str):
        return {"library": library, "class": kind, "refused": found}
    inside = {point.split(".", 2)[-1] for point in found.hook_dict if point.startswith("blocks.")}
    inside |= {"hook_embed"} & set(found.hook_dict)
    inside |= {"conv"} if any(point.startswith("conv") for point in inside) else set()
    rows, cols = found.grid
    return {
        "library": library,
        "class": kind,
        "grid": f"{rows} x {cols}",
        "prefix": list(found.markers),
        "layers": found.n_layers,
        "points": [place for place in _PLACES if place in inside],
        "attention": _attention(found),
        "own grids": len(set(found.grids.values()) - {found.grid}) > 0,
    }


def _attention(vision: HookedVision) -> str:
    """Whether queries, keys, values and pattern can be read, and where they have labels."""
    queries = [point for point in vision.hook_dict if point.endswith("attn.hook_q")]
    labelled = [point for point in queries if point in vision.axes]
    if not queries:
        return "no"
    if not labelled:
        return "windows"
    return "yes" if len(labelled) == len(queries) else "some layers in windows"
