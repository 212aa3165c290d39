"""Measure pictos-clip-bridge: what it names, and what feeds the neurons that translate.

    python training/pictos_clip/evaluate_bridge.py --json FILE

Captions are greedy continuations of "A picture of" for held-out scenes of the bundled world; a
scene counts when every thing in it is named. The study is `mmlens.papers.goh.questions.feeding`.
"""

import argparse
import json
from pathlib import Path

from PIL import Image

import mmlens as mm
from mmlens.papers.goh.questions.feeding import fed_verdict, feeding
from mmlens.pictos import World
from mmlens.pictos.sprites import sprites
from mmlens.pictos.world import STYLES


def named(model, things: int, style: str, n: int) -> float:
    """The share of scenes in which every thing is named."""
    world, right = World("held_out", 5, things=things, style=style), 0
    many = world.batch(range(n))
    for i, names in enumerate(many.names):
        pixels = (many.images[i] * 255).round().byte().permute(1, 2, 0).numpy()
        said = model.generate(mm.Prompt(Image.fromarray(pixels), "A picture of"), 14)
        right += all(name in said.replace(".", " ").replace(",", " ").split() for name in names)
    return right / n


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--concepts", type=int, default=40)
    parser.add_argument(
        "--each", type=int, default=4, help="pictures of a thing, half of them asked about"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    model = mm.load("pictos-clip-bridge")
    told = {f"{things} {style}": named(model, things, style, args.scenes)
            for things in (1, 2) for style in STYLES}  # fmt: skip
    print(told, flush=True)
    names = sprites().names[:: max(1, len(sprites().names) // args.concepts)]
    table = feeding(model, names, each=args.each)
    verdict, summary = fed_verdict(table)
    print(verdict.word, verdict.says)
    told |= {"feeding": verdict.word, "says": verdict.says, "concepts": names,
             "pictures with a translating neuron": len(table) // 3,
             "summary": None if summary is None else summary.round(3).T.to_dict()}  # fmt: skip
    if args.json is not None:
        args.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
