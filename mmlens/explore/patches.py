"""Patches inside the model: the words of the logit lens, and the neurons that fire there.

One forward pass each. "Fire" refers to the activation after the activation function; a neuron that
fires everywhere is among the first of every patch, as its map shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.capture import capture
from mmlens.values.labels import Label, Marker, Neuron, Patch
from mmlens.values.prompt import SoftPrompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM


def seen_places(labels: Sequence[Label]) -> list[int]:
    """The positions of a picture: its patches or, where it has none, its queries."""
    places = [i for i, label in enumerate(labels) if isinstance(label, Patch)]
    return places or [i for i, label in enumerate(labels) if isinstance(label, Marker)]


def firing(model: HookedVLM, soft: SoftPrompt, k: int = 8) -> pd.DataFrame:
    """The `k` most active neurons of every patch: patch, rank (from 0), neuron, value."""
    import pandas as pd

    labels = soft.labels[0]
    places = seen_places(labels)
    at = torch.tensor(places, device=model.lm.device)
    values = torch.empty(len(places), 0)
    numbers = torch.empty(len(places), 0, dtype=torch.long)
    model.lm.units.need(model.name)
    width = model.lm.units.width

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        nonlocal values, numbers
        new, units = tensor[0, at].detach().float().cpu().topk(min(k, width))
        both = torch.cat([values, new], 1)
        named = torch.cat([numbers, units + hook.layer() * width], 1)
        values, order = both.topk(min(k, both.shape[1]))
        numbers = named.gather(1, order)

    names = [SITES["neurons"].at(layer) for layer in range(model.cfg.n_layers)]
    end = torch.tensor([len(labels) - 1], device=model.lm.device)
    with torch.no_grad(), model.hooks(fwd_hooks=[(name, keep) for name in names]):
        model.run(soft, at=end)  # the logits of one position only, for speed
    rows = [
        (labels[place], rank, Neuron(*divmod(number, width)), value)
        for place, row, its in zip(places, numbers.tolist(), values.tolist(), strict=True)
        for rank, (number, value) in enumerate(zip(row, its, strict=True))
    ]
    return pd.DataFrame(rows, columns=["patch", "rank", "neuron", "value"])


def maps_of(
    model: HookedVLM, soft: SoftPrompt, neurons: Sequence[Neuron], at: torch.Tensor
) -> torch.Tensor:
    """Float[neuron, patch], from one forward pass up to the highest layer needed."""
    layers = sorted({neuron.layer for neuron in neurons})
    end = torch.tensor([soft.ids.shape[1] - 1], device=model.lm.device)
    names = {layer: SITES["neurons"].at(layer) for layer in layers}
    with torch.no_grad(), capture(model, names.values(), lambda x: x[0, at].float()) as kept:
        if layers[-1] + 1 < model.cfg.n_layers:
            model(soft, return_type=None, stop_at_layer=layers[-1] + 1)
        else:
            model.run(soft, at=end)
    return torch.stack([kept[names[one.layer]][:, one.unit].cpu() for one in neurons])
