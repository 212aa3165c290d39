"""What is lost without a word's vector, or a thing's patches? Tables in docs/later-papers.md.

    python scripts/patches.py                 # 20 pictures of the bundled world: some minutes
    python scripts/patches.py --pictures 100 --print

`words`: the vector of the first noun, of another name of the world and a random direction are
projected out of the stream at the picture's patches (`patching.project_away`); and where the map of
the noun lies (`relevance.lens_map`). `things`: `papers.neo.study`. Shares are ratios of means over
pictures, with 95 % intervals (`mmlens.papers.bootstrap`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from page_part import write_between  # pyright: ignore[reportMissingImports]

import mmlens as mm
from mmlens import patching, relevance
from mmlens.papers import neo
from mmlens.papers.bootstrap import summarise, with_differences
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.mmn.questions.regions import named_mask
from mmlens.papers.tables import generator

PAGE = Path(__file__).parents[1] / "docs" / "later-papers.md"
LAYER, TEXT_LAYER = 2, 1
ARMS = ("its own word", "another word", "a random direction")


def removal_rows(model: Any, sample: Any, names: list[str]) -> list[dict[str, Any]]:
    """The noun's probability without each direction, and what of its map lies on the thing."""
    seen = explain(model, sample)
    if seen is None:
        return []
    random = generator(0, sample)
    shown = {thing.name for thing in sample.things} | {seen.noun}
    absent = [name for name in names if name not in shown]
    other = absent[int(torch.randint(len(absent), (1,), generator=random))]
    own = model.to_string([seen.token])
    away = {"layer": LAYER, "text_layer": TEXT_LAYER}
    noise = torch.randn(model.cfg.d_model, generator=random)
    edits = {
        ARMS[0]: patching.project_away(model, own, **away),
        ARMS[1]: patching.project_away(model, f" {other}", **away),
        ARMS[2]: [patching.remove("resid_post", noise, pos=mm.Patch, layer=LAYER, positive=True)],
    }
    with torch.no_grad():
        probs = {
            arm: float(some(seen.soft)[0, -1].softmax(-1)[seen.token])
            for arm, some in {"": model, **{a: model.edit(*e) for a, e in edits.items()}}.items()
        }
    before = probs.pop("")
    rows = [{"sample": sample.id, "arm": arm, "metric": "lost", "value": before - after,
             "base": before} for arm, after in probs.items()]  # fmt: skip
    mask = named_mask(sample, seen.noun)
    for arm, word in ((ARMS[0], own), (ARMS[1], f" {other}")):
        found = relevance.lens_map(model, seen.soft, word)
        told = {"confidence": float(found.values.max())}
        if mask is not None:
            told["energy"] = relevance.in_mask(model, found, mask, sample.image)["energy"]
        rows += [{"sample": sample.id, "arm": arm, "metric": name, "value": value, "base": 1.0}
                 for name, value in told.items()]  # fmt: skip
    return rows


def words_table(model: Any, samples: list[Any], pictures: int) -> str:
    """What is lost without a word's vector, in Markdown."""
    names = sorted({thing.name for sample in samples for thing in sample.things})
    rows: list[dict[str, Any]] = []
    for sample in samples:
        if len({row["sample"] for row in rows}) < pictures:
            rows += removal_rows(model, sample, names)
    long = with_differences(pd.DataFrame(rows), (ARMS[0], ARMS[1]))
    means = summarise(long, ["arm", "metric"]).set_index(["arm", "metric"])
    head = ["taken out", "lost of the noun's probability", "confidence", "of the map on the thing"]
    lines = [head, ["---"] * 4]
    for arm in (*ARMS, f"{ARMS[0]} - {ARMS[1]}"):
        cells = [_cell(means, (arm, metric)) for metric in ("lost", "confidence", "energy")]
        lines.append([arm, *cells])
    n = len({row["sample"] for row in rows})
    return f"{_markdown(lines)}\n\n{n} pictures of `pictos:held_out`."


def things_table(model: Any, samples: list[Any]) -> str:
    """Neo's three tools, in Markdown: what is lost and said, and what is lost by window."""
    found: Any = neo.study(model, samples)
    shares = found[found["metric"] == "share"]
    layer = shares.loc[shares[shares["arm"] == "object"]["mean"].idxmax(), "layer"]
    lines = [["replaced by bare ground", "lost", "still said"], ["---"] * 3]
    for arm, some in found[found["experiment"] == "object tokens"].groupby("arm", sort=False):
        means = some.set_index("metric")
        lines.append([arm, _cell(means, "lost"), _cell(means, "said")])
    names = list(found["layers"].dropna().unique())
    cuts = [["lost where attention is cut", *names], ["---"] * (1 + len(names))]
    for arm, some in found[found["experiment"] == "windows"].groupby("arm", sort=False):
        means = some[some["metric"] == "lost"].set_index("layers")
        cuts.append([arm, *(_cell(means, name) for name in names)])
    best = shares[shares["layer"] == layer].set_index("arm")
    said = f"{_cell(best, 'object')} of the thing's, {_cell(best, 'background')} of bare ground"
    told = f"Patches that say the noun after layer {layer:.0f}, where most do: {said}."
    told += f" {int(found['n'].max())} pictures of `pictos:held_out` whose first noun has one mask."
    return f"{_markdown(lines)}\n\n{_markdown(cuts)}\n\n{told}"


def _cell(means: Any, at: Any) -> str:
    if at not in means.index:
        return ""
    mean, low, high = means.loc[at, ["mean", "low", "high"]]
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, and write the tables into the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pictures", type=int, default=20)
    options.add_argument("--print", action="store_true", help="show the tables and write nothing")
    given = options.parse_args()
    torch.set_num_threads(1)
    model = mm.load("pictos")
    samples = list(mm.dataset(f"pictos:held_out:{2 * given.pictures}"))
    made = {"words": words_table(model, samples, given.pictures)}
    print(made["words"], flush=True)
    made["things"] = things_table(model, samples[: given.pictures])
    print(made["things"], flush=True)
    if given.print:
        return
    for name, told in made.items():
        begin, end = f"<!-- table: python scripts/patches.py, {name} -->", f"<!-- end {name} -->"
        write_between(PAGE, begin, end, told)


if __name__ == "__main__":
    main()
