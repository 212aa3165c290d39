"""What each attention head of a dual encoder's tower writes: W_O of every layer, measured.

    attn_out[p] = sum over heads of z[p, head] @ W_O[head] + b_O

The matrix is read off the model's own forward pass: z is set to one basis vector at each
position, in all layers at once. So a layer scale after the projection is part of W_O, and where
attention ends with anything else than a linear map (a norm), that shows and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model import hooking
from mmlens.model.capture import capture
from mmlens.model.last_map import wide
from mmlens.values.errors import CapabilityError
from mmlens.values.sites import SITES, Site

if TYPE_CHECKING:
    from mmlens.model.dual_reading import DualReading
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder


@dataclass(frozen=True)
class Places:
    """Where a tower is read: its sites by their names.

    Args:
        tower: "vision" or "text".
    """

    tower: str

    def __getattr__(self, name: str) -> Site:
        return SITES[f"{self.tower}.{name}"]


def check_parts(model: HookedDualEncoder, at: Places) -> None:
    """Refuse an encoder whose stream is no sum of what attention and MLPs write.

    Raises:
        CapabilityError: it is one; the sentence says what can be asked instead.
    """
    tower, known = model.towers[at.tower], hooking.points(model)
    for layer in range(tower.n_layers):
        for site in (at.attn_out, at.mlp_out, at.z):
            there = site.at(layer) in known
            if not there or tower.site(site, layer).axes != site.axes:
                raise CapabilityError(
                    f"Layer {layer} of {model.name!r} has no {site.name!r} whose writes add up to"
                    " the residual stream of one row of positions, so its embedding is no sum over"
                    " heads and MLPs: write by='pos' or by='unit'."
                )


def measured_writes(
    model: HookedDualEncoder, one: DualReading, layers: Sequence[int], at: Places
) -> dict[int, tuple[Float[Tensor, "head d_head dim"], Float[Tensor, " dim"]]]:
    """(W_O, b_O) of these layers.

    Args:
        one: any picture, or any text.
    """
    z, out = at.z, at.attn_out
    with torch.no_grad(), capture(model, [z.at(layer) for layer in layers]) as seen:
        model.run(one)
    shapes = {layer: seen[z.at(layer)].shape[1:] for layer in layers}
    need = max((heads * size + 1) / pos for pos, heads, size in shapes.values())

    def basis(tensor: Tensor, hook: Any) -> Tensor:
        """Nothing at the first position of the batch, one basis vector at each that follows."""
        slots, width = tensor.shape[0] * tensor.shape[1], tensor.shape[2] * tensor.shape[3]
        values = torch.zeros(slots, width, dtype=tensor.dtype, device=tensor.device)
        values[1 : 1 + width] = torch.eye(width).to(values)
        return values.view(tensor.shape)

    hooks = [(z.at(layer), basis) for layer in layers]
    names = [out.at(layer) for layer in layers]
    with torch.no_grad(), model.hooks(hooks), capture(model, names) as written:
        model.run(one.copies(math.ceil(need), at.tower))
    found = {}
    for layer, (_, heads, size) in shapes.items():
        rows = wide(written[out.at(layer)]).flatten(0, 1)[: 1 + heads * size]
        found[layer] = (rows[1:] - rows[0]).view(heads, size, -1), rows[0]
    return found
