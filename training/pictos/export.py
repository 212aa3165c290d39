"""Assemble encoder, projection and language model into the folder that mmlens loads.

Weights are stored in half precision (fp16), which changes no caption; configurations lose every
trace of where they were trained.

    python training/pictos/export.py --work DIR [--out mmlens/pictos/weights]
"""

import argparse
import json
from pathlib import Path

import torch
from bridge import Bridge
from common import PACKAGE
from safetensors.torch import load_file

from mmlens import from_parts
from mmlens.checkpoints.folder import save

LOCAL = ("_name_or_path", "name_or_path", "is_local", "local_files_only")
CLASS = "PreTrainedTokenizerFast"  # known to every release of transformers


def without_origin(folder: Path) -> None:
    """Take from every configuration where it was read from."""
    for file in folder.rglob("*.json"):
        values = json.loads(file.read_text())
        if any(key in values for key in (*LOCAL, "tokenizer_class")):
            kept = {k: v for k, v in values.items() if k not in LOCAL}
            kept |= {"tokenizer_class": CLASS} if "tokenizer_class" in kept else {}
            file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/pictos"))
    parser.add_argument("--out", type=Path, default=PACKAGE / "weights")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    args = parser.parse_args()
    parts = Bridge.of(args.work / "encoder", args.work / "lm", None)
    linear = load_file(args.work / "projection.safetensors")
    parts.tokenizer.model_max_length = parts.lm.config.n_positions
    model = from_parts(vision=parts.vision, projection=linear, lm=parts.lm,
                       tokenizer=parts.tokenizer, name="pictos", family="pictos",
                       feature_layer=f"blocks.{len(parts.vision.layers) - 1}.mlp.hook_post",
                       dtype=getattr(torch, args.dtype))  # fmt: skip
    save(model, args.out)
    without_origin(args.out)
    for file in args.out.rglob("*.*"):
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in args.out.rglob("*.safetensors"))
    print(f"{size / 1e6:.1f} MB of weights in {args.out}")


if __name__ == "__main__":
    main()
