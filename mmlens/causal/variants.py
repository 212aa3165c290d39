"""Many patched runs of one prompt side by side: each row of a batch is patched somewhere else.

A `Variant` says where one row takes its values from the source: layers, positions, and heads or
units. Rows that enter at the same layer and at neighbouring positions share a batch (`reuse`); how
many fit is chosen from the free memory, and halved on out-of-memory, with a warning.

Everything of the bench (patching, ablation, single neurons) is a list of variants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.causal.places import Place
from mmlens.causal.prefix_reuse import Kept, begins, go_on
from mmlens.model import hooking
from mmlens.model.capture import capture
from mmlens.model.targets import finite, one_number
from mmlens.runtime.chunks import fitting, in_chunks
from mmlens.values.arguments import count, function
from mmlens.values.errors import AddressError, NumericsError, SiteError
from mmlens.values.prompt import SoftPrompt
from mmlens.values.sites import Site

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Metric = Callable[[torch.Tensor], Any]
"""Logits of the last position, Float[d_vocab], to one number."""
Source = Mapping[int | None, Float[Tensor, "*dims"]]
"""Per layer, what is put in place: [pos, ...] or [1, ...], in the vision encoder [picture, ...]."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Variant:
    """Where one row takes its values from the source.

    Attributes:
        at: layer -> indices on the site's inner axis (heads, units, dims), None for all of them.
        pos: indices of positions, None for all of them.
    """

    at: Mapping[int | None, tuple[int, ...] | None]
    pos: tuple[int, ...] | None = None

    @property
    def layer(self) -> int:
        """The first layer that is changed."""
        return min((layer or 0) for layer in self.at)

    @property
    def first(self) -> int:
        """The first position that is changed."""
        return 0 if self.pos is None else min(self.pos, default=0)


def numbers(metric: Metric, logits: Float[Tensor, "row d_vocab"]) -> Float[Tensor, " row"]:
    """The metric of every row.

    Raises:
        TargetError: it is no function of one row of logits, or gives more than one number.
        NumericsError: it gives NaN or infinity.
    """
    return torch.stack([measured(metric, row).detach().float().cpu() for row in logits])


def measured(metric: Metric, logits: Float[Tensor, " d_vocab"]) -> Float[Tensor, ""]:
    """The metric of one row, with its graph.

    Raises:
        TargetError: it fails, or gives something else than one number.
        NumericsError: it gives NaN or infinity.
    """
    value = one_number(metric, logits, "The metric", "the last position").to(logits.device)
    finite(value.detach(), "what the metric gives")
    return value if value.is_floating_point() else value.float()


def differentiable(number: torch.Tensor) -> torch.Tensor:
    """The number, which a graph leads to.

    Raises:
        NumericsError: none does.
    """
    if not number.requires_grad:
        raise NumericsError(
            "The metric has no gradient (a rank, an argmax and a count have none): use one that is"
            " differentiable, such as a logit or a probability, or patch(...) itself."
        )
    return number


def run(
    model: HookedVLM,
    kept: Kept,
    place: Place,
    source: Source,
    variants: Sequence[Variant],
    metric: Metric,
    *,
    batch: int | None = None,
    progress: Progress | None = None,
) -> tuple[Float[Tensor, " variant"], int]:
    """The metric of every variant, and how many rows were computed side by side.

    Args:
        kept: the run that is patched (`reuse.keep`).
        source: what is put in place, at the variants' layers.
        batch: at most so many rows; by default what fits into the free memory.
        progress: called with (done, of) after every batch.
    """
    if progress is not None:
        function(progress, "progress", "a function of (done, of)")
    model.lm.units.need_at(model.name, place.site, {at for v in variants for at in v.at})
    out = torch.zeros(len(variants))
    fits = fitting(_bytes(model, kept, place), model.lm.device, most=64)
    size = fits if batch is None else count(batch, "batch")
    done, largest = 0, 0
    for band in _bands(variants, place.site, kept):

        def work(start: int, stop: int, band: list[int] = band) -> tuple[list[int], torch.Tensor]:
            some = band[start:stop]
            rows = [variants[i] for i in some]
            return some, numbers(metric, logits_of(model, kept, place, source, rows))

        for some, values in in_chunks(len(band), size, work):
            out[some] = values
            done, largest = done + len(some), max(largest, len(some))
            if progress is not None:
                progress(done, len(variants))
    return out, largest


def logits_of(
    model: HookedVLM, kept: Kept, place: Place, source: Source, rows: Sequence[Variant]
) -> Float[Tensor, "row d_vocab"]:
    """Logits of the last position, one row per variant, in one pass."""
    site, layers = place.site, sorted({layer or 0 for v in rows for layer in v.at})
    in_lm = site.in_lm
    first = begins(kept, min(v.first for v in rows)) if in_lm else 0
    hooks = []
    for layer in layers if site.layered else [None]:
        where = place.mask([v.pos if layer in v.at else () for v in rows],
                           [v.at.get(layer) for v in rows], model.lm.device)  # fmt: skip
        put = partial(_put, where=where, source=source[layer], first=first, lm=in_lm)
        hooks.append((hooking.names(model, site.at(layer))[0], put))
    entry = layers[0] if site.layered else model.cfg.n_layers - 1 if site.name == "final" else None
    return go_on(model, kept, len(rows), hooks, entry if in_lm else None, first)


def _put(
    tensor: torch.Tensor, hook: Any, where: torch.Tensor, source: torch.Tensor, first: int,
    lm: bool,
) -> torch.Tensor:  # fmt: skip
    """The source's values where the row's variant says so."""
    new = source.to(tensor)
    if lm:
        where = where[:, first:]
        new = new[first:] if new.shape[0] > 1 else new
        return torch.where(where, new, tensor)
    if where.shape[1] != source.shape[0] or tensor.ndim != new.ndim:
        raise SiteError(
            f"{hook.name!r} holds {tuple(tensor.shape)} here, not one row per patch: patch"
            " 'features' or 'soft_prompt' of this encoder."
        )
    return torch.where(
        where.flatten(0, 1), new.repeat(where.shape[0], *[1] * (new.ndim - 1)), tensor
    )


def _bands(variants: Sequence[Variant], site: Site, kept: Kept) -> Iterator[list[int]]:
    """Numbers of variants that may share a batch: one entry layer, neighbouring first positions."""
    lm = site.in_lm
    entry = [v.layer if lm and site.layered else 0 for v in variants]
    start = [begins(kept, v.first) if lm else 0 for v in variants]
    order = sorted(range(len(variants)), key=lambda i: (entry[i], start[i]))
    for _, same in groupby(order, key=lambda i: entry[i]):
        band: list[int] = []
        for i in same:
            if band and start[i] - start[band[0]] >= _spread(kept, start[band[0]]):
                yield band
                band = []
            band.append(i)
        yield band


def _spread(kept: Kept, start: int) -> int:
    """Over how many positions the rows of a batch may begin.

    A batch begins where its first row does, so the others compute in vain what lies between. A
    processor wants little of that, and enough positions to be busy; a GPU wants many rows.
    """
    left = kept.width - start
    gpu = kept.soft.vectors.device.type == "cuda"
    return max(left // 2, 4096 // left) if gpu else max(4, left // 16, 192 // left)


def _bytes(model: HookedVLM, kept: Kept, place: Place) -> float:
    """About what one row of a batch takes at its peak, generously."""
    cfg, width = model.cfg, kept.width
    d_mlp = getattr(cfg, "d_mlp", None) or 4 * cfg.d_model
    heads = getattr(cfg, "n_heads", 1)
    live = width * (8 * cfg.d_model + 3 * d_mlp + 3 * heads * width) + 2 * cfg.d_vocab
    cached = 2 * width * cfg.d_model * cfg.n_layers
    tower = 0
    if not place.site.in_lm and model.vision is not None:
        pixels = 3 * model.vision.image_size[0] * model.vision.image_size[1]
        tower = 4 * pixels + 24 * place.width * model.vision.d_vision
    return (live + cached + tower) * torch.finfo(model.lm.dtype).bits / 8


def read(
    model: HookedVLM, soft: SoftPrompt, place: Place, layers: Sequence[int | None]
) -> dict[int | None, torch.Tensor]:
    """What stands at the site in a run, per layer: [pos, ...], in vision [picture, ...]."""
    model.lm.units.need_at(model.name, place.site, layers)
    names = {layer: hooking.names(model, place.site.at(layer))[0] for layer in layers}
    few = {"logits_to_keep": 1} if model.lm.keeps_logits else {}
    with torch.no_grad(), capture(model, names.values(), lambda x: x.detach().clone()) as kept:
        model(soft, return_type=None, **few)
    missing = [layer for layer in layers if names[layer] not in kept]
    if missing:
        raise AddressError(f"Nothing stood at {place.site.name!r} in layer {missing[0]}.")
    inside = place.site.in_lm
    return {at: kept[name][0] if inside else kept[name] for at, name in names.items()}
