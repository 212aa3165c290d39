"""Do circuits carry the word of a thing? A table in docs/later-papers.md.

    python scripts/circuits.py                 # 12 pictures of the bundled world: some minutes
    python scripts/circuits.py --pictures 100 --print

The first noun of each caption is asked about, where it is said: what is lost of the noun's
probability without the units of `visual_circuit`, without the first of `attribute`, as many, and
without others from the same layers. Shares are ratios of means over pictures, with 95 % intervals
(`mmlens.papers.bootstrap`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch
from page_part import write_between  # pyright: ignore[reportMissingImports]
from picture_rows import measured, options  # pyright: ignore[reportMissingImports]

import mmlens as mm
from mmlens.causal.silencing import number_after, units_at
from mmlens.papers.bootstrap import summarise, with_differences
from mmlens.papers.mmn.questions.decoded_units import numbers_of, partners, ranked, shuffle
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.mmn.questions.regions import named_mask
from mmlens.papers.tables import generator

PAGE = Path(__file__).parents[1] / "docs" / "later-papers.md"
K, DRAWS = 5, 3
ARMS = (f"the circuit, {K} of each layer", "the first by `attribute`", "others of its layers")


def rows_of(model: Any, sample: Any) -> list[dict[str, Any]]:
    """Every measure on one picture whose first noun has one mask."""
    seen = explain(model, sample)
    mask = None if seen is None else named_mask(sample, seen.noun)
    if seen is None or mask is None:
        return []
    rows = _circuit(model, sample, seen, model.to_string([seen.token]))
    return [{"sample": sample.id, **row} for row in rows]


def _circuit(model: Any, sample: Any, seen: Any, word: str) -> list[dict[str, Any]]:
    edges = mm.visual_circuit(model, seen.soft, word, k=K, after="")
    own = numbers_of(model, list(dict.fromkeys(edges["source"])))
    first = ranked(mm.attribute(model, seen.soft, seen.token, after=""), "pair")[: len(own)]
    some = [partners(model, own, shuffle(model, generator(i, sample))) for i in range(DRAWS)]
    arms = [(ARMS[0], own), (ARMS[1], first), *((ARMS[2], one) for one in some if one is not None)]
    units = [torch.zeros(0, dtype=torch.long), *(one for _, one in arms)]
    number = lambda y: y.softmax(-1)[:, seen.token]  # noqa: E731
    prob = number_after(model, seen.soft, number, [units_at(model, one) for one in units]).tolist()
    return [
        {"arm": arm, "metric": "lost", "value": prob[0] - after, "base": prob[0]}
        for (arm, _), after in zip(arms, prob[1:], strict=True)
    ]


def tables(rows: pd.DataFrame) -> dict[str, str]:
    """The table, in Markdown."""
    lost = with_differences(rows, (ARMS[0], ARMS[2]))
    n = f"{rows['sample'].nunique()} pictures of `pictos:held_out` whose first noun has one mask"
    return {"circuit": f"{_table(lost, ['silenced', 'lost of the probability'], ['lost'])}\n\n{n}."}


def _table(rows: Any, head: list[str], metrics: list[str]) -> str:
    means = summarise(rows, ["arm", "metric"]).set_index(["arm", "metric"])
    lines = [head, ["---"] * len(head)]
    for arm in dict.fromkeys(rows["arm"]):
        cells = [means.loc[(arm, name), ["mean", "low", "high"]] for name in metrics]
        lines.append([arm, *(f"{mean:.2f} ({low:.2f} to {high:.2f})" for mean, low, high in cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, and write the tables into the page."""
    given = options(__doc__, 12).parse_args()
    torch.set_num_threads(1)
    model = mm.load("pictos")
    samples = mm.dataset(f"pictos:held_out:{4 * given.pictures}")
    rows = measured(samples, given.pictures, lambda one: rows_of(model, one), given.rows)
    for name, told in tables(rows).items():
        print(told, flush=True)
        if not given.print:
            begin, end = (
                f"<!-- table: python scripts/circuits.py, {name} -->",
                f"<!-- end {name} -->",
            )
            write_between(PAGE, begin, end, told)


if __name__ == "__main__":
    main()
