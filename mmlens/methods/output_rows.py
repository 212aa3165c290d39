"""Rows of W_out that are changed in a copy of a model: who may be, what they are, and how.

What the unit k of a layer adds to the stream is its activation times row k of W_out, so a change of
these rows is a change of what units say (`rewrite`, `rewrite_in_sequence`). It is one only where
the row is what is written: not behind a norm, not in a mixture of experts, and not where the
weights are kept in another form than the one that is computed with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model.reading import going_on
from mmlens.model.targets import extend, one
from mmlens.values.errors import CapabilityError
from mmlens.values.labels import LM, Neuron
from mmlens.values.prompt import SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


def check_rows(model: HookedVLM, units: Sequence[Neuron]) -> None:
    """Refuse neurons that do not exist, or whose row of W_out is not what they write.

    Raises:
        AddressError, CapabilityError: as said.
    """
    other = [unit for unit in units if unit.tower != LM]
    if other:
        raise CapabilityError(
            f"{other[0]} is no MLP neuron of the language model, whose rows of W_out are rewritten:"
            " steer(...) adds a direction, Edit(...) changes a unit."
        )
    mixed = [unit for unit in units if unit.expert is not None]
    if mixed:
        raise CapabilityError(
            f"{mixed[0]} belongs to an expert, whose weights are not rewritten: steer with"
            " Edit('expert_neurons', ...)."
        )
    model.lm.units.find(model.name, units)
    normed = [unit for unit in units if model.lm.units.layers[unit.layer].norm is not None]
    if normed:
        raise CapabilityError(
            f"In layer {normed[0].layer} of {model.name!r} a norm follows the MLP, so that a change"
            " of one row changes what all units write: steer(...) adds a direction there."
        )


def prompt_up_to(model: HookedVLM, prompt: Any, after: str | None) -> SoftPrompt:
    """A prompt up to the place where the word is said."""
    soft = one(model, prompt)
    return extend(model, soft, going_on(model, soft, after, "after")) if after else soft


def add_to_rows(
    model: HookedVLM, layer: int, units: Sequence[int], change: Float[Tensor, "unit d_model"]
) -> None:
    """Add to what units of a layer write per unit of activation, in place; other rows stay.

    Raises:
        CapabilityError: the model does not compute with them.
    """
    wanted = model.lm.units.written(layer, units) + change
    with torch.no_grad():
        table = model.root.blocks[layer].mlp.W_out
        table[list(units)] += (change / model.lm.units.layers[layer].scale).to(table)
    off = float((model.lm.units.written(layer, units) - wanted).norm() / wanted.norm())
    if off > 4 * torch.finfo(model.lm.dtype).eps:
        raise CapabilityError(
            f"The weights of {model.name!r} are kept in another form than W_out (quantised, or"
            " computed), so that its rows cannot be changed: load it in float32 or bfloat16."
        )
