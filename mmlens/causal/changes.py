"""The change in each row of a batch: a `Variant`, and the hooks that apply it.

The values that are put in are the source: another run's values (patching), a number or a mean
(ablation). At a site of the language model a row is a prompt, whose positions continue to count
while it is read in parts and while new tokens are generated; in the vision encoder all positions
are computed at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlens.causal.places import Indices, Place
from mmlens.model import hooking
from mmlens.runtime.run import current
from mmlens.values.errors import SiteError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Source = Mapping[int | None, Float[Tensor, "*dims"] | None]
"""Per layer, the values that are put in: [pos, ...] or [1, ...], in the vision encoder
[picture, ...]; None for the activation's mean over the prompt's positions in the changed run."""


@dataclass(frozen=True, eq=False)
class Variant:
    """Where one row takes its values from the source.

    Attributes:
        at: layer -> indices on the site's inner axis (heads, units, dims), None for all of them.
        pos: indices of positions, None for all of them, including those generated after the prompt.
    """

    at: Mapping[int | None, Indices]
    pos: tuple[int, ...] | None = None

    @property
    def acts(self) -> bool:
        """Whether anything is changed."""
        return self.pos != () and any(some is None or len(some) for some in self.at.values())

    @property
    def layer(self) -> int:
        """The first layer that is changed."""
        return min(((layer or 0) for layer in self.at), default=0)

    @property
    def first(self) -> int:
        """The first position that is changed."""
        return 0 if self.pos is None else min(self.pos, default=0)


def changes(
    model: HookedVLM, place: Place, source: Source, rows: Sequence[Variant]
) -> list[tuple[str, Change]]:
    """The hooks that put the source's values into the rows of a batch, one per layer."""
    site, hooks = place.site, []
    device = hooking.tower_at(model, site).device
    for layer in sorted({layer for v in rows for layer in v.at}, key=lambda layer: layer or 0):
        pos = [v.pos if layer in v.at else () for v in rows]
        where, inner = place.mask(pos, [v.at.get(layer) for v in rows], device)
        name = hooking.names(model, site.at(layer if site.layered else None))[0]
        change = (Change if site.in_lm else ChangeInPicture)(where, inner, source[layer])
        hooks.append((name, change if place.axes is None else _InMap(change, place)))
    return hooks


@dataclass(eq=False, repr=False)  # errors print the hook, and its mask is long
class Change:
    """The source's values at the positions of each row's variant that are read now.

    Attributes:
        where: Bool[row, pos + 1, ...], the last column for positions generated after the prompt.
        inner: Bool[row, 1, inner, ...], or None for all of the inner axis.
        source: Float[pos, ...] or Float[1, ...]; None for each row's own mean over the prompt.
    """

    where: Bool[Tensor, "row ..."]
    inner: Bool[Tensor, "row ..."] | None
    source: Float[Tensor, "*dims"] | None

    def __call__(self, tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        """The activation with the changes."""
        run = current()
        assert run is not None  # the language model runs only inside of a run
        stop, where = run.start + tensor.shape[1], self.where
        if where.shape[1] > 1:  # otherwise one column applies to all positions
            now = torch.arange(run.start, stop, device=tensor.device)
            where = where[:, now.clamp(max=where.shape[1] - 1)]
        where = where if self.inner is None else where & self.inner
        if self.source is None:
            if run.start == 0:
                self.mean = tensor[:, : run.soft.ids.shape[1]].mean(1, keepdim=True)
            return torch.where(where, self.mean, tensor)
        new = self.source[run.start : stop] if len(self.source) > 1 else self.source
        return torch.where(where, new.to(tensor), tensor)


class ChangeInPicture(Change):
    """The same in an encoder, where rows are pictures or texts and all positions are computed."""

    def __call__(self, tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        """The activation with the changes.

        Raises:
            SiteError: it is not a row per patch.
        """
        assert self.source is not None  # only the language model has means of a run
        where = self.where if self.inner is None else self.where & self.inner
        if where.shape[1] != self.source.shape[0] or tensor.ndim != self.source.ndim:
            raise SiteError(
                f"{hook.name!r} holds {tuple(tensor.shape)} here, not one row per patch: patch"
                " 'features' or 'soft_prompt' of this encoder."
            )
        new = self.source.to(tensor)
        new = new.repeat(where.shape[0], *[1] * (new.ndim - 1))
        return torch.where(where.flatten(0, 1), new, tensor)


@dataclass(eq=False, repr=False)
class _InMap:
    """The same in a map of a convolution, read as positions."""

    change: Change
    place: Place

    def __call__(self, tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        return self.place.as_before(self.change(self.place.by_position(tensor), hook), tensor)
