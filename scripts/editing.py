"""Do words that are rewritten one after the other hold? A table, into docs/later-papers.md.

    python scripts/editing.py                # 8 sequences of 4 nouns: a quarter of an hour
    python scripts/editing.py --pictures 200 --print --rows /tmp/rows.csv

Things with two pictures are put into sequences, none into two. In each sequence every first picture
is to say a noun that is not in it, one after the other; the model after all edits is asked. Arms:
`rewrite_in_sequence` (NSE) of the most active units, of as many others at random, and of all units;
`rewrite` of the first 20 of `contributions`, which keeps the earlier prompts; and NSE's changed
rows with random directions of the same lengths. Means over sequences, with 95 % intervals over them
(`mmlens.papers.bootstrap`).
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from page_part import write_between  # pyright: ignore[reportMissingImports]
from picture_rows import measured, options  # pyright: ignore[reportMissingImports]

import mmlens as mm
from mmlens import patching
from mmlens.papers.bootstrap import differences, summarise
from mmlens.papers.tables import generator
from mmlens.pictos import World

PAGE = Path(__file__).parents[1] / "docs" / "later-papers.md"
BEGIN, END = "<!-- table: python scripts/editing.py -->", "<!-- end editing -->"
MANY, SEQUENCES, PROMPT, OTHER_PROMPT = 4, 8, "A picture of a", "There is a"
LAYERS, SHARE, PRESERVE, KEPT = [4, 5, 6], 0.8, 100.0, 30
K, MARGIN = 20, 2.0
NSE = "`rewrite_in_sequence` (NSE)"
ASKED = {"the same picture": "says the new word", "another picture": "says the new word",
         "another prompt": "says the new word", "other things": "say their own word"}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """A prompt up to the noun that the model says of its picture."""

    soft: Any
    token: int


@dataclass(frozen=True)
class Fact:
    """A noun, two pictures of it, the first one behind another prompt, and what it is to say."""

    first: Seen
    second: Seen
    asked: Seen | None
    word: int


@dataclass(frozen=True)
class Sequence:
    """Facts that are rewritten one after the other, and pictures of other things."""

    id: str
    facts: list[Fact]
    others: list[Seen]


def seen_in(model: Any, image: Any, noun: str, words: str = PROMPT) -> Seen | None:
    """The prompt of a picture, where the model says the noun first, as one token."""
    soft = model.read(mm.Prompt(image, words))
    with torch.no_grad():
        token = int(model(soft)[0, -1].argmax())
    return Seen(soft, token) if model.to_string([token]) == f" {noun}" else None


def sequences(model: Any, pictures: int, many: int, split: str = "held_out") -> list[Sequence]:
    """The sequences of a split of the world: pictures of one thing, by its name."""
    world, shown = World(split, things=1, style="literal"), defaultdict(list)
    for at in range(pictures):
        scene = world.scene(at)
        noun = scene.objects[0].name
        if len(shown[noun]) < 2 and (found := seen_in(model, scene.image, noun)) is not None:
            shown[noun].append((found, scene.image))
    twice = [noun for noun in shown if len(shown[noun]) > 1]
    made = []
    for at in range(0, len(twice) - many + 1, many):
        here = twice[at : at + many]
        rest = [one for noun in twice if noun not in here for one, _ in shown[noun][1:]]
        facts = []
        for noun, other in zip(here, rest, strict=False):
            (first, image), (second, _) = shown[noun]
            asked = seen_in(model, image, noun, OTHER_PROMPT)
            facts.append(Fact(first, second, asked, other.token))
        made.append(Sequence(f"{split} {at // many}", facts, rest[many : 4 * many]))
    return made


def in_a_row(model: Any, found: Sequence, keep: list[Any], **how: Any) -> Any:
    """The model after NSE, all prompts in one call."""
    return patching.rewrite_in_sequence(
        model, [one.first.soft for one in found.facts], [one.word for one in found.facts],
        **{"layer": LAYERS, "share": SHARE, "preserve": PRESERVE, "keep": keep, **how},
    )  # fmt: skip


def rewritten(model: Any, found: Sequence, keep: list[Any]) -> Any:
    """`rewrite` of the neurons of `contributions`, again for each prompt."""
    changed, earlier = model, []
    for one in found.facts:
        scores = mm.contributions(changed, one.first.soft, one.first.token, after="")
        best = mm.top_neurons(scores, K).neuron
        changed = patching.rewrite(
            changed, one.first.soft, best, one.word, margin=MARGIN, steps=20, keep=earlier
        )
        earlier = [*earlier, one.first.soft]
    return changed


def at_random(model: Any, changed: Any, found: Any) -> Any:
    """The rows that were changed, changed as much into a random direction."""
    other, draw = copy.deepcopy(model), generator(0, found)
    for layer in LAYERS:
        table = other.root.blocks[layer].mlp.W_out
        moved = (changed.root.blocks[layer].mlp.W_out - table).norm(dim=-1, keepdim=True)
        noise = torch.randn(table.shape, generator=draw)
        with torch.no_grad():
            table += moved * noise / noise.norm(dim=-1, keepdim=True)
    return other


def says(model: Any, seen: Seen | None, token: int) -> float:
    """Whether a token leads where the noun was said; NaN where it was not."""
    if seen is None:
        return float("nan")
    with torch.no_grad():
        return float(model(seen.soft)[0, -1].argmax() == token)


def size(model: Any, changed: Any) -> float:
    """The length of the change of all W_out over that of those that were changed."""
    moved = whole = 0.0
    for layer in range(model.cfg.n_layers):
        one, other = (m.root.blocks[layer].mlp.W_out.detach() for m in (model, changed))
        moved += float((other - one).square().sum())
        whole += float(one.square().sum()) if not torch.equal(one, other) else 0.0
    return (moved / whole) ** 0.5


def told(model: Any, changed: Any, found: Sequence, arm: str) -> list[dict[str, Any]]:
    """What the model says after all edits, a row per prompt."""
    rows = [(name, says(changed, seen, one.word)) for one in found.facts for name, seen in
            zip(ASKED, (one.first, one.second, one.asked), strict=False)]  # fmt: skip
    rows += [("other things", says(changed, one, one.token)) for one in found.others]
    rows += [("size of the change", size(model, changed))]
    return [{"sample": found.id, "arm": arm, "metric": name, "value": value}
            for name, value in rows]  # fmt: skip


def rows_of(model: Any, keep: list[Any], found: Sequence) -> list[dict[str, Any]]:
    """All arms of one sequence."""
    arms = {NSE: in_a_row(model, found, keep)}
    arms["as many units at random"] = in_a_row(model, found, keep, chosen_by="random")
    arms["all units"] = in_a_row(model, found, keep, share=1.0)
    arms["`rewrite`, first of `contributions`"] = rewritten(model, found, keep)
    arms["random directions, as long"] = at_random(model, arms[NSE], found)
    return [row for arm, changed in arms.items() for row in told(model, changed, found, arm)]


def table(rows: pd.DataFrame) -> str:
    """The means, a line per arm, in Markdown; and NSE against the others by sequence."""
    names, every = [*ASKED, "size of the change"], list(dict.fromkeys(rows["arm"]))
    means = _means(rows)
    lines = [
        [f"after {MANY} edits in a row", *(f"{n}: {ASKED[n]}" if n in ASKED else n for n in names)]
    ]
    lines += [["---"] * len(lines[0])]
    lines += [[arm, *(_cell(means.loc[(arm, name)]) for name in names)] for arm in every]
    gaps = pd.concat([differences(rows, NSE, arm) for arm in every if arm != NSE])
    apart = _means(gaps)
    for arm in dict.fromkeys(gaps["arm"]):
        cells = [_cell(apart.loc[(arm, name)]) if name in ASKED else "" for name in names]
        lines.append([f"NSE - {str(arm).removeprefix(f'{NSE} - ')}", *cells])
    n = rows["sample"].nunique()
    said = f"{n} sequences of {MANY} nouns of `pictos:held_out`, no noun in two of them."
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{said}"


def _means(rows: Any) -> Any:
    ranges = dict.fromkeys(ASKED, (0.0, 1.0))
    return summarise(rows, ["arm", "metric"], ranges=ranges).set_index(["arm", "metric"])


def _cell(one: Any) -> str:
    return f"{one['mean']:.2f} ({one['low']:.2f} to {one['high']:.2f})"


def kept_prompts(model: Any) -> list[Any]:
    """Pictures of the world's training split, which show one thing."""
    world = World("train", things=1, style="literal")
    return [model.read(mm.Prompt(world.scene(at).image, PROMPT)) for at in range(KEPT)]


def main() -> None:
    """Measure, and write the table into the page."""
    given = options(__doc__, 250).parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    model: Any = mm.load("pictos")
    every = sequences(model, given.pictures, MANY)
    keep = kept_prompts(model)
    rows = measured(every, SEQUENCES, lambda one: rows_of(model, keep, one), given.rows)
    found = table(rows)
    print(found)
    if not given.print:
        write_between(PAGE, BEGIN, END, found)


if __name__ == "__main__":
    main()
