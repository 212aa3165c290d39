"""A tiny random tiled model: a base grid, tiles and newlines, as LLaVA-NeXT lays them out.

    load("toy-tiled")            CLIP (32 px, 16 patches a crop) - MLP - Llama

A LlavaNextForConditionalGeneration of transformers and a real processor (without a chat template),
through the family that takes real ones (`mmlens.families.llava_next`).
"""

from __future__ import annotations

from typing import Any

import torch

from mmlens.families import family, native, toy
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.values.arguments import SEEDS, count

SIDE, PATCH = 32, 8
GRID = SIDE // PATCH
PINPOINTS = [[32, 64], [64, 32]]


@family({"toy-tiled": "a tiny random tiled model: CLIP - MLP - Llama, as in LLaVA-NeXT"})
def toy_tiled(name: str, *, seed: int = 0) -> Any:
    """A tiny random tiled model: CLIP (3 layers of 24) - MLP - Llama (3 of 32).

    Args:
        seed: of all weights.
    """
    return twin(count(seed, "seed", least=0, most=SEEDS))[1]


def twin(seed: int = 0) -> tuple[Any, HookedVLM, Any]:
    """A tiny LLaVA-NeXT of transformers, the same weights as a HookedVLM, and its processor."""
    import transformers as hf

    generator = torch.Generator().manual_seed(seed)
    processor = _processor()
    image_token = processor.image_token_id
    text = hf.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=image_token + 1, max_position_embeddings=256,
        tie_word_embeddings=False,
    )  # fmt: skip
    eyes = hf.CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        image_size=SIDE, patch_size=PATCH,
    )  # fmt: skip
    config = hf.LlavaNextConfig(
        vision_config=eyes, text_config=text, image_token_index=image_token,
        image_grid_pinpoints=PINPOINTS, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    whole = hf.LlavaNextForConditionalGeneration(config).eval()
    toy._fill(whole, generator, 0.15)
    told = {"family": "toy", "seed": seed, "class": "LlavaNextForConditionalGeneration"}
    return whole, native.hooked(whole, processor, name="toy-tiled", told=told), processor


def _processor() -> Any:
    """The processor of LLaVA-NeXT around the toys' tokenizer and one more token."""
    import transformers as hf

    words = toy.tokenizer.__wrapped__()  # not the one that all toys share
    words.add_tokens(["<image>"], special_tokens=True)
    settings: dict[str, Any] = {
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
    }
    images = hf.LlavaNextImageProcessor(image_grid_pinpoints=PINPOINTS, **settings)
    return hf.LlavaNextProcessor(
        images, words, patch_size=PATCH, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )  # fmt: skip
