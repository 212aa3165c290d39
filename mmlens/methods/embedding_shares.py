"""Shares of embeddings of one kind (`mmlens.methods.decompose`), batch by batch.

A share is J w: J the affine map from the last layer's positions to the embedding
(`mmlens.model.last_map`), w what a part wrote there. That the parts add up to what they are said to
be parts of is checked in every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.head_writes import Places, check_parts, measured_writes
from mmlens.model import hooking
from mmlens.model.last_map import FEATURES, LastMap
from mmlens.values.addresses import places
from mmlens.values.errors import CapabilityError
from mmlens.values.labels import TEXT
from mmlens.values.prompt import Prompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.dual_reading import DualReading
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder


class Shares:
    """Shares of one kind, batch by batch; only the positions that the embedding reads are kept.

    Args:
        first: a picture or a text, on which its tower is measured.
        by: a key of `BY`.
        layer: some layers of the heads; None for all.

    Attributes:
        labels: of the axes.
        d_head: dimensions of a head, where heads are asked about.
        rest: whether what is behind the last layer adds the same to every embedding.
    """

    def __init__(self, model: HookedDualEncoder, first: Prompt, by: str, layer: Any = None) -> None:
        self.model, self.by, name = model, by, "vision" if first.pictures else TEXT
        self.at, tower = Places(name), model.towers[name]
        every = list(range(tower.n_layers))
        self.layers = sorted(places(every, layer if by in ("head", "patch") else None, "layer"))
        known = hooking.points(model)
        attends = all(self.at.z.at(one) in known for one in every)
        if by in ("part", "head", "patch"):
            check_parts(model, self.at)
        if by == "unit" and attends:
            raise CapabilityError(
                f"The last layer of {model.name!r} is a residual stream, whose dimensions are no"
                " units: write by='part', 'head', 'patch' or 'pos'."
            )
        post = self.at.resid_post
        self.entry = post.at(every[-1]) if attends or name == TEXT else FEATURES
        reading = model.read([first])
        tail = LastMap(model, _and_another(reading), self.entry)
        # texts end at different positions, and each batch is as long as its longest
        self.active: Any = slice(None) if name == TEXT else tail.active
        self.rest = _constant(tail, "text" if name == TEXT else "picture")
        heads = by in ("head", "patch")
        self.writes = measured_writes(model, reading, self.layers, self.at) if heads else {}
        site, last = (post, every[-1]) if attends else (SITES["features"], None)
        rows = reading.labels if name == TEXT else model.picture_rows([first], site, last)
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
        tail = LastMap(self.model, self.model.read(list(prompts)), self.entry, self._reads())
        every = torch.arange(tail.x.shape[1], device=tail.x.device)
        tail.active = every[self.active]
        self._check(tail)
        along = along.to(tail.embedding)
        pieces = [getattr(self, f"_by_{self.by}")(tail, J) for _, J in tail.rows(along)]
        values = torch.cat(pieces, -1)
        if self.by == "part":
            rest = tail.embedding @ along.T - values.sum(1)
            values = torch.cat([values, rest[:, None]], 1)
        length = tail.embedding.norm(dim=-1)
        return values / length.view(-1, *[1] * (values.dim() - 1))

    def _reads(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """What is kept of the hook points on the way."""
        at = self.active
        first = {self.at.resid_pre.at(0): lambda x: x[:, at]}
        if self.by == "part":
            sites = [
                site.at(layer)
                for layer in self.layers
                for site in (self.at.attn_out, self.at.mlp_out)
            ]
            return first | dict.fromkeys(sites, lambda x: x[:, at])
        reads: dict[str, Callable[[Tensor], Tensor]] = {}
        for layer in self.layers if self.by in ("head", "patch") else ():
            sites = (self.at.z, self.at.attn_out)
            reads |= {site.at(layer): lambda x: x[:, at] for site in sites}
            if self.by == "patch":
                reads[self.at.v.at(layer)] = lambda x: x
                reads[self.at.pattern.at(layer)] = lambda x: x[:, :, at]
        return reads

    # -- one picture's shares, from J Float[picture, k, active, dim]: Float[picture, ..., k] -------

    def _by_part(self, tail: LastMap, J: Tensor) -> Tensor:
        writes = torch.stack(list(self._writes(tail)), 1)
        return torch.einsum("bkpd,bcpd->bck", J, writes)

    def _by_head(self, tail: LastMap, J: Tensor) -> Tensor:
        found = []
        for layer in self.layers:
            z, (weight, _) = tail.kept[self.at.z.at(layer)], self.writes[layer]
            found.append(
                torch.einsum("bkpd,bphd->bhk", J, torch.einsum("bphe,hed->bphd", z, weight))
            )
        return torch.stack(found, 1)

    def _by_patch(self, tail: LastMap, J: Tensor) -> Tensor:
        found = []
        for layer in self.layers:
            weight = self.writes[layer][0]
            moved = torch.einsum("bjhe,hed->bhjd", tail.kept[self.at.v.at(layer)], weight)
            each = torch.einsum("bkpd,bhjd->bhjkp", J, moved)
            found.append(
                torch.einsum("bhjkp,bhpj->bhjk", each, tail.kept[self.at.pattern.at(layer)])
            )
        return torch.stack(found, 1)

    def _by_pos(self, tail: LastMap, J: Tensor) -> Tensor:
        shares = torch.zeros(*tail.x.shape[:2], J.shape[1]).to(J)
        shares[:, self.active] = torch.einsum("bkpd,bpd->bpk", J, tail.x[:, self.active])
        return shares

    def _by_unit(self, tail: LastMap, J: Tensor) -> Tensor:
        return torch.einsum("bkpd,bpd->bdk", J, tail.x[:, self.active])

    # -- what is checked at every call ------------------------------------------------------------

    def _writes(self, tail: LastMap) -> list[Tensor]:
        names = [
            site.at(layer) for layer in self.layers for site in (self.at.attn_out, self.at.mlp_out)
        ]
        return [tail.kept[name] for name in (self.at.resid_pre.at(0), *names)]

    def _check(self, tail: LastMap) -> None:
        """Refuse parts that do not add up to what they are said to be parts of."""
        if self.by == "part":
            self._same(sum(self._writes(tail)), tail.x[:, self.active], "attention and MLPs")
        for layer, (weight, bias) in self.writes.items():
            z, out = tail.kept[self.at.z.at(layer)], tail.kept[self.at.attn_out.at(layer)]
            self._same(
                torch.einsum("bphe,hed->bpd", z, weight) + bias, out, f"heads of layer {layer}"
            )
            if self.by == "patch":
                moved = torch.einsum(
                    "bhpj,bjhe->bphe",
                    tail.kept[self.at.pattern.at(layer)],
                    tail.kept[self.at.v.at(layer)],
                )
                self._same(moved, z, f"values of layer {layer}")

    def _same(self, ours: Any, theirs: Tensor, what: str) -> None:
        half = self.model.towers[self.at.tower].dtype in (torch.float16, torch.bfloat16)
        off = float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9))
        if not off <= (5e-2 if half else 1e-4):
            raise CapabilityError(
                f"What the {what} of {self.model.name!r} write does not add up to what is read from"
                f" them (off by {off:.2g} of the largest value; a norm or a gate is between), so"
                " shares would be wrong: write by='pos'."
            )


def _and_another(reading: DualReading) -> DualReading:
    """A picture beside its negative, upside down; a text beside one with another first word."""
    if reading.pixels is not None:
        other = reading.pixels.flip(-1, -2).neg()
        return replace(reading, pixels=torch.cat([reading.pixels, other]))
    assert reading.ids is not None
    both = reading.copies(2, TEXT)
    ids = reading.ids.clone()
    ids[:, 1] = (ids[:, 1] - 1).clamp(min=1)
    return replace(both, ids=torch.cat([reading.ids, ids]))


def _constant(tail: LastMap, kind: str) -> str:
    """Whether two pictures (or texts) have the same rest, in a few directions."""
    few = torch.linspace(-1.0, 1.0, 3 * tail.embedding.shape[1]).cos().view(3, -1)
    few = few.to(tail.embedding)
    linear = [torch.einsum("bkpd,bpd->bk", J, tail.x[:, tail.active]) for _, J in tail.rows(few)]
    whole = tail.embedding @ few.T
    one, other = whole - torch.cat(linear, 1)
    near = bool((one - other).abs().max() <= 1e-3 * whole.abs().max())
    return f"the same for every {kind}" if near else f"depends on the {kind}"
