"""Do lenses name the thing that a patch shows? A table on pictures with known truth.

    python scripts/lenses.py                            # 16 pictures of the bundled world, minutes
    python scripts/lenses.py --pictures 100 --print
    python scripts/lenses.py --model smol --data coco:FOLDER --print    # after `mmlens fetch smol`

Each picture shows one thing. A lens reads the patches under its mask, in every layer, and a patch
counts where the thing's word is among the lens's 5 best. What counts is the share of these patches,
less the share of patches of *other* things (in other pictures) at which the same word is among the
5 best: points above other pictures. Rows are means over pictures, layers by thirds, with 95 %
intervals (`mmlens.papers.bootstrap`). Lenses that are fitted, and the texts of the index, come from
the training split; with `--data`, pictures are asked from the first half of a data set with masks
and captions, and the rest comes from the other half.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from page_part import write_between  # pyright: ignore[reportMissingImports]

import mmlens as mm
from mmlens.datasets import Sample, pictos
from mmlens.papers.bootstrap import summarise

PAGE = Path(__file__).parents[1] / "docs" / "lenses.md"
BEGIN, END = "<!-- table: python scripts/lenses.py -->", "<!-- end -->"
GROUPS = ("soft prompt", "early", "middle", "late")
K, FIT, STEPS, JACOBIAN, SCENES, MOST = 5, 40, 100, 2, 150, 8
"""Words that count; pictures and steps that lenses are fitted with; pictures of the Jacobian;
scenes whose captions are the texts; patches of a picture."""
Seen = dict[int, list[set[str]]]
"""By layer (-1: the soft prompt), the words of each patch."""
Reading = Callable[[Any, list[Any]], Seen]


def words_of(table: pd.DataFrame) -> Seen:
    """The words of each layer and patch of a lens's table."""
    table = table if "layer" in table.columns else table.assign(layer=-1)
    told = table.assign(token=[token.strip().lower() for token in table["token"]])
    found: Seen = {}
    for (layer, _), rows in told.groupby(["layer", "pos"], sort=False):
        found.setdefault(int(layer), []).append(set(rows["token"]))
    return found


def half(data: str, split: str) -> Iterator[Sample]:
    """The first half of a data set, "held_out", or the second, "train"."""
    every = mm.dataset(data)
    places = range(len(every) // 2) if split == "held_out" else range(len(every) // 2, len(every))
    return (every[place] for place in places)


def of_one_thing(data: str, split: str, n: int) -> Iterator[Sample]:
    """Pictures of one thing: at most `n` of the bundled world, or all of this half of the data."""
    if not data:
        return iter(pictos(split, n, things=1, style="literal"))
    return (one for one in half(data, split) if len(one.things) == 1)


def sentence(caption: str) -> str:
    """A caption as a sentence: those of the bundled world go on after "A picture of"."""
    return f"A picture of{caption}" if caption.startswith(" ") else caption


class Made:
    """The lenses and the index, each made when it is asked for first."""

    def __init__(self, model: Any, data: str) -> None:
        self.model, self.data = model, data
        self.layers = list(range(0, model.cfg.n_layers, max(1, model.cfg.n_layers // 8)))

    @cached_property
    def shown(self) -> list[mm.Prompt]:
        """Pictures of one thing with their captions."""
        seen = of_one_thing(self.data, "train", FIT)
        return [mm.Prompt(one.image, sentence(one.captions[0])) for one in islice(seen, FIT)]

    @cached_property
    def tuned(self) -> mm.Translators:
        return mm.tuned_lens(self.model, self.shown, steps=STEPS)

    @cached_property
    def jacobian(self) -> mm.Translators:
        return mm.jacobian_lens(self.model, self.shown[:JACOBIAN], pos=mm.Patch, batch=32)

    @cached_property
    def heads(self) -> dict[int, mm.HeadMaps]:
        how: dict[str, Any] = {"pos": None, "steps": STEPS}
        return {
            at: mm.attention_lens(self.model, self.shown, layer=at, **how) for at in self.layers
        }

    @cached_property
    def index(self) -> mm.ContextualIndex:
        seen = half(self.data, "train") if self.data else pictos("train", SCENES)
        texts = [sentence(text) for one in islice(seen, SCENES) for text in one.captions]
        texts = list(dict.fromkeys(texts))
        return mm.contextual_index(self.model, texts, tempfile.mkdtemp(), layer=self.layers)


def heads(model: Any, prompt: Any, at: list[Any], lenses: dict[int, Any]) -> Seen:
    """Words of the sum over heads of a trained attention lens."""
    every = list(range(model.lm.n_words))
    found: Seen = {}
    for layer, lens in lenses.items():
        said = mm.head_lens(model, prompt, every, layer=layer, pos=at, through=lens).sum("head")
        best = said.values.topk(K).indices.tolist()
        found[layer] = [{model.to_string([i]).strip().lower() for i in row} for row in best]
    return found


def readings(model: Any, made: Made) -> dict[str, Reading]:
    """The lenses by name, each a function of a prompt and patches."""
    here: dict[str, Any] = {"layer": made.layers, "k": K}

    def near(p: Any, at: list[Any], **how: Any) -> pd.DataFrame:
        return mm.contextual_neighbours(model, p, made.index, pos=at, **here, **how)

    def scope(p: Any, at: list[Any], **how: Any) -> Any:
        return mm.patchscope(model, p, pos=at, **here, **how)

    def lens(p: Any, at: list[Any], through: Any = None) -> Any:
        return mm.logit_lens(model, p, pos=at, through=through, **here)

    found: dict[str, Any] = {
        "nearest_tokens": lambda p, at: mm.nearest_tokens(model, p, K, pos=at),
        "logit_lens": lens,
        "logit_lens through tuned_lens": lambda p, at: lens(p, at, made.tuned),
        "logit_lens through jacobian_lens": lambda p, at: lens(p, at, made.jacobian),
        "patchscope, the identity prompt": scope,
        "patchscope, as the last word of a caption": lambda p, at: scope(
            p, at, into="A picture of a"
        ),
        "patchscope, as the picture of a caption": lambda p, at: scope(
            p, at, into=", A picture of a", into_pos=0
        ),
        "contextual_neighbours": near,
        "contextual_neighbours, centred": lambda p, at: near(p, at, centred=True),
        "contextual_neighbours, the same layer": lambda p, at: near(p, at, text_layer="same"),
    }
    read: dict[str, Reading] = {
        name: lambda p, at, verb=verb: words_of(verb(p, at)) for name, verb in found.items()
    }
    read["head_lens through attention_lens"] = lambda p, at: heads(model, p, at, made.heads)
    return read


def pictures(model: Any, n: int, data: str) -> Iterator[tuple[str, mm.Prompt, str, list[Any]]]:
    """(id, prompt, the thing's word, the patches that show it) of pictures of one thing."""
    found = 0
    for sample in of_one_thing(data, "held_out", 4 * n):
        thing = sample.things[0]
        at = mm.patching.patches_under(model, thing.mask, sample.image)
        try:
            model.to_single_token(" " + thing.name)
        except mm.MMLensError:
            continue
        if found < n and at:
            found += 1
            spread = at[:: -(-len(at) // MOST)]
            yield sample.id, mm.Prompt(sample.image, "A picture of"), thing.name.lower(), spread


def group(layer: int, n_layers: int) -> str:
    """The third of the layers that a layer is in; -1 is the soft prompt."""
    return "soft prompt" if layer < 0 else GROUPS[1 + min(2, 3 * layer // n_layers)]


def measured(model: Any, n: int, only: str, kept: Path | None, data: str) -> pd.DataFrame:
    """Points of every lens on every picture: sample, arm, metric (the group), value."""
    asked = list(pictures(model, n, data))
    rows: Any = pd.DataFrame({"arm": []})
    if kept is not None and kept.is_file():
        rows = pd.read_csv(kept, dtype={"sample": str})
    for name, reading in readings(model, Made(model, data)).items():
        if name in set(rows["arm"]) or not re.search(only, name):
            continue
        seen = [reading(prompt, at) for _, prompt, _, at in asked]
        found = []
        for (sample, _, word, _), own in zip(asked, seen, strict=True):
            others = [one for one, other in zip(seen, asked, strict=True) if other[2] != word]
            for layer, words in own.items():
                chance = sum(share(one[layer], word) for one in others) / len(others)
                points = 100 * (share(words, word) - chance)
                third = group(layer, model.cfg.n_layers)
                found.append({"sample": sample, "arm": name, "metric": third, "value": points})
        rows = pd.concat([rows, pd.DataFrame(found)])
        if kept is not None:
            rows.to_csv(kept, index=False)
        here: Any = rows[rows["arm"] == name].groupby("metric")["value"]
        print(name, here.mean().round(1).to_dict(), flush=True)
    return rows


def share(words: list[set[str]], word: str) -> float:
    """The share of patches whose words have this one among them."""
    return sum(word in one for one in words) / len(words)


def table(rows: pd.DataFrame) -> str:
    """Points with their intervals, one line per lens, in Markdown."""
    ranges = dict.fromkeys(GROUPS, (-100.0, 100.0))
    means = summarise(rows, ["arm", "metric"], ranges=ranges).set_index(["arm", "metric"])
    lines = [["lens", *GROUPS], ["---"] * (1 + len(GROUPS))]
    for name in dict.fromkeys(rows["arm"]):
        verb, _, rest = name.partition(" ") if "," not in name else name.partition(",")
        cells = [f"`{verb}`{',' if ',' in name else ' ' if rest else ''}{rest}"]
        for metric in GROUPS:
            if (name, metric) not in means.index:
                cells.append("")
                continue
            mean, low, high = means.loc[(name, metric), ["mean", "low", "high"]]
            cells.append(f"{mean:.0f} ({low:.0f} to {high:.0f})")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, and write the table into the page."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", default="pictos")
    options.add_argument("--pictures", type=int, default=16)
    options.add_argument("--data", default="", help="what mmlens.dataset takes; of the world, none")
    options.add_argument("--print", action="store_true", help="show the table and write nothing")
    options.add_argument("--only", default="", help="lenses whose names match this expression")
    options.add_argument("--rows", type=Path, help="a CSV of measures to keep and to go on from")
    given = options.parse_args()
    torch.set_num_threads(1)
    rows = measured(mm.load(given.model), given.pictures, given.only, given.rows, given.data)
    found = f"{table(rows)}\n\n`{given.model}`, {rows['sample'].nunique()} pictures of one thing."
    if given.print:
        print(found)
        return
    write_between(PAGE, BEGIN, END, found)


if __name__ == "__main__":
    main()
