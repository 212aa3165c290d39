"""Which ranking finds the neurons that a word needs? A table, into docs/later-papers.md.

    python scripts/neurons.py                 # 30 pictures of the bundled world: some minutes
    python scripts/neurons.py --pictures 100 --print

Pictures whose caption names a thing. Each ranking lists neurons for the first noun, or once for all
pictures where it doesn't read the word; the first K are silenced at all positions, and so are K
others drawn from the same layers. `lost` is the share of the noun's probability that is gone, a
ratio of means over pictures with a 95 % interval (`mmlens.papers.bootstrap`); the control is taken
off picture by picture.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from page_part import write_between  # pyright: ignore[reportMissingImports]
from picture_rows import measured, options  # pyright: ignore[reportMissingImports]

import mmlens as mm
from mmlens import patching
from mmlens.causal.silencing import number_after, units_at
from mmlens.papers.bootstrap import summarise, with_differences
from mmlens.papers.mmn.questions.decoded_units import (
    numbers_of,
    partners,
    ranked,
    shuffle,
)
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.tables import generator

PAGE = Path(__file__).parents[1] / "docs" / "later-papers.md"
BEGIN, END = "<!-- table: python scripts/neurons.py -->", "<!-- end -->"
KS, DRAWS, POOL = (10, 100), 3, 120
Ranking = Callable[[Any, Any], torch.Tensor]
"""(model, what is explained) -> numbers layer * units + unit, the first in the list first."""


def flat(scores: mm.Scores) -> torch.Tensor:
    """Units of Scores(layer, unit), the highest first."""
    return scores.values.flatten().argsort(descending=True, stable=True)


def rankings(modal: torch.Tensor, domains: dict[str, torch.Tensor]) -> dict[str, Ranking]:
    """Every ranking by its name."""
    here: dict[str, Any] = {"after": ""}
    return {
        "`attribute`, patches": lambda model, seen: ranked(
            mm.attribute(model, seen.soft, seen.token, **here), "pair"
        ),
        "`attribute`, point='post', all positions": lambda model, seen: ranked(
            mm.attribute(model, seen.soft, seen.token, point="post", **here), "sum", None
        ),
        "`integrated_gradients`, all positions": lambda model, seen: ranked(
            mm.integrated_gradients(model, seen.soft, seen.token, steps=8, **here), "sum", None
        ),
        "`contributions` (Pan)": lambda model, seen: flat(
            mm.contributions(model, seen.soft, seen.token, **here)
        ),
        "`text_neurons` (NAM)": lambda model, seen: flat(
            mm.text_neurons(model, seen.soft, seen.token, **here)
        ),
        "`patching.direct_logits`, by neuron": lambda model, seen: flat(
            patching.direct_logits(model, seen.soft, seen.token, by="neuron")
        ),
        "`activations`, last position": lambda model, seen: flat(
            mm.activations(model, seen.soft, "neurons", pos=-1)
        ),
        "`modality_neurons` (MINER), picture": lambda model, seen: modal,
        "`domain_neurons` (MMNeuron), the noun": lambda model, seen: domains.get(
            seen.noun, modal[:0]
        ),
    }


def pooled(model: Any, pool: Any, nouns: set[str]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Units of pictures (MINER), and units of each noun (MMNeuron), from pictures of their own."""
    prompts: dict[str, list[mm.Prompt]] = defaultdict(list)
    for sample in pool:
        for name in {thing.name for thing in sample.things} & nouns:
            prompts[name].append(mm.Prompt(sample.image, "A picture of"))
    some = [mm.Prompt(sample.image, "A picture of") for sample in list(pool)[:20]]
    found = mm.modality_importance(model, some, metrics=["mean", "max", "attended"])
    table: Any = mm.modality_neurons(found, 2 * max(KS))
    modal = numbers_of(model, list(table[table.modality == "picture"].neuron))
    shares = mm.active_share(model, prompts, pos=mm.Patch)
    every: Any = mm.domain_neurons(shares, share=1.0)
    own = {name: numbers_of(model, list(every[every.domain == name].neuron)) for name in prompts}
    return modal, own


def rows_of(model: Any, sample: Any, ways: dict[str, Ranking]) -> list[dict[str, Any]]:
    """The noun's probability with the first K of each ranking silenced, and with others."""
    seen = explain(model, sample)
    if seen is None:
        return []
    variants: list[tuple[str, str, int, torch.Tensor]] = []
    times = {}
    for name, way in ways.items():
        start = time.process_time()
        order = way(model, seen)
        times[name] = time.process_time() - start
        draws = [shuffle(model, generator(draw, sample)) for draw in range(DRAWS)]
        for k in KS:
            first = order[:k]
            variants.append((name, "first", k, first))
            for draw in draws:
                others = partners(model, first, draw)
                if others is not None:
                    variants.append((name, "others", k, others))
    units = [torch.zeros(0, dtype=torch.long), *(numbers for *_, numbers in variants)]
    silenced = [units_at(model, numbers) for numbers in units]
    number = lambda y: y.softmax(-1)[:, seen.token]  # noqa: E731
    prob = number_after(model, seen.soft, number, silenced).tolist()
    return [
        {"sample": sample.id, "ranking": name, "arm": arm, "k": k, "value": prob[0] - after,
         "base": prob[0], "units": len(numbers), "seconds": times[name]}
        for (name, arm, k, numbers), after in zip(variants, prob[1:], strict=True)
    ]  # fmt: skip


def table(rows: pd.DataFrame) -> str:
    """Shares lost, one line per ranking, in Markdown."""
    columns: Any = rows[["sample", "ranking", "arm", "k", "base", "value"]]
    long = with_differences(columns, ("first", "others"))
    means = summarise(long, ["ranking", "arm", "k"]).set_index(["ranking", "arm", "k"])
    head = ["ranking"]
    for k in KS:
        head += [f"lost without the first {k}", "without others", "beyond the others"]
    lines = [head, ["---"] * len(head)]
    for name in dict.fromkeys(rows["ranking"]):
        cells = [name]
        for k in KS:
            for arm in ("first", "others", "first - others"):
                mean, low, high = means.loc[(name, arm, k), ["mean", "low", "high"]]
                span = "" if arm == "others" else f" ({low:.2f} to {high:.2f})"
                cells.append(f"{mean:.2f}{span}")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, and write the table into the page."""
    given = options(__doc__, 30).parse_args()
    torch.set_num_threads(1)
    model = mm.load("pictos")
    every = mm.dataset(f"pictos:held_out:{2 * given.pictures + POOL}")
    samples, pool = list(every)[POOL:], list(every)[:POOL]
    nouns = {thing.name for sample in samples for thing in sample.things}
    ways = cache(lambda: rankings(*pooled(model, pool, nouns)))
    rows = measured(samples, given.pictures, lambda one: rows_of(model, one, ways()), given.rows)
    told = f"{rows['sample'].nunique()} pictures of `pictos:held_out`."
    found = f"{table(rows)}\n\n{told}"
    print(rows.groupby(["ranking", "arm", "k"])[["units", "seconds"]].mean())
    if given.print:
        print(found)
        return
    write_between(PAGE, BEGIN, END, found)


if __name__ == "__main__":
    main()
