"""Whether the points of a block hold what their names say: measured, and left out where not.

hook_resid_add     the block ends with the nonlinearity that reads it; else it is a `convN`
hook_mlp_out       a change of it changes hook_resid_post by as much; not so where it is
                   normalised or scaled before it is added
hook_attn_out      hook_resid_post = hook_resid_pre + hook_attn_out + hook_mlp_out
mlp.hook_pre       has a value for each unit of mlp.hook_post
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.towers.vision.layouts import LAYOUTS
from mmlens.towers.vision.painting import ramp
from mmlens.towers.vision.tap_hooks import looking
from mmlens.towers.vision.taps import last_activation, last_number

if TYPE_CHECKING:
    from mmlens.towers.vision.encoder import HookedVision

_READ = (
    *("hook_resid_pre", "hook_attn_out", "mlp.hook_pre", "mlp.hook_post"),
    *("hook_mlp_out", "hook_resid_add", "hook_resid_post"),
)


def misnamed(vision: HookedVision) -> set[str]:
    """The hook points that are not what their names say."""
    wrong: set[str] = set()
    block: dict[str, Tensor] = {}

    def look(tensor: Tensor, hook: Any) -> Tensor:
        _, layer, place = hook.name.split(".", 2)
        if place == "hook_resid_pre":
            block.clear()
        if place == "hook_mlp_out":  # a graph from here to the end of the block
            tensor = tensor.detach().clone().requires_grad_()
        block[place] = tensor if tensor.requires_grad else tensor.clone()  # ReLUs write in place
        if place == "hook_resid_post":
            wrong.update(f"blocks.{layer}.{name}" for name in _wrong(vision, int(layer), block))
        return tensor.detach() if place == "hook_resid_post" else tensor

    names = [name for name in vision.hook_dict if name.split(".", 2)[-1] in _READ]
    points = [vision.hook_dict[name] for name in names]
    with torch.inference_mode(False), torch.enable_grad(), looking(points, look):
        vision._values(ramp(vision))
    return wrong


def _wrong(vision: HookedVision, layer: int, block: dict[str, Tensor]) -> set[str]:
    """The misnamed points of one block, from what passed it."""
    out = _last(vision, layer, block)
    pre, post = block.get("mlp.hook_pre"), block.get("mlp.hook_post")
    if pre is not None and (post is None or pre.shape != post.shape):
        out.add("mlp.hook_pre")
    if "hook_mlp_out" in block and not _is_added(block["hook_mlp_out"], block["hook_resid_post"]):
        return out | {"hook_mlp_out", "hook_attn_out"} & set(block)
    return out | (set() if _is_sum(block) else {"hook_attn_out"})


def _last(vision: HookedVision, layer: int, block: dict[str, Tensor]) -> set[str]:
    """Of the two names of the last nonlinearity, the wrong ones."""
    added, module = block.get("hook_resid_add"), vision._blocks[layer]
    if added is None:
        return set()
    act: Any = last_activation(module, LAYOUTS[vision.kind])
    ends, after = act.forward(added.detach().clone()), block["hook_resid_post"]
    if ends.shape != after.shape or not torch.equal(ends, after):
        return {"hook_resid_add"}
    number = last_number(module, vision.kind)
    return {f"conv{number}.hook_pre", f"conv{number}.hook_post"}


def _is_added(part: Tensor, after: Tensor) -> bool:
    """Whether the gradient at a part is, in some order, the gradient at the sum."""
    if part.numel() != after.numel() or not after.requires_grad:
        return False
    weight = torch.linspace(-1.0, 1.0, after.numel(), device=after.device).to(after.dtype)
    (grad,) = torch.autograd.grad((after.flatten() * weight).sum(), part, allow_unused=True)
    if grad is None:
        return False
    return bool((grad.flatten().sort().values - weight).abs().max() <= 1e-3)


def _is_sum(block: dict[str, Tensor]) -> bool:
    """Whether a block adds what its two parts put out; true where that can't be told."""
    names = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")
    if not set(names) <= set(block) or len({block[name].shape for name in names}) > 1:
        return True
    *parts, after = (block[name].detach().float() for name in names)
    near = 1e-3 if block["hook_resid_post"].dtype in (torch.float32, torch.float64) else 5e-2
    return bool((sum(parts) - after).abs().max() <= near * after.abs().max())
