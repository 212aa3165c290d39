"""A tiny random tiled model: a base grid, tiles and newlines, as LLaVA-NeXT lays them out.

    load("toy-tiled")            CLIP (32 px, 16 patches a crop) - MLP - Llama

`TiledReader` is all that such a family brings: how a picture is cut, and which label and vector
each position gets. The model around it is a plain `HookedVLM` of the parts of a tiny random
LlavaNextForConditionalGeneration, which is the truth that the tests compare with.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from mmlens.families import family, toy
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.image_reader import ImageReader
from mmlens.towers.language.language_model import wrap_lm
from mmlens.towers.vision.wrap import wrap_vision
from mmlens.values.arguments import SEEDS, count
from mmlens.values.labels import Label, Marker, Patch

SIDE, PATCH = 32, 8
GRID = SIDE // PATCH
PINPOINTS = [[32, 64], [64, 32]]


class TiledReader(ImageReader):
    """The whole picture squashed, then its tiles side by side, a newline behind every row.

    Pictures are as large as their tiles, so nothing is padded.
    """

    one_grid = False

    def __init__(self, newline: torch.Tensor) -> None:
        self.newline = newline

    @staticmethod
    def tiles(picture: Image.Image) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return picture.height // SIDE, picture.width // SIDE

    def count(self, vision: Any, picture: Image.Image, of: int = 1) -> int:
        rows, cols = self.tiles(picture)
        return 1 + rows * cols  # the whole picture first

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        rows, cols = self.tiles(picture)
        cut = [picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)]
        for row in range(rows):
            for col in range(cols):
                left, top = col * SIDE, row * SIDE
                cut.append(picture.crop((left, top, left + SIDE, top + SIDE)))
        return [vision.preprocess(one) for one in cut]

    def labels(
        self, vision: Any, picture: Image.Image, image: int, of: int = 1
    ) -> tuple[Label, ...]:
        rows, cols = self.tiles(picture)
        base = [Patch(r, c, image) for r in range(GRID) for c in range(GRID)]
        tiled: list[Label] = []
        for row in range(rows * GRID):
            for col in range(cols * GRID):
                crop = 1 + row // GRID * cols + col // GRID
                tiled.append(Patch(row % GRID, col % GRID, image, crop))
            tiled.append(Marker("newline", len(base) + len(tiled), image))
        return (*base, *tiled)

    def vectors(
        self, projected: torch.Tensor, labels: tuple[Label, ...], picture: Image.Image
    ) -> torch.Tensor:
        newline = self.newline.to(projected)
        return torch.stack(
            [
                projected[one.crop, one.row * GRID + one.col] if isinstance(one, Patch) else newline
                for one in labels
            ]
        )

    def box(self, vision: Any, patch: Patch, width: int, height: int) -> Any:
        if patch.crop == 0:
            wide, high = width / GRID, height / GRID
            left, top = patch.col * wide, patch.row * high
            return left, top, left + wide, top + high
        row, col = divmod(patch.crop - 1, width // SIDE)
        left, top = col * SIDE + patch.col * PATCH, row * SIDE + patch.row * PATCH
        return left, top, left + PATCH, top + PATCH


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
    tokenizer = toy.tokenizer()
    image_token = len(tokenizer)
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
    settings: dict[str, Any] = {
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
    }
    processor = hf.LlavaNextImageProcessor(image_grid_pinpoints=PINPOINTS, **settings)
    vision = wrap_vision(whole.model.vision_tower, hf.CLIPImageProcessor(**settings))
    causal = hf.LlamaForCausalLM(text).eval()
    causal.model, causal.lm_head = whole.model.language_model, whole.lm_head
    model = HookedVLM(
        vision.at("blocks.1.hook_resid_post"), whole.model.multi_modal_projector,
        wrap_lm(causal, tokenizer), name="toy-tiled",
        provenance={"family": "toy", "seed": seed, "class": "LlamaForCausalLM"},
        image_reader=TiledReader(whole.model.image_newline.detach()),
    )  # fmt: skip
    return whole, model, processor
