"""A vision encoder alone as a hooked model: pictures in, logits of classes (or features) out.

    model = mm.from_parts(vision="timm:resnet50.a1_in1k")
    attribute(model, photo, of="tabby")                  # Scores(layer, pos, unit)
    model.run_with_cache(photo)[1]["vision.blocks.3.hook_resid_post"]

Its only tower is "vision". Where the encoder was wrapped with its classifier, the output is one
logit per class, Float[picture, class]; otherwise it is the features, Float[picture, patch,
d_vision].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmlens.model import readouts
from mmlens.model.encoder_model import EncoderModel
from mmlens.model.hooked_model import Input
from mmlens.model.targets import Number, Target
from mmlens.values.errors import ArgumentError, CapabilityError, PromptError
from mmlens.values.labels import Label, Neuron
from mmlens.values.prompt import PictureReading, Prompt
from mmlens.values.sites import Site


class HookedVisionModel(EncoderModel):
    """A vision encoder, frozen, plus edits.

    Args:
        vision: a `HookedVision`.
        name: what the model is called in results.
        provenance: where it comes from, kept in every result.
    """

    def __init__(
        self, vision: Any, *, name: str, provenance: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(name, provenance)
        self.vision = vision
        self.eval().requires_grad_(False)

    @property
    def towers(self) -> dict[str, Any]:
        """The one tower, vision."""
        return {"vision": self.vision}

    def read(self, input: Input) -> PictureReading:
        """The pictures as the encoder reads them: pixels Float[picture, 3, h, w].

        Args:
            input: a picture, a Prompt of pictures, a list of these, or pixels.

        Raises:
            PromptError: the input has words, or no picture.
        """
        if isinstance(input, PictureReading):
            return input
        if isinstance(input, torch.Tensor) and input.is_floating_point():
            return PictureReading(input.to(self.vision.device))
        prompts = self.prompts_of(input)
        if not prompts or any(prompt.text for prompt in prompts):
            raise PromptError(f"{self.name!r} reads pictures alone: give it no words.")
        pictures = [picture for prompt in prompts for picture in prompt.pictures]
        pixels = torch.stack([self.vision.preprocess(picture) for picture in pictures])
        return PictureReading(pixels.to(self.vision.device, self.vision.dtype), prompts)

    def prompts_of(self, input: Input) -> tuple[Prompt, ...]:
        """The prompts in an input, without preprocessing it; none when it is made of pixels."""
        if isinstance(input, PictureReading):
            return input.prompts
        if isinstance(input, torch.Tensor) and input.is_floating_point():
            return ()
        several = input if isinstance(input, (list, tuple)) else [input]
        return tuple(p if isinstance(p, Prompt) else Prompt(p) for p in several)

    def run(
        self, input: Input, *, at: torch.Tensor | None = None, grad: bool = False, **how: Any
    ) -> torch.Tensor:
        """One forward pass: Float[picture, class], or Float[picture, patch, d_vision].

        Args:
            at: Int[k], indices of the pictures whose output is returned, one row each.
            grad: whether a graph starts at the pixels; hooks may start one anywhere.
        """
        with self.running(input, grad, **how) as reading:
            vision = self.vision
            out = vision.classify(reading.pixels) if vision.n_classes else vision(reading.pixels)
            return out if at is None else out[at.to(out.device)]

    def run_to(self, tower: str, input: Input) -> None:
        """Run the encoder, and its classifier where it has one."""
        self.run(input)

    def answer_rows(self, reading: Any, rows: torch.Tensor) -> torch.Tensor:
        """The class logits of these pictures, Float[k, class]; without a classifier, features."""
        return self.run(reading, at=rows)

    def one(self, prompt: Input) -> PictureReading:
        """One picture as it is read.

        Raises:
            PromptError: several pictures.
        """
        reading = self.read(prompt)
        if len(reading) != 1:
            raise PromptError(f"This question takes one picture at a time, not {len(reading)}.")
        return reading

    def side_by_side(
        self,
        reading: PictureReading,
        n: int,
        *,
        position: int = -1,
        tower: str = "",
        grad: bool = False,
    ) -> torch.Tensor:
        """The output for each of `n` copies of one picture: Float[n, class], or its features."""
        pixels = reading.pixels.repeat(n, 1, 1, 1)
        return self.run(PictureReading(pixels, reading.prompts), grad=grad)

    def aim(
        self, prompt: Input, of: Any, target: str | Number = "logit", after: str | None = None
    ) -> tuple[PictureReading, Target]:
        """One picture and the scalar that is explained (`mmlens.model.readouts`).

        Raises:
            TargetError: no such class. PromptError: several pictures.
            CapabilityError: a class, and the encoder has no classifier.
        """
        reading = self.one(prompt)
        if after is not None:
            raise ArgumentError(f"{self.name!r} reads pictures alone and takes no after=.")
        if isinstance(of, Neuron):
            return reading, readouts.aim_unit(self, of, target)
        if not self.vision.n_classes and not callable(target):
            raise CapabilityError(
                f"{self.name!r} has no classifier, so no class can be explained: write of=Neuron("
                "layer, unit, 'vision'), or a function of the features as target."
            )
        names = self.vision.class_names or ("features",)
        return reading, readouts.aim_class(names, of, target)

    def picture_rows(
        self, prompts: Sequence[Prompt], site: Site, layer: int | None = None
    ) -> tuple[tuple[Label, ...], ...]:
        """The label of each position of a site: one row per picture."""
        tower = self.towers[site.tower]
        return tuple(
            tuple(tower.labels(site, layer, image))
            for prompt in prompts
            for image in range(len(prompt.pictures))
        )
