"""What is explained, as one number of a forward pass: a word, a class, a unit, or a function.

    of=" dog"                          a token's logit               (language models: `targets`)
    of="tabby"                         a class's logit               (classifiers)
    of=Neuron(3, 17, "vision")         a unit's own activation       (every tower with units)
    target=lambda logits: ...          any function of the model's output

A readout is a `Target`: which row of the output (or which hook's activation) is read, and the
function from it to a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model import hooking
from mmlens.model.capture import capture
from mmlens.model.targets import Number, Target, checked
from mmlens.values.addresses import places
from mmlens.values.arguments import shown
from mmlens.values.errors import AddressError, TargetError, nearest
from mmlens.values.labels import LM, Neuron, host_of
from mmlens.values.maps import inner_of, is_map
from mmlens.values.sites import SITES, Site

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

_OVER: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": torch.mean,
    "max": torch.max,
    "sum": torch.sum,
}


def unit_site(model: HookedModel, neuron: Neuron) -> Site:
    """The site of a unit's activation: "neurons" of its tower, or the map of its layer.

    Raises:
        SiteError: the model has no such tower. AddressError: no such layer.
    """
    if host_of(neuron.tower) != neuron.tower:  # of a dictionary: its tower is its site
        found = SITES.get(neuron.tower, SITES["sae"])
        places(hooking.layers(model, found), neuron.layer, "layer")
        return found
    prefix = "" if neuron.tower == LM else f"{neuron.tower}."
    name = "neurons" if neuron.expert is None else "expert_neurons"
    site = SITES.get(f"{prefix}{name}", SITES[name])
    tower = hooking.tower_at(model, site)
    places(range(tower.n_layers), neuron.layer, "layer")
    if site.in_lm or site.at(neuron.layer) in tower.points:
        return site
    return SITES[f"{prefix}resid_post"]


def own_site(model: HookedModel, name: str, prompt: Any = None) -> Site:
    """A site of the tower that reads the prompt, by its name in the language model.

    Where "neurons" are asked of an encoder of convolutions, these are the channels of its blocks'
    output ("resid_post"); "neurons_pre" are the sums before the last nonlinearity ("resid_add"),
    where its blocks end in one.
    """
    tower = model.reading_tower(prompt)
    if tower == LM:
        return SITES[name]
    instead = {"neurons": ["resid_post"], "neurons_pre": ["resid_add", "resid_post"]}
    known = model.towers[tower].points
    found = [SITES[f"{tower}.{one}"] for one in (name, *instead.get(name, ()))]
    layers = range(model.towers[tower].n_layers)
    return next((one for one in found if any(one.at(at) in known for at in layers)), found[0])


def aim_unit(model: HookedModel, neuron: Neuron, target: str | Number) -> Target:
    """A unit's own activation, over all positions of one prompt or picture.

    Args:
        target: "mean" (the default), "max" or "sum" over positions, or a
            function of the activations Float[pos].

    Raises:
        AddressError: no such unit. TargetError: no such target.
    """
    site = unit_site(model, neuron)
    if site.in_lm:
        hooking.tower_at(model, site).units.find(model.name, [neuron])
    real = hooking.check_places(model, site, [neuron.layer])[neuron.layer]
    over = target if callable(target) else _OVER.get("mean" if target == "logit" else target)
    if over is None:
        raise TargetError(
            f"There is no target {target!r} of a unit: write 'mean', 'max', 'sum' or a function of"
            " its activations."
        )
    inner = inner_of(real.axes) if is_map(real.axes) else real.axes[-1]
    dim = real.axes.index(inner)

    def number(values: torch.Tensor) -> torch.Tensor:
        if not 0 <= neuron.unit < values.shape[dim]:
            raise AddressError(f"There is no {neuron}: the layer has {values.shape[dim]} units.")
        one = values.select(dim, neuron.unit)
        return over((one if neuron.expert is None else one[..., neuron.expert]).flatten())

    return Target(0, number, str(neuron), site.at(neuron.layer))


def aim_class(names: Sequence[str], of: Any, target: str | Number) -> Target:
    """A class's logit.

    Args:
        names: of the classes.
        of: a class by name or number; None where `target` is a function of all logits.

    Raises:
        TargetError: no such class, or nothing to explain.
    """
    if of is None:
        if not callable(target):
            raise TargetError(
                f"There is no class to explain: write of={names[0]!r}, or a function as target."
            )
        return Target(0, checked(target))
    index = class_index(names, of)
    if callable(target):
        return Target(0, checked(target), names[index])
    numbers: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "logit": lambda logits: logits[index],
        "prob": lambda logits: logits.float().softmax(-1)[index],
        "logprob": lambda logits: logits.float().log_softmax(-1)[index],
    }
    if target not in numbers:
        raise TargetError(
            f"There is no target {target!r}: write 'logit', 'prob', 'logprob' or a callable."
        )
    return Target(0, numbers[target], names[index])


def class_index(names: Sequence[str], of: Any) -> int:
    """The number of a class by its name, or by one of the names that it has.

    Raises:
        TargetError: no such class, or several.
    """
    if isinstance(of, str):
        same = [i for i, name in enumerate(names) if of in (name, *name.split(", "))]
        if len(same) != 1:
            found = f"{len(same)} classes are" if same else "no class is"
            raise TargetError(f"{found.capitalize()} called {of!r}: {nearest(of, names)}")
        return same[0]
    if isinstance(of, bool) or not isinstance(of, int) or not 0 <= of < len(names):
        raise TargetError(
            f"{shown(of)} is no class: give a name, or a number from 0 to {len(names) - 1}."
        )
    return of


def side_by_side(
    model: HookedModel, reading: Any, target: Target, n: int, tower: str = "", grad: bool = False
) -> torch.Tensor:
    """What the target's number is a function of, for each of `n` copies of a prompt: Float[n, ...].

    Args:
        tower, grad: as in `HookedModel.side_by_side`.
    """
    how: dict[str, Any] = {"position": target.position, "tower": tower, "grad": grad}
    if target.at is None:
        return model.side_by_side(reading, n, **how)
    with capture(model, [target.at]) as kept:
        model.side_by_side(reading, n, **how)
    return kept[target.at].unflatten(0, (n, -1))[:, 0]


def answers(model: HookedModel, reading: Any, targets: Sequence[Target]) -> list[torch.Tensor]:
    """For each target the tensor that its number is a function of: logits, or an activation."""
    at_hooks = dict.fromkeys(target.at for target in targets if target.at is not None)
    rows = torch.tensor([target.position for target in targets])
    with capture(model, at_hooks, lambda x: x[0]) as kept:
        found = model.answer_rows(reading, rows)
    return [
        row if target.at is None else kept[target.at]
        for row, target in zip(found, targets, strict=True)
    ]
