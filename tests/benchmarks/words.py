"""The word probe against bare forward passes: `python tests/benchmarks/words.py`

A random vision transformer of ViT-B/32's size (224 px, 50 positions, 12 layers) alone. The probe
draws each word at four places, reads the pictures in batches and reduces the activations of the
last layer; its rival is the bare Hugging Face encoder on ready pixels, in the same batches. Times
are CPU seconds of this process; the ratio is the median of rounds in which both run side by side.

word probe / bare batched forward passes                                        at most 1.15
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from ratios import against, line

LIMIT, PLACES = 1.15, 4


def sized() -> tuple[Any, Any]:
    """A random encoder of ViT-B/32's size: bare, and hooked."""
    from transformers import ViTConfig, ViTModel

    import mmlens as mm

    torch.manual_seed(0)
    bare = ViTModel(ViTConfig(patch_size=32), add_pooling_layer=False).eval().requires_grad_(False)
    return bare, mm.from_parts(vision=bare)


def main() -> None:
    """Print the ratio; exit status 1 if it is above the limit."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--words", type=int, default=32)
    ask.add_argument("--batch", type=int, default=32)
    ask.add_argument("--rounds", type=int, default=5)
    given = ask.parse_args()
    torch.set_num_threads(1)

    from mmlens.methods.word_probe import word_probe
    from mmlens.values.english import english_words

    bare, model = sized()
    words = sorted(english_words())[:: max(1, 60_000 // given.words)][: given.words]
    n = len(words) * PLACES
    pixels = torch.rand(given.batch, 3, 224, 224) * 2 - 1

    def forwards() -> None:
        with torch.no_grad():
            for start in range(0, n, given.batch):
                bare(pixel_values=pixels[: min(given.batch, n - start)])

    def probe() -> None:
        word_probe(model, words, sizes=[0.2], batch=given.batch)

    word_probe(model, words[:2], sizes=[0.2])
    ratio, mine, theirs = against(probe, forwards, given.rounds)
    print(f"{len(words)} words x {PLACES} places: probe {mine:.2f} s, bare {theirs:.2f} s")
    line("word probe / bare batched forward passes", ratio, f"at most {LIMIT}")
    raise SystemExit(ratio > LIMIT)


if __name__ == "__main__":
    main()
