"""Decode neurons: the tokens whose logits their output raises most.

MMN 2.2: decoder(W_out^k) = softmax(W_d W_out^k), without a layer norm and without biases. What a
unit writes to the stream is its activation times that row, so a unit whose activation is negative
(half of the strongest in a gated MLP such as Llama's) writes minus its row: where the activation is
known, the words are those of the direction that is written, and the column `sign` is its sign (1 or
-1). After the MLP there may be a norm with a gain (Gemma 2 and 3, OLMo 2, GLM-4), which is part of
what is written (`mmlens.towers.language.units`).

With `gain=True` the final norm's gain (and centring, where it centres) is applied first, which is
what folding it into W_U would do. Rows of the vocabulary beyond the tokenizer's words are dropped
(LiMBeR's GPT-J has 50258 rows, the words end at 50257).

The unembedding reads the last layer's output, and later layers change what a unit of an early layer
writes. `through=` chooses how it is decoded:

    "unembed"      directly (the paper)
    "jacobian"     through the mean Jacobian of the later layers (`jacobian_lens`)
    "tuned"        through a translator trained for its layer (`tuned_lens`)
    "effect"       measured: the tokens whose logits fall most on one prompt when the unit is
                   ablated (`moved_words`)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.jacobian_lens import jacobian_lens, prompts_in
from mmlens.methods.moved_words import effects
from mmlens.methods.translators import KINDS, Translators
from mmlens.methods.tuned_lens import tuned_lens
from mmlens.model.capabilities import needs
from mmlens.model.targets import finite, one
from mmlens.runtime.chunks import in_chunks, times
from mmlens.towers.language.norms import through as through_norm
from mmlens.towers.language.tokenization import word
from mmlens.values.arguments import count, instance, number, several
from mmlens.values.english import interpretable_tokens
from mmlens.values.errors import AddressError, ArgumentError, nearest
from mmlens.values.labels import Neuron
from mmlens.values.unit_lists import units_in

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

_FLOATS = 1 << 25
"""The most probabilities in memory at a time."""
THROUGH = ("unembed", *KINDS, "effect")
"""The ways to decode what a unit writes, by name."""


@needs("unembed")
def decode(
    model: HookedVLM,
    neurons: pd.DataFrame | Iterable[Neuron | str] | Neuron | str,
    k: int = 10,
    *,
    gain: bool = False,
    active: Iterable[float] | None = None,
    through: str | Translators = "unembed",
    prompt: Any = None,
) -> pd.DataFrame:
    """The `k` words that each neuron raises most: one row per different neuron and sign.

    Args:
        neurons: one, several (repeats count once), also as they print ("L4.138"), or a table with
            a column `neuron`, and `active` where the activations are known, as
            `top_neurons(scores, active=...)` gives it.
        gain: apply the final norm's gain first.
        active: the activation of each neuron, for its sign; without it the words are those of a
            positive activation.
        through: one of `THROUGH`, or a fitted lens.
        prompt: for "effect" the one prompt that it is measured on, at its end; for "jacobian" and
            "tuned" the prompts that a lens is fitted on, once.

    Returns:
        Columns neuron, sign (-1: at a negative activation, the words that minus its row raises),
        words (list of str, the most probable first), probs (list of float), interpretable (at least
        7 of the first 10 are English words of 3 or more letters).

    Raises:
        AddressError: a layer or unit that the model does not have, or too few activations.
        CapabilityError: a layer that has no MLP units.
    """
    from mmlens.values.word_table import WordTable

    k = count(k, "k")
    unique = list(dict.fromkeys(_ends(neurons, active)))
    model.lm.units.find(model.name, [neuron for neuron, _ in unique])
    depth, moved = max(k, 10), {}
    lens = read_through(model, through, prompt)
    if lens == "effect":
        said, fallen = _measured(model, unique, depth, prompt)
        moved = {"moved": [row[:k] for row in fallen]}
    else:
        said = _said(model, unique, depth, gain, lens if isinstance(lens, Translators) else None)
    return WordTable(
        {
            "neuron": [neuron for neuron, _ in unique],
            "sign": [sign for _, sign in unique],
            "words": [words[:k] for words, _ in said],
            "probs": [probs[:k] for _, probs in said],
            "interpretable": [interpretable_tokens(words) for words, _ in said],
            **moved,
        }
    )


def read_through(model: HookedVLM, through: Any, prompt: Any = None) -> str | Translators:
    """How units are decoded: "unembed", "effect", or a lens, which is fitted here if necessary.

    Raises:
        ArgumentError: no such name, or no prompt for it. CheckpointError: another model's lens.
    """
    if isinstance(through, Translators):
        through.check(model)
        return through
    if not isinstance(through, str) or through not in THROUGH:
        raise ArgumentError(
            f"There is no reading through={through!r}: {nearest(str(through), THROUGH)}; or give a"
            " lens, as jacobian_lens(model, prompts) and tuned_lens(model, prompts) return it."
        )
    if through == "unembed":
        return through
    if prompt is None:
        what = "on which it is measured" if through == "effect" else "on which a lens is fitted"
        raise ArgumentError(f"through={through!r} needs prompt=..., {what}.")
    if through == "effect":
        return through
    many = prompts_in(prompt)
    digests = tuple(_digest(one(model, single).vectors) for single in many)
    key = (through, _stamp(model), tuple(map(repr, model.edits)), digests)
    if key not in model.lm.decoded:
        fit = jacobian_lens if through == "jacobian" else tuned_lens
        model.lm.decoded[key] = fit(model, many)
    return model.lm.decoded[key]


def sign_of(active: float) -> int:
    """The sign of the row that a unit writes at this activation: -1 if it is negative, else 1."""
    return -1 if active < 0 else 1


def interpretable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a decoded table whose neuron decodes to English words (MMN 2.2: 7 of 10)."""
    import pandas as pd

    instance(table, "table", pd.DataFrame, "what decode(model, neurons) returns")
    if "interpretable" not in table.columns:
        raise AddressError(
            "This table was not decoded: write interpretable(decode(model, best.neuron))."
        )
    return table.loc[table["interpretable"]].reset_index(drop=True)


def _ends(neurons: Any, active: Iterable[float] | None) -> list[tuple[Neuron, int]]:
    """The neurons, each with the sign of its activation (1 where none is known)."""
    if active is None and "active" in getattr(neurons, "columns", ()):
        active = neurons["active"]
    many = units_in(neurons, "neurons", Neuron)
    given = None if active is None else several(active, "active", least=0, what="list of numbers")
    numbers = [1.0] * len(many) if given is None else [number(one, "active") for one in given]
    if len(numbers) != len(many):
        raise AddressError(
            f"There are {len(many)} neurons and {len(numbers)} activations: give one for each."
        )
    return [(neuron, sign_of(one)) for neuron, one in zip(many, numbers, strict=True)]


def _measured(
    model: HookedVLM, ends: Sequence[tuple[Neuron, int]], k: int, prompt: Any
) -> tuple[list[tuple[list[str], list[float]]], list[list[float]]]:
    """Words and shares of each neuron's effect on a prompt, and the decrease of the logits."""
    if not ends:
        return [], []
    different = list(dict.fromkeys(neuron for neuron, _ in ends))
    at = {neuron: i for i, neuron in enumerate(different)}
    ids, moved, shares = effects(model, one(model, prompt), different, k)
    words = [[word(model.lm, token) for token in row] for row in ids.tolist()]
    told = list(zip(words, shares.tolist(), strict=True))
    rows = [at[neuron] for neuron, _ in ends]
    return [told[i] for i in rows], [moved[i].tolist() for i in rows]


def _said(
    model: HookedVLM,
    ends: Sequence[tuple[Neuron, int]],
    k: int,
    gain: bool,
    lens: Translators | None = None,
) -> list[tuple[list[str], list[float]]]:
    """Words and probabilities of each direction, cached while the weights are the same."""
    if not ends:
        return []
    with torch.no_grad():
        written = _written(model, ends, lens)
        if gain:
            scale, centres = model.lm.final_gain
            written = through_norm(scale, centres, written)
        written = model.lm.to_words(written).float()
        table = model.root.W_U[:, : model.lm.n_words]
        memory, stamp = model.lm.decoded, _stamp(model)
        keys = [(_digest(row), stamp, k) for row in written]
        fresh = [i for i, key in enumerate(keys) if key not in memory]
        size = max(1, _FLOATS // max(1, model.lm.n_words))
        top = lambda a, b: (fresh[a:b], _top(model, times(written[fresh[a:b]], table.float()), k))  # noqa: E731
        for block in in_chunks(len(fresh), size, top):
            for i, one in zip(*block, strict=True):
                memory[keys[i]] = one
    return [memory[key] for key in keys]


def _written(
    model: HookedVLM, ends: Sequence[tuple[Neuron, int]], lens: Translators | None = None
) -> torch.Tensor:
    """Float[end, d_model]: what each signed unit writes to the stream, after the lens."""
    out = torch.empty(len(ends), model.cfg.d_model, device=model.lm.device)
    for at in {(neuron.layer, neuron.expert, neuron.tower) for neuron, _ in ends}:
        here = [i for i, (one, _) in enumerate(ends) if (one.layer, one.expert, one.tower) == at]
        layer, expert, tower = at
        signs = torch.tensor([ends[i][1] for i in here], device=out.device)
        rows = model.lm.units.written(layer, [ends[i][0].unit for i in here], expert, tower)
        rows = rows.to(out) * signs[:, None]
        out[here] = rows if lens is None else lens.carry(layer, rows)
    return out


def _top(model: HookedVLM, scores: torch.Tensor, k: int) -> list[tuple[list[str], list[float]]]:
    best = finite(scores, "the decoded words").softmax(-1).topk(min(k, scores.shape[-1]))
    words = [[word(model.lm, token) for token in row] for row in best.indices.tolist()]
    return list(zip(words, best.values.tolist(), strict=True))


def _stamp(model: HookedVLM) -> bytes:
    """A fingerprint of the current unembedding."""
    table = model.root.W_U[:, : model.lm.n_words]
    return _digest(_draw(table) @ table)


def _draw(table: torch.Tensor) -> torch.Tensor:
    """A random row whose product with the unembedding changes when any weight of it does."""
    draw = torch.Generator().manual_seed(0)
    return torch.randn(len(table), generator=draw).to(table)


def _digest(values: torch.Tensor) -> bytes:
    """A hash of these numbers, 16 bytes."""
    return blake2b(values.float().cpu().numpy().tobytes(), digest_size=16).digest()
