"""Which map of relevance is right? A table on pictures with known truth, into docs/relevance.md.

    python scripts/relevance.py                  # 12 pictures of the bundled world: some minutes
    python scripts/relevance.py --pictures 100 --print

Pictures of one or two things, the first of which the model names. Every method maps that word, at
the place where the model says it. Rows are means over pictures with 95 % intervals that also hold
for few pictures (`mmlens.papers.bootstrap`). A map is judged by the exact mask of the thing, and by
covering the patches of the picture itself in its order; its cost is its computing time by that of
a forward pass. `chance` is a map of random numbers.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from page_part import write_between  # pyright: ignore[reportMissingImports]
from picture_rows import measured, options  # pyright: ignore[reportMissingImports]

import mmlens as mm
from mmlens import relevance
from mmlens.papers.bootstrap import summarise

PAGE = Path(__file__).parents[1] / "docs" / "relevance.md"
BEGIN, END = "<!-- table: python scripts/relevance.py -->", "<!-- end -->"
MEASURES = ("energy", "pointing", "deletion", "insertion", "cost")
RANGES = {"energy": (0.0, 1.0), "pointing": (0.0, 1.0), "deletion": (0.0, 1.0),
          "insertion": (0.0, 1.0)}  # fmt: skip
BATCH = 50
HERE = {"after": "", "batch": BATCH}


def chance(model: Any, prompt: Any, of: str) -> mm.Scores:
    """A random number for every patch."""
    like = relevance.rollout(model, prompt).sel(pos=mm.Patch)
    seed = sum(map(ord, of)) + int(like.values.sum() * 1e6)
    return like.with_values(torch.rand(like.shape, generator=torch.Generator().manual_seed(seed)))


METHODS: dict[str, Callable[..., mm.Scores]] = {
    "chance": chance,
    "rollout": lambda model, prompt, of: relevance.rollout(model, prompt),
    "rollout, through the encoder": lambda model, prompt, of: relevance.rollout(
        model, prompt, at="pixels"
    ),
    "chefer": partial(relevance.chefer, after=""),
    "chefer, through the encoder": partial(relevance.chefer, after="", at="pixels"),
    "lrp (AttnLRP)": partial(relevance.lrp, after=""),
    "lrp (CP-LRP)": partial(relevance.lrp, after="", rule="cp"),
    "grad_cam": partial(relevance.grad_cam, after=""),
    "grad_cam, weights='each'": partial(relevance.grad_cam, after="", weights="each"),
    "grad_eclip": partial(relevance.grad_eclip, after=""),
    "lens_map": relevance.lens_map,
    "tam": partial(relevance.tam, after=""),
    "attribute_picture, gradient": partial(
        mm.attribute_picture, **HERE, attribution="gradient"
    ),
    "attribute_picture, integrated": partial(mm.attribute_picture, **HERE),
    "occlusion": partial(relevance.occlusion, **HERE, at="pixels"),
    "rise, side=2": partial(relevance.rise, **HERE, at="pixels", side=2, masks=100),
}  # fmt: skip


def asked(model: Any, sample: Any) -> tuple[mm.Prompt, str, Any] | None:
    """The prompt up to the first thing that the model names, its word, and its mask."""
    said = model.generate(mm.Prompt(sample.image, "A picture of"), stop="sentence")
    places = {
        match.start(): thing
        for thing in sample.things
        if (match := re.search(rf"(?<= ){re.escape(thing.name)}\b", said))
    }
    names = [thing.name for thing in sample.things]
    if not places or len(set(names)) != len(names):
        return None
    at = min(places)
    word = " " + places[at].name
    try:
        model.to_single_token(word)
    except mm.MMLensError:
        return None
    return mm.Prompt(sample.image, "A picture of" + said[: at - 1]), word, places[at].mask


def rows_of(model: Any, sample: Any, methods: dict[str, Any]) -> list[dict[str, Any]]:
    """Every measure of every method on one picture."""
    found = asked(model, sample)
    if found is None:
        return []
    prompt, word, mask = found
    model(prompt)
    start = time.process_time()
    with torch.no_grad():
        model(prompt)
    pass_ = time.process_time() - start
    rows = []
    for name, method in methods.items():
        start = time.process_time()
        scores = method(model, prompt, word)
        cost = (time.process_time() - start) / pass_
        told = relevance.in_mask(model, scores, mask, sample.image)
        curves = relevance.covering_curves(
            model, prompt, scores, word, after="", steps=6, batch=BATCH
        )
        told |= {curve: curves.sel(curve=curve).mean().item() for curve in curves.of("curve")}
        told["cost"] = cost
        rows += [
            {"sample": sample.id, "arm": name, "metric": metric, "value": told[metric]}
            for metric in MEASURES
        ]
    return rows


def table(rows: pd.DataFrame) -> str:
    """The means with their intervals, one line per method, in Markdown."""
    means = summarise(rows, ["arm", "metric"], ranges=RANGES)
    head = ["method", "energy", "pointing", "deletion (low is good)", "insertion", "cost in passes"]
    lines = [head, ["---"] * len(head)]
    for name in dict.fromkeys(rows["arm"]):
        one = means[means["arm"] == name].set_index("metric")
        cells = [
            f"`{name.split(',')[0].split(' ')[0]}`{name[len(name.split(',')[0].split(' ')[0]) :]}"
        ]
        for metric in MEASURES[:-1]:
            mean, low, high = one.loc[metric, ["mean", "low", "high"]]
            cells.append(f"{mean:.2f} ({low:.2f} to {high:.2f})")
        times: Any = rows[(rows["arm"] == name) & (rows["metric"] == "cost")]["value"]
        cells.append(f"{times.median():.0f}" if name != "chance" else "0")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, and write the table into the page."""
    given = options(__doc__, 12).parse_args()
    torch.set_num_threads(1)
    model = mm.load("pictos")
    samples = mm.dataset(f"pictos:held_out:{given.pictures * 4}")
    few = (sample for sample in samples if len(sample.things) < 3)
    rows = measured(few, given.pictures, lambda one: rows_of(model, one, METHODS), given.rows)
    found = f"{table(rows)}\n\n{rows['sample'].nunique()} pictures of `pictos:held_out`."
    if given.print:
        print(found)
        return
    write_between(PAGE, BEGIN, END, found)


if __name__ == "__main__":
    main()
