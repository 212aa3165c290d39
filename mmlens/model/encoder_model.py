"""A model of encoders, without a language model: one forward pass in which all hooks are attached.

A vision encoder alone (`hooked_vision_model`), and models that read pictures and texts by an
encoder of each (`pictures_and_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from mmlens.model import hooking
from mmlens.model.hooked_model import HookedModel, Input
from mmlens.model.image_reader import ImageReader
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.turns import turn
from mmlens.values.errors import ArgumentError


class EncoderModel(HookedModel):
    """What is read becomes pixels (and token ids), and a graph may start at the pixels."""

    image_reader = ImageReader()
    """How a picture becomes positions: one grid of patches."""

    @contextmanager
    def running(self, input: Input, grad: bool = True, **how: Any) -> Iterator[Any]:
        """A context in which all hooks are attached; one thread at a time.

        Args:
            grad: whether a graph starts at the pixels where gradients are enabled.

        Raises:
            ArgumentError: an option that only language models have.
        """
        for name in how:
            raise ArgumentError(f"{self.name!r} has no language model and takes no {name}=.")
        hooks = self._hooks_now()
        reading: Any = self.read(input)
        pixels = reading.pixels
        with ordinary(), turn(*self._shared()), hooking.attached(self, hooks, reading.prompts):
            if pixels is not None and grad and torch.is_grad_enabled() and not pixels.requires_grad:
                reading = replace(reading, pixels=pixels.detach().requires_grad_())
            yield reading
