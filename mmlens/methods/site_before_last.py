"""Where units of a layer of convolutions are told apart best: before its last nonlinearity.

Goh et al. (2021) read the last residual block of CLIP's ResNets before its ReLU: below 0 a unit
tells apart what the ReLU would make alike. Where a layer's last nonlinearity makes what the layer
puts out, its input is that place; elsewhere (MLPs) it is the default of `unit_responses`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from mmlens.methods.activations import activations
from mmlens.methods.unit_responses import TOWER, read_site
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

SIDE = 64


def site_before_last(model: HookedModel, layer: int = -1, site: str | None = None) -> str:
    """The site that is asked for, or else the one where the paper reads.

    Raises:
        AddressError: no such layer. SiteError: the site is none of the vision tower.
    """
    found = read_site(model, layer, site)
    if site is not None or found != "vision.resid_post":
        return found
    points: Any = model.towers[TOWER].points
    at = range(model.towers[TOWER].n_layers)[layer]
    if f"vision.blocks.{at}.hook_resid_add" in points:
        return "vision.resid_add"
    names = [n for n in (1, 2, 3) if f"vision.blocks.{at}.conv{n}.hook_pre" in points]
    if not names:
        return found
    last = f"vision.conv{names[-1]}"
    blank = Prompt(Image.new("RGB", (SIDE, SIDE), "grey"))
    after, out = (activations(model, blank, one, layer=at).values for one in (last, found))
    same = after.shape == out.shape and bool((after == out).all())
    return f"{last}_pre" if same else found
