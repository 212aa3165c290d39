"""What the stream shall be, so that a model says another word: the values of an edit of weights.

    z = h + delta,   delta minimises  -log p(word) + |delta|^2 / (2 |h|^2),   |delta| <= 0.75 |h|

at `resid_post` of one layer and at named positions (Meng et al. 2023, MEMIT, eq. 16; Jiang et al.
2025 with the weights before any edit). Adam's rate is a share of |h|, so that it means the same in
every model, and delta is found as soon as the word has a probability of 0.95.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.jacobian_lens import found_in
from mmlens.model.capture import capture
from mmlens.model.targets import finite
from mmlens.runtime.backward import seed, wide
from mmlens.towers.language.tokenization import id_of
from mmlens.values.errors import PromptError
from mmlens.values.prompt import SoftPrompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

_RATE = 0.1  # of Adam, in shares of the root mean square of h
_DECAY = 0.5
_LONGEST = 0.75  # of delta, in lengths of h
_SURE = 0.05  # nats: the value is found


@dataclass(frozen=True, eq=False)
class Valued:
    """One prompt, the id of its word, the positions, and what the stream shall be there.

    Attributes:
        far: the length of the way from what the stream was.
    """

    soft: SoftPrompt
    token: int
    at: list[int]
    z: Float[Tensor, "pos d_model"]
    far: float

    @property
    def end(self) -> Tensor:
        """The last position, where the word is said."""
        return end_of(self.soft)


def end_of(soft: SoftPrompt) -> Tensor:
    """Int[1], the last position of a prompt."""
    return torch.tensor([soft.ids.shape[1] - 1], device=soft.ids.device)


def words_for(model: HookedVLM, of: Any, many: int) -> list[int]:
    """The id of each prompt's word."""
    words = list(of) if isinstance(of, (list, tuple)) else [of] * many
    if len(words) != many:
        raise PromptError(
            f"There are {len(words)} words for {many} prompts: give one for all, or as many."
        )
    return [id_of(model.lm, one) for one in words]


def valued(
    model: HookedVLM, soft: SoftPrompt, token: int, pos: Any, layer: int, steps: int
) -> Valued:
    """What the stream shall be after a layer, so that the model as it was says the word."""
    at, name = found_in(soft, pos, "pos"), SITES["resid_post"].at(layer)
    there = torch.tensor(at, device=soft.ids.device)
    end = end_of(soft)
    with torch.no_grad(), capture(model, [name], lambda x: x[0, at].detach()) as kept:
        model.run(soft, at=end)
    h = finite(wide(kept[name]), f"the stream of layer {layer}")
    size = h.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(h.dtype).tiny)
    delta = torch.zeros_like(h).requires_grad_()  # in lengths of h, so that one rate fits all
    adam = torch.optim.Adam([delta], _RATE / h.shape[-1] ** 0.5)

    def add(tensor: Tensor, hook: Any) -> Tensor:
        return tensor.index_add(1, there, (delta * size)[None].to(tensor))

    for _ in range(steps):
        with torch.enable_grad(), model.hooks(fwd_hooks=[(name, add)]):
            row = model.run(soft, at=end)[0, -1]
        out, power = seed(row, lambda logits: -logits.log_softmax(-1)[token])
        if float(-wide(row.detach()).log_softmax(-1)[token]) < _SURE:
            break
        (slope,) = torch.autograd.grad(row, delta, grad_outputs=out)
        delta.grad = finite(wide(slope) / power, "the gradient") + 2 * _DECAY * delta.detach()
        adam.step()
        with torch.no_grad():
            delta *= (_LONGEST / delta.norm(dim=-1, keepdim=True).clamp(min=_LONGEST)).to(delta)
    moved = (delta * size).detach()
    return Valued(soft, token, at, h + moved, float(moved.norm()))
