"""Loading a real bridge, as ratios to transformers and timm: `python tests/benchmarks/loading.py`

Run `mmlens fetch smol` first. Both arms read the same files (the fetched language model and
encoder as safetensors); every arm is a process of its own on one thread, arms are interleaved, and
medians of CPU seconds and of peak resident memory are compared.

1. a fresh process, imports included:  mm.load("smol") / transformers and timm        at most 1.5
2. its peak memory / theirs after one forward pass                                    at most 1.5
3. in a process that has imported everything: the same, without a bar; what is left is
   TransformerLens' bridge and what mmlens measures (faithful logits, grid, axes)
4. fresh: the language model from its GGUF file by transformers / from the fetched folder  (told;
   once)
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmlens.families import smol_parts


def language_model(folder: Path, **options: Any) -> Any:
    """A language model and its words, as transformers loads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    auto: Any = AutoModelForCausalLM
    return (
        auto.from_pretrained(folder, dtype=torch.float32, **options),
        AutoTokenizer.from_pretrained(folder, **options),
    )


def theirs() -> tuple[tuple[Any, Any], Any]:
    """The two parts by transformers and timm."""
    import timm
    from safetensors.torch import load_file

    parts = language_model(smol_parts.home() / "lm")
    encoder = timm.create_model(smol_parts.ENCODER_NAME, pretrained=False).eval()
    encoder.load_state_dict(load_file(smol_parts.home() / "vision" / smol_parts.FILE))
    return parts, encoder


def ours() -> Any:
    """The whole bridge."""
    import mmlens
    from mmlens.checkpoints.weights import fresh_linear

    return mmlens.load("smol", projection=fresh_linear(1280, 576))


def gguf() -> Any:
    """The language model from its GGUF file, by transformers."""
    return language_model(smol_parts.home(), gguf_file=smol_parts.MEMBERS["lm"].file_name)


def folder() -> Any:
    """The language model from the fetched folder, by transformers."""
    return language_model(smol_parts.home() / "lm")


ARMS: dict[str, Callable[[], Any]] = {one.__name__: one for one in (theirs, ours, gguf, folder)}


def alone(arm: str) -> tuple[float, float, float]:
    """One arm in this process: CPU seconds from its start, those of a second time, peak MB."""
    made = ARMS[arm]()
    first = time.process_time()
    if arm == "theirs":  # files are mapped into memory: only what was read once counts
        read_once(*made)
    unit = 1e6 if sys.platform == "darwin" else 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    if arm != "gguf":  # half a minute
        begun = time.process_time()
        ARMS[arm]()
        return first, time.process_time() - begun, peak
    return first, first, peak


def read_once(parts: Any, encoder: Any) -> None:
    """One forward pass of both parts, as mmlens makes to compare its own with it."""
    import torch

    with torch.no_grad():
        parts[0](torch.arange(6)[None])
        encoder(torch.randn(2, 3, 224, 224))


def line(what: str, ratio: float, bar: str) -> None:
    """One result."""
    print(f"{what}: {ratio:.2f} ({bar})")


def main(rounds: int) -> None:
    """All arms, interleaved."""
    if any(smol_parts.fetched(part) is None for part in smol_parts.MEMBERS):
        raise SystemExit("The parts of smol are not here: run `mmlens fetch smol` first.")
    found: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    for turn in range(rounds):
        for arm in ARMS if turn == 0 else ("theirs", "ours"):
            command = [sys.executable, __file__, "--arm", arm]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[arm].append([float(one) for one in told.split()[-3:]])
    middle = {
        arm: [statistics.median(column) for column in zip(*values, strict=True)]
        for arm, values in found.items()
    }
    for arm, (cold, warm, peak) in middle.items():
        print(f"{arm}: {cold:.1f} s CPU in a fresh process, {warm:.2f} s warm, {peak:.0f} MB")
    cold, warm, peak = (a / b for a, b in zip(middle["ours"], middle["theirs"], strict=True))
    line("1. mm.load / transformers and timm, fresh process", cold, "at most 1.5")
    line("2. peak memory", peak, "at most 1.5")
    line("3. warm", warm, "no bar")
    line("4. GGUF / fetched folder", middle["gguf"][0] / middle["folder"][0], "told")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS)
    options = parser.parse_args()
    if options.arm:
        print(*alone(options.arm))
    else:
        main(options.rounds)
