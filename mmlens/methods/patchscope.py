"""Patchscopes: what does this vector say where another prompt reads it? (Ghandeharioun et al. 2024)

Source (S, i, M, l), target (T, i*, f, M*, l*): the vector that M has after layer l at position i of
S is put, through f, in the place of what M* has after layer l* at position i* of T:

    h = resid_post[l, i] of M(S)        M*(T) with resid_post[l*, i*] <- f(h)

What M* then says next, or writes, is the reading. The logit lens is the patchscope whose l* is the
last layer. A source position may be a patch of a picture, and the target words alone:

    patchscope(model, prompt, pos=Patch(2, 1))                          # IDENTITY, next token
    patchscope(model, prompt, pos=Patch(2, 1), into=DESCRIPTION, max_new_tokens=20)
    patchscope(model, prompt, into="a dog is a dog. a", reader=other, through=stream_map(...))

Layer l is the output of block l. Many (l, i) are rows of one batch of the target prompt. In a
generation the vector is put in while T is read, and stays in the cache of keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.over_lists import over_prompts
from mmlens.methods.predicted_words import asked, told
from mmlens.methods.stream_map import StreamMap, layer_of
from mmlens.methods.translators import Translators
from mmlens.model.capabilities import needs, require
from mmlens.model.capture import capture
from mmlens.model.prompt_tokens import rows
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.runtime.chunks import in_chunks
from mmlens.runtime.run import current
from mmlens.values.addresses import places
from mmlens.values.arguments import count
from mmlens.values.errors import AddressError, ArgumentError, CheckpointError
from mmlens.values.prompt import SoftPrompt
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

IDENTITY = "cat -> cat\n1135 -> 1135\nhello -> hello\n?"
"""The prompt of the token identity (section 3.1), read at its last position."""
DESCRIPTION = (
    "Syria: Country in the Middle East, Leonardo DiCaprio: American actor, Samsung: South Korean"
    " multinational major appliance and consumer electronics corporation, x"
)
"""The prompt of the description of an entity (section 4.3), read at its last position."""


@needs("unembed")
@over_prompts
def patchscope(
    model: HookedVLM,
    prompt: Any,
    tokens: Sequence[str | int] | str | None = None,
    *,
    layer: Any = None,
    pos: Any = None,
    into: Any = IDENTITY,
    into_layer: int | None = None,
    into_pos: Any = -1,
    reader: HookedVLM | None = None,
    through: StreamMap | Translators | None = None,
    k: int = 5,
    quantity: str = "prob",
    max_new_tokens: int | None = None,
    batch: int = 32,
) -> Scores | pd.DataFrame:
    """What a target prompt makes of the vectors of each layer and position of a prompt.

    Args:
        prompt: the source; of a list, a leading axis or column `prompt`.
        tokens: words of one token each, as the target's next; None: the `k` most probable of all.
        layer, pos: of the source; by default all.
        into: the target prompt, of words or with pictures.
        into_layer: the layer after which a vector is put in; by default its own.
        into_pos: the one position of the target where it is put in.
        reader: the model that reads the target; by default the same.
        through: the map of vectors, from `stream_map`; or a tuned or Jacobian lens, into the last
            layer.
        quantity: "prob", "logprob" or "logit".
        max_new_tokens: write so many tokens, greedily, in place of the next token's probabilities.
        batch: vectors read side by side.

    Returns:
        As `logit_lens`: with `tokens`, Scores(layer, pos, token), otherwise a table of layer, pos,
        rank, token and the number. With `max_new_tokens` a table of layer, pos, text.

    Raises:
        AddressError: no such layer or position, or several target positions.
        CheckpointError: the map does not fit the models.
    """
    other = model if reader is None else require(reader, "unembed")
    words = asked(other, tokens, k, quantity)
    if max_new_tokens is not None:
        count(max_new_tokens, "max_new_tokens")
        require(other, "generate")
        if tokens is not None:
            raise ArgumentError("A text has no tokens to ask for: leave out tokens.")
    soft, target = one(model, prompt), one(other, into)
    labels = soft.labels[0]
    where = places(labels, pos, "pos")
    chosen = sorted(places(range(model.cfg.n_layers), layer, "layer"))
    ends = _ends(other, chosen, into_layer, through)
    vectors = _mapped(model, other, _vectors(model, soft, chosen, where), chosen, through)
    at = places(target.labels[0], into_pos, "into_pos")
    if len(at) != 1:
        raise AddressError(f"into_pos={into_pos!r} names {len(at)} positions: give one.")
    put = _Put(other, target, at[0], [end for end in ends for _ in where], vectors.flatten(0, 1))
    named = tuple(labels[i] for i in where)
    source = about(model, method="patchscope", quantity=quantity, prompt=soft, into=target,
                   reader=other.name, into_layer=into_layer, through=_told(through))  # fmt: skip
    size = count(batch, "batch")
    if max_new_tokens is not None:
        written = [text for part in in_chunks(len(put.layers), size, put.texts(max_new_tokens))
                   for text in part]  # fmt: skip
        return _written(chosen, named, written, source)
    pieces = in_chunks(len(put.layers), size, lambda a, b: words.read(put.logits(a, b)))
    flat = tuple(torch.cat(part) for part in zip(*pieces, strict=True))
    finite(flat[0], "the logits behind the patched vectors")
    found = {layer: tuple(part.split(len(where))[i] for part in flat)
             for i, layer in enumerate(chosen)}  # fmt: skip
    return told(other, words, found, named, source)


@dataclass(frozen=True)
class _Put:
    """Vectors to be put into copies of a target prompt, one each.

    Attributes:
        at: the position of the target.
        layers: by vector, the layer after which it is put in.
        vectors: Float[vector, d_model].
    """

    model: HookedVLM
    target: SoftPrompt
    at: int
    layers: list[int]
    vectors: torch.Tensor

    def logits(self, start: int, stop: int) -> torch.Tensor:
        """Float[vector, d_vocab]: what is predicted behind the target."""
        end = torch.tensor([self.target.ids.shape[1] - 1], device=self.model.lm.device)
        with torch.no_grad(), self.model.hooks(fwd_hooks=self._hooks(start, stop)):
            return self.model.run(rows(self.target, [0] * (stop - start)), at=end)[:, 0]

    def texts(self, max_new_tokens: int) -> Any:
        """A function of (start, stop): what the model writes behind the target."""

        def write(start: int, stop: int) -> list[str]:
            with self.model.hooks(fwd_hooks=self._hooks(start, stop)):
                many = rows(self.target, [0] * (stop - start))
                made = self.model.generate(many, max_new_tokens)
            return [made] if isinstance(made, str) else made

        return write

    def _hooks(self, start: int, stop: int) -> list[tuple[str, Any]]:
        here, vectors = self.layers[start:stop], self.vectors[start:stop]

        def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor | None:
            run = current()
            place = self.at - (0 if run is None else run.start)
            if not 0 <= place < tensor.shape[1]:
                return None  # a later step of a generation
            those = [row for row, layer in enumerate(here) if layer == hook.layer()]
            tensor = tensor.clone()
            tensor[those, place] = vectors[those].to(tensor)
            return tensor

        return [(SITES["resid_post"].at(layer), put) for layer in dict.fromkeys(here)]


def _vectors(model: HookedVLM, soft: SoftPrompt, layers: list[int], at: list[int]) -> torch.Tensor:
    """Float[layer, pos, d_model]: the source's residual stream."""
    names = [SITES["resid_post"].at(layer) for layer in layers]
    end = torch.tensor([soft.ids.shape[1] - 1], device=model.lm.device)
    with torch.no_grad(), capture(model, names, lambda x: x[0, at].detach()) as kept:
        model.run(soft, at=end)
    return torch.stack([kept[name] for name in names])


def _ends(other: HookedVLM, layers: list[int], into_layer: Any, through: Any) -> list[int]:
    """Per source layer, the layer of the target."""
    last = other.cfg.n_layers - 1
    if isinstance(through, Translators):
        if into_layer not in (None, last, -1):
            raise AddressError(
                f"A {through.kind} lens maps into the last layer, {last}: leave out into_layer."
            )
        return [last] * len(layers)
    if into_layer is not None:
        return [layer_of(other, into_layer, "into_layer")] * len(layers)
    if layers[-1] > last:
        raise AddressError(
            f"{other.name!r} has no layer {layers[-1]} to put a vector of that layer into: give"
            " into_layer=."
        )
    return layers


def _mapped(
    model: HookedVLM, other: HookedVLM, vectors: torch.Tensor, layers: list[int], through: Any
) -> torch.Tensor:
    """The vectors in the target's stream."""
    if isinstance(through, Translators):
        through.check(model)
        vectors = torch.stack([through.translate(layer, one.float())
                               for layer, one in zip(layers, vectors, strict=True)])  # fmt: skip
    elif isinstance(through, StreamMap):
        vectors = through.translate(vectors.float())
    elif through is not None:
        raise ArgumentError(
            "through= takes what stream_map(model, prompts, layer=...) or tuned_lens(model,"
            " prompts) returns."
        )
    if vectors.shape[-1] != other.cfg.d_model:
        raise CheckpointError(
            f"These vectors have {vectors.shape[-1]} dimensions, and the stream of {other.name!r}"
            f" {other.cfg.d_model}: give through=mm.stream_map(model, prompts, reader=...)."
        )
    return vectors.to(other.lm.device)


def _told(through: Any) -> Any:
    return through.kind if isinstance(through, Translators) else getattr(through, "about", None)


def _written(
    layers: list[int], pos: tuple[Any, ...], texts: list[str], source: dict[str, Any]
) -> pd.DataFrame:
    import pandas as pd

    places = [(layer, label) for layer in layers for label in pos]
    table = pd.DataFrame(
        [(*place, text) for place, text in zip(places, texts, strict=True)],
        columns=["layer", "pos", "text"],
    )
    table.attrs["about"] = source
    return table
