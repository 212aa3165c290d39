"""Which MLP neurons turn the picture into a word: gradient x activation.

MMN eq. 2: g[k, c] = Z_k^p * d y^c / d Z_k^p, the first-order effect of silencing unit k at position
p on the number y of token c. One forward pass and one backward pass give every layer, position and
unit; a caption costs one forward pass and one backward pass per token. No parameter has a gradient,
and products are reduced inside the backward pass, layer by layer, so that memory grows neither
with layers nor with targets.

Axes: (layer, pos, unit), signed: silencing a unit at its point lowers the number by its score, to
first order. At "post" that is `Edit("neurons", 0.0, ...)`. At "pre" it is
`Edit("neurons_pre", 0.0, ...)`, the input of the activation function; in a gated MLP (Llama, Qwen,
Gemma) that is the gate's input alone, and the value that it multiplies stays as it is. So only
scores at "post" predict, to first order, what silencing a neuron does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.provenance import about
from mmlens.model.targets import Number, Target, aim, aim_caption, finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import seed, wide
from mmlens.values.addresses import places
from mmlens.values.arguments import count
from mmlens.values.errors import AddressError
from mmlens.values.labels import Neuron, Patch
from mmlens.values.prompt import SoftPrompt
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked import HookedVLM

Receive = Callable[[int, int, torch.Tensor], None]
"""(index of the target, layer, product Float[pos, unit])."""
_POINTS = {"pre": "neurons_pre", "post": "neurons"}


@ordinary()
def attribute(
    model: HookedVLM,
    prompt: Any,
    of: str | int | None = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    point: str = "pre",
    layer: Any = None,
) -> Scores:
    """Gradient x activation of every MLP unit for one word: Scores(layer, pos, unit).

    Args:
        of: the word to explain, one token of the model (" dog"), or its id.
        target: its "logit", "prob" or "logprob", or a function of the logits Float[d_vocab].
        after: the words between prompt and target; by default the model's own caption up to it.
        point: "pre" or "post" the activation function (the paper reads as "pre"); in a gated MLP
            "pre" is the gate's input and "post" the product of gate and value, which is what
            `Edit("neurons", ...)` acts on: `about["silencing"]` has the Edit that a score predicts.
        layer: some layers only, as in `Scores.sel`; the axis stays.

    Raises:
        TargetError: several tokens, or a word that the model does not say.
        CapabilityError: a layer without MLP units (a mixture of experts, a state space model).
        NumericsError: NaN in activations or gradients.
    """
    soft, aimed = aim(model, prompt, of, target, after)
    chosen = sorted(places(range(model.cfg.n_layers), layer, "layer"))
    kept: dict[int, torch.Tensor] = {}

    def receive(index: int, layer: int, product: torch.Tensor) -> None:
        kept[layer] = product

    products(model, soft, [aimed], receive, point, chosen)
    values = torch.stack([kept[layer] for layer in chosen])
    told = about(
        model,
        method="attribute",
        prompt=soft,
        of=aimed.token,
        target=target,
        point=point,
        silencing=silencing(model, point),
        at="all positions",
    )
    return Scores(
        values, ("layer", "pos", "unit"), {"layer": tuple(chosen), "pos": soft.labels[0]}, told
    )


@ordinary()
def attribute_caption(
    model: HookedVLM,
    prompt: Any,
    k: int = 100,
    *,
    caption: str | None = None,
    target: str | Number = "logit",
    point: str = "pre",
    layer: Any = None,
    pos: Any = Patch,
) -> pd.DataFrame:
    """For every token of the caption, the `k` (unit, position) pairs of highest score.

    Args:
        caption: explain these words instead of the model's own caption.
        pos: the positions that count (default: the picture's), as in `Scores.sel`.

    Returns:
        Columns token, neuron, pos, score; within a token the largest first.
    """
    import pandas as pd

    k = count(k, "k")
    soft, targets = aim_caption(model, prompt, target, caption)
    labels = soft.labels[0]
    chosen = sorted(places(range(model.cfg.n_layers), layer, "layer"))
    where = torch.tensor(places(labels, pos, "pos"), device=model.lm.device)
    best = [_Best(k) for _ in targets]

    def receive(index: int, layer: int, product: torch.Tensor) -> None:
        best[index].add(layer, product[where])

    products(model, soft, targets, receive, point, chosen)
    rows = [
        {
            "token": aimed.token,
            "neuron": Neuron(layer, unit),
            "pos": labels[int(where[place])],
            "score": score,
        }
        for aimed, top in zip(targets, best, strict=True)
        for score, layer, place, unit in top.rows()
    ]
    return pd.DataFrame(rows, columns=["token", "neuron", "pos", "score"])


def products(
    model: HookedVLM,
    soft: SoftPrompt,
    targets: Sequence[Target],
    receive: Receive,
    point: str = "pre",
    layers: Sequence[int] | None = None,
) -> None:
    """Run forward once and backward once per target, handing over each layer's product as it comes.

    The graph starts at the lowest layer asked for; the logits are computed at the targets only.
    """
    if not isinstance(point, str) or point not in _POINTS:
        raise AddressError(
            f"There is no point {point!r}: write 'pre' or 'post' (the activation function)."
        )
    chosen = list(range(model.cfg.n_layers)) if layers is None else list(layers)
    model.lm.units.need(model.name, chosen, point)
    names = {SITES[_POINTS[point]].at(layer): layer for layer in chosen}
    roots: list[torch.Tensor] = []
    now, power = 0, 1.0

    def tap(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        layer = names[hook.name]
        if not tensor.requires_grad:
            tensor = tensor.detach().requires_grad_()
            roots.append(tensor)
        value = tensor.detach()

        def multiply(grad: torch.Tensor) -> None:
            product = (wide(value) * (wide(grad) / power))[0]
            receive(now, layer, finite(product, f"the attribution of layer {layer}"))

        tensor.register_hook(multiply)
        return tensor

    positions = torch.tensor([t.position for t in targets], device=model.lm.device)
    with torch.enable_grad(), model.hooks(fwd_hooks=[(name, tap) for name in names]):
        with model._running(soft, differentiable=False) as read:
            logits = model.lm.logits_at(read.ids.clamp(min=0), read.mask, positions)[0]
        finite(logits.detach(), f"the logits of {model.name!r}")
        for index, aimed in enumerate(targets):
            now = index
            out, power = seed(logits[index], aimed.number)
            more = index + 1 < len(targets)
            torch.autograd.grad(logits[index], roots, grad_outputs=out, retain_graph=more)


def silencing(model: HookedVLM, point: str) -> str:
    """The Edit whose effect a score at this point predicts, to first order."""
    edit = f"Edit({_POINTS[point]!r}, 0.0, ...)"
    if point == "pre" and any(one.gated for one in model.lm.units.layers):
        return f"{edit}: the gate's input alone, unlike Edit('neurons', 0.0, ...)"
    return edit


class _Best:
    """The k largest values seen so far, and where they were."""

    def __init__(self, k: int) -> None:
        self.k, self.floor = k, -torch.inf
        self.values = torch.empty(0)
        self.places = torch.empty(0, 3, dtype=torch.long)

    def add(self, layer: int, product: torch.Tensor) -> None:
        """Take in a layer's product Float[pos, unit]."""
        at = (product > self.floor).nonzero()
        new = product[at[:, 0], at[:, 1]]
        if len(new) > self.k:
            new, order = new.topk(self.k)
            at = at[order]
        place = torch.cat([torch.full((len(at), 1), layer), at.cpu()], 1)
        values, places = (
            torch.cat([self.values, new.float().cpu()]),
            torch.cat([self.places, place]),
        )
        self.values, order = values.topk(min(self.k, len(values)))
        self.places = places[order]
        self.floor = float(self.values[-1]) if len(self.values) == self.k else -torch.inf

    def rows(self) -> list[tuple[float, int, int, int]]:
        """(value, layer, place, unit), the largest first."""
        return [(v, *p) for v, p in zip(self.values.tolist(), self.places.tolist(), strict=True)]
