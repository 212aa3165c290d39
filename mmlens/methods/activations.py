"""What the model computed at a site: activations with labels.

    activations(model, prompt, "neurons", Neuron(3, 17))     # Scores(pos)
    activations(model, prompt, "resid_post", layer=4)        # Scores(pos, dim)
    activations(model, prompt, "vision.neurons", layer=1)    # inside the vision encoder

Only what the address names is kept, hook by hook; nothing else is cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mmlens import hooking
from mmlens.embedding import picture_labels, prompts_of
from mmlens.errors import PromptError
from mmlens.neurons import places, read_address
from mmlens.provenance import about
from mmlens.scores import Scores
from mmlens.sites import Site
from mmlens.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model import HookedVLM


def activations(
    model: HookedVLM, prompt: Any, site: str = "neurons", *address: Any, **by_axis: Any
) -> Scores:
    """The activations at a site: Scores(prompt, layer, the site's axes), less what is narrowed.

    Args:
        prompt: a Prompt, text or SoftPrompt; several of one layout give a leading axis `prompt`
            (inside the vision encoder: `picture`).
        site: a site name, or a full hook name.
        address: labels that narrow it, as in `Scores.sel`.

    Raises:
        SiteError, AddressError: nothing of that name there. PromptError: layouts differ.
    """
    where = site_of(site)
    wanted = read_address(address, by_axis)
    if where.layer is not None:
        wanted.setdefault("layer", where.layer)
    layers = _layers(model, where, wanted)
    hooking.check_places(model, where, layers)
    names = {hooking.names(model, where.at(layer))[0]: layer for layer in layers}
    inner = {axis: want for axis, want in wanted.items() if axis != "layer"}
    kept: dict[int | None, Scores] = {}

    with torch.no_grad():
        soft = model.embed(prompt) if where.part == "lm" else None
        rows = soft.labels if soft is not None else _rows(model, prompt, where)
        labels = _one_layout(rows)

        def keep(tensor: torch.Tensor, hook: Any) -> None:
            kept[names[hook.name]] = _label(tensor, where.axes, labels, where.part, inner)

        with model.hooks(fwd_hooks=[(name, keep) for name in names]):
            if soft is not None:
                last = max((layer for layer in layers if layer is not None), default=None)
                stop = None if last is None or last + 1 >= model.cfg.n_layers else last + 1
                model(soft, return_type=None, stop_at_layer=stop)
            else:
                model.embed(prompt)
    read = soft if soft is not None else prompt
    told = about(model, method="activations", site=site, prompt=read, address=wanted)
    return _stack(kept, layers, wanted, told)


def _layers(model: HookedVLM, where: Site, wanted: Mapping[str, Any]) -> list[int | None]:
    if not where.layered:
        return [None]
    return list(places(hooking.layers(model, where), wanted.get("layer"), "layer"))


def _rows(model: HookedVLM, prompt: Any, where: Any) -> tuple[tuple[Any, ...], ...]:
    rows = picture_labels(
        model, prompts_of(prompt), with_prefix=where.part == "vision" and where.layered
    )
    if not rows:
        raise PromptError(f"Site {where.name!r} is read from pictures, and this prompt has none.")
    return rows


def _one_layout(rows: tuple[tuple[Any, ...], ...]) -> tuple[tuple[Any, ...], ...]:
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise PromptError(
            f"These prompts have {sorted(lengths)} positions: ask for one at a time, or give"
            " prompts of one layout."
        )
    return rows


def _label(
    tensor: torch.Tensor,
    axes: tuple[str, ...],
    rows: tuple[tuple[Any, ...], ...],
    part: str,
    inner: Mapping[str, Any],
) -> Scores:
    batch = "prompt" if part == "lm" else "picture"
    known = {axis: rows[0] for axis in axes if axis in ("pos", "query", "key")}
    scores = Scores(tensor.detach(), (batch, *axes), known)
    scores = scores.sel(**{batch: 0}) if len(rows) == 1 else scores
    scores = scores.sel(**inner)
    return Scores(scores.values.clone(), scores.axes, scores.labels)


def _stack(
    kept: dict[int | None, Scores],
    layers: list[int | None],
    wanted: Mapping[str, Any],
    about: Mapping[str, Any],
) -> Scores:
    first = kept[layers[0]]
    single = layers == [None] or isinstance(wanted.get("layer"), int)
    if single:
        return Scores(first.values, first.axes, first.labels, about)
    values = torch.stack([kept[layer].values.to(first.values.device) for layer in layers])
    return Scores(values, ("layer", *first.axes), {**first.labels, "layer": tuple(layers)}, about)
