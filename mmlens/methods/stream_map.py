"""An affine map from one residual stream into another, by least squares on text.

    Y ~ X @ matrix + bias        min |[X 1] [matrix; bias] - Y|^2

X are the streams of a layer at positions of texts, Y those of another layer, of the same model or
of another one that reads the same tokens. Between layers of one model it is the linear shortcut of
Din et al. 2023; between models it is how Patchscopes patches one model's states into another
(Ghandeharioun et al. 2024, section 4.4). Where there are fewer positions than X has dimensions, it
is the solution of least norm, which fits these positions exactly and no others: give more text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.jacobian_lens import found_in, prompts_in
from mmlens.model.capabilities import needs, require
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.runtime.autograd import ordinary
from mmlens.values.addresses import places
from mmlens.values.errors import AddressError, CheckpointError, PromptError
from mmlens.values.least_squares import least_squares
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@dataclass(frozen=True, eq=False)
class StreamMap:
    """An affine map of vectors of one residual stream into another.

    Attributes:
        matrix: Float[d_model, d_model of the other], float32 on the CPU; rows are multiplied from
            the left.
        bias: Float[d_model of the other].
        about: provenance; "explained" is the share of the variance of Y that the map gives on the
            positions that it was fitted on, of which "positions" is the number.
    """

    matrix: Float[Tensor, "d_model d_other"] = field(repr=False)
    bias: Float[Tensor, " d_other"] = field(repr=False)
    about: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def translate(self, resid: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead d_other"]:
        """Vectors of the one stream as vectors of the other.

        Raises:
            CheckpointError: they have another width.
        """
        if resid.shape[-1] != len(self.matrix):
            raise CheckpointError(
                f"This map reads streams of width {len(self.matrix)}, and these have"
                f" {resid.shape[-1]}: fit one with mm.stream_map(model, prompts, ...)."
            )
        return resid @ self.matrix.to(resid) + self.bias.to(resid)


@ordinary()
@needs("unembed")
def stream_map(
    model: HookedVLM,
    prompts: Sequence[Any] | Prompt | SoftPrompt | str,
    *,
    layer: int,
    into_layer: int | None = None,
    reader: HookedVLM | None = None,
    pos: Any = None,
) -> StreamMap:
    """The affine map from a layer's residual stream into another's, by least squares.

    Args:
        prompts: one or several, which both models read.
        layer: whose output (`resid_post`) is mapped.
        into_layer: whose output is the destination; by default the same layer.
        reader: another model, whose stream is the destination; by default the same model.
        pos: positions of each prompt, as in `Scores.sel`; by default all.

    Raises:
        AddressError: no such layer or position. PromptError: the models read other tokens.
    """
    other = model if reader is None else reader
    require(other, "unembed")
    sources, goals = [], []
    begin = layer_of(model, layer, "layer")
    end = layer_of(other, layer if into_layer is None else into_layer, "into_layer")
    for prompt in prompts_in(prompts):
        read, wanted = one(model, prompt), one(other, prompt)
        if not torch.equal(read.ids.cpu(), wanted.ids.cpu()):
            raise PromptError(
                f"{model.name!r} and {other.name!r} read other tokens of this prompt, so there is"
                " no position for position: give models of one tokenizer."
            )
        at = found_in(read, pos, "pos")
        sources.append(stream_at(model, read, begin, at))
        goals.append(stream_at(other, wanted, end, at))
    x, y = torch.cat(sources).double(), torch.cat(goals).double()
    if len(x) < 2:
        raise PromptError("A map is fitted on several positions, and here is one: give more texts.")
    padded = torch.cat([x, x.new_ones(len(x), 1)], 1)
    solved = least_squares(padded, y)
    spread = (y - y.mean(0)).square().sum()
    left = (padded @ solved - y).square().sum()
    told = about(model, method="stream_map", layer=begin, into_layer=end, reader=other.name,
                 positions=len(x), explained=float(1 - left / spread))  # fmt: skip
    whole = finite(solved.float(), "the least squares of the streams")
    return StreamMap(whole[:-1].contiguous(), whole[-1].contiguous(), told)


def layer_of(model: HookedVLM, layer: Any, name: str) -> int:
    """One layer of a model, by its number.

    Raises:
        AddressError: none, or several.
    """
    found = places(range(model.cfg.n_layers), layer, name)
    if len(found) != 1:
        raise AddressError(f"{name}={layer!r} names {len(found)} layers: give one.")
    return found[0]


def stream_at(
    model: HookedVLM, soft: SoftPrompt, layer: int, at: list[int]
) -> Float[Tensor, "pos d_model"]:
    """The residual stream after a layer at some positions, float32 on the CPU."""
    name = SITES["resid_post"].at(layer)
    end = torch.tensor([soft.ids.shape[1] - 1], device=model.lm.device)
    with torch.no_grad(), capture(model, [name], lambda x: x[0, at].float().cpu()) as kept:
        model.run(soft, at=end)
    return kept[name]
