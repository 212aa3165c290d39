"""Attention knockout: the routes of a picture's information through the layers.

    quiet = model.edit(knockout(source=dog_patches, destination=-1, layer=range(4, 8)))
    knockouts(model, prompt, metric, {"object -> last": (dog_patches, -1),
                                      "image -> image": (Patch, Patch)}, window=2)

A route is the attention of destination positions (queries) to source positions (keys): it is cut
by -inf in the mask, before the softmax, so that what remains still sums to 1 (Geva et al. 2023; Neo
et al. 2025 on pictures). A position always attends to itself. It is an Edit at "attn_mask", which
every eager kernel applies, also where edits of the pattern are ignored (`language.attention_mask`).

Where pictures are keys of cross-attention, the route from a patch is cut in its scores there:
`knockout(patches, -1, across=True)`. A position that is cut off from every patch attends to none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from mmlens.causal.many_pairs import over_pairs
from mmlens.causal.measures import name_of
from mmlens.causal.prefix_reuse import edited, go_on, keep
from mmlens.causal.variants import Metric, numbers
from mmlens.methods.activations import activations
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import one
from mmlens.runtime.progress import Progress, tracked
from mmlens.values.addresses import places
from mmlens.values.arguments import choice, count, flag, instance, shown, spelled
from mmlens.values.edit import Edit
from mmlens.values.errors import AddressError, ArgumentError, CapabilityError
from mmlens.values.labels import DENOISER, LM, Head
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES
from mmlens.values.unit_lists import has_units, one_unit, units_in

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.values.prompt import SoftPrompt

CUT = float("-inf")


@spelled
def knockout(
    source: Any,
    destination: Any,
    layer: Any = None,
    head: Any = None,
    *,
    across: bool = False,
    tower: str = LM,
    step: Any = None,
) -> Edit:
    """An Edit that keeps destination positions from attending to source positions.

    Args:
        source: keys that are cut: labels, a type, a list, as in `Scores.sel`.
        destination: queries that no longer attend to them.
        layer, head: where to cut; by default everywhere. A Head, or several, name both.
        across: whether the sources are pictures that the model reads by cross-attention; in a
            denoiser, the words of the prompt.
        tower: "denoiser" for that of a diffusion model, where destination=None is all positions.
        step: of a denoiser some steps only.
    """
    layers = list(layer) if isinstance(layer, range) else layer
    given = _given_heads(layer, head)
    where = {"layer": layers, "head": head} if given is None else {}
    heads = () if given is None else (units_in(given, "layer", Head, least=1),)
    site = "cross_attn_scores" if flag(across, "across") else "attn_mask"
    if choice(tower, "tower", (LM, DENOISER)) == DENOISER:
        site = "denoiser.cross_attn_scores" if across else "denoiser.attn_scores"
    return Edit(site, CUT, *heads, key=source, query=destination, step=step, **where)


def _given_heads(layer: Any, head: Any) -> Any:
    """What stands as layer= or head= where it is Heads, which name both; None where it is none.

    Raises:
        ArgumentError: there is another layer or head beside them.
    """
    found = [given for given in (layer, head) if has_units(given)]
    if found and layer is not None and head is not None:
        raise ArgumentError(
            f"{shown(found[0])} names a layer and a head: leave"
            f" {'layer' if found[0] is head else 'head'}= out beside it."
        )
    return found[0] if found else None


@needs("logits")
@over_pairs(reads="clean")
def knockouts(
    model: HookedVLM,
    prompt: Any,
    metric: Metric | Mapping[str, Metric],
    routes: Mapping[str, tuple[Any, Any]],
    window: int | None = None,
    stride: int = 1,
    step: Any = None,
    progress: Progress | bool | None = None,
) -> Scores:
    """The metric with each route cut in each window of layers: Scores(route, layer).

    Args:
        metric: one, or several by name, computed in the same passes: Scores(metric, route, ...).
        routes: name -> (source, destination); a source that is among the keys of cross-attention
            and not among the positions is cut there.
        window: how many layers are cut together, around the labelled one; None cuts all layers and
            gives Scores(route).
        stride: how many layers one window is after the other.
        step: refused, since a language model has no steps: it was called so, and is now `stride`.
        progress: as in `patch`, of all routes and windows together.

    Returns:
        The metric; `about["clean"]` is the metric with nothing cut (of several: by name).

    Raises:
        ArgumentError: `step`.
        AddressError: no route, one without an edge to cut, or a window of no layers.
    """
    n = model.cfg.n_layers
    if window is not None and not (isinstance(window, int) and 1 <= window <= n):
        raise AddressError(f"A window of {window} layers does not exist: write 1 to {n}, or None.")
    if step is not None:
        raise ArgumentError(
            f"knockouts has no step= (the distance between windows is stride={shown(step)}; a step"
            " is a run of a denoiser, as in knockout(..., tower='denoiser', step=0))."
        )
    stride = count(stride, "stride")
    if stride != 1 and window is None:
        raise ArgumentError(
            f"stride={stride} moves a window, and there is none: write window= too."
        )
    instance(routes, "routes", Mapping, "a mapping, {'object -> last': (source, destination)}")
    several = dict(metric) if isinstance(metric, Mapping) else {"": metric}
    if not routes or not several:
        raise AddressError("There is nothing to cut or to measure: give a route and a metric.")
    kept = keep(model, prompt)
    middles = list(range(0, n, stride)) if window is not None else [None]
    for name, route in routes.items():
        _check(kept.soft, name, *_ends(name, route))
    rows = []
    every = [(route, middle) for route in routes.values() for middle in middles]
    for (source, destination), middle in tracked(every, "knockouts", progress):
        first = min(places(kept.soft.labels[0], destination, "pos"))
        cut = _window(n, middle, window)
        across = _across(kept.soft, source)
        quiet = edited(model, *_cuts(model, source, destination, cut, across))
        logits = go_on(quiet, kept, 1, [], cut[0], first)
        rows.append(torch.stack([numbers(one_of, logits)[0] for one_of in several.values()]))
    values = torch.stack(rows, -1).view(len(several), len(routes), len(middles))
    clean = {of: float(numbers(one_of, kept.logits[None])[0]) for of, one_of in several.items()}
    told = about(model, method="knockouts", prompt=kept.soft, window=str(window),
                 metric=name_of(metric),
                 clean=clean if isinstance(metric, Mapping) else clean[""])  # fmt: skip
    axes = {"metric": tuple(several), "route": tuple(routes), "layer": tuple(middles)}
    if window is None:
        values = values[..., 0]
        del axes["layer"]
    if not isinstance(metric, Mapping):
        values = values[0]
        del axes["metric"]
    return Scores(values, tuple(axes), axes, told)


def _ends(name: str, route: Any) -> tuple[Any, Any]:
    if not isinstance(route, (tuple, list)) or len(route) != 2:
        raise AddressError(
            f"The route {name!r} is {shown(route)}: write (source, destination), as in (Patch, -1)."
        )
    return route[0], route[1]


def _window(n: int, middle: int | None, window: int | None) -> list[int]:
    """The layers around one, fewer at both ends of the model."""
    if middle is None or window is None:
        return list(range(n))
    start = middle - (window - 1) // 2
    return [layer for layer in range(start, start + window) if 0 <= layer < n]


def _across(soft: SoftPrompt, source: Any) -> bool:
    """Whether a source is only among the keys of cross-attention."""
    if soft.picture_keys is None:
        return False
    try:
        places(soft.labels[0], source, "pos")
    except AddressError:
        return True
    return False


def _cuts(
    model: HookedVLM, source: Any, destination: Any, layers: list[int], across: bool
) -> list[Edit]:
    """The cut of a route in those of these layers that attend, across or among words."""
    having = hooking.layers(model, SITES["cross_attn_scores" if across else "attn_mask"])
    layers = [layer for layer in layers if layer in having]
    return [knockout(source, destination, layers, across=across)] if layers else []


def _check(soft: SoftPrompt, name: str, source: Any, destination: Any) -> None:
    queries = places(soft.labels[0], destination, "pos")
    if _across(soft, source) and soft.picture_keys is not None:
        places(soft.picture_keys.labels[0], source, "key")
        return
    keys = places(soft.labels[0], source, "pos")
    if not any(key < query for key in keys for query in queries):
        raise AddressError(
            f"The route {name!r} has no edge: no destination comes after a source position, and"
            " a position only attends to those before it."
        )


@needs("attention")
def attention(
    model: Any,
    prompt: Any,
    layer: Any = None,
    *,
    tower: bool = False,
    across: bool = False,
    **address: Any,
) -> Scores:
    """How much each query attends to each key: Scores(layer, head, query, key).

    Args:
        layer: one or several, as in `Scores.sel`; or a Head (also as head=), which names its own.
        tower: "vision" for the encoder instead of the language model.
        across: from words to pictures, where the model reads them by cross-attention; in a
            diffusion model, from positions of the latents to words.
        address: `head=`, `query=`, `key=` (in a diffusion model `step=`, `branch=`), as in
            `Scores.sel`.

    Raises:
        CapabilityError: the kernel computes attention without materializing its pattern.
    """
    own = "cross_pattern" if across else "pattern"
    if (given := _given_heads(layer, address.get("head"))) is not None:
        head = one_unit(given, "layer", Head)
        layer, tower = head.layer, tower or head.tower != LM
        address = {**address, "head": head.head}
    if model.can("denoise"):
        where = SITES[f"{DENOISER}.{own}"]
        if not any(where.at(at) in hooking.points(model) for at in range(model.denoiser.n_layers)):
            raise CapabilityError(
                f"The attention of {model.name!r} cannot be opened: give the pipeline with"
                " diffusers' AttnProcessor2_0, its default."
            )
        return activations(model, prompt, where.name, layer=layer, **address)
    site = SITES["vision.pattern" if tower else own]
    known = hooking.points(model)
    every = hooking.layers(model, site)
    asked = [every[place] for place in places(every, layer, "layer")]
    silent = [n for n in asked if site.at(n) not in known]
    if across and silent:
        raise CapabilityError(
            f"{model.name!r} reads no pictures by cross-attention in layer {silent[0]}: leave"
            " across= out for the attention among positions."
        )
    if silent:
        raise CapabilityError(
            f"The attention of {model.name!r} never holds its pattern in layer {silent[0]} (a fused"
            " kernel): load the model with attn_implementation='eager', or cut routes with"
            " patching.knockout(...), which needs no pattern."
        )
    return activations(model, one(model, prompt), site.name, layer=layer, **address)
