"""Contribution scores of neurons: what each writes towards a word, without a gradient.

Pan et al. (2024, "Finding and Editing Multi-Modal Neurons in Pre-Trained Transformers", section 3):
where the word t is about to be said, unit n of layer l gets

    s[l, n] = a[l, n] (W_out[l] W_U)[n, t],        a: activations at the last position

so that a layer's scores and what its bias writes sum to mlp_out . W_U[:, t]. Only the column of the
word is computed, never the product with the whole vocabulary. Where a norm or a scale stands behind
the MLP, a unit's row is what arrives in the stream.

Positions: the last, where the word is said (`pos=` names others, and keeps the axis). Path: the
direct one from the unit to the logits, without the final norm and without later layers; that is
late layers at one position, and not the units at the picture's patches that `attribute` finds.
`direct_logits(by="neuron")` has the final norm in it, and adds up to the logit.

Axes: (layer, unit), or (layer, pos, unit), signed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.over_lists import over_lists
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.towers.language.tokenization import id_of
from mmlens.values.addresses import places
from mmlens.values.errors import AddressError
from mmlens.values.labels import Marker, Patch, Token
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

_ONE = (int, str, tuple, Patch, Marker, Token)
"""What names a single position, so that its axis is dropped."""
PATH = "direct: unit - W_out - unembedding, no final norm, no later layers"


@needs("logits", "neurons", "unembed")
@over_lists
def contributions(
    model: HookedVLM,
    prompt: Any,
    of: str | int,
    *,
    after: str | None = None,
    pos: Any = -1,
) -> Scores:
    """Activation times what the unit writes towards a word: Scores(layer, unit).

    Args:
        of, after: as in `attribute`; several words give a leading axis `token`.
        prompt: one, or a list of one layout, which gives a leading axis `prompt`.
        pos: the position whose activations are read; several (a list, a type, None for all) keep
            the axis: Scores(layer, pos, unit).

    Raises:
        TargetError: as in `attribute`. AddressError: no such position.
        CapabilityError: a layer without MLP units, or whose units write no term of their own.
    """
    reading, aimed = model.aim(prompt, of, "logit", after)
    labels, where = reading.labels[0], places(reading.labels[0], pos, "pos")
    if not where:
        raise AddressError(f"pos={pos!r} names no position: write -1 for the last, None for all.")
    active, written = at_word(model, reading, id_of(model.lm, of), where)
    values = finite(active * written, "the contribution scores")
    told = about(model, method="contributions", prompt=reading, of=aimed.token, path=PATH,
                 at=", ".join(str(labels[i]) for i in where[:3]))  # fmt: skip
    found = Scores(values, ("layer", "pos", "unit"),
                   {"layer": tuple(range(model.cfg.n_layers)),
                    "pos": tuple(labels[i] for i in where)}, told)  # fmt: skip
    return found.sel(pos=labels[where[0]]) if isinstance(pos, _ONE) else found


def at_word(
    model: HookedVLM, reading: Any, token: int, where: list[int]
) -> tuple[Float[Tensor, "layer pos unit"], Float[Tensor, "layer pos unit"]]:
    """The activations of all units at some positions, and what one of them writes to a word there.

    Args:
        token: the id of the word. where: indices of positions.
    """
    units, layers = model.lm.units, range(model.cfg.n_layers)
    units.need(model.name)
    names = [SITES["neurons"].at(layer) for layer in layers]
    with torch.no_grad():
        with capture(model, names, lambda x: x[0, where].detach().float()) as kept:
            model.run(reading)
        word = model.lm.word_directions([token])[:, 0].float()
        written = [
            units.behind(layer, kept[name])[0][:, None] * (units.written(layer) @ word)
            for layer, name in zip(layers, names, strict=True)
        ]
    return torch.stack([kept[name] for name in names]), torch.stack(written)
