"""A picture read once, and 20 questions about it: `python tests/benchmarks/embed_once.py`

A LLaVA of a real-sized encoder (CLIP ViT-L/14 at 224 pixels, or `--side 336`) before a small random
language model. The same 20 questions (8 attributions, 8 lenses, 4 patches of an activation) are
asked of the `Prompt`, which runs the encoder each time, and of what `model.embed` made of it once.
Both in one process, one after the other, CPU seconds:

    the embedding included, at least 3 times faster
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path[:0] = [str(Path(__file__).parents[1])]
LEAST = 3.0


def made(side: int) -> Any:
    """The model, with the processor class of LLaVA around the toys' tokenizer."""
    import transformers as hf
    from native_twins import LLAVA_CHAT, awake, language, token, tokenizer

    import mmlens as mm

    eyes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "image_size": side, "patch_size": 14}  # fmt: skip
    text = {**language(), "hidden_size": 256, "intermediate_size": 512,
            "max_position_embeddings": 2048}  # fmt: skip
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**eyes), text_config=hf.LlamaConfig(**text),
        image_token_index=token("<image>"), vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    square = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(**square), tokenizer(), chat_template=LLAVA_CHAT
    )
    return mm.from_model(awake(hf.LlavaForConditionalGeneration(config), 0.02), processor)


def asked(model: Any, prompt: Any, clean: Any) -> None:
    """The 20 questions."""
    import mmlens as mm

    for token in range(5, 13):
        mm.attribute(model, prompt, token, after="", layer=[token % 3])
        mm.logit_lens(model, prompt, [token], pos=-1)
    with torch.no_grad():
        for layer in (0, 1, 2, 2):
            model.edit(mm.Edit("resid_post", clean.sel(layer=layer), layer=layer))(prompt)


def main() -> int:
    """Print both times and their ratio; 1 where it is less than it must be."""
    from native_twins import photo

    import mmlens as mm

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--side", type=int, default=224)
    model = made(options.parse_args().side)
    prompt = mm.Prompt(photo(640, 480), "What is this?")
    clean = mm.activations(model, prompt, "resid_post")  # also warms up
    start = time.process_time()
    asked(model, prompt, clean)
    pixels = time.process_time() - start
    start = time.process_time()
    asked(model, model.embed(prompt), clean)
    once = time.process_time() - start
    print(f"20 questions: with pixels {pixels:.1f} s, embedded once {once:.1f} s CPU", end="; ")
    print(f"{pixels / once:.1f} times faster, at least {LEAST:g} are wanted")
    return int(pixels / once < LEAST)


if __name__ == "__main__":
    sys.exit(main())
