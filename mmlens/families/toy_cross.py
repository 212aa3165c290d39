"""A tiny random model whose pictures are no positions: tiles are keys of cross-attention layers.

    load("toy-cross")            SigLIP (16 patches a tile) - linear - GPT-2 with cross-attention
    load("toy-cross-planted")    one head with known ground truth: `model.provenance["planted"]`

The layout is that of Mllama, Flamingo and transformers' VisionEncoderDecoderModel: words alone have
positions, and every layer of words attends to the patches of all tiles. The planted head attends to
white patches (fitted by least squares) from every word and writes the unembedding direction of
" dog".
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import nn

from mmlens.families import family, toy
from mmlens.families.anatomy import anatomy
from mmlens.model.hooked_vlm import HookedVLM
from mmlens.model.image_reader import CrossReader
from mmlens.towers.language.language_model import wrap_lm
from mmlens.towers.vision.wrap import wrap_vision
from mmlens.values.arguments import SEEDS, count
from mmlens.values.labels import Head, Label, Patch
from mmlens.values.least_squares import least_squares

SIDE, PATCH = 32, 8
GRID = SIDE // PATCH
PLANTED = Head(1, 2)
_TOLD = "a tiny random model: SigLIP tiles - linear - GPT2 with cross-attention to them"


class TileKeys(CrossReader):
    """A picture cut into tiles side by side; every patch of every tile is a key, tile by tile."""

    @staticmethod
    def tiles(picture: Image.Image) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return max(1, round(picture.height / SIDE)), max(1, round(picture.width / SIDE))

    def count(self, vision: Any, picture: Image.Image, of: int = 1) -> int:
        rows, cols = self.tiles(picture)
        return rows * cols

    def crops(self, vision: Any, picture: Image.Image, of: int = 1) -> list[torch.Tensor]:
        rows, cols = self.tiles(picture)
        whole = picture.resize((cols * SIDE, rows * SIDE), Image.Resampling.BICUBIC)
        corners = [(col * SIDE, row * SIDE) for row in range(rows) for col in range(cols)]
        return [vision.preprocess(whole.crop((x, y, x + SIDE, y + SIDE))) for x, y in corners]

    def labels(
        self, vision: Any, picture: Image.Image, image: int, of: int = 1
    ) -> tuple[Label, ...]:
        patches = [(row, col) for row in range(GRID) for col in range(GRID)]
        tiles = range(self.count(vision, picture))
        return tuple(Patch(row, col, image, tile) for tile in tiles for row, col in patches)

    def box(self, vision: Any, patch: Patch, width: int, height: int) -> Any:
        rows, cols = max(1, round(height / SIDE)), max(1, round(width / SIDE))
        row, col = divmod(patch.crop, cols)
        high, wide = height / rows / GRID, width / cols / GRID
        left, top = (col * GRID + patch.col) * wide, (row * GRID + patch.row) * high
        return left, top, left + wide, top + high


@family({"toy-cross": _TOLD, "toy-cross-planted": f"{_TOLD}, with a planted head"})
def toy_cross(name: str, *, seed: int = 0) -> Any:
    """A tiny random model with cross-attention: SigLIP (2 layers of 16) - linear - GPT-2 (3 of 32).

    Args:
        seed: of all weights.
    """
    whole = parts(count(seed, "seed", least=0, most=SEEDS))
    provenance: dict[str, Any] = {"family": "toy", "seed": seed, "class": "GPT2LMHeadModel"}
    vision = wrap_vision(whole.encoder, toy._pixels())
    if name.endswith("-planted"):
        provenance["planted"] = str(PLANTED)
        _plant(whole, vision)
    return HookedVLM(
        vision, whole.enc_to_dec_proj, wrap_lm(whole.decoder, toy.tokenizer()),
        name=name, provenance=provenance, image_reader=TileKeys(),
    )  # fmt: skip


def parts(seed: int = 0) -> Any:
    """A VisionEncoderDecoderModel of transformers, whose parts the toy is made of."""
    import transformers as hf

    generator = torch.Generator().manual_seed(seed)
    eyes = hf.SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=SIDE, patch_size=PATCH, vision_use_head=False,
    )  # fmt: skip
    words: Any = hf.GPT2Config(
        **toy._GPT, vocab_size=len(toy.tokenizer()) + 2, add_cross_attention=True,
        bos_token_id=0, eos_token_id=0, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, tie_word_embeddings=False,
    )  # fmt: skip
    encoder, decoder = hf.SiglipVisionModel(eyes), hf.GPT2LMHeadModel(words)
    whole: Any = hf.VisionEncoderDecoderModel(encoder=encoder, decoder=decoder)
    for part in (encoder, decoder):
        toy._fill(part, generator, 0.15)
    toy._fill(whole.enc_to_dec_proj, generator, 0.3)
    return whole.eval()


@torch.no_grad()
def _plant(whole: Any, vision: Any) -> None:
    """Write the known head into the weights (see the module's text)."""
    places = [(row, col) for row in range(GRID) for col in range(GRID)]
    projection, words = whole.enc_to_dec_proj, whole.decoder
    direction = toy._clear_word(words, projection, toy.tokenizer()(" dog")["input_ids"][0])
    pixels = [vision.preprocess(toy.picture(at, seed=i)) for i, at in enumerate(places)]
    seen = projection(vision(torch.stack(pixels))).flatten(0, 1)
    white = torch.eye(len(places)).flatten()[:, None]
    fit = least_squares(torch.cat([seen, torch.ones(len(seen), 1)], 1), white)[:, 0]
    crossing = [block.crossattention for block in words.transformer.h]
    for parameter in [*anatomy(words, "gpt2").quiet, *(x.c_proj.weight.T for x in crossing)]:
        parameter.mul_(0.05)  # what else is written to the stream: next to nothing
        parameter -= torch.outer(direction, direction @ parameter)
    _plant_head(crossing[PLANTED.layer], fit, direction)


def _plant_head(module: nn.Module, fit: torch.Tensor, direction: torch.Tensor) -> None:
    """Make one head attend to what `fit` finds, read how much of it there is, and write it.

    Args:
        fit: Float[d_key + 1], a linear function of keys and its constant.
    """
    there: Any = module
    d = len(direction)
    size = d // toy._GPT["n_head"]
    block = slice(PLANTED.head * size, (PLANTED.head + 1) * size)
    first = block.start
    for start in (0, d):  # keys, then values
        columns = slice(start + block.start, start + block.stop)
        there.c_attn.weight[:, columns], there.c_attn.bias[columns] = 0.0, 0.0
        there.c_attn.weight[:, start + first], there.c_attn.bias[start + first] = fit[:-1], fit[-1]
    there.q_attn.weight[:, block], there.q_attn.bias[block] = 0.0, 0.0
    there.q_attn.bias[first] = 40.0
    there.c_proj.weight[block] = 0.0
    there.c_proj.weight[first] = 3.0 * direction
