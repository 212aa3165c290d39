"""How strongly every unit of a vision tower answers to each of many pictures.

    response[p, u] = max over positions of the activation of unit u on picture p

One number per picture and unit is what probes, cross-format indices and conditional plots of units
are made of (Goh et al. 2021). The paper does not say how it reduces positions: here it is their
maximum, or their mean. Pictures are read in batches, and only the responses are kept.

Axes: (picture, unit), with an axis layer in front where several layers are asked about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.activations import activations
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.readouts import unit_site
from mmlens.values.addresses import places
from mmlens.values.arguments import choice, count, several
from mmlens.values.errors import AddressError, PromptError
from mmlens.values.labels import Neuron
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

TOWER = "vision"
OVER = ("max", "mean")


@needs("pictures")
def unit_responses(
    model: HookedModel,
    pictures: Sequence[Any],
    *,
    layer: Any = -1,
    site: str | None = None,
    over: str = "max",
    pos: Any = None,
    batch: int = 32,
) -> Scores:
    """The response of every unit to every picture: Scores(picture, unit), as narrowed.

    Args:
        pictures: what a Prompt takes as a picture.
        layer: of the vision tower; several layers of one width add an axis `layer` in front.
        site: by default the units of the layer's MLP, or the channels of its map.
        over: "max" or "mean" over the positions.
        pos: these positions only, such as `Patch`; by default all, CLS and registers included.
        batch: pictures that are read side by side.

    Raises:
        AddressError: no such layer or position. CapabilityError: the model reads no pictures.
    """
    given = several(pictures, "pictures")
    where = read_site(model, layer, site)
    step = count(batch, "batch")
    parts = [
        respond(model, given[i : i + step], where, layer, over, pos)
        for i in range(0, len(given), step)
    ]
    values = torch.cat([part.values for part in parts], dim=-2)
    told = about(model, method="unit_responses", site=where, tower=TOWER, over=over)
    labels = {"layer": parts[0].labels.get("layer")}
    if "layer" not in parts[0].axes:
        told |= {"layer": whole_layer(model, layer) if site_of(where).layered else None}
    return Scores(values, parts[0].axes, labels, told)


def read_site(model: HookedModel, layer: Any, site: str | None) -> str:
    """The site of the units of these layers.

    Raises:
        AddressError: no such layer. SiteError: the site is none of the vision tower.
    """
    if site is not None:
        if (tower := site_of(site).tower) != TOWER:
            raise AddressError(
                f"site={site!r} is a site of {tower!r}: write one of the vision tower, such as"
                " 'vision.neurons'."
            )
        return site
    n = model.towers[TOWER].n_layers
    found = places(range(n), layer, "layer")
    first = found if isinstance(found, int) else found[0]
    return unit_site(model, Neuron(first, 0, TOWER)).name


def whole_layer(model: HookedModel, layer: Any) -> int | None:
    """The number of one layer, counted from 0."""
    n = model.towers[TOWER].n_layers
    return range(n)[layer] if isinstance(layer, int) else None


def respond(
    model: HookedModel, pictures: Sequence[Any], site: str, layer: Any, over: str, pos: Any = None
) -> Scores:
    """The responses to one batch: Scores(picture, unit), or (layer, picture, unit)."""
    choice(over, "over", OVER)
    address = {} if pos is None else {"pos": pos}
    address |= {"layer": layer} if site_of(site).layered else {}
    prompts = [one if isinstance(one, Prompt) else Prompt(one) for one in pictures]
    found = activations(model, prompts, site, **address)
    unit = next((axis for axis in ("unit", "channel", "dim") if axis in found.axes), None)
    if unit is None:
        raise AddressError(f"Site {site!r} has no units, it has {', '.join(found.axes)}.")
    rest = [axis for axis in found.axes if axis not in ("layer", "picture", unit)]
    order = [axis for axis in ("layer", "picture") if axis in found.axes]
    values = found.values.permute(*(found.axes.index(axis) for axis in [*order, unit, *rest]))
    values = values.flatten(len(order) + 1) if rest else values[..., None]
    values = values.amax(-1) if over == "max" else values.float().mean(-1)
    if "picture" not in order:
        values = values.unsqueeze(-2)
    n = values.shape[-2]
    if n % len(prompts):
        raise PromptError(f"{n} readings of {len(prompts)} pictures: give pictures of one size.")
    crops = values.unflatten(-2, (len(prompts), n // len(prompts)))  # tiles of one picture
    values = crops.amax(-2) if over == "max" else crops.mean(-2)
    axes = ("layer", "picture", "unit") if "layer" in order else ("picture", "unit")
    return Scores(values, axes, {"layer": found.labels.get("layer")}, found.about)


def chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most so many items."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
