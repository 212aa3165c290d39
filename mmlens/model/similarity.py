"""The similarity of a picture and a text as the number that is explained.

of="a photo of a dog"        their logit, scale * cosine + bias, or their cosine
of=direction                 the same with a direction of the shared space: a difference of two
                             texts' embeddings, say, which explains one against the other
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.dual_reading import DualReading
from mmlens.model.targets import Number, Target, checked
from mmlens.values.arguments import shown
from mmlens.values.errors import TargetError

if TYPE_CHECKING:
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder


def aim_similarity(
    model: HookedDualEncoder, reading: DualReading, of: Any, target: str | Number
) -> Target:
    """A pair's logit or cosine, or a function of the output's one row.

    Raises:
        TargetError: there is nothing to compare with, or no such target.
    """
    if callable(target):
        return Target(0, checked(target), None if of is None else _said(of))
    if not (reading.n_pictures and reading.n_texts):
        raise TargetError(
            "There is nothing to compare with: write of='a photo of a dog', of=photo where the"
            " prompt is a text, or a function of the embedding as target."
        )
    numbers: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "logit": lambda logits: logits[0],
        "cosine": lambda logits: (logits[0] - model.bias) / model.scale,
    }
    text = next(prompt.text for prompt in reading.prompts if prompt.text)
    return Target(0, _chosen(numbers, target), _said(text if of is None else of))


def aim_direction(model: HookedDualEncoder, along: torch.Tensor, target: str | Number) -> Target:
    """The logit or cosine of an embedding with a direction.

    Args:
        along: Float[d_embed].

    Raises:
        TargetError: it has another shape or is zero, or no such target.
    """
    if along.shape != (model.d_embed,) or not float(along.norm()) > 0:
        raise TargetError(
            f"A tensor of shape {tuple(along.shape)} is no direction of the shared space: give"
            f" {model.d_embed} numbers that are not all zero."
        )
    unit = along.detach() / along.norm()

    def cosine(row: torch.Tensor) -> torch.Tensor:
        return row @ unit.to(row)

    numbers: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "logit": lambda row: model.logits(cosine(row)),
        "cosine": cosine,
    }
    number = checked(target) if callable(target) else _chosen(numbers, target)
    return Target(0, number, "a direction")


def _chosen(numbers: dict[str, Any], target: str) -> Any:
    if target not in numbers:
        raise TargetError(
            f"There is no target {target!r} of a similarity: write 'logit', 'cosine' or a function."
        )
    return numbers[target]


def _said(of: Any) -> str:
    """A text as it is, a picture in words."""
    return of if isinstance(of, str) else f"a picture ({shown(of)})"
