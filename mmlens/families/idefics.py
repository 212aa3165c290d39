"""IDEFICS (the open Flamingo): a perceiver reads a picture into keys of gated cross-attention.

Hugo Laurençon et al., OBELICS: An Open Web-Scale Filtered Dataset of Interleaved Image-Text
Documents, 2023; Jean-Baptiste Alayrac et al., Flamingo, 2022. The encoder reads the whole picture,
squashed to a square; a perceiver resamples its patches and class token to learned latents, each of
which attends to the whole picture and lies nowhere in it. Words alone are positions, and gated
layers between the others let them read the latents (`mmlens.towers.language.interleaved`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmlens.families.llava import ProcessedReader
from mmlens.families.native import Eyes, native, square
from mmlens.model.chat_reader import ChatReader
from mmlens.model.image_reader import CrossReader
from mmlens.model.queries import Queries
from mmlens.towers.language.inside import eyeless
from mmlens.towers.language.interleaved import interleaved
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.errors import CapabilityError, PromptError, reason
from mmlens.values.prompt import Prompt


class LatentKeys(Queries, CrossReader, ProcessedReader):
    """Every latent is a key.

    Args:
        n: how many there are.
    """

    has_others = True

    def __init__(self, images: Any, n: int) -> None:
        super().__init__(images)
        self.n = n

    def crops(self, vision: Any, picture: Any, of: int = 1) -> list[torch.Tensor]:
        return list(self.images([picture], return_tensors="pt"))


class Interleaved(ChatReader):
    """Prompts of IDEFICS, whose processor is given pictures between texts.

    It puts the first token and the tokens around pictures itself, and takes off the spaces at both
    ends of each text.
    """

    def inputs(self, prompt: Prompt, bos: bool | None = None) -> Mapping[str, Any]:
        words, pictures = self.processor.tokenizer, list(prompt.pictures)
        texts = self.written(prompt).removeprefix(words.bos_token).split(self.picture)
        parts: list[Any] = [texts[0]]
        for picture, text in zip(pictures, texts[1:], strict=True):
            parts += [picture, text]
        said = [one for one in parts if not isinstance(one, str) or one.strip(" ")]
        try:
            read = self.processor(text=[said or [""]], return_tensors="pt")
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            raise PromptError(f"The processor does not read {prompt!r}: {reason(error)}") from error
        if bos is False:
            rows = ("input_ids", "attention_mask", "image_attention_mask")
            return {n: x[:, 1:] if n in rows else x for n, x in read.items()}
        return dict(read)


@native("idefics", "IdeficsForVisionText2Text", "HuggingFaceM4/idefics-9b")
def idefics(model: Any, processor: Any) -> Eyes:
    """The encoder with its class token, the perceiver, and the layers in the order they run."""
    config = model.config
    if not config.use_resampler:
        raise CapabilityError(
            "This IDEFICS has no perceiver (use_resampler=False), and mmlens reads those with one:"
            " take 'HuggingFaceM4/idefics-9b', or 'idefics3' for patches that are positions."
        )
    images = processor.image_processor
    recipe = square(images, config.vision_config.image_size)
    vision = from_hf(model.model.vision_model, recipe, keep_prefix=True)
    reader = LatentKeys(images, config.perceiver_config.resampler_n_latents)
    ends = processor.tokenizer.eos_token_id
    words = interleaved(_one_vocabulary(eyeless(model)), processor.image_token_id, ends)
    resampler = model.model.perceiver_resampler
    return Eyes(vision, resampler, reader, processor, "<image>", Interleaved, words)


def _one_vocabulary(model: Any) -> Any:
    """An eyeless model whose words of both its vocabularies are rows of one embedding and one head.

    Both tables are copied where the second vocabulary has words.
    """
    inner, head = model.model, model.lm_head
    if not model.config.additional_vocab_size:
        return model
    table = inner.embed_tokens
    rows = torch.cat([table.weight, table.additional_embedding.weight]).detach()
    columns = torch.cat([head.weight, head.additional_fc.weight]).detach()
    every = nn.Embedding.from_pretrained(rows, freeze=True)
    linear = nn.Linear(columns.shape[1], len(columns), bias=False, device="meta")
    linear.weight = nn.Parameter(columns, requires_grad=False)
    inner._modules = {**inner._modules, "embed_tokens": every}
    model._modules = {**model._modules, "lm_head": linear}
    model.config = copy.deepcopy(model.config)
    model.config.vocab_size, model.config.additional_vocab_size = len(rows), 0
    return model
