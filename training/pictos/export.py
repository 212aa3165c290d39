"""Assemble encoder, projection and language model into the folder that mmlens loads.

Weights are stored in half precision (fp16), which changes no caption; configurations lose every
trace of where they were trained.

    python training/pictos/export.py --work DIR [--out mmlens/pictos/weights]
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from common import PACKAGE
from safetensors.torch import load_file, save_file

BRIDGE = {
    "format": 1,
    "family": "pictos",
    "vision": {
        "kind": "hf",
        "class": "ViTModel",
        "drop_prefix_tokens": 1,
        "feature_layer": "last_hidden_state",
        "image_size": 80,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bilinear",
    },
    "projection": {"kind": "linear", "d_in": 192, "d_out": 256},
    "lm": {"class": "GPTJForCausalLM"},
}


def halve(source: Path, target: Path, half: torch.dtype) -> None:
    """Copy a safetensors file with its floats in half precision."""
    weights = load_file(source)
    weights = {k: v.to(half) if v.is_floating_point() else v for k, v in weights.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, target, metadata={"format": "pt"})
    target.chmod(0o644)


def config(source: Path, target: Path, **changes: Any) -> None:
    """Copy a configuration without paths, with the stored dtype."""
    values = json.loads(source.read_text())
    for key in ("_name_or_path", "name_or_path", "is_local", "local_files_only"):
        values.pop(key, None)
    target.write_text(json.dumps(values | changes, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/pictos"))
    parser.add_argument("--out", type=Path, default=PACKAGE / "weights")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    args = parser.parse_args()
    half = getattr(torch, args.dtype)
    for part, source in (("vision", "encoder"), ("lm", "lm")):
        halve(args.work / source / "model.safetensors", args.out / part / "model.safetensors", half)
        config(
            args.work / source / "config.json", args.out / part / "config.json", dtype=args.dtype
        )
    halve(args.work / "projection.safetensors", args.out / "projection.safetensors", half)
    shutil.copy(args.work / "lm" / "tokenizer.json", args.out / "lm" / "tokenizer.json")
    config(
        args.work / "lm" / "tokenizer_config.json",
        args.out / "lm" / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        model_max_length=256,
    )
    (args.out / "bridge.json").write_text(json.dumps(BRIDGE, indent=2) + "\n")
    size = sum(f.stat().st_size for f in args.out.rglob("*.safetensors"))
    print(f"{size / 1e6:.1f} MB of weights in {args.out}")


if __name__ == "__main__":
    main()
