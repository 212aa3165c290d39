"""From a prompt to its positions: the id and the label of each.

`PromptReader` is the default of a bridge: words by the tokenizer, pictures where they stand among
them. A model that comes with a processor and a chat template reads its prompts through these
(`mmlens.model.chat_reader`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.towers.language.tokenization import ids_after, ids_of, placeholder, word
from mmlens.values.errors import PromptError
from mmlens.values.labels import Label, Token
from mmlens.values.prompt import IMAGE_TOKEN, Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Positions = list[tuple[int, Label]]
"""Per position its id (`IMAGE_TOKEN` where a picture stands) and its label."""


class PromptReader:
    """Words as the tokenizer reads them, one part after the other.

    Attributes:
        written_by: how a model with this reader is saved, where mmlens writes no folder of it.
    """

    written_by = ""

    def read(self, model: HookedVLM, prompt: Prompt, bos: bool | None) -> Positions:
        """The positions of one prompt.

        Args:
            bos: whether it begins with the BOS token; None: as the model's prompts do.

        Raises:
            PromptError: it has no tokens, several turns, or a picture that nothing reads.
        """
        _one_turn(model, prompt)
        bos = model.prepend_bos if bos is None else bos
        parts: Positions = []
        image, begun, crosses = 0, False, model.image_reader.crosses
        n = len(prompt.pictures)
        refuse_placeholder(model, prompt.text, pictures=bool(prompt.pictures))
        alone = crosses and not prompt.text  # cross-attention needs a position
        words = model.tokenizer
        if (bos or alone) and words is not None and words.bos_token_id is not None:
            parts.append((words.bos_token_id, Token(words.bos_token, 0)))
        for part in prompt.parts:
            if isinstance(part, str):
                spell = ids_after if begun else ids_of
                for token in spell(model.lm, part):
                    parts.append((token, Token(word(model.lm, token), len(parts))))
                begun = begun or crosses
            else:
                if model.vision is None:
                    raise PromptError(
                        f"{model.name!r} has no vision encoder: give it text, or load a bridge."
                    )
                labels = model.image_reader.labels(model.vision, part, image, n)
                parts += [] if crosses else [(IMAGE_TOKEN, label) for label in labels]
                image, begun = image + 1, begun or not crosses
        if not parts:
            raise PromptError(f"{prompt!r} is no token at all to {model.name!r}: write more words.")
        return parts


def refuse_placeholder(model: HookedVLM, text: str, pictures: bool) -> None:
    """Refuse a text beside pictures that contains a picture's placeholder, such as `<image>`."""
    typed = placeholder(model.tokenizer, text) if pictures else None
    if typed is not None:
        raise PromptError(
            f"The words of this prompt hold {typed!r}, which would be read as words beside the"
            " picture: leave it out, the picture stands where it is among the parts, as in"
            " Prompt('USER: ', photo, ' What is this?')."
        )


def _one_turn(model: HookedVLM, prompt: Prompt) -> None:
    if len(prompt.turns) > 1 or prompt.system:
        raise PromptError(
            f"{model.name!r} has no chat template, so it reads neither turns nor a system text:"
            " write them into one prompt, as in Prompt('USER: ', photo, ' What is this?')."
        )
