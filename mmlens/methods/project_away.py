"""PROJECTAWAY: where the picture's positions hold a word, and the stream without it.

Jiang et al. (2025, "Interpreting and Editing Vision-Language Representations to Mitigate
Hallucinations", sections 4 and 5). With x_l[i] the stream at patch i after layer l:

    localisation   map[i] = max over layers l, and words t, of softmax(U(x_l[i]))[t]
    removal        x_l[i] <- x_l[i] - amount * max(0, x . t / t . t) t       for each word, in turn

U is the final norm and the unembedding (their code leaves the norm out in layers before the last).
The vector t of a word is the stream after a layer of its own (`text_layer`) at its last token, the
word read alone. The paper's values (InstructBLIP): text_layer=1, layer=2, amount=1.5.

The largest entry of the map is the paper's internal confidence that the thing is there. What is
removed is a direction and not a thing: the vectors of all words share most of their length, so
that any word's vector takes much of the stream along. The control is another word's vector
(`project_away(model, " koala", ...)` where there is none), or a random direction of equal length:
`steer.remove` takes any.

Positions: the picture's patches. Path: everything behind `layer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmlens.methods.activations import activations
from mmlens.methods.logit_lens import logit_lens
from mmlens.methods.steer import remove
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.values.arguments import count, number, several, text
from mmlens.values.edit import Edit
from mmlens.values.errors import PromptError
from mmlens.values.labels import Patch
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@needs("unembed", "positions")
def lens_map(
    model: HookedVLM, prompt: Any, of: Sequence[str | int] | str | int, *, layer: Any = None
) -> Scores:
    """The largest probability of a word at each patch, over layers, by the logit lens: Scores(pos).

    Args:
        of: a word of one token, or several, of which the most probable counts.
        layer: some layers only, as in `Scores.sel`.

    Raises:
        TargetError: a word of several tokens. PromptError: no patch among the positions.
    """
    words = [of] if isinstance(of, (str, int)) else several(of, "of")
    soft = model.one(prompt)
    if not any(isinstance(label, Patch) for label in soft.labels[0]):
        raise PromptError(
            f"There is no patch among the positions of this prompt of {model.name!r}: give a"
            " Prompt with a picture, or write logit_lens(...), which reads any position."
        )
    lens = logit_lens(model, soft, words, pos=Patch, layer=layer)
    assert isinstance(lens, Scores)  # of words, and of one prompt
    found = lens.max("layer", "token")
    told = about(model, method="lens_map", prompt=soft, of=", ".join(lens.of("token")))
    return Scores(found.values, found.axes, found.labels, told)


@needs("unembed")
def word_state(model: HookedVLM, of: str, *, layer: int) -> Scores:
    """The stream after a layer at the last token of a word that is read alone: Scores(dim)."""
    alone = text(of, "of")
    found = activations(model, alone, "resid_post", layer=count(layer, "layer", least=0), pos=-1)
    told = about(model, method="word_state", of=alone, layer=layer)
    return Scores(found.values.float(), ("dim",), {}, told)


@needs("unembed", "positions")
def project_away(
    model: HookedVLM,
    of: Sequence[str] | str,
    *,
    layer: int,
    text_layer: int | None = None,
    amount: float = 1.0,
    pos: Any = Patch,
) -> list[Edit]:
    """Edits that take a word (or several, in turn) out of the stream at the picture's positions.

    Args:
        of: words as they are read, with their space; of several tokens the last one counts.
        layer: after which the stream is changed.
        text_layer: after which the word's vector is read; by default the same.
        amount: 1 removes what points towards the word, 1.5 is the paper's.

    Raises:
        AddressError: no such layer.
    """
    words = [of] if isinstance(of, str) else several(of, "of")
    number(amount, "amount")
    read = layer if text_layer is None else text_layer
    states = [word_state(model, word, layer=read) for word in words]
    return [
        remove("resid_post", state, pos=pos, layer=layer, amount=amount, positive=True)
        for state in states
    ]
