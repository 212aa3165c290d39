"""A model that reads pictures and texts by an encoder of each, whatever it makes of them.

What a dual encoder (`hooked_dual_encoder`) and an encoder over both (`hooked_multimodal_encoder`)
have in common: their towers vision and text, and how an input becomes pixels and token ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmlens.model.dual_reading import DualReading, prompts_in
from mmlens.model.encoder_model import EncoderModel
from mmlens.model.hooked_model import Input
from mmlens.values.errors import PromptError
from mmlens.values.labels import TEXT, Label
from mmlens.values.prompt import Prompt
from mmlens.values.sites import Site


class PicturesAndTexts(EncoderModel):
    """An image encoder and a text encoder.

    Args:
        vision: a `HookedVision`.
        text: a `HookedText`.
        name, provenance: as of a `HookedModel`.
    """

    def __init__(
        self, vision: Any, text: Any, *, name: str, provenance: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(name, provenance)
        self.vision, self.text = vision, text

    @property
    def towers(self) -> dict[str, Any]:
        """The image encoder and the text encoder."""
        return {"vision": self.vision, TEXT: self.text}

    @property
    def sample_text(self) -> str:
        """A text that stands beside a picture where none is given."""
        return "a picture"

    def read(self, input: Input) -> DualReading:
        """Pictures as pixels and texts as token ids, each in the order in which they come.

        Args:
            input: a picture, a text, a Prompt of pictures and one text, a list of these; or a
                tensor, pixels Float[picture, 3, h, w] or token ids Int[text, pos].

        Raises:
            PromptError: ids that the text encoder doesn't know, no tokenizer for a text, turns of a
                chat, or words on both sides of a picture.
        """
        if isinstance(input, DualReading):
            return input
        if isinstance(input, torch.Tensor):
            if input.is_floating_point():
                return DualReading(input.to(self.vision.device))
            return self._texts(input)
        prompts = prompts_in(input)
        for prompt in prompts:
            self._refuse_parts(prompt)
        texts = [prompt.text for prompt in prompts if prompt.text]
        pictures = [picture for prompt in prompts for picture in prompt.pictures]
        words = self._texts(texts) if texts else DualReading()
        pixels = None
        if pictures:
            pixels = torch.stack([self.vision.preprocess(picture) for picture in pictures])
            pixels = pixels.to(self.vision.device, self.vision.dtype)
        return DualReading(pixels, words.ids, words.mask, words.labels, prompts)

    def _refuse_parts(self, prompt: Prompt) -> None:
        if len(prompt.turns) > 1 or prompt.system:
            raise PromptError(
                f"{self.name!r} has no chat template, so it reads neither turns nor a system text:"
                " write one text, as in Prompt(photo, 'a photo of a dog')."
            )
        if sum(isinstance(part, str) for part in prompt.parts) > 1:
            raise PromptError(
                f"{self.name!r} reads one text beside a picture, and {prompt!r} has words on both"
                " sides of one: write them as one text, as in Prompt(photo, 'a photo of a dog')."
            )

    def _texts(self, texts: Any) -> DualReading:
        read = self.text.read(texts)
        return DualReading(None, read.ids, read.mask, self.text.names(read))

    def prompts_of(self, input: Input) -> tuple[Prompt, ...]:
        """The prompts in an input, without preprocessing it; none when it is made of tensors."""
        return prompts_in(input)

    def reading_tower(self, input: Input) -> str:
        """The tower that reads this input: that of its pictures, if there are any."""
        if isinstance(input, torch.Tensor):
            return "vision" if input.is_floating_point() else TEXT
        pictures = any(prompt.pictures for prompt in prompts_in(input))
        return "vision" if pictures or getattr(input, "pixels", None) is not None else TEXT

    def one(self, prompt: Input) -> DualReading:
        """One picture, one text, or one of each, as they are read.

        Raises:
            PromptError: several pictures or texts.
        """
        reading = self.read(prompt)
        if max(reading.n_pictures, reading.n_texts) != 1:
            raise PromptError(
                f"This question takes one picture or text at a time, not {reading.n_pictures}"
                f" pictures and {reading.n_texts} texts."
            )
        return reading

    def picture_rows(
        self, prompts: Sequence[Prompt], site: Site, layer: int | None = None
    ) -> tuple[tuple[Label, ...], ...]:
        """The label of each position of a site: one row per picture, or per text."""
        tower = self.towers[site.tower]
        if site.tower == TEXT:
            texts = [prompt.text for prompt in prompts if prompt.text]
            return self.text.names(self.text.read(texts)) if texts else ()
        return tuple(
            tuple(tower.labels(site, layer, image))
            for prompt in prompts
            for image in range(len(prompt.pictures))
        )
