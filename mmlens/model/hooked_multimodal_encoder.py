"""An encoder that reads a picture and a text together, as a hooked model (FLAVA).

    model = mm.load("facebook/flava-full", multimodal="match")
    pair = Prompt(photo, "a photo of a dog")
    attribute(model, pair, of="match")                  # by units of the multimodal encoder
    attribute(model, pair, of="match", site="vision.neurons")

Its towers are "vision", "text" and "multimodal", and it reads pairs: Prompts of one picture and one
text. What it answers with is one of (Singh et al. 2022, FLAVA, section 3.1, "ITM" and "MMM")

    "match"     logits Float[pair, 2] of NAMES: whether the text is about the picture
    "words"     logits Float[pair, d_vocab] of the word at the one mask of the text
    "states"    the encoder's states Float[pair, pos, d_model]; no head is asked
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from mmlens.model import readouts
from mmlens.model.dual_reading import DualReading, prompts_in
from mmlens.model.hooked_model import Input
from mmlens.model.pictures_and_texts import PicturesAndTexts
from mmlens.model.targets import Number, Target
from mmlens.values.arguments import choice, shown
from mmlens.values.errors import ArgumentError, CapabilityError, PromptError, TargetError
from mmlens.values.labels import MULTIMODAL, TEXT, Label, Neuron
from mmlens.values.prompt import Prompt
from mmlens.values.sites import SITES, Site

ANSWERS = ("match", "words", "states")
"""What such a model may answer with."""
NAMES = ("no match", "match")
"""The logits of a match, in the order of the class's `itm_head`."""


class HookedMultimodalEncoder(PicturesAndTexts):
    """An image encoder, a text encoder and one over both, frozen, plus edits.

    Args:
        vision: a `HookedVision` whose features are all that its last block holds.
        text: a `HookedText` that gives states.
        multimodal: a `HookedMultimodal`, with the head that answers.
        answers: "match", "words" or "states".
        name, provenance: as of a `HookedModel`.

    Raises:
        CapabilityError: words are asked for, and the tokenizer has no mask.
    """

    def __init__(
        self,
        vision: Any,
        text: Any,
        multimodal: Any,
        answers: str,
        *,
        name: str,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(vision, text, name=name, provenance=provenance)
        self.multimodal, self.answers = multimodal, choice(answers, "multimodal", ANSWERS)
        self.mask_id: Any = getattr(text.tokens.tokenizer, "mask_token_id", None)
        if answers == "words" and self.mask_id is None:
            raise CapabilityError(
                f"{name!r} predicts the word at a mask, and its tokenizer has none: give the"
                " tokenizer that it was trained with, whose mask_token is '[MASK]'."
            )
        self.eval().requires_grad_(False)

    @property
    def towers(self) -> dict[str, Any]:
        """The image encoder, the text encoder and the one over both."""
        return {**super().towers, MULTIMODAL: self.multimodal}

    @property
    def sample_text(self) -> str:
        return f"a {self.text.tokens.tokenizer.mask_token}" if self.answers == "words" else "a"

    @cached_property
    def answer_names(self) -> tuple[str, ...]:
        """What each logit is of: NAMES, or the pieces of text; () of states."""
        if self.answers == "words":
            return tuple(self.text.tokens.words(range(self.text.n_words)))
        return NAMES if self.answers == "match" else ()

    def answer_index(self, of: Any) -> int:
        """The number of the logit of a word (or of NAMES), by name or number.

        Raises:
            TargetError: no such name, or a word that is no single piece of text.
            CapabilityError: the model answers with states.
        """
        if self.answers == "states":
            raise CapabilityError(
                f"{self.name!r} answers with states, so no word and no match can be explained:"
                " write of=Neuron(layer, unit, 'multimodal'), a function of the states as target,"
                " or load it with multimodal='match' or 'words'."
            )
        if of is None:
            what = ("word", "dog") if self.answers == "words" else ("answer", "match")
            raise TargetError(
                f"There is no {what[0]} to explain: write of={what[1]!r}, or a function as target."
            )
        if self.answers == "match":
            return readouts.class_index(self.answer_names, of)
        if not isinstance(of, str):
            if isinstance(of, bool) or not isinstance(of, int) or not 0 <= of < self.text.n_words:
                raise TargetError(
                    f"{shown(of)} is no word of {self.name!r}: give a piece of text, or an id from"
                    f" 0 to {self.text.n_words - 1}."
                )
            return of
        tokenizer = self.text.tokens.tokenizer
        pieces = tokenizer.tokenize(of)
        if len(pieces) != 1 or pieces[0] == tokenizer.unk_token:
            raise TargetError(
                f"{of!r} is no single piece of text of {self.name!r}, but {shown(pieces)}: name one"
                " piece, or its id."
            )
        return int(tokenizer.convert_tokens_to_ids(pieces[0]))

    # -- running ------------------------------------------------------------------------------

    def reading_tower(self, input: Input) -> str:
        """That over both of pairs, else the one that reads this picture or text."""
        prompts = prompts_in(input)
        return MULTIMODAL if _pairs(prompts) else super().reading_tower(input)

    def run(
        self, input: Input, *, at: torch.Tensor | None = None, grad: bool = False, **how: Any
    ) -> torch.Tensor:
        """What the model answers, one row per pair: Float[pair, ...].

        Args:
            input: a Prompt of one picture and one text, or several of these.
            at: Int[k], indices of the rows that are returned.
            grad: whether a graph starts at the pixels; hooks may start one anywhere.

        Raises:
            PromptError: no pairs; or, of a model that answers with words, a text without a mask.
        """
        out = self._answered(input, 1, grad, how)
        return out if at is None else out[at.to(out.device)]

    def _answered(self, input: Input, n: int, grad: bool, how: Any) -> torch.Tensor:
        """The answers for every pair, each read `n` times."""
        with self.running(input, grad, **how) as reading:
            if not _pairs(reading.prompts):
                raise PromptError(
                    f"{self.name!r} reads pairs of one picture and one text: write"
                    f" Prompt(photo, {self.sample_text!r}), or a list of such."
                )
            masks = self._masks(reading) if self.answers == "words" else None
            image = self.vision(reading.pixels)
            text = self.text(reading.ids, reading.mask)
            states = self.multimodal(image, text, reading.mask, n)
            if masks is not None:
                behind = states.shape[1] - text.shape[1] + masks
                states = states[torch.arange(len(states)), behind.expand(len(states))]
            head = self.multimodal.module.head
            return states if head is None else head(states)

    def _masks(self, reading: DualReading) -> torch.Tensor:
        """Which token of each text is the mask: Int[text]."""
        found: Any = reading.ids == self.mask_id
        if not bool((found.sum(1) == 1).all()):
            raise PromptError(
                f"{self.name!r} predicts the word at one mask in each text, and here are"
                f" {', '.join(map(str, found.sum(1).tolist()))}: write {self.sample_text!r}."
            )
        return found.int().argmax(1)

    def run_to(self, tower: str, input: Input) -> None:
        """Run the encoder that is asked for alone, or all three."""
        if tower == MULTIMODAL or _pairs(prompts_in(input)):
            self.run(input)
            return
        with self.running(input) as reading:
            if tower == TEXT and reading.ids is not None:
                self.text(reading.ids, reading.mask)
            if tower != TEXT and reading.pixels is not None:
                self.vision(reading.pixels)

    def answer_rows(self, reading: Any, rows: torch.Tensor) -> torch.Tensor:
        """The answers for these pairs, Float[k, ...]."""
        return self.run(reading, at=rows)

    # -- explained ----------------------------------------------------------------------------

    def aim(
        self, prompt: Input, of: Any, target: str | Number = "logit", after: str | None = None
    ) -> tuple[DualReading, Target]:
        """One pair, and the scalar that is explained.

        Args:
            of: "match" or "no match", a word of one piece (or its id), or a Neuron.
            target: "logit", "prob" or "logprob", or a function of the pair's row of the answers.

        Raises:
            PromptError: several pairs. TargetError: no such answer, or no such target.
            CapabilityError: the model answers with states, and no function of them is given.
        """
        if after is not None:
            raise ArgumentError(f"{self.name!r} generates no words and takes no after=.")
        reading = self.one(prompt)
        if isinstance(of, Neuron):
            return reading, readouts.aim_unit(self, of, target)
        if of is not None or not callable(target):
            of = self.answer_index(of)
        return reading, readouts.aim_class(self.answer_names or ("states",), of, target)

    def side_by_side(
        self,
        reading: DualReading,
        n: int,
        *,
        position: int = -1,
        tower: str = "",
        grad: bool = False,
    ) -> torch.Tensor:
        """The answers for `n` copies of one pair: Float[n, ...].

        Args:
            tower: whose hooks get the copies; what is before it is computed once.
        """
        if tower in ("vision", TEXT):
            return self._answered(reading.copies(n, tower), 1, grad, {})
        return self._answered(reading, n, grad, {})

    def picture_rows(
        self, prompts: Sequence[Prompt], site: Site, layer: int | None = None
    ) -> tuple[tuple[Label, ...], ...]:
        """The label of each position of a site: one row per picture, text or pair."""
        if site.tower != MULTIMODAL:
            return super().picture_rows(prompts, site, layer)
        if not _pairs(prompts):
            return ()
        end, last = SITES["vision.resid_post"], self.vision.n_layers - 1
        pictures = super().picture_rows(prompts, end, last)
        texts = super().picture_rows(prompts, SITES["text.embed"])
        front = self.multimodal.front
        return tuple((*front, *one, *two) for one, two in zip(pictures, texts, strict=True))

    def save(self, folder: Any) -> Any:
        """Refused: the model's own class writes it.

        Raises:
            CapabilityError: always.
        """
        raise CapabilityError(
            f"{self.name!r} is not saved by mmlens: model.save_pretrained of transformers writes"
            " it, and mm.load(folder, multimodal=...) reads it."
        )


def _pairs(prompts: Sequence[Prompt]) -> bool:
    """Whether there are prompts, and each is one picture and one text."""
    return bool(prompts) and all(len(one.pictures) == 1 and one.text for one in prompts)
