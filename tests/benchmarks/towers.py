"""Hooked encoders against bare ones: `python tests/benchmarks/towers.py`

Random encoders of real size, alone and as halves of a dual encoder, at 224 pixels on one thread:
ViT-B/32 and Swin-T of transformers, ViT-B/32 and RN50 of open_clip. Times are CPU seconds of this
process; a ratio is the median of rounds in which both run side by side.

1. forward through a hooked tower with no hook in place / the bare module         at most 1.03
2. wrapping (everything that is measured of an encoder) / one bare forward pass of its test picture;
   beside it the shares of naming points and of finding grids                     reported
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from ratios import against, line, seconds

LIMIT = 1.03
CLIP = {"embed_dim": 512, "text_cfg": {"layers": 2, "width": 128, "heads": 2, "vocab_size": 512}}


def transformers_vit() -> tuple[Any, Any, Callable[[Any], Any], Callable[[Any], Any]]:
    """(what is wrapped, the model, the bare pass, the hooked pass)"""
    from transformers import ViTConfig, ViTModel

    bare = ViTModel(ViTConfig(patch_size=32), add_pooling_layer=False).eval()
    model = wrap(bare)
    return bare, model, lambda x: bare(pixel_values=x), model.vision


def transformers_swin() -> tuple[Any, ...]:
    """Stages of finer sequences, whose order is measured."""
    from transformers import SwinConfig, SwinModel

    bare = SwinModel(SwinConfig(), add_pooling_layer=False).eval()
    model = wrap(bare)
    return bare, model, lambda x: bare(pixel_values=x), model.vision


def open_clip_half(vision: dict[str, Any]) -> Callable[[], tuple[Any, ...]]:
    """The image half of a dual encoder, run to the embedding."""

    def make() -> tuple[Any, ...]:
        import open_clip

        bare = open_clip.CLIP(**CLIP, vision_cfg=vision).eval()
        model = wrap(bare)
        return bare, model, bare.encode_image, model._image

    return make


CASES: dict[str, Callable[[], tuple[Any, ...]]] = {
    "transformers ViT-B/32": transformers_vit,
    "transformers Swin-T": transformers_swin,
    "open_clip ViT-B/32": open_clip_half({"image_size": 224, "patch_size": 32}),
    "open_clip RN50": open_clip_half(
        {"image_size": 224, "layers": [3, 4, 6, 3], "width": 64, "patch_size": None}
    ),
}


def compare(name: str, pictures: int, rounds: int) -> float:
    """Print the ratio of forward passes; return it."""
    torch.manual_seed(0)
    _, _, plainly, hooked = CASES[name]()
    pixels = torch.rand(pictures, 3, 224, 224) * 2 - 1
    with torch.no_grad():
        plainly(pixels), hooked(pixels)  # warm
        ratio, _, _ = against(lambda: hooked(pixels), lambda: plainly(pixels), rounds)
    line(f"{name}, {pictures} pictures: hooked / bare", ratio, f"at most {LIMIT}")
    return ratio


def wrapping(name: str) -> None:
    """Print what wrapping costs, in bare forward passes of one picture."""
    from mmlens.towers.vision import encoder, point_axes

    torch.manual_seed(0)
    spent: dict[str, float] = {"point names": 0.0, "own grids": 0.0}

    def timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            try:
                return function(*args, **options)
            finally:
                spent[what] += time.process_time() - start

        return run

    bare, _, plainly, _ = CASES[name]()
    kept = encoder.misnamed, point_axes.own_grids
    encoder.misnamed = timed("point names", kept[0])
    point_axes.own_grids = timed("own grids", kept[1])
    try:
        whole = seconds(lambda: wrap(bare))
    finally:
        encoder.misnamed, point_axes.own_grids = kept
    one = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        forward = statistics.median(seconds(lambda: plainly(one)) for _ in range(7))
    parts = ", ".join(f"{what} {took / forward:.1f}" for what, took in spent.items())
    print(f"{name}: wrapping {whole / forward:.1f} bare passes of one picture; {parts}")


def wrap(bare: Any) -> Any:
    """The model around a bare encoder, as the cases have it."""
    import mmlens as mm

    if hasattr(bare, "encode_image"):
        return mm.from_model(bare, None, lambda texts: torch.zeros(len(texts), 77).long())
    return mm.from_parts(vision=bare)


def main() -> None:
    """Print the ratios; exit status 1 if one is above the limit."""
    ask = argparse.ArgumentParser()
    ask.add_argument("--rounds", type=int, default=15)
    ask.add_argument("--pictures", type=int, nargs="+", default=[1, 8])
    ask.add_argument("--cases", nargs="+", default=list(CASES))
    given = ask.parse_args()
    torch.set_num_threads(1)
    found = [compare(case, n, given.rounds) for case in given.cases for n in given.pictures]
    for case in given.cases:
        wrapping(case)
    raise SystemExit(max(found) > LIMIT)


if __name__ == "__main__":
    main()
