"""What each attention head of a vision tower writes: W_O of every layer, measured.

    attn_out[p] = sum over heads of z[p, head] @ W_O[head] + b_O

The matrix is read off the model's own forward pass: z is set to one basis vector at each
position, in all layers at once. So a layer scale after the projection is part of W_O, and where
attention ends with anything else than a linear map (a norm), that shows and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model import hooking
from mmlens.model.capture import capture
from mmlens.model.last_map import wide
from mmlens.values.errors import CapabilityError
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder

Z, OUT, MLP = SITES["vision.z"], SITES["vision.attn_out"], SITES["vision.mlp_out"]
RESID, POST = SITES["vision.resid_pre"], SITES["vision.resid_post"]


def check_parts(model: HookedDualEncoder) -> None:
    """Refuse an encoder whose stream is no sum of what attention and MLPs write.

    Raises:
        CapabilityError: it is one; the sentence says what can be asked instead.
    """
    tower, known = model.towers["vision"], hooking.points(model)
    for layer in range(tower.n_layers):
        for site in (OUT, MLP, Z):
            there = site.at(layer) in known
            if not there or tower.site(site, layer).axes != site.axes:
                raise CapabilityError(
                    f"Layer {layer} of {model.name!r} has no {site.name!r} whose writes add up to"
                    " the residual stream of one row of positions, so its embedding is no sum over"
                    " heads and MLPs: write by='pos' or by='unit'."
                )


def measured_writes(
    model: HookedDualEncoder, pixels: Float[Tensor, "1 3 h w"], layers: Sequence[int]
) -> dict[int, tuple[Float[Tensor, "head d_head dim"], Float[Tensor, " dim"]]]:
    """(W_O, b_O) of these layers.

    Args:
        pixels: any picture.
    """
    with torch.no_grad(), capture(model, [Z.at(layer) for layer in layers]) as seen:
        model.run(pixels)
    shapes = {layer: seen[Z.at(layer)].shape[1:] for layer in layers}
    need = max((heads * size + 1) / pos for pos, heads, size in shapes.values())

    def basis(tensor: Tensor, hook: Any) -> Tensor:
        """Nothing at the first position of the batch, one basis vector at each that follows."""
        slots, width = tensor.shape[0] * tensor.shape[1], tensor.shape[2] * tensor.shape[3]
        values = torch.zeros(slots, width, dtype=tensor.dtype, device=tensor.device)
        values[1 : 1 + width] = torch.eye(width).to(values)
        return values.view(tensor.shape)

    many = pixels.expand(int(-(-need // 1)), -1, -1, -1)
    hooks = [(Z.at(layer), basis) for layer in layers]
    names = [OUT.at(layer) for layer in layers]
    with torch.no_grad(), model.hooks(hooks), capture(model, names) as out:
        model.run(many)
    found = {}
    for layer, (_, heads, size) in shapes.items():
        rows = wide(out[OUT.at(layer)]).flatten(0, 1)[: 1 + heads * size]
        found[layer] = (rows[1:] - rows[0]).view(heads, size, -1), rows[0]
    return found
