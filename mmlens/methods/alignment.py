"""How near the picture's positions are to those of words, layer by layer.

Shukor and Cord (2024, "Implicit Multimodal Alignment: On the Generalization of Frozen LLMs to
Multimodal Inputs", section 3). With x_l[i] the stream after layer l, cosines are averaged over all
pairs of positions:

    "picture - words"        cos(x_l[i], x_l[j])      a position of the picture, one of the words
    "picture - picture"      two different ones;      "words - words"  the same
    "first picture - words"  cos(x_0[i], x_l[j]), the picture as it enters: their alignment score

and the median length of each kind of position stands beside them (`about["norms"]`). Streams of
language models lie in a narrow cone, so that any two positions have a high cosine in some layers:
what compares is the cosine between kinds against those within, or against a shuffled or unrelated
text (`prompt` with other words). Cosines of directions are no measure of what is used.

Positions: all of the prompt. Path: none. Axes: (pair, layer), -1 to 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.activations import activations
from mmlens.methods.over_lists import over_prompts
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.values.errors import PromptError
from mmlens.values.labels import Marker, Patch, Token
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

_KINDS: tuple[Any, ...] = ((Patch, Marker), Token)
PAIRS = ("picture - words", "picture - picture", "words - words", "first picture - words")


@needs("blocks", "positions")
@over_prompts
def alignment(model: HookedVLM, prompt: Any) -> Scores:
    """The mean cosine between and within picture and words, after each layer: Scores(pair, layer).

    Args:
        prompt: one, or a list of one layout, which gives a leading axis `prompt`.

    Raises:
        PromptError: fewer than two positions of pictures, or of words.
    """
    soft = model.one(prompt)
    kinds = [[isinstance(label, kind) for label in soft.labels[0]] for kind in _KINDS]
    if min(map(sum, kinds)) < 2:
        raise PromptError(
            f"This prompt has {sum(kinds[0])} positions of pictures and {sum(kinds[1])} of words:"
            " an alignment needs two of each, as in Prompt(photo, 'A picture of')."
        )
    found = activations(model, soft, "resid_post")
    first = activations(model, soft, "resid_pre", layer=0).values.double()
    stream = found.values.double()
    picture, words = (stream[:, torch.tensor(kind)] for kind in kinds)
    start = first[torch.tensor(kinds[0])].expand(len(stream), -1, -1)
    values = torch.stack([between(picture, words), within(picture), within(words),
                          between(start, words)])  # fmt: skip
    norms = {name: [round(float(x), 4) for x in some.norm(dim=-1).median(-1).values]
             for name, some in (("picture", picture), ("words", words))}  # fmt: skip
    told = about(model, method="alignment", prompt=soft, norms=norms)
    labels = {"pair": PAIRS, "layer": tuple(found.of("layer"))}
    return Scores(values.float(), ("pair", "layer"), labels, told)


def between(
    some: Float[Tensor, "layer a dim"], others: Float[Tensor, "layer b dim"]
) -> Float[Tensor, " layer"]:
    """The mean cosine over all pairs of one and another."""
    unit = torch.nn.functional.normalize
    return (unit(some, dim=-1).mean(1) * unit(others, dim=-1).mean(1)).sum(-1)


def within(some: Float[Tensor, "layer a dim"]) -> Float[Tensor, " layer"]:
    """The mean cosine over all pairs of two different ones."""
    n, unit = some.shape[1], torch.nn.functional.normalize(some, dim=-1)
    return (unit.sum(1).pow(2).sum(-1) - unit.pow(2).sum((1, 2))) / (n * (n - 1))
