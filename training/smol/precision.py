"""How far the projection is off on other precisions of the language model than its own.

It was trained on the packaged weights, which have 4 bits (Q4_1), read in bfloat16. The same weights
are asked in other dtypes, and quantised once more by rounding to other grids: the published
weights, which the package does not have, lie about as far from Q4_1 as Q4_1 lies from Q4_0.
For each: the share of pictures that are named, of captions that stay the same as in fp32, and the
mean relative change of the weight matrices.

    python training/smol/precision.py --work DIR --projection projection-final.pt --json FILE
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from captioning import language_model
from encode import encoder, grid
from evaluate import captions, cases, named
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize

GRIDS = {"Q8_0": Kind.Q8_0, "Q5_1": Kind.Q5_1, "Q4_0": Kind.Q4_0}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def rounded(lm: torch.nn.Module, kind: Kind) -> float:
    """Round every matrix of the model to a grid; mean relative change."""
    moved = []
    for weight in lm.parameters():
        if weight.ndim == 2:
            new = torch.from_numpy(dequantize(quantize(weight.numpy(), kind), kind).copy())
            moved.append(((new - weight).norm() / weight.norm()).item())
            weight.copy_(new)
    return sum(moved) / len(moved)


@torch.no_grad()
def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    state = torch.load(args.work / args.projection, weights_only=True)
    pictures, shown = zip(*cases(args.work, "trained")[: args.pictures], strict=True)
    x = (grid(encoder(args.work).forward_features, list(pictures)) - state["mean"]) @ state["white"]
    soft = F.linear(x, state["weight"], state["bias"])
    table, first = {}, []
    for name in (*DTYPES, *GRIDS):
        lm, tok = language_model(args.work, DTYPES.get(name, torch.float32))
        moved = rounded(lm, GRIDS[name]) if name in GRIDS else 0.0
        said = captions(lm, tok, soft.to(lm.dtype))
        first = first or said
        hits = [any(named(n, s) for n in ns) for ns, s in zip(shown, said, strict=True)]
        table[name] = {
            "named": sum(hits) / len(hits),
            "same caption": sum(a == b for a, b in zip(first, said, strict=True)) / len(said),
            "weights moved": moved,
        }
        print(name, {k: round(v, 4) for k, v in table[name].items()}, flush=True)
    if args.json:
        args.json.write_text(json.dumps({"pictures": len(said), **table}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--projection", default="projection-final.pt")
    parser.add_argument("--pictures", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    main(parser.parse_args())
