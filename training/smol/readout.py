"""What the encoder itself tells of the pictures of `evaluate.py`: a bound for a linear map.

The noun with the largest score of `noun_regression.py`, of the mean over a picture's 49 cells: the
language model's part done by an argmax that knows the list of nouns. A picture is read right when
it shows that noun.

    python training/smol/readout.py --work DIR [--json FILE]
"""

import argparse
import json
from pathlib import Path

import torch
from encode import encoder, grid
from evaluate import SETS, cases


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    found = torch.load(args.work / "regression.pt", weights_only=True)
    names = torch.load(args.work / "vectors.pt", weights_only=True)["names"]
    model, table = encoder(args.work), {}
    for name in SETS:
        pictures, shown = zip(*cases(args.work, name), strict=True)
        mean = grid(model.forward_features, list(pictures)).mean(1)
        scores = (mean - found["mean"]) @ found["white"][:, :-1] + found["constant"]
        read = [names[best] for best in scores.argmax(1)]
        right = sum(noun in nouns for noun, nouns in zip(read, shown, strict=True))
        table[name] = {"pictures": len(read), "read": round(right / len(read), 3)}
        print(name, table[name], flush=True)
    if args.json:
        args.json.write_text(json.dumps(table, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
