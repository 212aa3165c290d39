"""Does a rewritten word hold beyond its picture? A table, into docs/later-papers.md.

    python scripts/rewriting.py               # 200 pictures of the bundled world: some minutes
    python scripts/rewriting.py --pictures 500 --print

Where two pictures have the same first noun, 20 neurons are rewritten on the first of them so that
another name of the world leads by 2 (`patching.rewrite`). Then the same picture, the other one, and
a third of another thing are asked. Arms: the first 20 of `contributions`, and 20
others of the same layers that are active there. Means over nouns with 95 % intervals
(`mmlens.papers.bootstrap`).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from page_part import write_between  # pyright: ignore[reportMissingImports]

import mmlens as mm
from mmlens import patching
from mmlens.papers.bootstrap import summarise
from mmlens.papers.mmn.questions.decoded_units import neurons_of, numbers_of, partners, shuffle
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.tables import generator

PAGE = Path(__file__).parents[1] / "docs" / "later-papers.md"
BEGIN, END = "<!-- table: python scripts/rewriting.py -->", "<!-- end rewriting -->"
K, MARGIN = 20, 2.0
ASKED = {"the same picture": "new", "another picture of the thing": "new",
         "a picture of another thing": "kept"}  # fmt: skip


def says(model: Any, seen: Any, token: int) -> float:
    """Whether a token leads where the noun was said."""
    with torch.no_grad():
        return float(model(seen.soft)[0, -1].argmax() == token)


def rows_of(model: Any, trio: list[Any], word: int) -> list[dict[str, Any]]:
    """What is said after the noun's neurons, and others, were rewritten on the first picture."""
    (sample, first), (_, second), (_, third) = trio
    best: Any = mm.top_neurons(mm.contributions(model, first.soft, first.token, after=""), K)
    numbers = numbers_of(model, list(best.neuron))
    silent = mm.activations(model, first.soft, "neurons", pos=-1).values <= 0
    order = shuffle(model, generator(0, sample))
    late = silent.gather(1, order).long().argsort(dim=1, stable=True)  # the active ones first
    others = partners(model, numbers, order.gather(1, late))
    assert others is not None  # there are 1,024 in a layer
    rows = []
    for arm, units in (("first of `contributions`", numbers), ("others of their layers", others)):
        changed = patching.rewrite(
            model, first.soft, neurons_of(model, units), word, margin=MARGIN, steps=20
        )
        told = [says(changed, first, word), says(changed, second, word),
                says(changed, third, third.token)]  # fmt: skip
        told = dict(zip(ASKED, told, strict=True))
        told["size of the change"] = changed.provenance["rewritten"]["norm"]
        rows += [{"sample": sample.id, "arm": arm, "metric": name, "value": value}
                 for name, value in told.items()]  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The means, one line per arm, in Markdown."""
    ranges = dict.fromkeys(ASKED, (0.0, 1.0))
    means = summarise(pd.DataFrame(rows), ["arm", "metric"], ranges=ranges)
    means = means.set_index(["arm", "metric"])
    names = [*ASKED, "size of the change"]
    says_what = {"new": "says the new word", "kept": "says its own word"}
    head = ["rewritten", *(f"{name}: {says_what[ASKED[name]]}" if name in ASKED else name
                           for name in names)]  # fmt: skip
    lines = [head, ["---"] * len(head)]
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = [arm]
        for name in names:
            mean, low, high = means.loc[(arm, name), ["mean", "low", "high"]]
            cells.append(f"{mean:.2f} ({low:.2f} to {high:.2f})")
        lines.append(cells)
    n = len({row["sample"] for row in rows})
    told = f"{n} nouns that the first word of two of the pictures is, of `pictos:held_out`."
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{told}"


def main() -> None:
    """Measure, and write the table into the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pictures", type=int, default=200)
    options.add_argument("--nouns", type=int, default=60)
    options.add_argument("--print", action="store_true", help="show the table and write nothing")
    given = options.parse_args()
    torch.set_num_threads(1)
    model: Any = mm.load("pictos")
    by_noun: dict[int, list[Any]] = defaultdict(list)
    for sample in mm.dataset(f"pictos:held_out:{given.pictures}"):
        seen = explain(model, sample)
        if seen is not None:
            by_noun[seen.token].append((sample, seen))
    tokens, rows = list(by_noun), []
    for at, token in enumerate(tokens):
        if len(by_noun[token]) > 1 and len({row["sample"] for row in rows}) < given.nouns:
            word, other = tokens[at - 1], tokens[at - 2]
            rows += rows_of(model, [*by_noun[token][:2], by_noun[other][0]], word)
            print(len(rows), flush=True)
    found = table(rows)
    print(found)
    if not given.print:
        write_between(PAGE, BEGIN, END, found)


if __name__ == "__main__":
    main()
