"""What does decoding against hallucination come to? A table on the bundled world, into its page.

    python scripts/hallucination.py                       # 64 pictures: about 15 minutes
    python scripts/hallucination.py --pictures 200 --print

Every arm captions the same held-out pictures of three things, which the model names least well;
CHAIR and the rest are those of `mm.hallucination`, with 95 % intervals over pictures. Numbers of
the methods are their papers'. The directions of VTI are made of pictures of the split `train`. A
run that was stopped goes on where it was (`--out`).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pandas as pd

import mmlens as mm
from mmlens import decoding
from mmlens.pictos.scene_captions import canonical

PAGE = Path(__file__).parents[1] / "docs" / "hallucination.md"
BEGIN, END = "<!-- table: python scripts/hallucination.py -->", "<!-- end -->"
COLUMNS = ("CHAIR-s", "CHAIR-i", "mentions", "recall", "AUROC")
PAIRS, MASKS = 24, 4


def steered(model: Any) -> list[mm.Edit]:
    """VTI: the encoder towards pictures of which little is seen, words towards true captions."""
    world = mm.pictos.World("train", seed=1)
    scenes = [world.scene(i) for i in range(PAIRS)]
    photos = [mm.Prompt(scene.image) for scene in scenes]
    masks = [decoding.covered(model, 0.99, seed) for seed in range(MASKS)]
    hidden = [[mm.Prompt(mask(scene.image)) for mask in masks] for scene in scenes]
    seen = decoding.shift_directions(model, hidden, photos, "vision.resid_post", each=True)
    names = [thing.name for scene in scenes for thing in scene.objects]
    told = [mm.Prompt(scene.image, f"A picture of{scene.caption}") for scene in scenes]
    false = [
        mm.Prompt(scene.image, "A picture of" + canonical([_other(scene, names, i)], scene.style))
        for i, scene in enumerate(scenes)
    ]
    said = decoding.shift_directions(model, told, false)
    return [
        *decoding.steer_along("vision.resid_post", seen, scale=0.05),
        *decoding.steer_along("resid_post", said, scale=0.05),
    ]


def _other(scene: Any, names: list[str], i: int) -> str:
    """A thing that this scene does not have."""
    here = {thing.name for thing in scene.objects}
    return next(name for name in names[i:] + names if name not in here)


def arms(model: Any) -> dict[str, Any]:
    """The methods, by the names of the table."""
    return {
        "VCD": "noise",
        "PAI, attention alone": decoding.amplify(alpha=0.5),
        "PAI": [decoding.amplify(alpha=0.5), "words"],
        "over-trust penalty": "trust",
        "VTI": steered(model),
    }


def table(summary: pd.DataFrame) -> str:
    """One line an arm and one a difference, in Markdown."""
    rows: Any = summary.itertuples()
    found = {(row.arm, row.metric): row for row in rows}
    lines = [f"| arm | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for arm in dict.fromkeys(summary["arm"]):
        cells = [_cell(found.get((arm, metric))) for metric in COLUMNS]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Any) -> str:
    if row is None:
        return ""
    if pd.isna(row.low) or pd.isna(row.high):
        return f"{row.mean:.3f} undecided"
    ends = ("open" if math.isinf(end) else f"{end:.3f}" for end in (row.low, row.high))
    return f"{row.mean:.3f} [{', '.join(ends)}]"


def main() -> None:
    """Ask, and write the table into the page or print it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pictures", type=int, default=64)
    options.add_argument("--out", default="runs/hallucination")
    options.add_argument("--print", action="store_true")
    given = options.parse_args()
    model = mm.load("pictos")
    data = mm.datasets.pictos("held_out", given.pictures, things=3)
    found = mm.hallucination(model, data, given.out, edited=arms(model))
    if given.print:
        print(table(found.summary))
    else:
        write(found.summary)


def write(summary: pd.DataFrame) -> None:
    """The table, into the page."""
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    text = f"{head}{BEGIN}\n\n{table(summary)}\n\n{END}{rest.split(END, 1)[1]}"
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
