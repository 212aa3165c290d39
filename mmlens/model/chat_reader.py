"""Prompts read by a checkpoint's own processor and chat template.

    Prompt(photo, "What is this?")                  put into the template, as the user's turn
    Prompt(photo, "answer en", template=False)      as it is, between the processor's own tokens
    Prompt.chat([photo, "What is this?"], "A dog.", "Which breed?", system="Answer briefly.")

The ids are those that the processor gives; `model.to_str_tokens(prompt)` shows them. Its image
tokens are the positions of the pictures, in order, and the model's `ImageReader` labels them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mmlens.model.image_reader import labels_of
from mmlens.model.prompt_reader import Positions, PromptReader, refuse_placeholder
from mmlens.towers.language.tokenization import word
from mmlens.values.errors import PromptError, reason
from mmlens.values.labels import Label, Token
from mmlens.values.prompt import IMAGE_TOKEN, Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

ROLES = ("user", "assistant")
"""Whose turn it is, by turns."""


class ChatReader(PromptReader):
    """Reads prompts through a processor of transformers.

    Args:
        processor: of words and pictures, with a chat template or without.
        image_id: the id that it puts at every position of a picture.
        picture: what stands for a picture in a text that is given to it, such as "<image>".
    """

    written_by = (
        "write save_pretrained(folder) of the model and of its processor, and mmlens.load(folder)"
        " reads both"
    )

    def __init__(self, processor: Any, image_id: int, picture: str) -> None:
        self.processor, self.image_id, self.picture = processor, image_id, picture

    @property
    def templated(self) -> bool:
        """Whether there is a chat template."""
        return bool(getattr(self.processor, "chat_template", None))

    def written(self, prompt: Prompt) -> str:
        """The text that the processor is given, with a placeholder for every picture.

        Raises:
            PromptError: several turns, or a system text, without a template.
        """
        if self.templated and prompt.template:
            answers = len(prompt.turns) % 2 == 1
            return self.processor.apply_chat_template(
                _messages(prompt),
                tokenize=False,
                add_generation_prompt=answers,
                continue_final_message=not answers,
            )
        if len(prompt.turns) > 1 or prompt.system:
            raise PromptError(
                "This checkpoint has no chat template, so it reads neither turns nor a system"
                " text: write them into one prompt, as in"
                " Prompt('USER: ', photo, ' What is this?')."
            )
        return "".join(part if isinstance(part, str) else self.picture for part in prompt.parts)

    def read(self, model: HookedVLM, prompt: Prompt, bos: bool | None) -> Positions:
        refuse_placeholder(model, prompt.text, pictures=bool(prompt.pictures))
        ids = self.inputs(prompt, bos)["input_ids"][0].tolist()
        if not ids:
            raise PromptError(f"{prompt!r} is no token at all to {model.name!r}: write more words.")
        if model.image_reader.crosses:
            return [(token, Token(word(model.lm, token), at)) for at, token in enumerate(ids)]
        every = labels_of(model.image_reader, model.vision, prompt.pictures)
        labels = [label for some in every for label in some]
        pictured = self.pictured(ids)
        n = sum(pictured)
        if n != len(labels):
            raise PromptError(
                f"The processor of {model.name!r} gives the pictures of {prompt!r} {n} positions,"
                f" and its layout has {len(labels)}: the processor is another checkpoint's, or its"
                " chat template leaves pictures out."
            )
        return _labelled(model, ids, pictured, labels)

    def pictured(self, ids: list[int]) -> list[bool]:
        """Which of these ids stand where a picture has a position."""
        return [token == self.image_id for token in ids]

    def inputs(self, prompt: Prompt, bos: bool | None = None) -> Mapping[str, Any]:
        """What the processor makes of a prompt: ids, masks, pixels; one row.

        Special tokens stand in it once, whether the template or the tokenizer writes them.

        Raises:
            PromptError: the processor does not read it.
        """
        written, words = self.written(prompt), self.processor.tokenizer
        options: dict[str, Any] = {"return_tensors": "pt"}
        start = getattr(words, "bos_token", None)
        if bos is not None or (start and written.startswith(start)):
            options["add_special_tokens"] = bool(bos)
        if not prompt.pictures:
            return words([written], **options)
        try:
            read = self.processor(images=[list(prompt.pictures)], text=[written], **options)
            return {name: value for name, value in read.items() if name != "labels"}
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise PromptError(f"The processor does not read {prompt!r}: {reason(error)}") from error


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    """The conversation as chat templates take it."""
    said = [("system", (prompt.system,))] if prompt.system else []
    said += [(ROLES[at % 2], turn) for at, turn in enumerate(prompt.turns)]
    return [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"}
                for part in turn
            ],
        }
        for role, turn in said
    ]


def _labelled(
    model: HookedVLM, ids: list[int], pictured: list[bool], labels: list[Label]
) -> Positions:
    """Every position with its label; those of pictures are taken in order."""
    mine = iter(labels)
    return [
        (IMAGE_TOKEN, next(mine)) if seen else (token, Token(word(model.lm, token), at))
        for at, (token, seen) in enumerate(zip(ids, pictured, strict=True))
    ]
