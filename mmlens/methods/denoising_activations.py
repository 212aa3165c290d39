"""Activations of a diffusion model, with labels, at every step.

activations(model, "a dog", "denoiser.neurons", layer=1)         # Scores(step, pos, unit)
activations(model, "a dog", "denoiser.latents")                  # Scores(step, channel, row, col)
activations(model, "a dog", "denoiser.neurons", layer=1, step=-1, branch="negative")
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model import hooking
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.runtime.denoising import PROMPT, loop_now
from mmlens.values.addresses import POSITIONS, places
from mmlens.values.arguments import choice
from mmlens.values.errors import AddressError
from mmlens.values.labels import Padding
from mmlens.values.scores import Scores
from mmlens.values.sites import Site

if TYPE_CHECKING:
    from mmlens.model.hooked_diffusion import HookedDiffusion


Kept = dict[int, dict[Any, Scores]]
"""What was read, by step and layer."""


def denoising_activations(
    model: HookedDiffusion, prompt: Any, where: Site, wanted: Mapping[str, Any]
) -> tuple[Kept, dict[str, Any]]:
    """The activations at a site as narrowed, by step and layer, and where they come from.

    Args:
        wanted: axis -> labels; `branch` is one, that of the prompt by default.

    Raises:
        AddressError: no such label.
    """
    reading = model.one(prompt)
    branch = choice(wanted.get("branch", PROMPT), "branch", model.branches, error=AddressError)
    every = list(hooking.layers(model, where)) if where.layered else [None]
    layers = (
        [every[i] for i in places(every, wanted.get("layer"), "layer")] if where.layered else every
    )
    real = hooking.check_places(model, where, layers)
    names = {where.at(layer): layer for layer in layers}
    known = {layer: axis_labels(model, reading, real[layer], layer, branch) for layer in layers}
    inner = {a: w for a, w in wanted.items() if a not in ("step", "branch", "layer")}
    kept: Kept = {}

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        loop: Any = loop_now()
        layer, more = names[hook.name], int("branch" not in where.around)
        if loop.step not in places(range(loop.count() + more), wanted.get("step"), "step"):
            return
        branches = loop.branches(len(tensor))
        rows = tensor[branches.get(branch, slice(0, 0))].detach()
        if not len(rows):
            raise AddressError(
                f"{model.name!r} reads no branch {branch!r} here: with guidance= above 1 the"
                " denoiser reads both."
            )
        one = unpadded(Scores(rows[0], real[layer].axes, known[layer])).sel(**inner)
        kept.setdefault(loop.step, {})[layer] = Scores(one.values.clone(), one.axes, one.labels)

    with torch.no_grad(), model.hooks([(name, keep) for name in names]):
        model.run(reading)
    told = about(
        model, method="activations", site=where.name, prompt=reading, address=dict(wanted),
        tower=where.tower,
    )  # fmt: skip
    return kept, told


def unpadded(scores: Scores) -> Scores:
    """Without the masked padding of a prompt."""
    padded = [
        axis
        for axis, labels in scores.labels.items()
        if labels is not None and any(isinstance(one, Padding) for one in labels)
    ]
    return scores.sel(**dict.fromkeys(padded, slice(None))) if padded else scores


def axis_labels(
    model: HookedDiffusion, reading: Any, real: Site, layer: int | None, branch: str = PROMPT
) -> dict[str, Any]:
    """By axis of positions the labels of one prompt at a site."""
    rows = model.rows(reading.prompts, real, layer, branch)
    return {axis: rows[axis][0] for axis in real.axes if axis in POSITIONS}


def stacked(
    kept: Kept, told: Mapping[str, Any], where: Site, *, layer: Any = None, step: Any = None
) -> Scores:
    """What was kept of each step and layer as Scores(step, layer, ...).

    Args:
        layer, step: those asked for; one number drops the axis.

    Raises:
        AddressError: layers of different shapes.
    """
    shapes: dict[tuple[int, ...], list[Any]] = {}
    first = next(iter(kept.values()))
    layers = sorted(first, key=lambda at: -1 if at is None else at)
    for at in layers:
        shapes.setdefault(first[at].shape, []).append(at)
    if len(shapes) > 1:
        alike = " or ".join(f"layer={some}" for some in shapes.values())
        raise AddressError(
            f"The layers of {where.name!r} have different shapes: ask about some that are alike,"
            f" {alike}."
        )
    rows = [torch.stack([by[at].values for at in layers]) for by in kept.values()]
    values, one = finite(torch.stack(rows), f"{where.name!r}"), first[layers[0]]
    labels = {**one.labels, "step": tuple(kept), "layer": tuple(layers)}
    out = Scores(values, ("step", "layer", *one.axes), labels, dict(told))
    out = out[:, 0] if layers == [None] or isinstance(layer, int) else out
    return out[0] if isinstance(step, int) else out
