"""E7 as pictures: what the encoder sees, and the same with what the top units look at left lit."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmlens.causal.picture_boxes import seen_box
from mmlens.papers.mmn.report.outcomes import Outcome
from mmlens.view.style.printed import visible

if TYPE_CHECKING:
    from mmlens.datasets.sample import Samples
    from mmlens.model.hooked_vlm import HookedVLM

DIMMED = 0.28


@dataclass(frozen=True)
class Sheet:
    """One picture of E7.

    Attributes:
        seen, lit: data addresses of the picture and of what the units look at.
        small: whether its pixels are to be seen as squares.
        units: (neuron, words, whether it decodes to words), the strongest first.
    """

    sample: str
    caption: str
    noun: str
    seen: str = field(repr=False)
    lit: str = field(repr=False)
    small: bool
    units: list[tuple[str, str, bool]] = field(default_factory=list)


def sheets(found: Outcome, model: HookedVLM, samples: Samples) -> list[Sheet]:
    """The sheets of every picture that has one, in the order of the data."""
    if found.sweep is None:
        return []
    out = []
    places = {name: place for place, name in enumerate(samples.ids)}
    for name, rows in found.rows(skipped="").groupby("sample", sort=False):
        photo = samples[places[str(name)]].image
        mask = found.sweep.scores("sheet_mask", str(name)).numpy() > 0
        first: Any = rows.iloc[0]
        left, top, right, bottom = seen_box(model, *photo.size)
        seen = photo.crop((round(left), round(top), round(right), round(bottom)))
        shown = seen.resize(mask.shape[::-1], Image.Resampling.BICUBIC)
        columns = zip(rows["neuron"], rows["words"], rows["interpretable"], strict=True)
        units = [(str(n), " ".join(map(visible, words)), bool(yes)) for n, words, yes in columns]
        small = max(photo.size) <= 160
        address = _address(seen if small else shown, "png" if small else "jpeg")
        lit = _address(_lit(shown, mask), "jpeg")
        out.append(Sheet(str(name), first["caption"], first["noun"], address, lit, small, units))
    return out


def _lit(photo: Image.Image, mask: np.ndarray) -> Image.Image:
    """The photo where the mask is, grey and dim elsewhere."""
    colour = np.asarray(photo.convert("RGB"), dtype=float)
    grey = colour.mean(-1, keepdims=True) * DIMMED
    return Image.fromarray(np.where(mask[..., None], colour, grey).round().astype(np.uint8))


def _address(image: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
