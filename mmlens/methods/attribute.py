"""Attribution of a word to MLP neurons: gradient x activation.

MMN eq. 2: g[k, c] = Z_k^p * d y^c / d Z_k^p, the first-order effect of ablating unit k at position
p on the quantity y of token c. One forward pass, and one backward pass per token, give every layer,
position and unit. Products are reduced inside the backward pass, to save memory.

Axes: (layer, pos, unit), signed: ablating a unit at its point lowers the quantity by its score, to
first order. At "post" that is `Edit("neurons", 0.0, ...)`. At "pre" it is an edit of "neurons_pre",
the input of the activation function, in a gated MLP (Llama, Qwen, Gemma) only the gate's input. So
only scores at "post" predict, to first order, the effect of ablating a neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.best_scores import BestScores
from mmlens.methods.denoising_attribution import denoising_attribution
from mmlens.methods.over_lists import beside, layers_before, over_prompts, word_axis, words_in
from mmlens.model import hooking, readouts
from mmlens.model.capabilities import need_gradient, needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, Target, aim_caption, finite
from mmlens.model.text_end import SENTENCE, Stop
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import seed, wide
from mmlens.values.addresses import POSITIONS, places
from mmlens.values.arguments import count
from mmlens.values.errors import AddressError, ArgumentError, CapabilityError
from mmlens.values.labels import LM, Neuron, Padding, Patch
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES, Site, tower_of
from mmlens.values.sites import site as site_of
from mmlens.values.unit_lists import as_unit

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel
    from mmlens.model.hooked_vlm import HookedVLM

Receive = Callable[[int, Any, torch.Tensor], None]
"""(index of the target, layer, product Float[pos, unit])."""
_POINTS = {"pre": "neurons_pre", "post": "neurons"}


@needs()
@over_prompts
@ordinary()
def attribute(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    point: str = "pre",
    site: str | None = None,
    layer: Any = None,
    step: Any = None,
) -> Scores:
    """Gradient x activation of every MLP unit for one word: Scores(layer, pos, unit).

    Args:
        of: what is explained: a word, one token of the model (" dog"), or its id; a class of a
            classifier by name or number; a Neuron, whose own activation is explained. In a dual
            encoder a text (or a picture, where the prompt is a text): the similarity of both.
            Several, as a list (of Neurons a table, too), give a leading axis: token, neuron, class
            or text.
        prompt: one, or a list of one layout, which gives a leading axis `prompt`.
        target: its "logit", "prob" or "logprob", or a function of the logits Float[d_vocab]; of a
            Neuron its "mean" over positions, "max" or "sum"; of a similarity "logit" or "cosine".
        after: the words between prompt and target; by default the model's own caption up to it.
        point: "pre" or "post" the activation function (the paper reads as "pre"); in a gated MLP
            "pre" is the gate's input and "post" the product of gate and value.
            `about["silencing"]` has the Edit whose effect a score predicts.
        site: another site than the units of the language model (or of the encoder that reads),
            such as "vision.resid_post"; its axes. In an encoder of convolutions units are channels:
            at "post" of a block's output, at "pre" of the sum before its last nonlinearity.
        layer: some layers only, as in `Scores.sel`; the axis stays. One, where shapes differ. By
            default all, and of a Neuron those before its own.
        step: of a diffusion model some steps only; its scores have the axis `step` in front, and
            `target` is a function of what it makes, `of` "latents", "picture" or "sound".

    Raises:
        TargetError: several tokens, or a word that the model does not generate.
        CapabilityError: a layer without MLP units (a mixture of experts, a state space model).
        AddressError: layers of different shapes, or one that the quantity does not depend on.
        NumericsError: NaN in activations or gradients.
    """
    if model.can("denoise"):
        denoiser: Any = model
        where = site_of("denoiser.neurons" if site is None else site)
        return denoising_attribution(denoiser, prompt, of, target, where, layer, step)
    if step is not None:
        raise ArgumentError(f"{model.name!r} answers in one pass and has no step=.")
    where = attributed(model, point, site, prompt)
    words = words_in(of)
    explained = [as_unit(of)] if words is None else words
    aims = [model.aim(prompt, one, target, after) for one in explained]
    reading = max((read for read, _ in aims), key=_length)  # one caption, up to the last word
    every = list(hooking.layers(model, where)) if where.layered else [None]
    if layer is None and where.layered:
        layer = layers_before(every, explained, where.owner) if where.layer is None else where.layer
    chosen = sorted(every[i] for i in places(every, layer, "layer")) if where.layered else every  # type: ignore[type-var]
    kept: list[dict[int | None, torch.Tensor]] = [{} for _ in aims]

    def receive(index: int, layer: int | None, product: torch.Tensor) -> None:
        kept[index][layer] = product

    products(model, reading, [aimed for _, aimed in aims], receive, where, chosen)
    said = aims[0][1].token if words is None else [str(aimed.token) for _, aimed in aims]
    told = about(model, method="attribute", prompt=reading, of=said, target=target, point=point,
                 silencing=silencing(model, point, where), at="all positions")  # fmt: skip
    told |= {} if where.owner == LM else {"tower": where.owner}
    found = [_stacked(model, reading, where, chosen, one, told) for one in kept]
    return found[0] if words is None else beside(found, word_axis(model, words), words)


def _length(reading: Any) -> int:
    """The positions of a language model's prompt; 0 of other readings."""
    ids = getattr(reading, "ids", None)
    return 0 if ids is None else ids.shape[1]


def attributed(model: HookedModel, point: str, site: str | None, prompt: Any = None) -> Site:
    """The site that is attributed to: the given one, or units before or after the activation.

    Args:
        prompt: what is read; in a dual encoder it decides whose units are meant.

    Raises:
        AddressError: no such point.
    """
    if not isinstance(point, str) or point not in _POINTS:
        raise AddressError(
            f"There is no point {point!r}: write 'pre' or 'post' (the activation function)."
        )
    if site is not None:
        return site_of(site)
    return readouts.own_site(model, _POINTS[point], prompt)


def _stacked(
    model: HookedModel,
    reading: Any,
    where: Site,
    chosen: Sequence[int | None],
    kept: dict[int | None, torch.Tensor],
    told: dict[str, Any],
) -> Scores:
    """The products of all layers as Scores of the site's real axes."""
    missing = [layer for layer in chosen if layer not in kept]
    if missing:
        raise AddressError(
            f"What is explained does not depend on {where.name!r} in layer {missing[0]}, which"
            " comes after it: name earlier layers, as in layer=[0, 1]."
        )
    if len({kept[layer].shape for layer in chosen}) > 1:
        raise AddressError(
            f"The layers of {where.name!r} have different shapes: ask about one, as in layer=3."
        )
    axes = hooking.check_places(model, where, chosen[:1])[chosen[0]].axes
    if where.in_lm:
        row = reading.labels[0]
    else:
        rows = model.picture_rows(reading.prompts, where, chosen[0])
        row = rows[0] if len(rows) == 1 else ()
        axes = axes if len(rows) == 1 else ("picture", *axes)
    labels: dict[str, Any] = {axis: row for axis in axes if axis in POSITIONS and row}
    padded = [axis for axis, known in labels.items() if isinstance(known[-1], Padding)]
    if where.has_other_keys:
        beside = hooking.key_rows(model, model.prompts_of(reading), where)
        labels["key"] = (beside or reading.picture_keys.labels)[0]
    if where.layered:
        values = torch.stack([kept[layer] for layer in chosen])
        axes, labels = ("layer", *axes), {**labels, "layer": tuple(chosen)}
    else:
        values = kept[None]
    found = Scores(values, axes, labels, told)
    return found.sel(**dict.fromkeys(padded, slice(None))) if padded else found


@needs("logits", "generate")
@partial(over_prompts, own="caption")
@ordinary()
def attribute_caption(
    model: HookedVLM,
    prompt: Any,
    k: int = 100,
    *,
    caption: str | Sequence[str] | None = None,
    target: str | Number = "logit",
    point: str = "pre",
    layer: Any = None,
    pos: Any = Patch,
    stop: Stop = SENTENCE,
) -> pd.DataFrame:
    """For every token of the caption, the `k` (unit, position) pairs of highest score.

    Args:
        prompt: one, or a list, which gives the table a column `prompt`.
        caption: these words instead of the model's own; of a list of prompts a text for all of
            them, or a list of one each.
        pos: the positions that are ranked (default: the picture's), as in `Scores.sel`.
        stop: what ends the model's own caption, as in `generate`; None: only its end token.

    Returns:
        Columns token, neuron, pos, score; within a token the largest first.
    """
    import pandas as pd

    k = count(k, "k")
    soft, targets = aim_caption(model, prompt, target, caption, stop=stop)
    if pos is Patch and soft.picture_keys is not None:
        raise CapabilityError(
            f"The pictures of {model.name!r} are no positions: write pos=None for its words, or"
            " attribute(..., site='soft_prompt') for its patches."
        )
    chosen, labels = sorted(places(range(model.cfg.n_layers), layer, "layer")), soft.labels[0]
    where = torch.tensor(places(labels, pos, "pos"), device=model.lm.device)
    best = [BestScores(k) for _ in targets]

    def receive(index: int, layer: int, product: torch.Tensor) -> None:
        best[index].add(layer, product[where])

    products(model, soft, targets, receive, attributed(model, point, None), chosen)
    rows = [
        (aimed.token, Neuron(layer, unit), labels[int(where[place])], score)
        for aimed, top in zip(targets, best, strict=True)
        for score, layer, place, unit in top.rows()
    ]
    return pd.DataFrame(rows, columns=["token", "neuron", "pos", "score"])


def products(
    model: HookedModel,
    reading: Any,
    targets: Sequence[Target],
    receive: Receive,
    where: Site,
    layers: Sequence[int | None],
) -> None:
    """One forward pass and one backward pass per target; `receive` gets each layer's product.

    The graph starts at the lowest layer asked for; logits are computed at the targets only.
    """
    tower = hooking.tower_at(model, where)
    if any(aimed.at is None or tower_of(aimed.at) == LM for aimed in targets):
        need_gradient(model, where.tower)
    if where.in_lm and where.of_units:
        tower.units.need_at(model.name, where, layers)
    names = {where.at(layer): layer for layer in layers}
    roots: list[torch.Tensor] = []
    now, power = 0, 1.0
    one = where.in_lm or len(getattr(reading, "prompts", ())) == 1

    def tap(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        layer = names[hook.name]
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
            roots.append(tensor)
        value = tensor.detach()

        def multiply(grad: torch.Tensor) -> None:
            product = wide(value) * (wide(grad) if power == 1.0 else wide(grad) / power)
            product = product[0] if one and len(product) == 1 else product
            receive(now, layer, finite(product, f"the attribution of layer {layer}"))

        tensor.register_hook(multiply)
        return tensor

    with torch.enable_grad(), model.hooks(fwd_hooks=[(name, tap) for name in names]):
        rows = readouts.answers(model, reading, targets)
        for row in rows:
            finite(row.detach(), f"the logits of {model.name!r}")
        if not all(row.requires_grad for row in rows):
            return  # none of these layers comes before what is explained
        for index, aimed in enumerate(targets):
            now = index
            out, power = seed(rows[index], aimed.number)
            more = index + 1 < len(targets)
            torch.autograd.grad(
                rows[index], roots, grad_outputs=out, retain_graph=more, allow_unused=True
            )


def silencing(model: HookedModel, point: str, where: Site | None = None) -> str:
    """The Edit whose effect a score at this point predicts, to first order."""
    where = where or SITES[_POINTS[point]]
    edit = f"Edit({where.name!r}, 0.0, ...)"
    if where.name == "neurons_pre":
        lm: Any = model.towers[LM]
        if any(one.gated for one in lm.units.layers):
            return f"{edit}: the gate's input alone, unlike Edit('neurons', 0.0, ...)"
    return edit
