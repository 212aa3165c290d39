"""Many changed runs of one prompt in a batch: each row is changed at a different place.

A `Variant` is where one row is changed: layers, positions, and heads or units. The values that are
put in are the source: another run's values (patching), a number or a mean (ablation, `silencing`).
Three optimizations change no number:

    what a variant cannot have changed is reused                  `prefix_reuse`
    rows that enter at one layer and at neighbouring positions    share a batch, as many as fit into
                                                                  the free memory
    variants that change nothing                                  take the kept run's logits

Patching, ablation, the effects of single neurons and captions are all lists of variants.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.causal.changes import Source, Variant, changes
from mmlens.causal.places import Place
from mmlens.causal.prefix_reuse import Kept, begins, go_on
from mmlens.model import hooking
from mmlens.model.capture import capture
from mmlens.model.prompt_tokens import rows as rows_of
from mmlens.model.targets import finite, one_number
from mmlens.runtime.chunks import fitting, in_chunks
from mmlens.runtime.progress import Progress, bar
from mmlens.values.arguments import count
from mmlens.values.errors import AddressError, NumericsError
from mmlens.values.labels import LM
from mmlens.values.sites import Site

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel
    from mmlens.model.hooked_vlm import HookedVLM

Metric = Callable[[torch.Tensor], Any]
"""Logits of the last position, Float[d_vocab], to one number; without a language model what the
model answers: logits Float[class], or the embedding of a picture or text, Float[d_embed]."""


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
    """The number, checked to have a gradient.

    Raises:
        NumericsError: it has none.
    """
    if not number.requires_grad:
        raise NumericsError(
            "The metric has no gradient (a rank, an argmax and a count have none): use one that is"
            " differentiable, such as a logit or a probability, or patch(...) itself."
        )
    return number


def run(
    model: Any,
    kept: Kept,
    place: Place,
    source: Source,
    variants: Sequence[Variant],
    number: Callable[[torch.Tensor], torch.Tensor],
    *,
    batch: int | None = None,
    progress: Progress | bool | None = None,
    what: str = "patch",
) -> tuple[Float[Tensor, "variant ..."], int]:
    """A number of the logits of every variant, and the largest number of rows in a batch.

    Args:
        kept: the run that is changed (`prefix_reuse.keep`).
        source: the values that are put in, at the variants' layers.
        number: a function of logits Float[row, d_vocab], or [row, at, d_vocab] where the run was
            kept with `at`, to a tensor [row, ...] (of a metric: `numbers`).
        batch: the most rows per batch; by default as many as fit into the free memory.
        progress: called with (done, of) after every batch; by default a bar after two seconds,
            which False leaves out.
        what: is done, as the bar says it.
    """
    need_units(model, place.site, {at for v in variants for at in v.at})
    size = _side_by_side(model, kept, place, batch)
    once, same = _once(variants)
    found: dict[int, torch.Tensor] = {}
    if same and len(kept.logits):
        found[same[0]] = number(kept.logits[None]).cpu()[0]
        once = once[:-1]
    done, largest = len(variants) - len(once), 0
    with bar(what, len(variants), progress) as step:
        for band in _bands(variants, once, place.site, source, kept):

            def work(start: int, stop: int, band: list[int] = band) -> tuple[list[int], Tensor]:
                some = band[start:stop]
                rows = [variants[i] for i in some]
                return some, number(_logits(model, kept, place, source, rows)).cpu()

            for some, values in in_chunks(len(band), size, work):
                found.update(zip(some, values, strict=True))
                done, largest = done + len(some), max(largest, len(some))
                step(done)
    found.update((i, found[same[0]]) for i in same)
    return torch.stack([found[i] for i in range(len(variants))]), max(1, largest)


def captions(
    model: HookedVLM,
    kept: Kept,
    place: Place,
    source: Source,
    variants: Sequence[Variant],
    max_new_tokens: int = 30,
    *,
    batch: int | None = None,
) -> list[str]:
    """The generated text (greedy) of every variant; one without positions acts on new tokens, too.

    Args:
        kept, source, batch: as in `run`; the source has one position, or is None.
    """
    model.lm.units.need_at(model.name, place.site, {at for v in variants for at in v.at})
    size = _side_by_side(model, kept, place, batch)
    once, same = _once(variants)

    def work(start: int, stop: int) -> list[str]:
        rows = [variants[i] for i in once[start:stop]]
        with model.hooks(fwd_hooks=changes(model, place, source, rows)):
            said = model.generate(rows_of(kept.soft, [0] * len(rows)), max_new_tokens)
        return said if isinstance(said, list) else [said]

    every = [text for texts in in_chunks(len(once), size, work) for text in texts]
    found = dict(zip(once, every, strict=True))
    return [found[same[0] if i in same else i] for i in range(len(variants))]


def _once(variants: Sequence[Variant]) -> tuple[list[int], list[int]]:
    """Indices of the variants to run, at most one of them without a change; and of all such."""
    same = [i for i, variant in enumerate(variants) if not variant.acts]
    return [i for i, variant in enumerate(variants) if variant.acts] + same[:1], same


def _logits(
    model: HookedVLM, kept: Kept, place: Place, source: Source, rows: Sequence[Variant]
) -> Float[Tensor, "row ..."]:
    """Logits of the last position (or of `kept.at`), one row per variant, in one pass."""
    hooks = changes(model, place, source, rows)
    if LM not in model.towers:
        with torch.no_grad(), model.hooks(fwd_hooks=hooks):
            out = model.side_by_side(kept.soft, len(rows), tower=place.site.tower)
        return finite(out, f"the patched output of {model.name!r}")
    if not place.site.in_lm:
        return go_on(model, kept, len(rows), hooks)
    entry = min(v.layer for v in rows) if place.site.layered else None
    if place.site.name == "final":
        entry = model.cfg.n_layers - 1
    return go_on(model, kept, len(rows), hooks, entry, min(_first(v, source) for v in rows))


def _first(variant: Variant, source: Source) -> int:
    """The first position that a pass has to compute: a mean needs all of them."""
    return 0 if any(source[layer] is None for layer in variant.at) else variant.first


def _bands(
    variants: Sequence[Variant], some: Sequence[int], site: Site, source: Source, kept: Kept
) -> Iterator[list[int]]:
    """Indices of variants that may share a batch: one entry layer, near first positions."""
    lm = site.in_lm
    entry = {i: variants[i].layer if lm and site.layered else 0 for i in some}
    start = {i: begins(kept, _first(variants[i], source)) if lm else 0 for i in some}
    order = sorted(some, key=lambda i: (entry[i], start[i]))
    for _, same in groupby(order, key=lambda i: entry[i]):
        band: list[int] = []
        for i in same:
            if band and lm and start[i] - start[band[0]] >= _spread(kept, start[band[0]]):
                yield band
                band = []
            band.append(i)
        yield band


def _spread(kept: Kept, start: int) -> int:
    """The largest distance between the first positions of the rows of a batch.

    A batch begins at its earliest row, so the others recompute the positions between. On a CPU that
    should be little, with enough positions per pass; on a GPU more rows matter more.
    """
    left = kept.width - start
    gpu = kept.soft.vectors.device.type == "cuda"
    return max(left // 2, 4096 // left) if gpu else max(4, left // 16, 192 // left)


def _side_by_side(model: HookedVLM, kept: Kept, place: Place, batch: int | None) -> int:
    """How many rows share a batch: `batch`, or as many as fit into the free memory."""
    if batch is not None:
        return count(batch, "batch")
    device = hooking.tower_at(model, place.site).device
    return fitting(_bytes(model, kept, place), device, most=64)


def _bytes(model: HookedVLM, kept: Kept, place: Place) -> float:
    """A generous estimate of the peak memory of one row of a batch, in bytes."""
    tower = 0
    if not place.site.in_lm and model.vision is not None:
        pixels = 3 * model.vision.image_size[0] * model.vision.image_size[1]
        tower = 4 * pixels + 24 * place.width * model.vision.d_vision
    each = torch.finfo(model.answer_dtype).bits / 8
    if LM not in model.towers:
        return tower * each
    cfg, width = model.cfg, kept.width
    d_mlp = getattr(cfg, "d_mlp", None) or 4 * cfg.d_model
    heads = getattr(cfg, "n_heads", 1)
    answered = 1 if kept.at is None else len(kept.at)
    live = width * (8 * cfg.d_model + 3 * d_mlp + 3 * heads * width) + 2 * answered * cfg.d_vocab
    cached = 2 * width * cfg.d_model * cfg.n_layers
    return (live + cached + tower) * each


def standing(
    model: Any, soft: Any, place: Place, layers: Sequence[int | None]
) -> dict[int | None, torch.Tensor]:
    """The activations at the site in a run, per layer: [pos, ...], in encoders [picture, pos, ...].

    Args:
        soft: the prompt as the model reads it.
    """
    need_units(model, place.site, layers)
    names = {layer: hooking.names(model, place.site.at(layer))[0] for layer in layers}
    few = {"logits_to_keep": 1} if LM in model.towers and model.lm.keeps_logits else {}
    with torch.no_grad(), capture(model, names.values(), lambda x: x.detach().clone()) as kept:
        model(soft, return_type=None, **few)
    missing = [layer for layer in layers if names[layer] not in kept]
    if missing:
        raise AddressError(f"Nothing stood at {place.site.name!r} in layer {missing[0]}.")
    inside = place.site.in_lm
    return {
        at: kept[name][0] if inside else place.by_position(kept[name]) for at, name in names.items()
    }


def need_units(model: HookedModel, site: Site, layers: Collection[int | None]) -> None:
    """Refuse units of a language model in layers that have none."""
    if LM in model.towers:
        lm: Any = model.towers[LM]
        lm.units.need_at(model.name, site, layers)
