"""Pairs of a data set: each picture, and the same picture without one of the things in it.

    pairs = thing_pairs(model, data)                     # the thing erased
    ground = thing_pairs(model, data, control=True)      # the same outline of bare ground erased

Of every sample the first thing is taken that has a mask, whose name is one token of the model, and
beside which its outline fits once more where no thing is: so that both lists are of the same
samples, in one order, and what erasing costs can be told from what the thing carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlens.causal.corrupters import erased
from mmlens.causal.masked_patches import patches_under
from mmlens.causal.pairs import Pair
from mmlens.datasets.sample import Sample
from mmlens.model.capabilities import needs
from mmlens.values.arguments import count, flag, instance, shown, text
from mmlens.values.errors import ArgumentError, PromptError, TargetError
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

_TOUCHED = 0.01
"""So much of a patch lies under the outline at least."""
_MOVES = 8
"""Places in each direction at which the outline is tried."""


@needs("logits", "pictures")
def thing_pairs(
    model: HookedVLM,
    data: Iterable[Sample],
    prompt: str = "A picture of a",
    *,
    control: bool = False,
    n: int | None = None,
) -> list[Pair]:
    """Pairs of the samples that have such a thing, with its name as `of` and its patches.

    Args:
        data: what `mmlens.dataset` returns.
        prompt: the words behind the picture, after which the thing may be named.
        control: erase as much bare ground instead of the thing.
        n: how many pairs at most; reading stops there.

    Raises:
        PromptError: no sample has such a thing.
    """
    prompt, control = text(prompt, "prompt"), flag(control, "control")
    most = None if n is None else count(n, "n")
    pairs: list[Pair] = []
    if isinstance(data, str) or not isinstance(data, Iterable | Sequence):
        raise ArgumentError(f"data={shown(data)} is no data set: give what mmlens.dataset returns.")
    for sample in data:
        instance(sample, "data", Sample, "what mmlens.dataset returns")
        if (made := _pair(model, sample, prompt, control)) is not None:
            pairs.append(made)
        if most is not None and len(pairs) == most:
            break
    if not pairs:
        raise PromptError(
            "No sample has a thing with a mask, a name of one token and as much bare ground beside"
            " it: make pairs by hand, as in Pair.corrupted(prompt, erased(mask), of=' dog')."
        )
    return pairs


def _pair(model: HookedVLM, sample: Sample, prompt: str, control: bool) -> Pair | None:
    masks = [thing.mask.cpu().numpy() for thing in sample.things if thing.mask is not None]
    taken = np.any(masks, axis=0) if masks else None
    for thing in sample.things:
        if thing.mask is None or not _is_token(model, word := f" {thing.name}"):
            continue
        mask = thing.mask.cpu().numpy()
        ground = _elsewhere(mask, taken)
        if ground is None or not mask.any():
            continue
        gone = ground if control else mask
        where = tuple(patches_under(model, gone, sample.image, _TOUCHED))
        shown = Prompt(sample.image, prompt)
        return Pair.corrupted(shown, erased(gone), of=word, name=sample.id, patches=where)
    return None


def _is_token(model: HookedVLM, word: str) -> bool:
    try:
        model.to_single_token(word)
    except TargetError:
        return False
    return True


def _elsewhere(mask: Any, taken: Any) -> Any:
    """The mask moved to where no thing is, the farthest first; None where it fits nowhere."""
    rows, cols = (np.arange(_MOVES) * size // _MOVES for size in mask.shape)
    moves = [(int(row), int(col)) for row in rows for col in cols]
    far = lambda move: -sum(min(a, b - a) ** 2 for a, b in zip(move, mask.shape, strict=True))  # noqa: E731
    for move in sorted(moves, key=far):
        moved = np.roll(mask, move, (0, 1))
        if not (moved & taken).any():
            return moved
    return None
