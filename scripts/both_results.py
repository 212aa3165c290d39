"""Write docs/results.md: the verdicts of studies of several models, side by side.

    mmlens reproduce mmn --out runs/mmn --results docs/results-pictos.md
    mmlens reproduce mmn --model smol --data coco:FOLDER --results docs/results-smol.md
    python scripts/both_results.py docs/results-pictos.md docs/results-smol.md

The verdicts and the readings of units are taken from the tables of the files, word by word.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "results.md"
HEAD = """# Multimodal Neurons in Pretrained Text-Only Transformers, measured again

Schwettmann, Chowdhury, Klein, Bau and Torralba (2023), arXiv:2308.01544, on two bridges. `pictos`
was trained from the start on a world of pictograms, whose truth is exact. In `smol` both ends are
real and pretrained, an ImageNet encoder and SmolLM2-135M, which never saw a picture; only the
linear map between them was trained. The paper's question is about models such as the second. Rules
and numbers are on the page of each model. "Undecided" is what the numbers do not decide.

"""
READ = """
## What a unit writes, read in four ways

Of the strongest units of each picture's caption the share whose words fit the picture, above that
of other pictures' units and of random ones, by the way in which they are read: through the
unembedding (logit lens), through the mean Jacobian to the last layer, by an affine translator, and
by the logits that the unit's own ablation moves most on that picture. By layer: on the pages.

"""


def lines(page: str) -> list[list[str]]:
    """The cells of every line of every table."""
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def section(page: str, start: str) -> str:
    """The part of a page below the heading that begins so."""
    found = re.search(rf"^## {re.escape(start)}.*?$(.*?)(?=^## |\Z)", page, re.M | re.S)
    if found is None:
        raise SystemExit(f"A page has no section {start!r}: write it by `mmlens reproduce mmn`.")
    return found[1]


def main(files: list[Path]) -> None:
    pages = {file: file.read_text("utf-8") for file in files}
    names = [f"[`{file.stem.removeprefix('results-')}`]({file.name})" for file in files]
    verdicts = [
        {row[0]: row for row in lines(page) if re.fullmatch(r"E\d", row[0]) and len(row) == 4}
        for page in pages.values()
    ]
    claims = []
    for key, first in verdicts[0].items():
        cells = [f"{rows[key][2]} {rows[key][3]}" for rows in verdicts]
        claims.append([key, first[1], *cells])
    readings = [
        [name, *row]
        for name, page in zip(names, pages.values(), strict=True)
        for row in lines(section(page, "How is what a unit writes"))
        if len(row) == 2 and "points" in row[1]
    ]
    text = HEAD + table(["", "claim", *names], claims)
    text += READ + table(["", "read through", "units that fit"], readings)
    PAGE.write_text(text, "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    main(parser.parse_args().files)
