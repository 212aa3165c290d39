"""What a diffusion model reads: texts, and the labels of their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmlens.values.errors import PromptError
from mmlens.values.labels import Label
from mmlens.values.prompt import Prompt


@dataclass(frozen=True, eq=False)
class DenoisingReading:
    """Prompts as the denoiser reads them.

    Attributes:
        texts: one per prompt.
        labels: per prompt one label per token.
        settings: how the model samples.
    """

    texts: tuple[str, ...]
    labels: tuple[tuple[Label, ...], ...]
    settings: Mapping[str, Any]

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """The texts as prompts."""
        return tuple(Prompt(text) for text in self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def __str__(self) -> str:
        return str([*self.texts, *(f"<{name} {told}>" for name, told in self.settings.items())])


def texts_in(input: Any) -> tuple[str, ...]:
    """The words of a text, a Prompt, or a list of these.

    Raises:
        PromptError: there is none, it is no text, or it holds a picture.
    """
    if isinstance(input, DenoisingReading):
        return input.texts
    several = input if isinstance(input, (list, tuple)) else [input]
    prompts = [one if isinstance(one, Prompt) else Prompt(one) for one in several]
    if not prompts or any(prompt.pictures for prompt in prompts):
        raise PromptError("A diffusion model is given words alone, as in 'a dog on a bicycle'.")
    return tuple(prompt.text for prompt in prompts)
