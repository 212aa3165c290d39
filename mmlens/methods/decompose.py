"""The embedding of a picture as a sum: what every layer, head, patch and position contributes.

Gandelsman, Efros and Steinhardt (2024, arXiv 2310.05916), eq. 3 to 8. The residual stream after the
last layer is a sum of writes, and what follows (the final norm, its standard deviation held; the
pooling; the projection) is affine (`mmlens.model.last_map`), so with |e| the embedding's length

    e / |e| = sum over layers ( sum over heads and source positions  c[layer, head, pos]
                                + c[attention's bias] + c[mlp] ) + c[embed] + c[rest]

    decompose(model, photo)                          # Scores(part, dim), sums to embed(...)
    decompose(model, photo, by="head", along="a photo of a dog")          # Scores(layer, head)
    found = decompose(model, photo, by="patch", along="a photo of a dog")
    view.show(heat_map(found), photo)                # where the similarity with the text comes from

Along a text (or a direction) a share is its inner product with the text's unit embedding, and the
shares sum to their cosine. These are *direct* contributions: what a head changes in later layers is
counted as theirs. Axes: `picture` in front where a list of pictures is given, then those of `by`,
then `dim`, or `text` where several texts are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.head_writes import MLP, OUT, POST, RESID, Z, check_parts, measured_writes
from mmlens.methods.zero_shot import class_embeddings
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.last_map import FEATURES, LastMap
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.values.addresses import places
from mmlens.values.arguments import choice, count, several
from mmlens.values.errors import ArgumentError, CapabilityError
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder

BY = {
    "part": ("part",),
    "head": ("layer", "head"),
    "patch": ("layer", "head", "pos"),
    "pos": ("pos",),
    "unit": ("unit",),
}
"""The axes of each kind of share."""
V, PATTERN = SITES["vision.v"], SITES["vision.pattern"]


@needs("similarity")
def decompose(
    model: HookedDualEncoder,
    pictures: Any,
    *,
    by: str = "part",
    along: Any = None,
    layer: Any = None,
    batch: int = 8,
) -> Scores:
    """Shares of the unit embedding of pictures: Scores(part, dim), (layer, head, dim), ...

    Args:
        pictures: a picture, or a list of them, which adds the axis `picture` in front.
        by: "part": "embed", "attn 0", "mlp 0", ... and "rest", biases behind the last layer and an
            MLP that the pooling ends with. "head": attention heads, without their layer's bias.
            "patch": heads, and the position whose value they moved. "pos": the last layer's
            positions, which pooling reads. "unit": channels of the last map of a convolutional
            encoder. "part" sums to the embedding; "patch" over its positions to "head"; "pos" and
            "unit" to it without "rest".
        along: a text, a list or mapping of texts as `zero_shot` takes them, or directions
            Float[d_embed] or Float[k, d_embed]; None gives whole vectors.
        layer: by "head" and "patch" some layers only, as in `Scores.sel`; the axis stays.
        batch: how many pictures are run at once.

    Returns:
        Scores whose `about["rest"]` says whether "rest", times |e|, is the same for every picture.

    Raises:
        CapabilityError: the encoder's embedding is no such sum, or is not by heads.
        ArgumentError: no such `by`, or directions of another length. PictureError: no picture.
    """
    axes = BY[choice(by, "by", tuple(BY))]
    many = several(pictures, "pictures") if isinstance(pictures, (list, tuple)) else [pictures]
    prompts = [Prompt(open_picture(one)) for one in many]
    step, (rows, texts) = count(batch, "batch"), directions(model, along)
    shares = Shares(model, prompts[0], by, layer)
    parts = [shares.of(prompts[i : i + step], rows) for i in range(0, len(prompts), step)]
    values = finite(torch.cat(parts), f"the shares of {model.name!r}")
    labels = {**shares.labels, "text": texts if along is not None else None}
    names = ("picture", *axes, "dim" if along is None else "text")
    told = about(model, method="decompose", by=by, along=_said(along), tower="vision",
                 rest=shares.rest)  # fmt: skip
    found = Scores(values, names, {a: labels.get(a) for a in names}, told)
    found = found if isinstance(pictures, (list, tuple)) else found.sel(picture=0)
    alone = isinstance(along, str) or (isinstance(along, Tensor) and along.dim() == 1)
    return found.sel(text=0) if alone else found


def _said(along: Any) -> Any:
    return f"{len(along)} directions" if isinstance(along, Tensor) else along


def directions(
    model: HookedDualEncoder, along: Any
) -> tuple[Float[Tensor, "k d_embed"], tuple[str, ...]]:
    """Unit vectors of the shared space, and what they are called; the axes where none are given.

    Raises:
        ArgumentError: directions of another length, or of length zero.
    """
    if along is None:
        return torch.eye(model.d_embed), tuple(map(str, range(model.d_embed)))
    if not isinstance(along, Tensor):
        names, rows = class_embeddings(model, along)
        return rows, names
    rows = along[None] if along.dim() == 1 else along
    if rows.dim() != 2 or rows.shape[1] != model.d_embed or not bool((rows.norm(dim=1) > 0).all()):
        raise ArgumentError(
            f"along: a tensor of shape {tuple(along.shape)} holds no directions of the shared"
            f" space: give texts, or rows of {model.d_embed} numbers that are not all zero."
        )
    return rows / rows.norm(dim=1, keepdim=True), tuple(f"direction {i}" for i in range(len(rows)))


class Shares:
    """Shares of one kind, batch by batch; only the positions that the embedding reads are kept.

    Args:
        first: a picture, on which the encoder is measured.
        by: a key of `BY`.

        layer: some layers of the heads; None for all.

    Attributes:
        labels: of the axes.
        d_head: dimensions of a head, where heads are asked about.
        rest: whether what is behind the last layer adds the same to every embedding.
    """

    def __init__(self, model: HookedDualEncoder, first: Prompt, by: str, layer: Any = None) -> None:
        self.model, self.by, tower = model, by, model.towers["vision"]
        every = list(range(tower.n_layers))
        self.layers = sorted(places(every, layer if by in ("head", "patch") else None, "layer"))
        attends = all(Z.at(one) in hooking.points(model) for one in every)
        if by in ("part", "head", "patch"):
            check_parts(model)
        if by == "unit" and attends:
            raise CapabilityError(
                f"The last layer of {model.name!r} is a residual stream, whose dimensions are no"
                " units: write by='part', 'head', 'patch' or 'pos'."
            )
        self.entry = POST.at(every[-1]) if attends else FEATURES
        pixels = self._pixels([first])
        tail = LastMap(model, torch.cat([pixels, pixels.flip(-1, -2).neg()]), self.entry)
        self.active, self.rest = tail.active, _constant(tail)
        heads = by in ("head", "patch")
        self.writes = measured_writes(model, pixels, self.layers) if heads else {}
        site = POST if attends else SITES["features"]
        rows = model.picture_rows([first], site, every[-1] if attends else None)
        if len({len(weight) for weight, _ in self.writes.values()}) > 1:
            raise CapabilityError(
                f"The layers of {model.name!r} have different numbers of heads: write by='part'."
            )
        self.d_head = next((weight.shape[1] for weight, _ in self.writes.values()), 0)
        self.labels: dict[str, Any] = {"pos": rows[0], "layer": tuple(self.layers)}
        middle = [f"{kind} {at}" for at in self.layers for kind in ("attn", "mlp")]
        self.labels["part"] = ("embed", *middle, "rest")

    def of(self, prompts: Sequence[Prompt], along: Float[Tensor, "k d_embed"]) -> Tensor:
        """Float[picture, *axes of `by`, k]"""
        tail = LastMap(self.model, self._pixels(prompts), self.entry, self._reads())
        self._check(tail)
        along = along.to(tail.embedding)
        pieces = [getattr(self, f"_by_{self.by}")(tail, J) for _, J in tail.rows(along)]
        values = torch.cat(pieces, -1)
        if self.by == "part":
            rest = tail.embedding @ along.T - values.sum(1)
            values = torch.cat([values, rest[:, None]], 1)
        length = tail.embedding.norm(dim=-1)
        return values / length.view(-1, *[1] * (values.dim() - 1))

    def _pixels(self, prompts: Sequence[Prompt]) -> Tensor:
        pixels = self.model.read(list(prompts)).pixels
        assert pixels is not None
        return pixels

    def _reads(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """What is kept of the hook points on the way."""
        at = self.active
        first = {RESID.at(0): lambda x: x[:, at]}
        if self.by == "part":
            sites = [site.at(layer) for layer in self.layers for site in (OUT, MLP)]
            return first | dict.fromkeys(sites, lambda x: x[:, at])
        reads: dict[str, Callable[[Tensor], Tensor]] = {}
        for layer in self.layers if self.by in ("head", "patch") else ():
            reads |= {Z.at(layer): lambda x: x[:, at], OUT.at(layer): lambda x: x[:, at]}
            if self.by == "patch":
                reads |= {V.at(layer): lambda x: x, PATTERN.at(layer): lambda x: x[:, :, at]}
        return reads

    # -- one picture's shares, from J Float[picture, k, active, dim]: Float[picture, ..., k] -------

    def _by_part(self, tail: LastMap, J: Tensor) -> Tensor:
        writes = torch.stack(list(self._writes(tail)), 1)
        return torch.einsum("bkpd,bcpd->bck", J, writes)

    def _by_head(self, tail: LastMap, J: Tensor) -> Tensor:
        found = []
        for layer in self.layers:
            z, (weight, _) = tail.kept[Z.at(layer)], self.writes[layer]
            found.append(
                torch.einsum("bkpd,bphd->bhk", J, torch.einsum("bphe,hed->bphd", z, weight))
            )
        return torch.stack(found, 1)

    def _by_patch(self, tail: LastMap, J: Tensor) -> Tensor:
        found = []
        for layer in self.layers:
            weight = self.writes[layer][0]
            moved = torch.einsum("bjhe,hed->bhjd", tail.kept[V.at(layer)], weight)
            each = torch.einsum("bkpd,bhjd->bhjkp", J, moved)
            found.append(torch.einsum("bhjkp,bhpj->bhjk", each, tail.kept[PATTERN.at(layer)]))
        return torch.stack(found, 1)

    def _by_pos(self, tail: LastMap, J: Tensor) -> Tensor:
        shares = torch.zeros(*tail.x.shape[:2], J.shape[1]).to(J)
        shares[:, self.active] = torch.einsum("bkpd,bpd->bpk", J, tail.x[:, self.active])
        return shares

    def _by_unit(self, tail: LastMap, J: Tensor) -> Tensor:
        return torch.einsum("bkpd,bpd->bdk", J, tail.x[:, self.active])

    # -- what is checked at every call ------------------------------------------------------------

    def _writes(self, tail: LastMap) -> list[Tensor]:
        names = [site.at(layer) for layer in self.layers for site in (OUT, MLP)]
        return [tail.kept[name] for name in (RESID.at(0), *names)]

    def _check(self, tail: LastMap) -> None:
        """Refuse parts that do not add up to what they are said to be parts of."""
        if self.by == "part":
            self._same(sum(self._writes(tail)), tail.x[:, self.active], "attention and MLPs")
        for layer, (weight, bias) in self.writes.items():
            z, out = tail.kept[Z.at(layer)], tail.kept[OUT.at(layer)]
            self._same(
                torch.einsum("bphe,hed->bpd", z, weight) + bias, out, f"heads of layer {layer}"
            )
            if self.by == "patch":
                moved = torch.einsum(
                    "bhpj,bjhe->bphe", tail.kept[PATTERN.at(layer)], tail.kept[V.at(layer)]
                )
                self._same(moved, z, f"values of layer {layer}")

    def _same(self, ours: Any, theirs: Tensor, what: str) -> None:
        half = self.model.vision.dtype in (torch.float16, torch.bfloat16)
        off = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9))
        if not off <= (5e-2 if half else 1e-4):
            raise CapabilityError(
                f"What the {what} of {self.model.name!r} write does not add up to what is read from"
                f" them (off by {off:.2g} of the largest value; a norm or a gate is between), so"
                " shares would be wrong: write by='pos'."
            )


def _constant(tail: LastMap) -> str:
    """Whether two pictures have the same rest, in a few directions."""
    few = torch.linspace(-1.0, 1.0, 3 * tail.embedding.shape[1]).cos().view(3, -1)
    few = few.to(tail.embedding)
    linear = [torch.einsum("bkpd,bpd->bk", J, tail.x[:, tail.active]) for _, J in tail.rows(few)]
    whole = tail.embedding @ few.T
    one, other = whole - torch.cat(linear, 1)
    near = bool((one - other).abs().max() <= 1e-3 * whole.abs().max())
    return "the same for every picture" if near else "depends on the picture"
