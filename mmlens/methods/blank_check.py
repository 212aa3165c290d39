"""Causal check of a unit on a blank picture: raise it, and see which texts gain.

    change[t] = logit(t | blank picture, unit raised by v) - logit(t | blank picture)

On a blank picture nothing else speaks, so a unit that stands for a concept must by itself raise the
text that names it (the check of Goh et al. 2021 of what a unit writes into the embedding). Whether
the gain is more than any push of this size brings is judged by random units of the same layer,
raised by the same v: p is the share of all units tried, this one included, that raise the text at
least as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from mmlens.methods.named_classes import named_logits, need_names
from mmlens.methods.unit_responses import TOWER
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.readouts import unit_site
from mmlens.values.arguments import count, number, several
from mmlens.values.errors import AddressError
from mmlens.values.labels import Neuron
from mmlens.values.maps import inner_of, is_map
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import Prompt
from mmlens.values.sites import site as site_of
from mmlens.values.unit_lists import one_unit

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel

SIDE = 224
BATCH = 64
"""Units that are raised side by side, each in a copy of the picture."""


@needs("pictures")
def blank_check(
    model: HookedModel,
    neuron: Neuron | str,
    texts: Sequence[str],
    values: Sequence[float] = (1.0, 3.0, 10.0),
    *,
    site: str | None = None,
    blank: Any = None,
    randoms: int = 19,
    seed: int = 0,
) -> pd.DataFrame:
    """The change of every text's logit for every value: value, text, logit, change, p.

    Args:
        neuron: one of the vision tower; in a map, a channel.
        texts: the one that the unit should raise and others to compare with; of a classifier, names
            of classes.
        values: what is added to the unit at every position.
        site: where it is added; by default the units of the layer's MLP, or its map.
        blank: another picture than a grey one.
        randoms: how many other units of the layer are raised as controls.

    Raises:
        AddressError: no such unit of the vision tower. CapabilityError: the model neither compares
            pictures with texts nor has classes.
    """
    import pandas as pd

    need_names(model, "ask a dual encoder or a classifier")
    one = one_unit(neuron, "neuron")
    if one.tower != TOWER:
        raise AddressError(f"{one} is no unit of the vision tower: write Neuron(3, 17, 'vision').")
    sizes = [number(value, "values") for value in several(values, "values")]
    where = unit_site(model, one).name if site is None else site
    width = layer_width(model, one.layer, where)
    if not 0 <= one.unit < width:
        raise AddressError(f"There is no {one}: the layer has {width} units.")
    picture = Image.new("RGB", (SIDE, SIDE), "grey") if blank is None else open_picture(blank)
    plain = named_logits(model, [picture], texts, template="{}").values[0]
    seed, few = count(seed, "seed", least=0), count(randoms, "randoms", least=0)
    units = [one.unit, *_others(one.unit, width, few, seed)]
    rows = []
    for value in sizes:
        raised = torch.cat(
            [
                _raised(model, where, one.layer, units[i : i + BATCH], value, picture, texts)
                for i in range(0, len(units), BATCH)
            ]
        )
        change = raised - plain
        p = (change >= change[0] - 1e-9).float().mean(0)
        for i, name in enumerate(texts):
            rows.append((one, value, name, float(raised[0, i]), float(change[0, i]), float(p[i])))
    return pd.DataFrame(rows, columns=["neuron", "value", "text", "logit", "change", "p"])


def layer_width(model: HookedModel, layer: int, site: str) -> int:
    """How many units (or channels) a layer of the vision tower has at a site."""
    where = site_of(site)
    real = hooking.check_places(model, where, [layer])[layer]
    inner = inner_of(real.axes) if is_map(real.axes) else real.axes[-1]
    seen: list[int] = []

    def look(tensor: torch.Tensor, hook: Any) -> None:
        seen.append(tensor.shape[1 + real.axes.index(inner)])

    with torch.no_grad(), model.hooks(fwd_hooks=[(where.at(layer), look)]):
        model.run_to(where.tower, Prompt(Image.new("RGB", (SIDE, SIDE), "grey")))
    return seen[0]


def _raised(
    model: HookedModel,
    site: str,
    layer: int,
    units: Sequence[int],
    value: float,
    picture: Image.Image,
    texts: Sequence[str],
) -> torch.Tensor:
    """Float[unit, text]: logits of the picture, in row i with unit i raised at every position."""
    where = site_of(site)
    real = hooking.check_places(model, where, [layer])[layer]
    inner = inner_of(real.axes) if is_map(real.axes) else real.axes[-1]
    axis, which = 1 + real.axes.index(inner), torch.tensor(units)

    def raise_(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        out = tensor.clone()
        each = which.repeat_interleave(len(out) // len(which))  # crops of one picture
        out.movedim(axis, 1)[torch.arange(len(out)), each] += value
        return out

    with model.hooks(fwd_hooks=[(where.at(layer), raise_)]):
        many = [picture] * len(units)
        return named_logits(model, many, texts, template="{}", batch=len(many)).values


def _others(unit: int, width: int, n: int, seed: int) -> list[int]:
    """Other units of the layer, drawn without replacement."""
    drawn = torch.randperm(width, generator=torch.Generator().manual_seed(seed)).tolist()
    return [other for other in drawn if other != unit][:n]
