"""Writes docs/results.md, the study of several models side by side: python scripts/results.py

    mmlens reproduce mmn --results docs/results-pictos.md
    mmlens reproduce mmn --model smol --data coco:FOLDER --results docs/results-smol.md
    python scripts/results.py

Verdicts and numbers are taken from these pages word by word; `tests/test_reproduce.py` sees that
nothing else stands on the page.
"""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
MODELS = ("pictos", "smol")
HEAD = """# Multimodal Neurons in Pretrained Text-Only Transformers, measured again

Schwettmann, Chowdhury, Klein, Bau and Torralba (2023), arXiv:2308.01544, on two bridges. `pictos`
was trained from the start on a world of pictograms, whose truth is exact. In `smol` both ends are
real and pretrained, an ImageNet encoder and SmolLM2-135M, which never saw a picture; only the
linear map between them was trained. The paper's question is about models such as the second. Rules
and numbers are on each model's page. "Undecided" is what the numbers do not decide.

"""
READ = """
## What a unit writes, read in several ways

Of each picture's strongest units, the share whose words have the noun of the caption among them,
less the same share for units of other pictures and for random units of the same layers: through
the unembedding (the logit lens), by the logits that the unit's own ablation moves most on that
picture, through the mean Jacobian to the last layer, and by an affine translator. By layer: on each
model's page. The effect is no independent witness: units are called strong because they raise this
word, so that silencing them lowers it is half expected. The other readings know nothing of it.

"""


def cells(page: str) -> list[list[str]]:
    """The cells of every line of every table of a page."""
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def section(page: str, start: str) -> str:
    """The part of a page below the heading that begins so."""
    found = re.search(rf"^## {re.escape(start)}.*?$(.*?)(?=^## |\Z)", page, re.M | re.S)
    if found is None:
        raise SystemExit(f"A page has no section {start!r}: write it by `mmlens reproduce mmn`.")
    return found[1]


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def joined() -> str:
    """The page, from those of the models."""
    pages = {name: (DOCS / f"results-{name}.md").read_text("utf-8") for name in MODELS}
    links = [f"[`{name}`](results-{name}.md)" for name in MODELS]
    verdicts = [
        {row[0]: row for row in cells(page) if re.fullmatch(r"E\d", row[0]) and len(row) == 4}
        for page in pages.values()
    ]
    claims = [
        [key, first[1], *(f"{rows[key][2]} {rows[key][3]}" for rows in verdicts)]
        for key, first in verdicts[0].items()
    ]
    read = "How is what a unit writes"
    found = [
        [link, *row[:2]]
        for link, page in zip(links, pages.values(), strict=True)
        for row in cells(section(page, read))
        if "points" in row[1]
    ]
    text = HEAD + table(["", "claim", *links], claims)
    return text + READ + table(["", "read through", "units that fit, in points"], found)


if __name__ == "__main__":
    (DOCS / "results.md").write_text(joined(), "utf-8")
