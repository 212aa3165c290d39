"""BLIP-2 and InstructBLIP: a Q-Former reads a picture into a few query tokens, before the words.

Junnan Li et al., BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and
Large Language Models, 2023; Wenliang Dai et al., InstructBLIP, 2023, whose Q-Former reads the
words of the prompt as well. Each query attends to the whole picture, so its position lies nowhere
in it: it is labelled `Marker("query", n)`, and has no box.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mmlens.families.llava import ProcessedReader
from mmlens.families.native import Eyes, native, square
from mmlens.model.chat_reader import ChatReader
from mmlens.model.queries import Queries
from mmlens.towers.vision.wrap import from_hf
from mmlens.values.errors import CapabilityError, PromptError
from mmlens.values.prompt import Prompt


class QueryReader(Queries, ProcessedReader):
    """One crop for the encoder.

    Args:
        n: how many queries there are.
    """

    def __init__(self, images: Any, n: int) -> None:
        super().__init__(images)
        self.n = n


class InstructedReader(QueryReader):
    """Queries that read the words of their prompt.

    Args:
        tokenizer: of the Q-Former.
    """

    def __init__(self, images: Any, n: int, tokenizer: Any) -> None:
        super().__init__(images, n)
        self.tokenizer, self.words = tokenizer, {}

    def beside(self, words: Any, prompts: Sequence[Prompt]) -> InstructedReader:
        texts = [words.written(prompt) for prompt in prompts for _ in prompt.pictures]
        out = copy.copy(self)
        if texts:
            out.words = dict(
                self.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
            )
        return out

    def project(self, projection: Any, features: Any, vision: Any, size: Any) -> torch.Tensor:
        ids, mask = (
            self.words[name].to(features.device) for name in ("input_ids", "attention_mask")
        )
        return projection(features, ids, mask)


class QFormer(nn.Module):
    """Queries that attend to the features, and their linear map to the language model.

    Args:
        model: of the class.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.queries, self.former = model.query_tokens, model.qformer
        self.linear = model.language_projection

    def forward(
        self,
        features: torch.Tensor,
        ids: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Features [crop, patch, d_vision] to vectors [crop, query, d_model].

        Args:
            ids, mask: Int[crop, word], the words that the queries read, and which are no padding.
        """
        queries, (n, width, _) = self.queries.expand(len(features), -1, -1), features.shape
        told: dict[str, Any] = {}
        if ids is not None and mask is not None:
            seen = torch.cat([torch.ones_like(queries[..., 0], dtype=torch.long), mask], 1)
            told = {"input_ids": ids, "attention_mask": seen}
        out = self.former(
            query_embeds=queries,
            encoder_hidden_states=features,
            encoder_attention_mask=torch.ones(n, width, dtype=torch.long, device=features.device),
            **told,
        ).last_hidden_state[:, : queries.shape[1]]
        return self.linear(out.to(self.linear.weight.dtype))


class PictureFirst(ChatReader):
    """Prompts of one picture, which stands before their words."""

    def written(self, prompt: Prompt) -> str:
        if len(prompt.pictures) > 1 or (prompt.pictures and isinstance(prompt.parts[0], str)):
            raise PromptError(
                "This model reads one picture, before the words: write"
                f" Prompt(photo, 'Question: ...'), not {prompt!r}."
            )
        return super().written(prompt)


def blip2(model: Any, processor: Any) -> Eyes:
    """The encoder with its class token, the Q-Former, and the language model as it is."""
    config, words = model.config, copy.copy(processor)
    if not config.use_decoder_only_language_model:
        raise CapabilityError(
            f"The language model of this {type(model).__name__} has an encoder for words"
            f" ({config.text_config.model_type}), and mmlens reads decoders: take a checkpoint with"
            " OPT or Vicuna, such as 'Salesforce/blip2-opt-2.7b'."
        )
    n = words.num_query_tokens = config.num_query_tokens
    images = words.image_processor
    side = config.vision_config.image_size
    vision = from_hf(model.vision_model, square(images, side), keep_prefix=True)
    reader = QueryReader(images, n)
    if config.model_type == "instructblip":
        reader = InstructedReader(images, n, words.qformer_tokenizer)
    return Eyes(vision, QFormer(model), reader, words, "", PictureFirst, model.language_model)


native("blip-2", "Blip2ForConditionalGeneration", "Salesforce/blip2-opt-2.7b")(blip2)
native("instructblip", "InstructBlipForConditionalGeneration", "Salesforce/instructblip-vicuna-7b")(
    blip2
)
