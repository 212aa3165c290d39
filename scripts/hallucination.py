"""What does decoding against hallucination come to? A table on the bundled world, into its page.

    python scripts/hallucination.py                       # 64 pictures: about 15 minutes
    python scripts/hallucination.py --pictures 200 --print

Every arm captions the same held-out pictures of three things, which the model names least well;
CHAIR and the rest are those of `mm.hallucination`, with 95 % intervals over pictures; the arms are
`papers.hallucination.known_arms`. A run that was stopped goes on where it was (`--out`). What of it
decides the papers' claims is told by `mmlens reproduce hallucination`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pandas as pd
from page_part import write_between  # pyright: ignore[reportMissingImports]

import mmlens as mm
from mmlens.papers.hallucination import known_arms

PAGE = Path(__file__).parents[1] / "docs" / "hallucination.md"
BEGIN, END = "<!-- table: python scripts/hallucination.py -->", "<!-- end -->"
COLUMNS = ("CHAIR-s", "CHAIR-i", "mentions", "recall", "AUROC")


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
    found = mm.hallucination(model, data, given.out, edited=known_arms(model))
    if given.print:
        print(table(found.summary))
    else:
        write_between(PAGE, BEGIN, END, table(found.summary))


if __name__ == "__main__":
    main()
