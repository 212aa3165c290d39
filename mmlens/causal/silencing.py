"""Ablation of MLP units, as variants of `variants.run`.

Ablation replaces a unit's activation after the activation function by a number (0): at every
position of the prompt and of the generated text, or at some positions of the prompt only. MMN does
not define its ablation; 0 everywhere is the natural reading. "mean" uses the unit's mean over the
positions of the same prompt instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Int
from torch import Tensor

from mmlens.causal.changes import Source, Variant
from mmlens.causal.places import Indices, Place, place_of
from mmlens.causal.prefix_reuse import Kept, keep
from mmlens.causal.variants import captions, run
from mmlens.model.targets import one
from mmlens.values.addresses import places
from mmlens.values.errors import ArgumentError
from mmlens.values.labels import Neuron, Patch
from mmlens.values.prompt import SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

WHERE: dict[str, Any] = {"all": None, "image": Patch, "last": -1}
Units = Mapping[int | None, Indices]
"""Per layer, its units that are ablated together."""


def units_of(neurons: Iterable[Neuron]) -> Units:
    """Neurons by layer."""
    found: dict[int | None, list[int]] = {}
    for neuron in neurons:
        found.setdefault(neuron.layer, []).append(neuron.unit)
    return found


def units_at(model: HookedVLM, numbers: Int[Tensor, " unit"]) -> Units:
    """Units by layer, from their numbers layer * units + unit."""
    layers = numbers // model.cfg.d_mlp
    return {
        layer: numbers[layers == layer] - layer * model.cfg.d_mlp
        for layer in layers.unique().tolist()
    }


def number_after(
    model: HookedVLM,
    prompt: Any,
    number: Callable[[torch.Tensor], torch.Tensor],
    units: Sequence[Units],
    *,
    value: float | str = 0.0,
    where: str = "all",
    at: Int[Tensor, " k"] | None = None,
    batch: int | None = None,
) -> torch.Tensor:
    """A number of the last position's logits with these units ablated: Float[variant, ...].

    Args:
        number: a function of logits Float[variant, d_vocab].
        units: the units that each variant ablates.
        value: the activation of ablated units: a number, or "mean".
        where: at "all" positions, those of the "image", or the "last" of the prompt.
        at: positions whose logits are used in place of the last, as in `prefix_reuse.keep`.
        batch: variants per batch (default: as many as fit into the free memory).
    """
    soft = one(model, prompt)
    place, source, variants = _asked(model, soft, units, value, where)
    late = any(v.layer or v.first for v in variants if v.acts)  # otherwise nothing can be reused
    kept = keep(model, soft, at=at) if late else Kept(soft, at=at)
    floats = lambda logits: number(logits.float())  # noqa: E731
    return run(model, kept, place, source, variants, floats, batch=batch)[0]


def captions_after(
    model: HookedVLM,
    prompt: Any,
    units: Sequence[Units],
    *,
    value: float | str = 0.0,
    where: str = "all",
    max_new_tokens: int = 30,
    batch: int | None = None,
) -> list[str]:
    """The generated text (greedy) with these units ablated, one per variant."""
    soft = one(model, prompt)
    asked = _asked(model, soft, units, value, where)
    return captions(model, Kept(soft), *asked, max_new_tokens, batch=batch)


def _asked(
    model: HookedVLM, soft: SoftPrompt, units: Sequence[Units], value: float | str, where: str
) -> tuple[Place, Source, list[Variant]]:
    if where not in WHERE:
        raise ArgumentError(f"There is no place {where!r}: write {', '.join(map(repr, WHERE))}.")
    if isinstance(value, str) and value != "mean":
        raise ArgumentError(f"There is no value {value!r}: write a number or 'mean'.")
    place = place_of(model, soft, "neurons")
    pos = None if where == "all" else tuple(places(place.labels, WHERE[where], "pos"))
    number = torch.tensor(0.0 if value == "mean" else float(value), device=model.lm.device)
    new = None if value == "mean" else number.expand(1, *place.sizes)
    source: Source = dict.fromkeys(range(model.cfg.n_layers), new)
    return place, source, [Variant(at, pos) for at in units]
