"""What a picture is optimised for, as a number per picture: a unit's activation, or any readout.

`UnitGoal` runs the vision tower alone, once for all pictures of a batch, whichever unit each is
for. `ReadoutGoal` explains what `of=` and `target=` name elsewhere (a class, a word, the similarity
with a text, a unit of the language model) and runs the whole model, picture by picture.

Where a unit is off its activation function has no gradient, or one that points further down (GELU
rises towards 0 on its left). There the input of that function is climbed instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from mmlens.methods.facets import Facet, flat
from mmlens.model import hooking, readouts
from mmlens.model.capture import capture
from mmlens.model.targets import Number, one_number
from mmlens.model.vision_pass import VISION, vision_pass
from mmlens.values.addresses import find
from mmlens.values.errors import AddressError, CapabilityError, TargetError
from mmlens.values.labels import Neuron
from mmlens.values.prompt import Prompt
from mmlens.values.sites import SITES, Site
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

PIXELS = SITES["pixels"].point
_OVER: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda x: x.mean(-1),
    "mean": lambda x: x.mean(-1),
    "max": lambda x: x.amax(-1),
    "sum": lambda x: x.sum(-1),
}


@dataclass
class Answer:
    """What a batch of pictures gives.

    Attributes:
        number: of each picture, what is asked for.
        climbed: what is differentiated: the same, with the input of the unit where it is off.
        facet: the facet's term of each picture.
        maps: rows of pictures, and their layer's activations Float[row, pos, unit].
        large: the largest magnitude of the layer's activations, to judge what is nothing.
    """

    number: Float[Tensor, " picture"]
    climbed: Float[Tensor, " picture"]
    facet: Float[Tensor, " picture"] | None = None
    maps: list[tuple[list[int], Tensor]] = field(default_factory=list)
    large: float = 1.0


class UnitGoal:
    """Units of the vision tower, each at a site and in a layer.

    Args:
        units: Neurons, or numbers of units where `site` is in one layer only.
        target: "mean", "max" or "sum" over positions, or a function of Float[pos].
        pos: some positions only, as in `Scores.sel`.

    Raises:
        SiteError, AddressError: no such site, layer, unit or position.
        CapabilityError: attention patterns, which have no units.
    """

    def __init__(
        self, model: HookedModel, units: Sequence[Any], site: str | None, target: str | Number,
        pos: Any,
    ) -> None:  # fmt: skip
        self.model, self.target, self.pos = model, target, pos
        if not callable(target) and not (isinstance(target, str) and target in _OVER):
            raise TargetError(
                f"There is no target {target!r} of a unit: write 'mean', 'max', 'sum' or a function"
                " of its activations."
            )
        self.places = [self._place(unit, site) for unit in units]
        self.labels = tuple(
            unit if isinstance(unit, Neuron) else _named(site, unit) for unit in units
        )

    def _place(self, unit: Any, site: str | None) -> _Place:
        """Where a unit is read."""
        if site is None:
            where, layer, index = readouts.unit_site(self.model, unit), unit.layer, unit.unit
        else:
            where = site_of(site)
            index = unit.unit if isinstance(unit, Neuron) else unit
            layer = _layer(where, unit)
        if where.tower != VISION:
            raise AddressError(
                f"Site {where.name!r} is not in the vision tower, whose units a picture is made for"
                " by site=: write of= a Neuron, a class or a word instead."
            )
        real = hooking.check_places(self.model, where, [layer])[layer]
        if {"query", "y"} & set(real.axes):
            raise CapabilityError(
                f"{where.name!r} holds {', '.join(real.axes)} and no units: choose"
                " 'vision.neurons', 'vision.resid_post', 'vision.z' or another site of units."
            )
        tower = self.model.towers[VISION]
        before = SITES.get(f"{VISION}.neurons_pre")
        pre = before.at(layer) if before and where.name == f"{VISION}.neurons" else None
        keep = None
        if self.pos is not None:
            found = find(tower.labels(where, layer), self.pos, "pos")
            keep = [found] if isinstance(found, int) else found
        return _Place(where.at(layer), real.axes, index, pre if pre in tower.points else None, keep)

    def __call__(self, pixels: Tensor, which: Sequence[int], facet: Facet | None = None) -> Answer:
        here = [self.places[goal] for goal in which]
        names = [p.point for p in here] + [p.before for p in here if p.before]
        kept = vision_pass(self.model, pixels, [*names, *([facet.point] if facet else [])])
        order, numbers, climbed, maps, large = [], [], [], [], 0.0
        for point in dict.fromkeys(p.point for p in here):
            rows = [i for i, p in enumerate(here) if p.point == point]
            one, units = here[rows[0]], [here[i].index for i in rows]
            values = flat(kept[point], one.axes)
            self._known(units, values.shape[-1], [which[row] for row in rows])
            own = self._own(values, rows, units, one.keep)
            numbers.append(self._over(own))
            climbed.append(numbers[-1])
            if one.before is not None:
                inputs = flat(kept[one.before], one.axes)
                if not bool(((inputs > 0) & (values < 0)).any()):  # else it is gated
                    below = self._own(inputs, rows, units, one.keep)
                    climbed[-1] = self._over(torch.where(own > 0, own, below.clamp(max=0)))
            order += rows
            maps.append((rows, values[rows]))
            large = max(large, float(values.detach().abs().max()))
        back = torch.tensor(order).argsort()
        answer = Answer(torch.cat(numbers)[back], torch.cat(climbed)[back], None, maps, large)
        if facet is not None:
            answer.facet = faceted(self.model, facet, kept[facet.point], answer.climbed)
        return answer

    def _own(self, values: Tensor, rows: list[int], units: list[int], keep: Any) -> Tensor:
        """Each picture's own unit: Float[row, pos]."""
        own = values[torch.tensor(rows), :, torch.tensor(units)]
        return own if keep is None else own[:, keep]

    def _over(self, values: Float[Tensor, "row pos"]) -> Float[Tensor, " row"]:
        """The positions of each picture as one number."""
        if callable(self.target):
            make = self.target
            rows = [one_number(make, row, "The target", "one unit") for row in values]
            return torch.stack(rows)
        return _OVER[self.target](values)

    def _known(self, units: list[int], width: int, goals: list[int]) -> None:
        for goal, unit in zip(goals, units, strict=True):
            if not 0 <= unit < width:
                raise AddressError(f"There is no {self.labels[goal]}: the layer has {width} units.")


@dataclass(frozen=True)
class _Place:
    """Where a unit is read: hook name, axes, index, the input's hook name, and positions."""

    point: str
    axes: tuple[str, ...]
    index: int
    before: str | None
    keep: list[int] | None


class ReadoutGoal:
    """One readout of the whole model, as `attribute` explains it.

    Args:
        prompt: words behind the picture, where the model reads words.

    Raises:
        TargetError: nothing to explain. CapabilityError: a picture is read in several crops.
    """

    def __init__(
        self, model: HookedModel, of: Any, target: str | Number, prompt: str, after: str | None
    ) -> None:
        self.model = model
        tower: Any = model.towers[VISION]
        rows, cols = tower.image_size
        grey = Image.new("RGB", (cols, rows), (128, 128, 128))
        if model.can("generate") and not isinstance(of, Neuron):
            after = after or ""
        read = Prompt(grey, prompt) if prompt else Prompt(grey)
        with torch.no_grad():
            self.reading, self.aimed = model.aim(read, of, target, after)
        self.labels = (self.aimed.token if self.aimed.token is not None else "target",)

    def __call__(self, pixels: Tensor, which: Sequence[int], facet: Facet | None = None) -> Answer:
        numbers, terms = [], []
        for one in pixels.split(1):
            names = [] if facet is None else [facet.point]
            put = (PIXELS, lambda x, hook, one=one: self._put(x, one))
            with self.model.hooks(fwd_hooks=[put]), capture(self.model, names) as kept:
                (read,) = readouts.answers(self.model, self.reading, [self.aimed])
            numbers.append(self.aimed.number(read))
            if facet is not None:
                terms.append(faceted(self.model, facet, kept[facet.point], numbers[-1][None]))
        number = torch.stack(numbers)
        return Answer(number, number, torch.cat(terms) if terms else None)

    def _put(self, old: Tensor, new: Tensor) -> Tensor:
        if old.shape != new.shape:
            raise CapabilityError(
                f"{self.model.name!r} reads a picture in {len(old)} crops, so one picture of what"
                " it reads can't be made: ask for units of its vision tower."
            )
        return new.to(old)


Goal: TypeAlias = UnitGoal | ReadoutGoal
"""`labels`, and a call with pixels as the encoder reads them and the goal of each picture."""


def faceted(
    model: HookedModel, facet: Facet, values: Tensor, numbers: Float[Tensor, " picture"]
) -> Float[Tensor, " picture"]:
    """The facet's term of each picture: w . (g * grad f(g)), the gradient held fixed.

    Raises:
        AddressError: the facet's layer does not come before what is asked for.
    """
    where = site_of(facet.site)
    axes = hooking.check_places(model, where, [facet.layer])[facet.layer].axes
    (grads,) = torch.autograd.grad(numbers.sum(), values, retain_graph=True, allow_unused=True)
    if grads is None:
        raise AddressError(
            f"What is asked for does not depend on the facet's site {facet.point!r}: give a facet"
            " of an earlier layer."
        )
    return facet.term(flat(values, axes), flat(grads.detach(), axes))


def _named(site: str | None, unit: int) -> Any:
    """The label of a unit by number: its Neuron, or its site and number."""
    layer = site_of(str(site)).layer
    return f"{site} {unit}" if layer is None else Neuron(layer, unit, VISION)


def _layer(where: Site, unit: Any) -> int | None:
    if where.layer is not None or not where.layered:
        return where.layer
    if isinstance(unit, Neuron):
        return unit.layer
    raise AddressError(
        f"Site {where.name!r} is in every layer: write Neuron(layer, {unit}, 'vision'), or the"
        f" hook name of one layer, as in {where.at(0)!r}."
    )
