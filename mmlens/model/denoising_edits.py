"""The edits of a diffusion model as hooks: at their steps, in their branches, by their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model import hooking
from mmlens.runtime.denoising import loop_now
from mmlens.runtime.hook_calls import Hook
from mmlens.values.edit import Edit
from mmlens.values.edit_steps import at_step, rows_of
from mmlens.values.errors import AddressError
from mmlens.values.labels import Label
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_diffusion import HookedDiffusion

Labels = dict[str, tuple[tuple[Label, ...], ...]]
"""By axis of positions the labels of each row of a branch; one row where all have the same."""


@dataclass(frozen=True)
class _Change:
    """An edit in one layer, and the labels of each branch there."""

    edit: Edit
    layer: int | None
    labels: dict[str, Labels]
    more: int
    """How many more values than steps there are: latents are there after the last step, too."""


def hooks_of_edits(model: HookedDiffusion, prompts: Sequence[Prompt]) -> list[Hook]:
    """A hook per point at which the model has an edit."""
    by_point: dict[str, list[_Change]] = {}
    for edit in model.edits:
        for layer in edit.layers(hooking.layers(model, edit.site)):
            real = model.denoiser.site(edit.site, layer)
            labels = {name: model.rows(prompts, real, layer, name) for name in model.branches}
            change = _Change(edit.fitted(real), layer, labels, int("branch" not in real.around))
            by_point.setdefault(real.at(layer), []).append(change)
    return [Hook(name, partial(_apply, changes=some)) for name, some in by_point.items()]


def _apply(values: torch.Tensor, hook: Any, changes: Sequence[_Change]) -> torch.Tensor:
    loop = loop_now()
    if loop is None:
        return values
    out = values.clone()
    for one in changes:
        edit = at_step(one.edit, loop.step, loop.count() + one.more)
        if edit is None:
            continue
        chosen, missing = rows_of(edit, loop.branches(len(values))), []
        for name, rows in chosen:
            known, part = one.labels[name], out[rows].clone()
            try:
                edit.apply_(part, one.layer, known.get("pos", ()), 0, known.get("key", ()))
            except AddressError as error:  # a word may be in one of both prompts
                missing.append(error)
                continue
            out[rows] = part
        if len(missing) == len(chosen):
            raise missing[0]
    return out
