"""Where a unit looks, as a mask over the picture, and how well that meets the mask of a thing.

MMN 3.2, after Network Dissection (Bau et al. 2017): the activations A_k on the patch grid are
resized bilinearly to the picture's size, the pixels above the 0.95 percentile of that map are the
unit's mask, and IoU = |mask and truth| / |mask or truth|. The mask always covers 5 % of the
picture, so a thing that covers a share f can reach at most min(f, .05) / max(f, .05).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from mmlens.causal.picture_boxes import seen_box
from mmlens.methods.activations import activations
from mmlens.values.errors import AddressError
from mmlens.values.labels import Neuron, Patch
from mmlens.values.prompt import SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

PERCENTILE, SIZE = 0.95, 224


def unit_maps(
    model: HookedVLM, soft: SoftPrompt, neurons: Sequence[Neuron]
) -> Float[Tensor, "neuron row col"]:
    """How active each neuron is on the patches of the picture, from one forward pass."""
    layers = sorted({neuron.layer for neuron in neurons})
    units = sorted({neuron.unit for neuron in neurons})
    seen = activations(model, soft, "neurons", layer=layers, unit=units, pos=Patch)
    layer_at = {layer: i for i, layer in enumerate(layers)}
    unit_at = {unit: i for i, unit in enumerate(units)}
    at = [layer_at[n.layer] for n in neurons], [unit_at[n.unit] for n in neurons]
    values = seen.values.float().cpu()[at[0], :, at[1]]
    return on_grid(values, seen.of("pos"))


def on_grid(
    values: Float[Tensor, "*many patch"], patches: Sequence[Patch]
) -> Float[Tensor, "*many row col"]:
    """Values per patch as a grid."""
    rows, cols = max(p.row for p in patches) + 1, max(p.col for p in patches) + 1
    return values.reshape(*values.shape[:-1], rows, cols)


def masks_of(
    maps: Float[Tensor, "*many row col"], size: int = SIZE, percentile: float = PERCENTILE
) -> Bool[Tensor, "*many size size"]:
    """The pixels above the percentile of each map, resized bilinearly to size x size."""
    if not 0 <= percentile < 1:
        raise AddressError(f"percentile={percentile} is no share: write 0.95 for the top 5 %.")
    lead = maps.shape[:-2]
    flat = maps.reshape(-1, 1, *maps.shape[-2:]).float()
    large = functional.interpolate(flat, (size, size), mode="bilinear", align_corners=False)
    large = large.flatten(1)
    # the largest value that lies at or below the percentile: above it are the same pixels
    floor = large.kthvalue(int(percentile * (size * size - 1)) + 1, dim=-1, keepdim=True).values
    return (large > floor).reshape(*lead, size, size)


def true_mask(
    model: HookedVLM, mask: Bool[Tensor, "height width"], size: int = SIZE
) -> Bool[Tensor, "size size"]:
    """A thing's mask in what the encoder sees of the picture (crop included), resized alike."""
    height, width = mask.shape
    x0, y0, x1, y1 = (round(edge) for edge in seen_box(model, width, height))
    margins = (-x0, x1 - width, -y0, y1 - height)  # negative ones cut off
    seen = functional.pad(mask.float(), margins)[None, None]
    large = functional.interpolate(
        seen, (size, size), mode="bilinear", align_corners=False, antialias=True
    )
    return large[0, 0] > 0.5


def iou(
    masks: Bool[Tensor, "*many height width"], truth: Bool[Tensor, "height width"]
) -> Float[Tensor, "*many"]:
    """Intersection over union with the truth; 0 where both are empty."""
    both = (masks & truth).sum((-2, -1)).float()
    either = (masks | truth).sum((-2, -1)).float()
    return both / either.clamp(min=1)


def unit_ious(
    model: HookedVLM,
    soft: SoftPrompt,
    neurons: Sequence[Neuron],
    truth: Bool[Tensor, "size size"],
    percentile: float = PERCENTILE,
) -> dict[Neuron, float]:
    """IoU of each different neuron's mask with the truth, from one forward pass."""
    different = list(dict.fromkeys(neurons))
    found = masks_of(unit_maps(model, soft, different), truth.shape[-1], percentile)
    return dict(zip(different, iou(found, truth).tolist(), strict=True))


def ceiling(truth: Bool[Tensor, "height width"], percentile: float = PERCENTILE) -> float:
    """The largest IoU that a mask of the top pixels can have with this truth."""
    share, top = float(truth.float().mean()), 1 - percentile
    return min(share, top) / max(share, top)
