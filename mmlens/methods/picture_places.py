"""Patches of a picture at one site, to be replaced: what occlusion and integration do with them.

A place is the pixels, the encoder's features or the soft-prompt vectors of one prompt's pictures.
Its value can be read, put back changed, many variants side by side, and its patches be named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model import hooking, readouts
from mmlens.model.capture import capture
from mmlens.model.targets import Number, Target
from mmlens.runtime.backward import pull
from mmlens.runtime.chunks import in_chunks
from mmlens.runtime.progress import Progress, bar
from mmlens.values.errors import PromptError, SiteError, nearest
from mmlens.values.labels import LM, Label
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

PLACES = ("soft_prompt", "features", "pixels")


class PicturePlace:
    """One site of one prompt's pictures: read it, replace its values, compute the quantity.

    Args:
        soft, aimed: what `model.aim` returned.
        at: one of `PLACES`.
    """

    def __init__(self, model: HookedModel, soft: Any, aimed: Target, at: str) -> None:
        self.model, self.soft, self.aimed, self.at = model, soft, aimed, at
        vision: Any = model.towers["vision"]
        picture = next(picture for one in soft.prompts for picture in one.pictures)
        laid = vision.grid if at == "features" else model.image_reader.grid(vision, picture)
        self.name, self.grid = SITES[at].at(), laid

    def read(self) -> torch.Tensor:
        """The value at the site: [picture, patch, dim], or [picture, channel, y, x] of pixels."""
        with torch.no_grad(), capture(self.model, [self.name], torch.Tensor.detach) as kept:
            self.model.run_to(SITES[self.at].tower, self.soft)
        return kept[self.name].float()

    def numbers(self, values: torch.Tensor) -> torch.Tensor:
        """y for each of `values` [run, picture, ...]: Float[run]."""
        return self._numbers(self._answers(values))

    def _numbers(self, answers: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.aimed.number(row) for row in answers])

    def _answers(self, values: torch.Tensor) -> torch.Tensor:
        """What y is a function of, for each of `values`: Float[run, ...]."""
        put = (self.name, lambda x, hook: values.flatten(0, 1).to(x))
        with self.model.hooks(fwd_hooks=[put]):
            return readouts.side_by_side(
                self.model, self.soft, self.aimed, len(values), SITES[self.at].tower
            )

    def gradient(self, x: torch.Tensor, base: torch.Tensor, nodes: torch.Tensor,
                 weights: torch.Tensor, batch: int) -> torch.Tensor:  # fmt: skip
        """The weighted mean of dy/dx at `base + t (x - base)` over the nodes t."""

        def work(start: int, stop: int) -> torch.Tensor:
            t, w = (n[start:stop].reshape(-1, *[1] * x.ndim) for n in (nodes, weights))
            path = (base + t * (x - base)).detach().requires_grad_()
            with torch.enable_grad():
                answers = self._answers(path)
            return (w * pull(answers, lambda many: self._numbers(many).sum(), path)).sum(0)

        return sum(in_chunks(len(nodes), batch, work), torch.zeros_like(x))

    def patches(self, values: torch.Tensor) -> torch.Tensor:
        """Sums over each patch: Float[picture, patch]."""
        if self.at != "pixels":
            return values.sum(-1)
        squares = self.squares(values).flatten()
        flat = values.sum(1).flatten(1)
        out = flat.new_zeros(len(flat), self.grid[0] * self.grid[1])
        return out.index_add_(1, squares, flat)

    def squares(self, pixels: torch.Tensor) -> torch.Tensor:
        """The number of the patch that each pixel lies in: Int[y, x]."""
        (rows_, cols), (high, wide) = self.grid, pixels.shape[-2:]
        row = torch.arange(high, device=pixels.device) * rows_ // high
        col = torch.arange(wide, device=pixels.device) * cols // wide
        return row[:, None] * cols + col

    def count(self, x: torch.Tensor) -> int:
        """How many patches there are in each picture (or crop) of a value."""
        return self.grid[0] * self.grid[1] if self.at == "pixels" else x.shape[1]

    def mixed(self, x: torch.Tensor, base: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """The value in kept patches and the baseline in the others: Float[run, *x.shape].

        Args:
            keep: Bool[run, picture * patch].
        """
        shown = keep.unflatten(1, (len(x), -1)).to(x.device)
        if self.at == "pixels":
            return torch.where(shown[:, :, self.squares(x)].unsqueeze(2), x, base)
        return torch.where(shown.unsqueeze(-1), x, base)

    def shown(
        self,
        x: torch.Tensor,
        base: torch.Tensor,
        keep: torch.Tensor,
        batch: int,
        progress: Progress | bool | None = None,
    ) -> torch.Tensor:
        """y for each set of patches that is kept, the baseline in the others: Float[run].

        Args:
            progress: called with the runs done and their number; by default a bar.
        """

        def work(start: int, stop: int) -> torch.Tensor:
            return self.numbers(self.mixed(x, base, keep[start:stop]))

        found, done = [], 0
        with torch.no_grad(), bar("covering", len(keep), progress) as step:
            for values in in_chunks(len(keep), batch, work):
                found.append(values)
                done += len(values)
                step(done)
        return torch.cat(found)

    def labels(self) -> tuple[Label, ...]:
        """The label of each patch, pictures one after the other."""
        model, reader, at = self.model, self.model.image_reader, self.at
        placed = LM in model.towers and (at == "soft_prompt" or reader.placed)
        placed = placed and not (at == "pixels" and reader.has_others)
        laid = SITES[at if at == "features" else "soft_prompt" if placed else "pixels"]
        rows = model.picture_rows(self.soft.prompts, laid)
        return tuple(label for picture in rows for label in picture)

    def depends(self, values: torch.Tensor) -> torch.Tensor:
        """The values, refused where features beside the patches alone are read.

        Raises:
            SiteError: they are all 0 at "features".
        """
        if self.at == "features" and not values.any():
            raise SiteError(
                "What is explained does not depend on the patches' features of"
                f" {self.model.name!r}: a token beside them is read. Write at='pixels'."
            )
        return values


def place_in(
    model: HookedModel,
    prompt: Any,
    of: Any,
    target: str | Number,
    after: str | None,
    at: str | None,
    check: Callable[[str], None] = lambda tower: None,
) -> PicturePlace:
    """The patches of a prompt's pictures at a site, and what is explained of it.

    Args:
        of, target, after: as in `attribute`.
        at: one of `PLACES`; None for "soft_prompt" of a bridge and "pixels" of other models.
        check: refuses a tower that the question cannot be asked of.

    Raises:
        SiteError: no such place. PromptError: there is no picture.
    """
    at = at or ("soft_prompt" if LM in model.towers else "pixels")
    known(at, PLACES, "at")
    hooking.tower_at(model, SITES[at])
    check(SITES[at].tower)
    soft, aimed = model.aim(prompt, of, target, after)
    if not any(one.pictures for one in soft.prompts):
        raise PromptError(
            "There is no picture in this prompt, so no place in it: give a Prompt with a picture."
        )
    return PicturePlace(model, soft, aimed, at)


def alone(n: int) -> torch.Tensor:
    """Bool[n, n]: in each row all but one patch is kept."""
    return ~torch.eye(n, dtype=torch.bool)


def baseline_of(x: torch.Tensor, baseline: float | None, at: str) -> torch.Tensor:
    """The baseline's values, of x's shape: a number, or the mean over the picture."""
    if baseline is not None:
        return torch.full_like(x, baseline)
    over = (-2, -1) if at == "pixels" else (-2,)
    return x.mean(over, keepdim=True).expand_as(x)


def known(name: Any, names: Sequence[str], option: str) -> None:
    """Refuse a name that is none of these.

    Raises:
        SiteError: there is no such name.
    """
    if name not in names:
        raise SiteError(f"{option}={name!r}: there is no such {option}: {nearest(name, names)}")
