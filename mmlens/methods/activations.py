"""What the model computed at a site: activations with labels.

    activations(model, prompt, "neurons", Neuron(3, 17))     # Scores(pos)
    activations(model, prompt, "resid_post", layer=4)        # Scores(pos, dim)
    activations(model, prompt, "vision.neurons", layer=1)    # inside the vision encoder

Only what the address names is kept, hook by hook; nothing else is cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model import hooking
from mmlens.model.doors import opened
from mmlens.model.provenance import about
from mmlens.model.reading import picture_labels, prompts_of
from mmlens.model.targets import finite
from mmlens.values.addresses import POSITIONS, places, read_address
from mmlens.values.errors import PromptError
from mmlens.values.labels import Padding, Patch, Token
from mmlens.values.prompt import same_layout
from mmlens.values.scores import Scores
from mmlens.values.sites import Site, readers, shared
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked import HookedVLM


def activations(
    model: HookedVLM, prompt: Any, site: str = "neurons", *address: Any, **by_axis: Any
) -> Scores:
    """The activations at a site: Scores(prompt, layer, the site's axes), less what is narrowed.

    Args:
        prompt: a Prompt, text or SoftPrompt; several of one layout give a leading axis `prompt`
            (inside the vision encoder: `picture`). Where their words differ, the label of a
            position is all of them, " dog | cat".
        site: a site name, or a full hook name.
        address: labels that narrow it, as in `Scores.sel`.

    Raises:
        SiteError, AddressError: nothing of that name there. PromptError: layouts differ.
        CapabilityError: units of a layer that has none (a mixture of experts).
    """
    opened(model)
    where = site_of(site)
    wanted = read_address(address, by_axis, readers(where, model.cfg))
    if where.layer is not None:
        wanted.setdefault("layer", where.layer)
    layers = _layers(model, where, wanted)
    model.lm.units.need_at(model.name, where, layers)
    hooking.check_places(model, where, layers)
    names = {hooking.names(model, where.at(layer))[0]: layer for layer in layers}
    inner = {axis: want for axis, want in wanted.items() if axis != "layer"}
    kept: dict[int | None, Scores] = {}

    with torch.no_grad():
        soft = model.embed(prompt) if where.part == "lm" else None
        rows = soft.labels if soft is not None else _rows(model, prompt, where)
        _common(rows, "prompt" if where.part == "lm" else "picture", inner)

        def keep(tensor: torch.Tensor, hook: Any) -> None:
            kept[names[hook.name]] = _label(tensor, where.axes, rows, where.part, inner)

        with model.hooks(fwd_hooks=[(name, keep) for name in names]):
            if soft is not None:
                last = max((layer for layer in layers if layer is not None), default=None)
                stop = None if last is None or last + 1 >= model.cfg.n_layers else last + 1
                model(soft, return_type=None, stop_at_layer=stop)
            else:
                model.embed(prompt)
    for layer, scores in kept.items():
        _no_nan(scores.values, where, layer)
    read = soft if soft is not None else prompt
    told = about(model, method="activations", site=site, prompt=read, address=wanted)
    told |= shared(where, model.cfg)
    return _stack(kept, layers, wanted, told)


def _no_nan(values: torch.Tensor, where: Site, layer: int | None) -> None:
    """Refuse NaN, and infinity where no mask puts it (scores and masks of attention)."""
    masked = where.axes[-1] == "key"
    here = f"{where.name!r}" + ("" if layer is None else f" in layer {layer}")
    finite(values.masked_fill(values.isinf(), 0.0) if masked else values, f"what stands at {here}")


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


def _common(
    rows: tuple[tuple[Any, ...], ...], batch: str, wanted: Mapping[str, Any]
) -> tuple[Any, ...]:
    """One label per position for every row; where the rows have different words, all of them.

    Raises:
        PromptError: layouts differ.
    """
    one = wanted.get(batch)
    if isinstance(one, int) and -len(rows) <= one < len(rows):
        return rows[one]
    if batch == "picture":  # which picture a patch is in says the axis of pictures
        rows = tuple(tuple(replace(x, image=0) if isinstance(x, Patch) else x for x in row)
                     for row in rows) if len(rows) > 1 else rows  # fmt: skip
    if not same_layout(rows):
        lengths = sorted({sum(not isinstance(x, Padding) for x in row) for row in rows})
        raise PromptError(
            f"These prompts have {' and '.join(map(str, lengths))} positions, or their pictures at"
            " different places: ask for one at a time, or give prompts of one layout."
        )
    return tuple(map(_named, zip(*rows, strict=True)))


def _named(labels: tuple[Any, ...]) -> Any:
    texts = list(dict.fromkeys(str(label) for label in labels))
    if len(texts) == 1:
        return labels[0]
    return Token(" |".join(texts[:3]) + (" | ..." if len(texts) > 3 else ""), labels[0].at)


def _label(
    tensor: torch.Tensor,
    axes: tuple[str, ...],
    rows: tuple[tuple[Any, ...], ...],
    part: str,
    inner: Mapping[str, Any],
) -> Scores:
    batch = "prompt" if part == "lm" else "picture"
    labels = _common(rows, batch, inner)
    known = {axis: labels for axis in axes if axis in POSITIONS}
    scores = Scores(tensor.detach(), (batch, *axes), known)
    for axis in known:  # padding is no part of a prompt
        read = places(labels, None, axis)
        scores = scores.sel(**{axis: slice(None)}) if len(read) < len(labels) else scores
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
