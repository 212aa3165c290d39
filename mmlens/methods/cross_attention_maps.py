"""Cross-attention maps of a diffusion model: which part of the picture reads which word.

    maps = cross_attention_maps(pipe_model, "a dog on a bicycle")     # Scores(key, pos)
    view.on_image(pipe_model.generate("a dog on a bicycle"), maps.sel(key="dog"))

DAAM (Tang et al. 2022, "What the DAAM: interpreting Stable Diffusion using cross attention"): at
every step and layer each position of the latents divides its attention among the tokens of the
prompt; the share that token k gets, as a picture over the positions, is brought to the largest grid
by bicubic interpolation (cut off at 0, as there), and the pictures are averaged over heads, layers
and steps (the paper adds them up). Shares of one position sum to 1 over the tokens where no
interpolation is needed. The beginning of the prompt and its padding, which is read as well, get
most of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from mmlens.methods.denoising_activations import unpadded
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.runtime.denoising import PROMPT, loop_now
from mmlens.values.addresses import places
from mmlens.values.arguments import choice, several
from mmlens.values.errors import AddressError, ArgumentError, CapabilityError
from mmlens.values.labels import Patch
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_diffusion import HookedDiffusion

DIVIDED = ("step", "layer", "head")


@needs("denoise")
def cross_attention_maps(
    model: HookedDiffusion,
    prompt: Any,
    *,
    by: Sequence[str] = (),
    layer: Any = None,
    step: Any = None,
) -> Scores:
    """The share of attention that each token gets at each position: Scores(*by, key, pos).

    Args:
        by: of "step", "layer", "head": what is not averaged over. `by="head"` takes layers with as
            many heads.
        layer, step: some only, as in `Scores.sel`.

    Raises:
        AddressError: no such layer or step, or layers with different numbers of heads.
        CapabilityError: the attention of this model cannot be opened.
    """
    by = _divisions(by)
    where = SITES["denoiser.cross_pattern"]
    every, known = list(range(model.denoiser.n_layers)), hooking.points(model)
    layers = [every[i] for i in places(every, layer, "layer")]
    silent = [at for at in layers if where.at(at) not in known]
    if silent:
        raise CapabilityError(
            f"The cross-attention of {model.name!r} never holds its pattern in layer {silent[0]}:"
            " give the pipeline with diffusers' AttnProcessor2_0, its default."
        )
    reading = model.one(prompt)
    shape = model.pipeline.shape(model.settings)
    grids = {at: model.denoiser.grid_at(at, shape) for at in layers}
    largest = max(grids.values(), key=lambda grid: grid[0] * grid[1])
    names = {where.at(at): at for at in layers}
    sums: dict[tuple[int, ...], torch.Tensor] = {}
    counts: dict[tuple[int, ...], int] = {}

    def add(pattern: torch.Tensor, hook: Any) -> None:
        loop: Any = loop_now()
        if loop.step not in places(range(loop.count()), step, "step"):
            return
        at = names[hook.name]
        rows = pattern[loop.branches(len(pattern))[PROMPT]][0, :, model.denoiser.prefix :]
        found = _as_pictures(rows.float(), grids[at], largest)
        for head, one in enumerate(found if "head" in by else found.mean(0, keepdim=True)):
            full = {"step": loop.step, "layer": at, "head": head}
            cell = tuple(full[axis] for axis in DIVIDED if axis in by)
            sums[cell] = sums.get(cell, torch.zeros_like(one)) + one
            counts[cell] = counts.get(cell, 0) + 1

    with torch.no_grad(), model.hooks([(name, add) for name in names]):
        model.run(reading)
    labels: dict[str, Any] = {
        axis: tuple(dict.fromkeys(cell[i] for cell in sorted(sums))) for i, axis in enumerate(by)
    }
    sizes = [len(labels[axis]) for axis in by]
    if len(sums) != torch.Size(sizes).numel():
        raise AddressError(
            f"The layers of {model.name!r} have different numbers of heads: name some that are"
            " alike, as in layer=[0, 1]."
        )
    means = torch.stack([sums[cell] / counts[cell] for cell in sorted(sums)])
    squares = (Patch(row, col) for row in range(largest[0]) for col in range(largest[1]))
    labels |= {"key": reading.labels[0], "pos": tuple(squares)}
    told = about(
        model, method="cross_attention_maps", prompt=reading, layer=str(layer), step=str(step)
    )
    axes = (*by, "key", "pos")
    return unpadded(Scores(means.reshape(*sizes, *means.shape[1:]), axes, labels, told))


def _divisions(by: Any) -> tuple[str, ...]:
    asked = (by,) if isinstance(by, str) else tuple(several(by, "by", least=0))
    for axis in asked:
        choice(axis, "by", DIVIDED)
    if len(set(asked)) != len(asked):
        raise ArgumentError(f"by={asked!r} names an axis twice.")
    return tuple(axis for axis in DIVIDED if axis in asked)


def _as_pictures(
    pattern: torch.Tensor, grid: tuple[int, int], largest: tuple[int, int]
) -> torch.Tensor:
    """Float[head, pos, key] as Float[head, key, pos], its positions those of the largest grid."""
    maps = pattern.transpose(1, 2).unflatten(-1, grid)
    if grid != largest:
        maps = F.interpolate(maps, size=largest, mode="bicubic").clamp(min=0)
    return maps.flatten(-2)
