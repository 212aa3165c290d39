"""Prompts: pictures and words in reading order, and the labels of their positions.

    Prompt(photo, "A picture of")          one picture, three or four tokens
    Prompt(a, " and ", b, "Both show")     several pictures, text between them
    Prompt.chat([photo, "What is this?"], "A dog.", "Which breed?", system="Answer briefly.")

A model with a chat template reads a `Prompt` as the user's turn; `template=False` gives it the
bare text. A `Prompt` holds no tensors: `model.embed(prompt)` turns it into a `SoftPrompt`, one
vector and one label per position, as the language model receives it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mmlens.values.arguments import flag, text
from mmlens.values.errors import PromptError
from mmlens.values.labels import Label, Padding, Patch, Token
from mmlens.values.picture_files import pictures, suffix
from mmlens.values.pictures import open_picture

if TYPE_CHECKING:
    import torch
    from PIL import Image

IMAGE_TOKEN = -1
"""The id of positions where a patch is injected; no vocabulary has it."""


@dataclass(frozen=True, init=False, eq=False)
class Prompt:
    """Pictures and words in reading order.

    Args:
        parts: text as `str`; pictures as `PIL.Image`, `pathlib.Path` or an `[h, w, 3]` array.
            Words that follow words are joined to one text.
        template: whether a model with a chat template puts it in there.

    Attributes:
        turns: the parts of each turn of a chat, the user's first; one turn unless made by `chat`.
        system: what a chat begins with, or "".

    Raises:
        PromptError: it is empty, or the text names a picture file.
        PictureError: a picture cannot be read.
    """

    turns: tuple[tuple[Image.Image | str, ...], ...]
    system: str
    template: bool

    def __init__(self, *parts: Any, template: bool = True) -> None:
        self._set((_joined(parts),), "", template)

    def _set(self, turns: tuple[tuple[Any, ...], ...], system: str, template: bool) -> None:
        values = {"turns": turns, "system": system, "template": flag(template, "template")}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def chat(cls, *turns: Any, system: str = "") -> Prompt:
        """Several turns, by turns the user's and the model's, for a model with a chat template.

        Args:
            turns: each a text, a picture, or a list of these. Where the last is the model's, its
                answer goes on from there.
            system: what the chat begins with.
        """
        if not turns:
            raise PromptError(
                "This chat has no turn: write Prompt.chat([photo, 'What is this?'], ...)."
            )
        made = cls.__new__(cls)
        several = (one if isinstance(one, (list, tuple)) else (one,) for one in turns)
        made._set(tuple(_joined(parts) for parts in several), text(system, "system"), True)
        return made

    @property
    def parts(self) -> tuple[Image.Image | str, ...]:
        """Pictures and words of all turns, in reading order."""
        return tuple(part for turn in self.turns for part in turn)

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """The pictures, RGB, in reading order."""
        return tuple(part for part in self.parts if not isinstance(part, str))

    @property
    def text(self) -> str:
        """The words alone, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    def __add__(self, text: str) -> Prompt:
        """The same prompt with more words after it, in its last turn."""
        return self._with((*self.turns[:-1], _joined((*self.turns[-1], text))))

    def with_pictures(self, pictures: Sequence[Any]) -> Prompt:
        """The same prompt with other pictures, as many as it has, in reading order."""
        new = iter(pictures)
        turns = tuple(
            _joined([part if isinstance(part, str) else next(new) for part in turn])
            for turn in self.turns
        )
        return self._with(turns)

    def _with(self, turns: tuple[tuple[Any, ...], ...]) -> Prompt:
        made = Prompt.__new__(Prompt)
        made._set(turns, self.system, self.template)
        return made

    def _repr_html_(self) -> str:
        from mmlens.values.prompt_html import prompt_html

        return prompt_html(self)

    def __repr__(self) -> str:
        turns = [", ".join(map(_shown, turn)) for turn in self.turns]
        if len(turns) == 1 and not self.system:
            return f"Prompt({turns[0]}{'' if self.template else ', template=False'})"
        system = f", system={self.system!r}" if self.system else ""
        return f"Prompt.chat({', '.join(f'[{turn}]' for turn in turns)}{system})"


def _joined(parts: Sequence[Any]) -> tuple[Image.Image | str, ...]:
    """The parts of one turn: adjacent texts are joined, and tokenized as one."""
    kept: list[Any] = []
    for part in map(_part, parts):
        if isinstance(part, str) and kept and isinstance(kept[-1], str):
            kept[-1] += part
        elif not isinstance(part, str) or part:
            kept.append(part)
    if not kept:
        raise PromptError(
            "This prompt is empty: give it a picture, words, or both, as in"
            ' Prompt(photo, "A picture of").'
        )
    return tuple(kept)


def _shown(part: Image.Image | str) -> str:
    return repr(part) if isinstance(part, str) else f"<picture {part.width}x{part.height}>"


def _part(part: Any) -> Image.Image | str:
    if isinstance(part, (list, tuple)):
        raise PromptError(
            f"A {type(part).__name__} is no part of a prompt: write its parts one after another, as"
            ' in Prompt(photo, "A picture of").'
        )
    if not isinstance(part, str):
        return open_picture(part)
    if "." in part and "\n" not in part and suffix(part) in pictures():
        if os.path.isfile(part):
            raise PromptError(
                f"{part!r} is text here, but a picture file of that name exists:"
                f" write Prompt(Path({part!r}), ...) to show the picture."
            )
        if len(part.split()) == 1 and part == part.strip():
            raise PromptError(
                f"{part!r} is the name of a picture file, and there is none here: write"
                " Prompt(Path('folder/name.png'), ...) with a path from this folder, or open it"
                " with PIL."
            )
    return part


@dataclass(frozen=True, eq=False)
class PictureKeys:
    """Pictures that are not positions of their prompt: keys of cross-attention layers.

    Attributes:
        vectors: Float[batch, key, d_key], from which those layers compute keys and values.
        mask: Bool[batch, key], False at padding (on the left).
        labels: per row, one label per key.
    """

    vectors: torch.Tensor
    mask: torch.Tensor
    labels: tuple[tuple[Label, ...], ...]

    def rows(self, index: Sequence[int]) -> PictureKeys:
        """The keys of some rows, by their numbers."""
        some = list(index)
        labels = tuple(self.labels[i] for i in some)
        return PictureKeys(self.vectors[some], self.mask[some], labels)

    def unpadded(self) -> PictureKeys:
        """One row without its padding."""
        pad = sum(isinstance(label, Padding) for label in self.labels[0])
        return PictureKeys(self.vectors[:, pad:], self.mask[:, pad:], (self.labels[0][pad:],))


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """Prompts as the language model receives them: one vector and one label per position.

    Attributes:
        vectors: Float[batch, pos, d_model], in the space of the embedding output.
        ids: Int[batch, pos], `IMAGE_TOKEN` at patches.
        mask: Bool[batch, pos], False at padding (on the left).
        labels: per row, one label per position.
        prompts: the prompts it was made from; empty when the vectors were given.
        picture_keys: the pictures, where the model reads them by cross-attention.
        deep: Float[batch, pos, layer, d_model], what is added of the pictures behind the first
            layers, zero at words; None for models that read pictures at the embedding alone.
    """

    vectors: torch.Tensor
    ids: torch.Tensor
    mask: torch.Tensor
    labels: tuple[tuple[Label, ...], ...]
    prompts: tuple[Prompt, ...] = field(default=(), repr=False)
    picture_keys: PictureKeys | None = field(default=None, repr=False)
    deep: torch.Tensor | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def is_picture(self) -> torch.Tensor:
        """Bool[batch, pos]: where a patch is injected."""
        return self.ids == IMAGE_TOKEN

    @property
    def has_pictures(self) -> bool:
        """Whether there is a picture in it, as positions or as keys."""
        return self.picture_keys is not None or bool(self.is_picture.any())

    @property
    def one_layout(self) -> bool:
        """Whether every row has the same labels except for the text of its tokens."""
        return same_layout(self.labels)

    def between(self, start: int = 0, stop: int | None = None) -> SoftPrompt:
        """Some of its positions."""
        here = slice(start, stop)
        return replace(
            self,
            vectors=self.vectors[:, here],
            ids=self.ids[:, here],
            mask=self.mask[:, here],
            labels=tuple(row[here] for row in self.labels),
            deep=None if self.deep is None else self.deep[:, here],
        )

    def extend(
        self, ids: torch.Tensor, vectors: torch.Tensor, words: list[list[str]]
    ) -> SoftPrompt:
        """The same prompts and more tokens: ids [batch, new], vectors [batch, new, d_model]."""
        import torch
        from torch.nn.functional import pad

        labels = tuple(
            row + tuple(Token(word, next_at(row) + i) for i, word in enumerate(new))
            for row, new in zip(self.labels, words, strict=True)
        )
        return replace(
            self,
            vectors=torch.cat([self.vectors, vectors.to(self.vectors)], dim=1),
            ids=torch.cat([self.ids, ids.to(self.ids)], dim=1),
            mask=torch.cat([self.mask, torch.ones_like(ids, dtype=torch.bool)], dim=1),
            labels=labels,
            deep=None if self.deep is None else pad(self.deep, (0, 0, 0, 0, 0, ids.shape[1])),
        )


@dataclass(frozen=True, eq=False)
class PictureReading:
    """The input of a vision encoder without a language model.

    Attributes:
        pixels: Float[picture, 3, h, w], preprocessed.
        prompts: the prompts they were made from; empty where the pixels were given.
    """

    pixels: torch.Tensor
    prompts: tuple[Prompt, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)


def same_layout(rows: tuple[tuple[Label, ...], ...]) -> bool:
    """Whether labels differ only by the text of their tokens."""
    return len({tuple(_place(label) for label in row) for row in rows}) == 1


def _place(label: Label) -> object:
    return label if isinstance(label, Patch) else (type(label), label.at)


def next_at(row: tuple[Label, ...]) -> int:
    """The position after the last of a prompt with these labels (padding not counted)."""
    return sum(not isinstance(label, Padding) for label in row)
