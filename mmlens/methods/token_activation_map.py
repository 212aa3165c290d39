"""Token activation map: where the picture's own positions say the word, less what other words say.

Li et al. (2025, arXiv 2506.23270). A language model's head can be read at the positions of the
picture as well, as a class activation map is: with `logits[p, t]` that of token t at position p,

    a_t[p]  = ReLU(logits[p, t])             for the patches p
    I       = sum_i w_i a_i / sum_i w_i,     w_i = ReLU(logits[i, t]), over the words i before t
    map     = ReLU(a_t - s I),               s = <a_t, I> / <I, I>     (least squares)

I is what earlier words explain already (the paper's estimated causal inference); words that are
spelled like t are left out of it. Last a rank filter: the sorted values of 3 x 3 patches, weighted
by a Gaussian around the median whose width is their deviation over their mean.

No gradient, one forward pass. It reads what picture positions hold at the last layer, not what
moved the answer; where training asked nothing of these positions, it may be noise.

Axes: (pos), not negative.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.runtime.autograd import ordinary
from mmlens.towers.language.tokenization import id_of, word
from mmlens.values.arguments import flag
from mmlens.values.errors import PromptError
from mmlens.values.labels import Patch, Token
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@needs("logits", "pictures", "positions")
@ordinary()
def tam(
    model: HookedVLM,
    prompt: Any,
    of: str | int,
    *,
    after: str | None = None,
    denoise: bool = True,
) -> Scores:
    """How much more each patch says a word than the words before it explain: Scores(pos).

    Args:
        of, after: as in `attribute`.
        denoise: the rank filter of the paper.

    Raises:
        PromptError: there is no patch among the positions.
        TargetError: as in `attribute`.
    """
    denoise = flag(denoise, "denoise")
    reading, aimed = model.aim(prompt, of, "logit", after)
    labels, ids = reading.labels[0], reading.ids[0].tolist()
    patches = [at for at, label in enumerate(labels) if isinstance(label, Patch)]
    if not patches:
        raise PromptError(
            f"There is no patch among the positions of this prompt of {model.name!r} (no picture,"
            " or queries): give a Prompt with one, or write attribute_picture(..., at='pixels')."
        )
    token = id_of(model.lm, of)
    own = word(model.lm, token).strip()
    words = [
        at
        for at, label in enumerate(labels)
        if isinstance(label, Token) and word(model.lm, ids[at]).strip() != own
    ]
    with torch.no_grad():
        logits = model.run(reading)[0].float()
    said = logits[patches][:, [token, *(ids[at] for at in words)]].clamp(min=0)
    weights = logits[words, token].clamp(min=0)
    values, scale = without_context(said[:, 0], said[:, 1:].T, weights)
    named = tuple(labels[at] for at in patches)
    values = rank_filtered(values, named) if denoise else values
    told = about(model, method="tam", prompt=reading, of=aimed.token, interference=scale,
                 denoise=denoise)  # fmt: skip
    return Scores(finite(values, "the token activation map"), ("pos",), {"pos": named}, told)


def without_context(own: Tensor, others: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """A map less what others explain of it, and by how much these were multiplied.

    Args:
        own: Float[patch]. others: Float[word, patch]. weights: Float[word], not negative.
    """
    if not bool((weights > 0).any()):
        return own, 0.0
    interference = weights @ others / weights.sum()
    size = interference @ interference
    scale = (own @ interference / size) if bool(size > 0) else size
    return (own - scale * interference).clamp(min=0), float(scale)


def rank_filtered(values: Tensor, labels: tuple[Any, ...]) -> Tensor:
    """The rank filter of 3 x 3 patches, in each grid of these Patch; borders are mirrored."""
    out, grids = values.clone(), {}
    for at, label in enumerate(labels):
        grids.setdefault((label.image, label.crop), {})[label.row, label.col] = at
    ranks = torch.arange(9) - 4
    for cells in grids.values():
        rows, cols = (1 + max(cell[axis] for cell in cells) for axis in (0, 1))
        for (row, col), at in cells.items():
            around = (
                cells.get((_mirrored(row + down, rows), _mirrored(col + right, cols)), at)
                for down, right in product((-1, 0, 1), repeat=2)
            )
            window = values[list(around)].sort().values
            mean = window.mean()
            width = window.std(correction=0) / mean.clamp(min=1e-12)
            if bool(mean > 0) and bool(width > 1e-6):
                weights = (-(ranks**2) / (2 * width**2)).softmax(0)
                out[at] = window @ weights.to(window)
            else:
                out[at] = mean
    return out


def _mirrored(at: int, n: int) -> int:
    """An index beyond the border, mirrored at the outermost cell."""
    at = abs(at)
    return max(0, 2 * (n - 1) - at) if at >= n else at
