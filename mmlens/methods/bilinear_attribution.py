"""Which part of a picture meets which word: second-order attribution of a similarity.

The cosine of a picture and a text is bilinear in their unit embeddings e(x) and f(y), so its mixed
second derivative is a product of first ones. Of a part x_i of the picture (a position or a unit at
a site) and a token y_j of the text

    A[i, j] = x_i (d^2 cos / dx_i dy_j) y_j = <(de / dx_i) x_i , (df / dy_j) y_j>

to second order the change of the cosine that is there only when part i and token j are both scaled:
silencing one of them changes what the other one contributes by -A[i, j]. (Goh et al. 2021 read the
weights W x_text of a text in units so; Moeller et al. 2024, arXiv 2408.14153, eq. 5, call it
second-order attribution.) What one tower's part does alone is not in it: `attribute` has that.

Axes: (pos, token), or (unit, token); signed, in units of the cosine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.dual_reading import DualReading
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.runtime.autograd import ordinary
from mmlens.values.addresses import places
from mmlens.values.arguments import choice, count, text
from mmlens.values.errors import AddressError
from mmlens.values.labels import TEXT, Padding
from mmlens.values.maps import as_positions, is_map
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores
from mmlens.values.sites import Site
from mmlens.values.sites import site as site_of

if TYPE_CHECKING:
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder


@needs("similarity")
@ordinary()
def bilinear_attribution(
    model: HookedDualEncoder,
    picture: Any,
    of: str,
    *,
    site: str = "vision.resid_pre",
    layer: int = 0,
    text_site: str = "text.resid_pre",
    text_layer: int = 0,
    by: str = "pos",
    batch: int = 32,
) -> Scores:
    """Second-order attribution of the cosine of a picture and a text: Scores(pos, token).

    Args:
        of: the text.
        site, layer: where the parts of the picture are; by default what enters the first layer.
            Of a convolutional encoder a late map says where things are, such as "features".
        text_site, text_layer: where the tokens are.
        by: "pos" or "unit": over which axis of the site parts are counted; the other is summed.
        batch: rows of the derivative that are computed side by side.

    Raises:
        AddressError: no such layer, or a site without positions (or units).
        SiteError: no such site.
    """
    choice(by, "by", ("pos", "unit"), error=AddressError)
    seen = model.read(Prompt(open_picture(picture)))
    said = model.read(text(of, "of", empty=False))
    eye, voice = _placed(model, site, layer, "vision"), _placed(model, text_site, text_layer, TEXT)
    step = count(batch, "batch")
    parts, width = _pushed(model, seen, *eye, by, step), _pushed(model, said, *voice, "pos", step)
    tokens = said.labels[0]
    real = [i for i, label in enumerate(tokens) if not isinstance(label, Padding)]
    values = finite(parts @ width[real].T, "the second-order attribution")
    labels: dict[str, Any] = {"token": tuple(tokens[i] for i in real)}
    if by == "pos":
        labels["pos"] = model.picture_rows(seen.prompts, *eye)[0]
    told = about(model, method="bilinear_attribution", of=of, site=site, layer=layer, by=by,
                 text_site=text_site, text_layer=text_layer, tower="vision")  # fmt: skip
    return Scores(values, (by, "token"), labels, told)


def _placed(model: HookedDualEncoder, name: str, layer: int, tower: str) -> tuple[Site, int | None]:
    """A site of a tower, and the number of its layer.

    Raises:
        AddressError: it belongs to another tower, or has no such layer.
    """
    where = site_of(name)
    if where.tower != tower:
        raise AddressError(f"{name!r} is a site of {where.tower!r}: write one of {tower!r}.")
    if not where.layered:
        hooking.check_places(model, where, [None])
        return where, None
    found = places(
        hooking.layers(model, where), layer if where.layer is None else where.layer, "layer"
    )
    hooking.check_places(model, where, [found if isinstance(found, int) else found[0]])
    return where, found if isinstance(found, int) else found[0]


def _pushed(
    model: HookedDualEncoder,
    reading: DualReading,
    site: Site,
    layer: int | None,
    by: str,
    batch: int,
) -> Float[Tensor, "part d_embed"]:
    """(de / dx_i) x_i of every part: the rows of the derivative, from copies in one batch."""
    size = min(batch, model.d_embed)
    kept: list[Tensor] = []

    def begin(tensor: Tensor, hook: Any) -> Tensor:
        kept[:] = [tensor.detach().requires_grad_()]
        return kept[0]

    with torch.enable_grad(), model.hooks([(site.at(layer), begin)]):
        out = model.run(_copies(reading, size))
    axes = hooking.check_places(model, site, [layer])[layer].axes
    found = []
    for start in range(0, model.d_embed, size):
        rows = torch.arange(start, min(start + size, model.d_embed), device=out.device)
        number = out[torch.arange(len(rows), device=out.device), rows].sum()
        (slope,) = torch.autograd.grad(number, kept[0], retain_graph=True)
        found.append(_summed((slope * kept[0].detach())[: len(rows)], axes, by, site))
    return torch.cat(found).T


def _copies(reading: DualReading, n: int) -> DualReading:
    """The same picture or text n times."""

    def many(one: Tensor | None) -> Tensor | None:
        return None if one is None else one.expand(n, *one.shape[1:])

    inputs = many(reading.pixels), many(reading.ids), many(reading.mask)
    return DualReading(*inputs, reading.labels * n, reading.prompts * n)


def _summed(
    products: Tensor, axes: tuple[str, ...], by: str, site: Site
) -> Float[Tensor, "row part"]:
    """The products of every position, or of every unit."""
    if is_map(axes):
        products = as_positions(products, axes)
    elif axes[0] != "pos" or len(axes) != 2:
        raise AddressError(
            f"{site.name!r} has the axes {', '.join(axes)}: name a site of positions and units,"
            " such as 'vision.neurons'."
        )
    return products.sum(-1) if by == "pos" else products.sum(-2)
