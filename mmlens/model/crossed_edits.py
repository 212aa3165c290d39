"""Edits of attention to pictures, in models whose pictures are no positions.

A model that reads pictures by cross-attention has two attentions: among the positions of its words,
and from those to the keys of its pictures. An Edit that names patches as keys of the first can
never act, and is refused before anything runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlens.values.errors import AddressError
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel
    from mmlens.values.edit import Edit


def check_keys(model: HookedModel, edit: Edit) -> None:
    """Refuse patches as keys of attention among positions, where they are keys beside these.

    Raises:
        AddressError: the Edit names some; the error has the option that finds them.
    """
    if edit.site.has_other_keys or "key" not in edit.site.axes or not edit.site.in_lm:
        return
    if not model.can("pictures") or model.can("positions"):
        return
    if _patches(edit.address.get("key")):
        raise AddressError(
            f"The pictures of {model.name!r} are keys of cross-attention and no positions, so"
            f" no key of {edit.site.name!r} is a Patch: write across=True (amplify, knockout), or"
            " an Edit at 'cross_attn_scores' or 'cross_pattern'."
        )


def _patches(wanted: Any) -> bool:
    several = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    return any(one is Patch or isinstance(one, Patch) for one in several)
