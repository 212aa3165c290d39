"""What a neuron says: the words that its output row raises most.

MMN 2.2: decoder(W_out^k) = softmax(W_d W_out^k), without a layer norm and without biases. With
`gain=True` the final norm's gain (and centring, where it centres) is applied first, which is what
folding it into W_U would do. Rows of the vocabulary beyond the tokenizer's words are dropped
(LiMBeR's GPT-J has 50258 rows, the words end at 50257).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from mmlens.chunks import in_chunks, times
from mmlens.english import interpretable_tokens
from mmlens.errors import AddressError
from mmlens.neurons import Neuron
from mmlens.targets import finite
from mmlens.words import word

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model import HookedVLM

_FLOATS = 1 << 25
"""Probabilities in memory at a time."""


def decode(
    model: HookedVLM, neurons: Iterable[Neuron] | Neuron, k: int = 10, *, gain: bool = False
) -> pd.DataFrame:
    """The `k` words that each neuron raises most: one row per different neuron.

    Args:
        neurons: one, or several (a column of a table; repeats count once).
        gain: apply the final norm's gain first.

    Returns:
        Columns neuron, words (list of str, the most probable first), probs (list of float),
        interpretable (at least 7 of the first 10 are English words of 3 or more letters).

    Raises:
        AddressError: a layer or unit that the model does not have.
    """
    import pandas as pd

    unique = list(dict.fromkeys([neurons] if isinstance(neurons, Neuron) else neurons))
    for neuron in unique:
        if not (0 <= neuron.layer < model.cfg.n_layers and 0 <= neuron.unit < model.cfg.d_mlp):
            last = Neuron(model.cfg.n_layers - 1, model.cfg.d_mlp - 1)
            raise AddressError(
                f"There is no neuron {neuron}: {model.name!r} has {model.cfg.n_layers} layers of"
                f" {model.cfg.d_mlp} units, L0.0 to {last}."
            )
    depth = max(k, 10)
    memory: dict[tuple[Neuron, bool, int], tuple[list[str], list[float]]] = model.lm.decoded
    fresh = [neuron for neuron in unique if (neuron, gain, depth) not in memory]
    size = max(1, _FLOATS // max(1, model.lm.n_words))
    for block in in_chunks(
        len(fresh), size, lambda a, b: (fresh[a:b], _top(model, fresh[a:b], depth, gain))
    ):
        for neuron, said in zip(*block, strict=True):
            memory[neuron, gain, depth] = said
    rows = [(neuron, *memory[neuron, gain, depth]) for neuron in unique]
    return pd.DataFrame(
        {
            "neuron": [neuron for neuron, _, _ in rows],
            "words": [words[:k] for _, words, _ in rows],
            "probs": [probs[:k] for _, _, probs in rows],
            "interpretable": [interpretable_tokens(words) for _, words, _ in rows],
        }
    )


def interpretable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a decoded table whose neuron says English words (MMN 2.2: 7 of the top 10)."""
    if "interpretable" not in table.columns:
        raise AddressError(
            "This table was not decoded: write interpretable(decode(model, best.neuron))."
        )
    return table.loc[table["interpretable"]].reset_index(drop=True)


def out_rows(model: HookedVLM, neurons: Sequence[Neuron]) -> torch.Tensor:
    """Float[neuron, d_model]: what each neuron writes to the stream, per unit of activation."""
    return torch.stack([model.blocks[n.layer].mlp.W_out[n.unit] for n in neurons])


def _top(
    model: HookedVLM, neurons: Sequence[Neuron], k: int, gain: bool
) -> list[tuple[list[str], list[float]]]:
    with torch.no_grad():
        written = out_rows(model, neurons).float()
        if gain:
            scale, centres = model.lm.final_gain
            written = (written - written.mean(-1, keepdim=True) if centres else written) * scale
        scores = times(written, model.W_U[:, : model.lm.n_words].float())
        best = finite(scores, "the decoded words").softmax(-1).topk(min(k, scores.shape[-1]))
    words = [[word(model.lm, token) for token in row] for row in best.indices.tolist()]
    return list(zip(words, best.values.tolist(), strict=True))
