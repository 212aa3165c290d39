"""Small vision models for the tests of word probes, attacks and probes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image

import mmlens as mm
from mmlens.model.hooked_vision_model import HookedVisionModel

SIDE = 32
NAMES = ("red", "green", "blue", "dog", "pizza")


def classifier(seed: int = 0) -> HookedVisionModel:
    """A random ViT with five named classes, CLS and 4 x 4 patches; a new one for each caller."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        image_size=SIDE, patch_size=8, initializer_range=0.3,
        id2label=dict(enumerate(NAMES)), label2id={name: i for i, name in enumerate(NAMES)},
    )  # fmt: skip
    return mm.from_parts(vision=ViTForImageClassification(config).eval())


def noise(n: int, side: int = SIDE, seed: int = 0) -> list[Image.Image]:
    """Pictures of random pixels."""
    rng = np.random.default_rng(seed)
    return [
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for _ in range(n)
    ]


def flat(colour: Any, n: int = 1, seed: int = 0) -> list[Image.Image]:
    """Pictures of one colour, a little different each."""
    rng = np.random.default_rng(seed)
    shades = np.clip(np.array(colour) + rng.integers(-20, 20, (n, 3)), 0, 255)
    return [Image.new("RGB", (SIDE, SIDE), tuple(map(int, shade))) for shade in shades]
