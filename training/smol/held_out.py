"""Composites of pictures that training never saw, as a COCO folder: the study's pictures.

    held-out/val2017/000001.png                   224 x 224
    held-out/annotations/captions_val2017.json    two captions of each picture
    held-out/annotations/instances_val2017.json   masks of things, run-length encoded

One thing in two of three pictures, two in the others; every noun as likely.

    python training/smol/held_out.py --work DIR --pictures 300
    mmlens reproduce mmn --model smol --data coco:DIR/held-out --sinks apart --randoms 5
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
from compose import Composer, Composite, article
from pycocotools import mask as rle


def annotations(number: int, made: Composite, kinds: list[str], first: int) -> list[dict]:
    """COCO's rows of one picture's things."""
    rows = []
    for noun, where in zip(made.nouns, made.masks, strict=True):
        code = rle.encode(np.asfortranarray(where.astype(np.uint8)))
        row = {"id": first + len(rows), "image_id": number, "category_id": kinds.index(noun) + 1}
        row |= {"area": int(where.sum()), "bbox": rle.toBbox(code).tolist(), "iscrowd": 0}
        row["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
        rows.append(row)
    return rows


def main(work: Path, pictures: int) -> None:
    composer, rng = Composer(work, "stamp"), random.Random("held out")
    out = work / "held-out"
    (out / "val2017").mkdir(parents=True, exist_ok=True)
    (out / "annotations").mkdir(exist_ok=True)
    kinds, images, said, things = sorted(composer.by_noun), [], [], []
    for number in range(1, pictures + 1):
        made = composer.any(rng, two=1 / 3)
        images.append({"id": number, "file_name": f"{number:06d}.png", "width": 224, "height": 224})
        made.picture.save(out / "val2017" / images[-1]["file_name"])
        words = " and ".join(article(noun) for noun in made.nouns)
        for caption in (f"A picture of {words}.", f"This is {words}."):
            said.append({"id": len(said) + 1, "image_id": number, "caption": caption})
        things += annotations(number, made, kinds, len(things) + 1)
    categories = [{"id": at, "name": noun} for at, noun in enumerate(kinds, 1)]
    tables = {"captions": said, "instances": things}
    for name, rows in tables.items():
        table = {"images": images, "annotations": rows, "categories": categories}
        (out / "annotations" / f"{name}_val2017.json").write_text(json.dumps(table))
    print(out, pictures, "pictures of", len({row["category_id"] for row in things}), "nouns")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--pictures", type=int, default=300)
    main(**vars(parser.parse_args()))
