"""Linear probes: classes read off the units of a vision tower, all of them or a few per class.

`linear_probe` is multinomial logistic regression on the responses of the units (Alain & Bengio
2016), each divided by its standard deviation:

    minimise over W, b:   mean cross-entropy of softmax(W x + b)  +  l2 / 2 |W|^2

`sparse_probe` allows each class `k` units, as the 3 per class with which Goh et al. (2021) read
ImageNet classes off CLIP's neurons. Which ones is chosen by matching pursuit for logistic
regression (Lozano, Swirszcz & Abe 2011): the unit whose gradient at the present fit is largest
joins, and all chosen ones are fitted anew. It yields exactly k units and, unlike an L1 penalty, no
shrunken weights. Its logits are those of one class against all others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlens.methods.unit_responses import TOWER, unit_responses
from mmlens.model.capabilities import needs
from mmlens.runtime.autograd import ordinary
from mmlens.values.arguments import count, number, several, text
from mmlens.values.errors import ArgumentError
from mmlens.values.labels import Neuron

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel

STEPS = 200


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Weights Float[class, unit] and bias Float[class] on the responses of one layer's units.

    Attributes:
        classes: their names, in the order of the rows.
        read: how responses are read: layer, site, over, pos.
    """

    classes: tuple[str, ...]
    weights: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    read: Mapping[str, Any]

    def logits(self, model: HookedModel, pictures: Sequence[Any], *, batch: int = 32) -> Tensor:
        """Float[picture, class], on the CPU."""
        found = unit_responses(model, pictures, batch=batch, **self.read)
        return self.on(found.values.float().cpu())

    def on(self, responses: Tensor) -> Tensor:
        """The logits Float[picture, class] of responses Float[picture, unit]."""
        return responses @ self.weights.T + self.bias

    def predict(self, model: HookedModel, pictures: Sequence[Any]) -> list[str]:
        """The class of the largest logit, per picture."""
        return [self.classes[i] for i in self.logits(model, pictures).argmax(1).tolist()]

    def accuracy(
        self, model: HookedModel, pictures: Sequence[Any], labels: Sequence[str], k: int = 1
    ) -> float:
        """The share of pictures whose class is among the `k` of largest logit."""
        best = self.logits(model, pictures).topk(min(count(k, "k"), len(self.classes))).indices
        wanted = torch.tensor([self.place(one) for one in labels])
        if len(wanted) != len(best):
            raise ArgumentError(f"{len(best)} pictures and {len(wanted)} labels: give as many.")
        return float((best == wanted[:, None]).any(1).float().mean())

    def units(self, k: int = 3) -> pd.DataFrame:
        """The `k` units of largest weight, by size, per class: class, rank, neuron, weight.

        At a site without layers, such as "vision.features", `neuron` is the unit's number.
        """
        import pandas as pd

        rows, layer = [], self.read["layer"]
        for name, own in zip(self.classes, self.weights, strict=True):
            for rank, unit in enumerate(own.abs().topk(min(count(k, "k"), len(own))).indices):
                neuron = int(unit) if layer is None else Neuron(layer, int(unit), TOWER)
                rows.append((name, rank, neuron, float(own[unit])))
        return pd.DataFrame(rows, columns=["class", "rank", "neuron", "weight"])

    def place(self, name: str) -> int:
        """The row of a class.

        Raises:
            ArgumentError: no such class.
        """
        if name not in self.classes:
            raise ArgumentError(f"The probe has no class {name!r}: it has {self.classes[:8]}.")
        return self.classes.index(name)


@needs("pictures")
def linear_probe(
    model: HookedModel,
    pictures: Sequence[Any],
    labels: Sequence[str],
    *,
    layer: int = -1,
    site: str | None = None,
    over: str = "mean",
    pos: Any = None,
    l2: float = 0.01,
    batch: int = 32,
) -> LinearProbe:
    """A multinomial logistic regression from the responses of a layer's units to classes.

    Args:
        labels: the class of each picture; at least two different ones.
        layer, site, over, pos: as in `unit_responses`.
        l2: weight of the penalty on the weights of standardised responses.

    Raises:
        ArgumentError: as many labels as pictures are needed, and two classes.
    """
    penalty = number(l2, "l2", least=0)
    classes, target, x, read = _seen(model, pictures, labels, layer, site, over, pos, batch)
    spread = spread_of(x)
    w, b = fitted(x / spread, len(classes), lambda logits: F.cross_entropy(logits, target), penalty)
    return LinearProbe(classes, w / spread, b, read)


@needs("pictures")
def sparse_probe(
    model: HookedModel,
    pictures: Sequence[Any],
    labels: Sequence[str],
    k: int = 3,
    *,
    layer: int = -1,
    site: str | None = None,
    over: str = "mean",
    pos: Any = None,
    l2: float = 0.001,
    batch: int = 32,
) -> LinearProbe:
    """For each class a logistic regression, against all other classes, on `k` units of a layer.

    Args:
        labels: the class of each picture; at least two different ones.
        k: units per class.
        layer, site, over, pos: as in `unit_responses`.
        l2: weight of the penalty on the weights of standardised responses.

    Raises:
        ArgumentError: as many labels as pictures are needed, and two classes.
    """
    few, penalty = count(k, "k"), number(l2, "l2", least=0)
    classes, target, x, read = _seen(model, pictures, labels, layer, site, over, pos, batch)
    spread, mean = spread_of(x), x.mean(0)
    z = (x - mean) / spread
    weights, bias = torch.zeros(len(classes), z.shape[1]), torch.zeros(len(classes))
    for row in range(len(classes)):
        is_it = (target == row).float()
        chosen, w, b = _pursued(z, is_it, min(few, z.shape[1]), penalty)
        weights[row, chosen], bias[row] = w, b
    weights = weights / spread
    return LinearProbe(classes, weights, bias - weights @ mean, read)


def _pursued(z: Tensor, is_it: Tensor, k: int, l2: float) -> tuple[list[int], Tensor, Tensor]:
    """The units that matching pursuit chooses, their weights and the bias."""
    chosen: list[int] = []
    rate = is_it.mean()
    w, b = torch.zeros(0), torch.logit(rate.clamp(1e-4, 1 - 1e-4))
    for _ in range(k):
        rest = is_it - torch.sigmoid(z[:, chosen] @ w + b)
        gradient = (rest @ z).abs()
        gradient[chosen] = -1
        chosen.append(int(gradient.argmax()))

        def loss(logits: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(logits[:, 0], is_it)

        found, bias = fitted(z[:, chosen], 1, loss, l2)
        w, b = found[0], bias[0]
    return chosen, w, b


def fitted(
    x: Tensor, rows: int, loss: Callable[[Tensor], Tensor], l2: float
) -> tuple[Tensor, Tensor]:
    """Weights Float[row, unit] and bias Float[row] of least loss, by L-BFGS."""
    with ordinary(), torch.enable_grad():
        w = torch.zeros(rows, x.shape[1], requires_grad=True)
        b = torch.zeros(rows, requires_grad=True)
        steps = torch.optim.LBFGS([w, b], max_iter=STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            steps.zero_grad()
            value = loss(x @ w.T + b) + l2 / 2 * (w**2).sum()
            value.backward()
            return value

        steps.step(closure)
    return w.detach(), b.detach()


def spread_of(x: Tensor) -> Tensor:
    """The standard deviation of each unit, 1 where it never moves."""
    spread = x.std(0, correction=0)
    return torch.where(spread > 1e-12, spread, torch.ones_like(spread))


def _seen(
    model: HookedModel, pictures: Any, labels: Any, layer: Any, site: Any, over: str, pos: Any,
    batch: int,
) -> tuple[tuple[str, ...], Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """The classes, each picture's as Long[picture], the responses, and how they were read."""
    shown = several(pictures, "pictures")
    named = [text(one, "labels", empty=False) for one in several(labels, "labels")]
    if len(shown) != len(named):
        raise ArgumentError(f"{len(shown)} pictures and {len(named)} labels: give as many.")
    classes = tuple(dict.fromkeys(named))
    if len(classes) < 2:
        raise ArgumentError(f"labels={named[:3]}: a probe tells at least two classes apart.")
    count(layer, "layer", least=-(10**6), most=10**6)
    found = unit_responses(model, shown, layer=layer, site=site, over=over, pos=pos, batch=batch)
    read = {"layer": found.about["layer"], "site": found.about["site"], "over": over, "pos": pos}
    target = torch.tensor([classes.index(one) for one in named])
    return classes, target, found.values.float().cpu(), read
