"""The embedding of a picture or text as a sum: what layers, heads, patches, positions contribute.

Gandelsman, Efros and Steinhardt (2024, arXiv 2310.05916), eq. 3 to 8. The residual stream after the
last layer is a sum of writes, and what follows (the final norm, its standard deviation held; the
pooling; the projection) is affine (`mmlens.model.last_map`), so with |e| the embedding's length

    e / |e| = sum over layers ( sum over heads and source positions  c[layer, head, pos]
                                + c[attention's bias] + c[mlp] ) + c[embed] + c[rest]

    decompose(model, photo)                          # Scores(part, dim), sums to embed(...)
    decompose(model, photo, by="head", along="a photo of a dog")          # Scores(layer, head)
    found = decompose(model, photo, by="patch", along="a photo of a dog")
    view.show(heat_map(found), photo)                # where the similarity with the text comes from
    decompose(model, "a photo of a dog", tower="text", by="pos", along=photo)

Along a text (or a direction) a share is its inner product with the text's unit embedding, and the
shares sum to their cosine. These are *direct* contributions: what a head changes in later layers is
counted as theirs. Axes: `picture` in front where a list of pictures is given (`prompt` for texts),
then those of `by`, then `dim`, or `text` (`picture`) where several are given along which to go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.embed import embed
from mmlens.methods.embedding_shares import Shares
from mmlens.methods.unit_responses import chunks
from mmlens.methods.zero_shot import class_embeddings
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.values.arguments import choice, count, several, text
from mmlens.values.errors import ArgumentError
from mmlens.values.labels import TEXT
from mmlens.values.pictures import open_picture
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores

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
FRONT = {"vision": "picture", TEXT: "prompt"}
"""The axis of several inputs of a tower."""


@needs("similarity")
def decompose(
    model: HookedDualEncoder,
    inputs: Any,
    *,
    by: str = "part",
    along: Any = None,
    layer: Any = None,
    tower: str = "vision",
    mean: bool = False,
    batch: int = 8,
) -> Scores:
    """Shares of the unit embedding of pictures: Scores(part, dim), (layer, head, dim), ...

    Args:
        inputs: a picture, or a list of them, which adds the axis `picture` in front; a text, or a
            list of texts (axis `prompt`) where `tower` is "text".
        by: "part": "embed", "attn 0", "mlp 0", ... and "rest", biases behind the last layer and an
            MLP that the pooling ends with. "head": attention heads, without their layer's bias.
            "patch": heads, and the position whose value they moved. "pos": the last layer's
            positions, which pooling reads. "unit": channels of the last map of a convolutional
            encoder. "part" sums to the embedding; "patch" over its positions to "head"; "pos" and
            "unit" to it without "rest".
        along: a text, a list or mapping of texts as `zero_shot` takes them, of a text's shares a
            picture or a list of them; or directions Float[d_embed] or Float[k, d_embed]; None
            gives whole vectors.
        layer: by "head" and "patch" some layers only, as in `Scores.sel`; the axis stays.
        tower: "vision" or "text".
        mean: give the mean over many inputs (any iterable) alone; memory does not grow with them.
        batch: how many inputs are run at once.

    Returns:
        Scores whose `about["rest"]` says whether "rest", times |e|, is the same for every picture.

    Raises:
        CapabilityError: the encoder's embedding is no such sum, or is not by heads.
        ArgumentError: no such `by`, or directions of another length. PictureError: no picture.
    """
    axes, front = BY[choice(by, "by", tuple(BY))], FRONT[choice(tower, "tower", tuple(FRONT))]
    step, (rows, names) = count(batch, "batch"), directions(model, along, tower)
    alone = not mean and not isinstance(inputs, (list, tuple))
    given = [inputs] if alone else inputs if mean else several(inputs, "inputs")
    if tower == TEXT and "pos" in axes:  # texts that are read together have one length
        given = list(given)
        step = len(given)
    shares, parts, n = None, [], 0
    for some in chunks(given, step):
        prompts = [_prompt(one, tower) for one in some]
        shares = shares or Shares(model, prompts[0], by, layer)
        found = finite(shares.of(prompts, rows), f"the shares of {model.name!r}")
        n += len(found)
        parts.append(found)
        if mean:  # of the first n: what these m differ from the mean before, times m / n
            here = found.double().mean(0, keepdim=True)
            before = parts[0].double() if len(parts) == 2 else here
            parts = [(before + (here - before) * (len(found) / n))]
    if shares is None:
        raise ArgumentError("inputs: there are none, give at least one.")
    last = "dim" if along is None else "text" if tower == "vision" else "picture"
    labels = {**shares.labels, "text": names if along is not None else None}
    labels |= {"pos": None} if tower == TEXT and n > 1 else {}
    told = about(model, method="decompose", by=by, along=_said(along, names), tower=tower,
                 rest=shares.rest) | ({"mean of": n} if mean else {})  # fmt: skip
    whole = (front, *axes, last)
    values = torch.cat(parts).float() if mean else torch.cat(parts)
    scores = Scores(values, whole, {axis: labels.get(axis) for axis in whole}, told)
    scores = scores.sel(**{front: 0}) if alone else scores.mean(front) if mean else scores
    return scores.sel(**{last: 0}) if _single(along) else scores


def _prompt(one: Any, tower: str) -> Prompt:
    return Prompt(open_picture(one)) if tower == "vision" else Prompt(text(one, "inputs"))


def _single(along: Any) -> bool:
    """Whether it is one text, picture or direction, without an axis of its own."""
    if along is None or isinstance(along, (list, tuple, Mapping)):
        return False
    return not isinstance(along, Tensor) or along.dim() == 1


def _said(along: Any, names: tuple[str, ...]) -> Any:
    if along is None or isinstance(along, (str, Mapping)):
        return along
    return f"{len(along)} directions" if isinstance(along, Tensor) else list(names)


def directions(
    model: HookedDualEncoder, along: Any, tower: str = "vision"
) -> tuple[Float[Tensor, "k d_embed"], tuple[str, ...]]:
    """Unit vectors of the shared space, and what they are called; the axes where none are given.

    Raises:
        ArgumentError: directions of another length, or of length zero.
    """
    if along is None:
        return torch.eye(model.d_embed), tuple(map(str, range(model.d_embed)))
    if not isinstance(along, Tensor) and tower == TEXT:
        shown = several(along if isinstance(along, (list, tuple)) else [along], "along")
        rows = embed(model, [Prompt(open_picture(one)) for one in shown])
        return rows, tuple(f"picture {i}" for i in range(len(shown)))
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
