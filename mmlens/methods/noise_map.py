"""Noise map: where noise in the picture changes what one layer's attention tells the answer.

Chen et al. (2025, "VisEdit", AAAI; arXiv 2408.09916), their second attribution, by which their
editor learns where a picture matters. With x what a layer's attention reads (behind its norm), o
its output at the position that is explained, and w(i) the squares within `radius` of patch i,

    map[i] = mean over draws of   1 - cos( o(x), o(x + e on w(i)) ),      e ~ N(0, std^2)

The paper's values: radius 3 of a grid of 24, std 0.7, 10 draws, a late layer. Noise is new in each
draw and the same for all patches, so that two patches are compared under one noise. No gradient.

Positions: the picture's are changed, the explained one is read. Path: one layer's attention, so
that nothing is said of other layers nor of the word, of which the formula has none.

Axes: (pos), from 0 to 2, patches alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.attention_routes import everything
from mmlens.methods.stream_map import layer_of
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.prompt_tokens import rows
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.runtime.chunks import in_chunks
from mmlens.values.arguments import SEEDS, count, number
from mmlens.values.errors import CapabilityError, PromptError
from mmlens.values.labels import Label, Patch
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

READS = "blocks.{layer}.ln1.hook_out"
"""What attention reads: the output of the norm before it."""


@needs("logits", "pictures", "positions")
def noise_map(
    model: HookedVLM,
    prompt: Any,
    of: Any = None,
    *,
    layer: int,
    after: str | None = None,
    radius: int = 3,
    std: float = 0.7,
    draws: int = 10,
    seed: int = 123,
    batch: int = 64,
) -> Scores:
    """How far noise around each patch turns what one layer's attention writes: Scores(pos).

    Args:
        of, after: the place that is explained, as in `rollout`; None for the prompt's end.
        layer: whose attention is read.
        radius: of the square of patches that get noise, cut off at the grid's border.
        std: of the noise, in the units of what attention reads behind its norm.
        draws: of noise, over which the mean is taken.
        seed: of the noise.
        batch: rows side by side; the numbers do not depend on it.

    Raises:
        AddressError: no such layer. PromptError: no patch among the positions.
        CapabilityError: what the layer's attention reads cannot be changed.
        TargetError: as in `attribute`.
    """
    here, std = layer_of(model, layer, "layer"), number(std, "std", above=0)
    radius, draws = count(radius, "radius", least=0), count(draws, "draws", most=10_000)
    step, seed = count(batch, "batch", most=10_000), count(seed, "seed", least=0, most=SEEDS)
    reading, aimed = model.aim(prompt, of, everything if of is None else "logit", after)
    labels = reading.labels[0]
    patches = [at for at, label in enumerate(labels) if isinstance(label, Patch)]
    if not patches:
        raise PromptError(
            f"There is no patch among the positions of this prompt of {model.name!r}: give a"
            " Prompt with a picture, or write relevance.occlusion(..., at='pixels')."
        )
    point = READS.format(layer=here)
    if point not in hooking.points(model):
        raise CapabilityError(
            f"Layer {here} of {model.name!r} has no norm in front of its attention (no"
            f" {point!r}), where noise is put in: write patching.attention(...) or"
            " relevance.rollout(...)."
        )
    around = windows([labels[at] for at in patches], radius)
    draw = torch.Generator().manual_seed(seed)
    width = model.cfg.d_model
    noise = std * torch.randn(draws, len(patches), width, generator=draw)
    run = _Run(model, reading, here, aimed.position, patches)
    plain = run.outputs(None)[0]
    if not bool(plain.norm() > 0):
        raise CapabilityError(
            f"Attention of layer {here} of {model.name!r} writes nothing at the explained position"
            " (it is silenced), so that no direction of it can turn: name another layer."
        )

    def work(start: int, stop: int) -> Tensor:
        at = torch.arange(start, stop)
        there = around[at // draws].to(noise)[..., None]
        turned = run.outputs(noise[at % draws] * there)
        return 1 - torch.cosine_similarity(turned, plain[None], dim=-1)

    found = torch.cat(list(in_chunks(len(patches) * draws, step, work)))
    values = found.view(len(patches), draws).mean(1).clamp(min=0).float()
    if not bool(values.any()):
        raise CapabilityError(
            f"Noise at {point!r} of {model.name!r} changes nothing that its attention writes at the"
            " explained position: the layer does not read the picture there, or reads another"
            " point; name another layer, or write relevance.rollout(...)."
        )
    told = about(model, method="noise_map", prompt=reading, of=aimed.token, layer=here,
                 radius=radius, std=std, draws=draws, seed=seed)  # fmt: skip
    named = tuple(labels[at] for at in patches)
    return Scores(finite(values, "the noise map"), ("pos",), {"pos": named}, told)


def windows(patches: list[Label], radius: int) -> Tensor:
    """Bool[patch, patch]: which patches lie within the square around each, of its own grid."""
    where = torch.tensor([[one.image, one.crop, one.row, one.col] for one in patches
                          if isinstance(one, Patch)])  # fmt: skip
    apart = (where[:, None] - where[None]).abs()
    return (apart[..., :2] == 0).all(-1) & (apart[..., 2:] <= radius).all(-1)


class _Run:
    """A prompt up to one layer's attention, with noise in what that reads."""

    def __init__(
        self, model: HookedVLM, reading: Any, layer: int, position: int, patches: list[int]
    ) -> None:
        self.model, self.reading, self.layer = model, reading, layer
        self.position, self.patches = position, patches

    def outputs(self, noise: Tensor | None) -> Tensor:
        """What attention writes at the explained position: Float64[row, d_model].

        Args:
            noise: Float[row, patch, d_model] that is added; None for one row without.
        """
        kept: list[Tensor] = []

        def add(tensor: Tensor, hook: Any) -> Tensor | None:
            if noise is None:
                return None
            changed = tensor.clone()
            changed[:, self.patches] += noise.to(tensor)
            return changed

        def keep(tensor: Tensor, hook: Any) -> None:
            kept.append(tensor[:, self.position].detach().double())

        hooks = [(READS.format(layer=self.layer), add), (SITES["attn_out"].at(self.layer), keep)]
        n, stop = 1 if noise is None else len(noise), self.layer + 1
        stop_at = None if stop >= self.model.cfg.n_layers else stop
        with torch.no_grad(), self.model.hooks(fwd_hooks=hooks):
            self.model(rows(self.reading, [0] * n), return_type=None, stop_at_layer=stop_at)
        return kept[0]
