"""A frozen text encoder whose activations have TransformerLens' hook names.

`HookedText` composes like `HookedVision`: it holds a copy of one half of a dual encoder that shares
the caller's weights, and taps its tensors with HookPoints. Texts come in as token ids, and what
comes out is their embedding in the space that they share with pictures, Float[text, d_embed], not
yet of unit length.

    text.hook_dict["hook_embed"]                  words + positions         [text, pos, d]
    text.hook_dict["blocks.3.mlp.hook_post"]      and the points of `vision.taps`
    text.hook_dict["hook_embedding"]              what comes out            [text, d_embed]

Which positions are padding is measured: those that the embedding doesn't depend on, since attention
is causal or masked. Where an encoder reads its padding (SigLIP, MobileCLIP) they are tokens like
others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlens.runtime.casting import Movable
from mmlens.towers.attention import measuring, openings
from mmlens.towers.text.text_layouts import located
from mmlens.towers.text.text_tokens import SAMPLE, TextTokens, TokenIds
from mmlens.towers.tower import Placed
from mmlens.towers.vision.class_head import untapped
from mmlens.towers.vision.point_axes import fits, of_positions
from mmlens.towers.vision.tap_hooks import looking
from mmlens.towers.vision.taps import attach
from mmlens.values.errors import CapabilityError, PromptError
from mmlens.values.labels import TEXT, Label, Padding, Token
from mmlens.values.sites import Site

EMBED, EMBEDDING = "hook_embed", "hook_embedding"
Encode = Callable[[Any, Tensor, Tensor | None], Tensor]
"""(half, ids, mask) -> Float[text, d_embed]: how the library runs it; or its last hidden states,
Float[text, pos, d], for an encoder that reads them (`hooked_multimodal`)."""


class HookedText(Placed, Movable):
    """The text half of a dual encoder, as the tower "text".

    Args:
        half: the module; a storage-sharing, frozen copy of it in eval mode becomes `.module`.
        encode: how it is run.
        tokens: its tokenizer.
        n_words: how many token ids it knows.

    Attributes:
        axes: per hook point what its axes are, batch axis left out.
        reads_padding: whether the embedding depends on the positions after a text's end.

    Raises:
        CapabilityError: its blocks can't be found, it can't be run, or it is not the same twice.
    """

    name = TEXT

    def __init__(self, half: nn.Module, encode: Encode, tokens: TextTokens, n_words: int) -> None:
        from transformer_lens.hook_points import HookPoint

        super().__init__()
        self.module = untapped(half)
        self.encode, self.tokens, self.n_words = encode, tokens, n_words
        found = located(self.module)
        if found is None:
            raise CapabilityError(
                f"mmlens doesn't find the blocks of a {type(half).__name__}: it knows the text"
                " encoders of open_clip, and CLIP, SigLIP, BERT and RoBERTa of transformers."
            )
        taps, self._blocks = attach(*found)
        end = HookPoint()
        end.name = EMBEDDING
        self.hook_dict: dict[str, Any] = {**taps, EMBEDDING: end}
        with torch.no_grad():
            self._measure()

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

    @property
    def shared(self) -> Any:
        """The encoder itself."""
        return self

    @property
    def points(self) -> Mapping[str, Any]:
        """The hook points that fire."""
        return {f"{TEXT}.{name}": point for name, point in self.hook_dict.items()}

    @property
    def every_point(self) -> Mapping[str, Any]:
        """The same: an encoder keeps no hook points that never fire."""
        return self.points

    def read(self, texts: Sequence[str] | Tensor) -> TokenIds:
        """Texts (or ids Int[text, pos]) as ids on the encoder's device.

        Raises:
            PromptError: an id that the encoder has no embedding for, or more positions than it has.
        """
        read = self.tokens.given(texts) if isinstance(texts, Tensor) else self.tokens(texts)
        if read.ids.ndim != 2 or read.ids.shape[1] > self.tokens.length:
            raise PromptError(
                f"Token ids of shape {tuple(read.ids.shape)} are no texts: this encoder takes"
                f" [text, pos] with up to {self.tokens.length} positions."
            )
        top = int(read.ids.max())
        if not 0 <= int(read.ids.min()) <= top < self.n_words:
            raise PromptError(
                f"The tokenizer gives the id {top}, and this text encoder knows {self.n_words}"
                " words: give the tokenizer that it was trained with."
            )
        mask = read.mask if read.mask is None else read.mask.to(self.device)
        return TokenIds(read.ids.to(self.device), mask, read.lengths)

    def forward(
        self, ids: Int[Tensor, "text pos"], mask: Tensor | None = None
    ) -> Float[Tensor, "text ..."]:
        """Embeddings of texts, not yet of unit length (or states of their tokens)."""
        out = self.encode(self.module, ids, mask)
        return self.hook_dict[EMBEDDING](out) if EMBEDDING in self.hook_dict else out

    def site(self, site: Site, layer: int | None = None) -> Site:
        """The site with its measured axes.

        Raises:
            CapabilityError: it has other positions than the text.
        """
        name = site.at(layer).removeprefix(f"{TEXT}.")
        if name in self.hook_dict and name not in self.axes:
            raise CapabilityError(
                f"{name!r} of {type(self.module).__name__} has not one place for each token, so"
                " they can't be addressed there: read or write it with a hook."
            )
        return site.holding(self.axes.get(name, site.axes))

    def labels(
        self, site: Site, layer: int | None, image: int = 0, crop: int = 0
    ) -> tuple[Label, ...]:
        """The positions of any text, which are named by its words: see `names`."""
        return tuple(Token(str(at), at) for at in range(self.n_places))

    def names(self, read: TokenIds) -> tuple[tuple[Label, ...], ...]:
        """Per text a Token for every position that its embedding depends on; else Padding."""
        rows, size = [], read.ids.shape[1]
        for ids, length in zip(read.ids.tolist(), read.lengths, strict=True):
            words: list[Label] = [Token(word, at) for at, word in enumerate(self.tokens.words(ids))]
            for at in range(length, size):
                words[at] = Token("[pad]", at) if self.reads_padding else Padding(at)
            words += [Token("[CLS]", size + at) for at in range(self.n_beside)]
            rows.append(tuple(words))
        return tuple(rows)

    # -- measured -----------------------------------------------------------------------------

    def _sample(self) -> TokenIds:
        if self.tokens.tokenizer is not None:
            return self.read([SAMPLE])
        ids = torch.arange(self.tokens.length, device=self.device) % self.n_words
        return TokenIds(ids[None], None, (self.tokens.length,))

    def _measure(self) -> None:
        read, name = self._sample(), type(self.module).__name__
        try:
            with measuring(openings(self.module)):
                plain = self.encode(self.module, read.ids, read.mask)
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CapabilityError(f"{name} can't be run on token ids [text, pos]: {why}") from error
        seen: dict[str, list[tuple[int, ...]]] = {}

        def look(tensor: Any, hook: Any) -> None:
            seen.setdefault(hook.name, []).append(tuple(tensor.shape))

        two = (torch.cat((x, x)) if x is not None else None for x in (read.ids, read.mask))
        with looking(self.hook_dict.values(), look):
            again = self(*two)
        near = 1e-5 if self.dtype in (torch.float32, torch.float64) else 5e-2
        if not (again[:1] - plain).abs().max() <= near * (1 + plain.abs().max()):
            raise CapabilityError(f"{name} gives other embeddings each time it reads one text.")
        self.d_embed = plain.shape[-1]
        if plain.ndim == 3:  # states, which leave the last block
            seen.pop(EMBEDDING)
        self.hook_dict = {n: p for n, p in self.hook_dict.items() if len(seen.get(n, ())) == 1}
        shape = seen.get(EMBED, [(2, read.ids.shape[1])])[0]
        self.n_places, self.n_beside = shape[1], shape[1] - read.ids.shape[1]
        self.axes = {
            n: of_positions(n) for n in self.hook_dict if fits(n, seen[n][0], self.n_places)
        } | ({EMBEDDING: ("dim",)} if EMBEDDING in self.hook_dict else {})
        self.reads_padding = EMBED in self.hook_dict and self._depends(read)

    def _depends(self, read: TokenIds) -> bool:
        """Whether the embedding has a gradient at a position after the text's end."""
        kept: list[Tensor] = []

        def root(tensor: Tensor, hook: Any) -> Any:
            kept.append(tensor.detach().requires_grad_())
            return kept[-1]

        with torch.enable_grad(), looking([self.hook_dict[EMBED]], root):
            out = self(read.ids, read.mask)
            (grad,) = torch.autograd.grad(out.square().sum(), kept[0])
        return bool((grad[0, read.lengths[0] : read.ids.shape[1]] != 0).any())

    def __reduce__(self) -> Any:
        """For pickles and copies: the half without taps, which is tapped again."""
        bare = untapped(self.module)
        return HookedText, (bare, self.encode, self.tokens, self.n_words)
