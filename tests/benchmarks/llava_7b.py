"""Attribution in a LLaVA-1.5-7B on a GPU: `python tests/benchmarks/llava_7b.py`

Random weights in the shape of llava-1.5-7b (CLIP ViT-L/14 at 336 pixels, 576 patches; 32 layers of
11,008 units) in bfloat16. Attribution of 10 tokens to every unit at every position, against its
compute floor: the multiplications of one forward and ten backward passes through the language
model, at the speed at which this device multiplies matrices of the model's largest shape, measured
in the same run. Parameter gradients are not among them: nobody needs them here.

    attribution / floor, at most 3 on one H100; peak memory is printed

`--small --device cpu` tries the script on a model of two layers, where the ratio means nothing.
No bar here is checked by the tests: they have no GPU. `docs/speed.md` says where it was measured.
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

sys.path[:0] = [str(Path(__file__).parents[1])]
MOST = 3.0
TOKENS = 10


def made(small: bool, device: str) -> Any:
    """The model, with the processor class of LLaVA around the toys' tokenizer."""
    import transformers as hf
    from native_twins import LLAVA_CHAT, token, tokenizer

    import mmlens as mm

    side, layers, width = (56, 2, 64) if small else (336, 32, 4096)
    eyes = {"hidden_size": width // 4, "intermediate_size": width, "image_size": side,
            "num_hidden_layers": layers if small else 24, "num_attention_heads": 16,
            "patch_size": 14}  # fmt: skip
    text = {"hidden_size": width, "intermediate_size": 11008 * width // 4096,
            "num_hidden_layers": layers, "num_attention_heads": width // 32 // (1 if small else 4),
            "num_key_value_heads": width // 32 // (1 if small else 4), "vocab_size": 32064,
            "max_position_embeddings": 4096}  # fmt: skip
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**eyes), text_config=hf.LlamaConfig(**text),
        image_token_index=token("<image>"), vision_feature_layer=-2,
        vision_feature_select_strategy="default", dtype=torch.bfloat16,
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(device):
        bare = hf.AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).eval()
    square = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(**square), tokenizer(), patch_size=14, chat_template=LLAVA_CHAT,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    return mm.from_model(bare, processor)


def attributed(model: Any, soft: Any) -> None:
    """The 100 best (unit, position) pairs of ten tokens that follow the prompt."""
    from mmlens.methods.attribute import products
    from mmlens.methods.best_scores import BestScores
    from mmlens.model.targets import Target, extend
    from mmlens.values.sites import SITES

    words, length = list(range(5, 5 + TOKENS)), len(soft.labels[0])
    targets = [
        Target(length - 1 + i, lambda logits, word=word: logits[word])
        for i, word in enumerate(words)
    ]
    best = [BestScores(100) for _ in words]
    products(
        model,
        extend(model, soft, words[:-1]),
        targets,
        lambda index, layer, product: best[index].add(layer, product),
        SITES["neurons_pre"],
        range(model.cfg.n_layers),
    )


def floor(model: Any, length: int, speed: float) -> float:
    """Seconds of one forward and ten backward passes over `length` positions.

    A linear map costs 2 operations a weight and position, forward and backward alike; attention
    2 * 2 * length^2 * width a layer forward, and twice that backward.
    """
    cfg = model.cfg
    weights = cfg.n_layers * (4 * cfg.d_model**2 + 3 * cfg.d_model * cfg.d_mlp)
    maps = 2 * weights * length
    attention = 4 * length**2 * cfg.d_model * cfg.n_layers
    return (maps * (1 + TOKENS) + attention * (1 + 2 * TOKENS)) / speed


def speed_of(rows: int, width: int, units: int, clock: Callable[[Callable[[], Any]], float],
             device: str) -> float:  # fmt: skip
    """Operations a second of the model's largest multiplication, in bfloat16."""
    left = torch.randn(rows, width, device=device, dtype=torch.bfloat16)
    right = torch.randn(width, units, device=device, dtype=torch.bfloat16)
    times = 20

    def work() -> None:
        for _ in range(times):
            left @ right

    return 2.0 * rows * width * units * times / clock(work)


def clock_of(device: str) -> Callable[[Callable[[], Any]], float]:
    """A function that gives the median wall seconds of three runs, after one that warms up."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def clock(work: Callable[[], Any]) -> float:
        found = []
        for _ in range(4):
            wait()
            start = time.perf_counter()
            work()
            wait()
            found.append(time.perf_counter() - start)
        return statistics.median(found[1:])

    return clock


def main() -> int:
    """Print times, ratio and memory; 1 where the ratio is more than it may be on a GPU."""
    from native_twins import photo

    import mmlens as mm

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--small", action="store_true")
    options.add_argument("--device", default="cuda")
    asked = options.parse_args()
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print(
            "There is no GPU here, so nothing is measured: --small --device cpu tries the script."
        )
        return 0
    clock = clock_of(asked.device)
    model = made(asked.small, asked.device)
    soft = model.embed(mm.Prompt(photo(672, 672), "What is this?"))
    length = len(soft.labels[0]) + TOKENS - 1
    if asked.device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    seconds = clock(lambda: attributed(model, soft))
    speed = speed_of(length, model.cfg.d_model, model.cfg.d_mlp, clock, asked.device)
    least = floor(model, length, speed)
    where = torch.cuda.get_device_name() if asked.device.startswith("cuda") else "a CPU"
    print(f"{where}: {TOKENS} tokens, {length} positions, {speed / 1e12:.2f} TFLOP/s in bfloat16")
    ratio = seconds / least
    print(f"attribution {seconds:.2f} s, floor {least:.2f} s; {ratio:.2f} of at most {MOST:g}")
    if asked.device.startswith("cuda"):
        peak, held = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
        print(f"peak memory {peak / 2**30:.1f} GiB, of which {held / 2**30:.1f} GiB the model")
    return int(ratio > MOST and asked.device.startswith("cuda"))


if __name__ == "__main__":
    sys.exit(main())
