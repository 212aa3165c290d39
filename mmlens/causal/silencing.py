"""Many ablations of one prompt side by side: each row of a batch has other units silenced.

Silencing puts a number (0) in place of a unit's activation after the activation function: at every
position of the prompt and of what is said after it, or at some positions of the prompt only. MMN
does not say what its ablation is; 0 everywhere is the natural reading. "mean" puts the unit's mean
over the positions of the same prompt there instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool
from torch import Tensor

from mmlens.model.prompt_tokens import rows
from mmlens.runtime.chunks import in_chunks
from mmlens.runtime.run import current
from mmlens.values.addresses import places
from mmlens.values.errors import ArgumentError
from mmlens.values.labels import Patch
from mmlens.values.prompt import SoftPrompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

WHERE: dict[str, Any] = {"all": None, "image": Patch, "last": -1}


def masks(model: HookedVLM, chosen: list[torch.Tensor]) -> Bool[Tensor, "variant layer unit"]:
    """Which units each variant silences, from their numbers layer * units + unit."""
    out = torch.zeros(len(chosen), model.cfg.n_layers * model.cfg.d_mlp, dtype=torch.bool)
    for row, numbers in zip(out, chosen, strict=True):
        row[numbers] = True
    return out.reshape(len(chosen), model.cfg.n_layers, model.cfg.d_mlp)


def number_after(
    model: HookedVLM,
    soft: SoftPrompt,
    number: Callable[[torch.Tensor], torch.Tensor],
    units: Bool[Tensor, "variant layer unit"],
    *,
    value: float | str = 0.0,
    where: str = "all",
    batch: int = 8,
) -> torch.Tensor:
    """A number of the last position's logits with these units silenced: Float[variant, ...].

    Args:
        number: a function of logits Float[variant, d_vocab].
        units: which units each variant silences (`masks`).
        value: what a silenced unit is: a number, or "mean".
        where: at "all" positions, those of the "image", or the "last" of the prompt.
        batch: variants computed side by side (halved when memory runs out).
    """
    few = {"logits_to_keep": 1} if model.lm.keeps_logits else {}

    once, back = _once(units)

    def work(start: int, stop: int) -> torch.Tensor:
        with torch.no_grad(), silenced(model, soft, once[start:stop], value, where):
            logits = model(rows(soft, [0] * (stop - start)), **few)[:, -1]
        return number(logits.float()).cpu()

    return torch.cat(list(in_chunks(len(once), batch, work)))[back]


def captions_after(
    model: HookedVLM,
    soft: SoftPrompt,
    units: Bool[Tensor, "variant layer unit"],
    *,
    value: float | str = 0.0,
    where: str = "all",
    max_new_tokens: int = 30,
    batch: int = 8,
) -> list[str]:
    """What the model says (T = 0) with these units silenced, one text per variant."""
    once, back = _once(units)

    def work(start: int, stop: int) -> list[str]:
        with silenced(model, soft, once[start:stop], value, where):
            said = model.generate(rows(soft, [0] * (stop - start)), max_new_tokens)
        return said if isinstance(said, list) else [said]

    said = [text for texts in in_chunks(len(once), batch, work) for text in texts]
    return [said[i] for i in back.tolist()]


def _once(units: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The variants, those that silence nothing (k = 0 of every arm) once, and where each went."""
    kept = units.flatten(1).any(1)
    empty = (~kept).nonzero()[:, 0]
    kept[empty[:1]] = True
    back = kept.long().cumsum(0) - 1
    back[empty] = back[empty[:1]].expand(len(empty))
    return units[kept], back


@contextmanager
def silenced(
    model: HookedVLM,
    soft: SoftPrompt,
    units: Bool[Tensor, "variant layer unit"],
    value: float | str = 0.0,
    where: str = "all",
) -> Iterator[None]:
    """Within this context row i of a batch runs without the units of variant i."""
    if where not in WHERE:
        raise ArgumentError(f"There is no place {where!r}: write {', '.join(map(repr, WHERE))}.")
    if isinstance(value, str) and value != "mean":
        raise ArgumentError(f"There is no value {value!r}: write a number or 'mean'.")
    units = units.to(model.lm.device)
    here = torch.zeros(soft.ids.shape[1], dtype=torch.bool, device=units.device)
    here[places(soft.labels[0], WHERE[where], "pos")] = True
    means: dict[int, torch.Tensor] = {}

    def silence(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        layer, run = hook.layer(), current()
        start = run.start if run is not None else 0
        off = units[:, layer, None, :]
        if where != "all":
            now = torch.zeros(tensor.shape[1], dtype=torch.bool, device=units.device)
            part = here[start : start + tensor.shape[1]]
            now[: len(part)] = part
            off = off & now[:, None]
        if value != "mean":
            return tensor.masked_fill(off, float(value))
        if start == 0:
            means[layer] = tensor[:, : len(here)].mean(1, keepdim=True)
        return torch.where(off, means[layer], tensor)

    acting = [layer for layer in range(units.shape[1]) if bool(units[:, layer].any())]
    with model.hooks(fwd_hooks=[(SITES["neurons"].at(layer), silence) for layer in acting]):
        yield
