"""Do lenses name the thing that a patch shows? A table on pictures with known truth.

    python scripts/lenses.py                            # 24 pictures of the bundled world, minutes
    python scripts/lenses.py --pictures 100 --print
    python scripts/lenses.py --model smol --print       # after `mmlens fetch smol`

Each picture shows one thing. A lens reads the patches under its mask, in every layer, and a patch
counts where the thing's word is among the lens's 5 best. What counts is the share of these patches,
less the share of patches of *other* things (in other pictures) at which the same word is among the
5 best: points above other pictures. Rows are means over pictures, layers by thirds, with 95 %
intervals (`mmlens.papers.bootstrap`). Lenses that are fitted, and the texts of the index, come from
the training split.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import mmlens as mm
from mmlens.datasets.bundled import pictos
from mmlens.papers.bootstrap import summarise

PAGE = Path(__file__).parents[1] / "docs" / "lenses.md"
BEGIN, END = "<!-- table: python scripts/lenses.py -->", "<!-- end -->"
GROUPS = ("soft prompt", "early", "middle", "late")
K, FIT, JACOBIAN, SCENES = 5, 40, 4, 400
"""Words that count; pictures that lenses are fitted on; scenes whose captions are the texts."""
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


def fitted(model: Any) -> dict[str, Any]:
    """The lenses and the index that are made before anything is read."""
    seen = pictos("train", FIT, things=1, style="literal")
    shown = [mm.Prompt(one.image, "A picture of") + one.captions[0] for one in seen]
    texts = ["A picture of" + text for one in pictos("train", SCENES) for text in one.captions]
    layers = range(0, model.cfg.n_layers, max(1, model.cfg.n_layers // 8))
    return {
        "tuned": mm.tuned_lens(model, shown, steps=200),
        "jacobian": None if model.cfg.d_model > 300 else
        mm.jacobian_lens(model, shown[:JACOBIAN], pos=mm.Patch, batch=32),
        "heads": {} if model.lm.n_words > 10_000 else
        {at: mm.attention_lens(model, shown, layer=at, pos=None, steps=200) for at in layers},
        "index": mm.contextual_index(model, list(dict.fromkeys(texts)), tempfile.mkdtemp(),
                                     layer=list(layers)),
    }  # fmt: skip


def heads(model: Any, prompt: Any, at: list[Any], lenses: dict[int, Any]) -> Seen:
    """Words of the sum over heads of a trained attention lens."""
    every = list(range(model.lm.n_words))
    found: Seen = {}
    for layer, lens in lenses.items():
        said = mm.head_lens(model, prompt, every, layer=layer, pos=at, through=lens).sum("head")
        best = said.values.topk(K).indices.tolist()
        found[layer] = [{model.to_string([i]).strip().lower() for i in row} for row in best]
    return found


def readings(model: Any, made: dict[str, Any]) -> dict[str, Reading]:
    """The lenses by name, each a function of a prompt and patches."""
    layers = list(made["index"].layer)
    here: dict[str, Any] = {"layer": layers, "k": K}

    def near(p: Any, at: list[Any], **how: Any) -> pd.DataFrame:
        return mm.contextual_neighbours(model, p, made["index"], pos=at, **here, **how)

    def scope(p: Any, at: list[Any], **how: Any) -> Any:
        return mm.patchscope(model, p, pos=at, **here, **how)

    def lens(p: Any, at: list[Any], through: Any = None) -> Any:
        return mm.logit_lens(model, p, pos=at, through=through, **here)

    found: dict[str, Any] = {
        "nearest_tokens": lambda p, at: mm.nearest_tokens(model, p, K, pos=at),
        "logit_lens": lens,
        "logit_lens through tuned_lens": lambda p, at: lens(p, at, made["tuned"]),
        "logit_lens through jacobian_lens": lambda p, at: lens(p, at, made["jacobian"]),
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
    if made["jacobian"] is None:
        del found["logit_lens through jacobian_lens"]
    read: dict[str, Reading] = {
        name: lambda p, at, verb=verb: words_of(verb(p, at)) for name, verb in found.items()
    }
    if made["heads"]:
        read["head_lens through attention_lens"] = lambda p, at: heads(model, p, at, made["heads"])
    return read


def pictures(model: Any, n: int) -> Iterator[tuple[str, mm.Prompt, str, list[Any]]]:
    """(id, prompt, the thing's word, the patches that show it) of pictures of one thing."""
    found = 0
    for sample in pictos("held_out", 4 * n, things=1, style="literal"):
        thing = sample.things[0]
        at = mm.patching.patches_under(model, thing.mask, sample.image)
        try:
            model.to_single_token(" " + thing.name)
        except mm.MMLensError:
            continue
        if found < n and at:
            found += 1
            yield sample.id, mm.Prompt(sample.image, "A picture of"), thing.name.lower(), at


def group(layer: int, n_layers: int) -> str:
    """The third of the layers that a layer is in; -1 is the soft prompt."""
    return "soft prompt" if layer < 0 else GROUPS[1 + min(2, 3 * layer // n_layers)]


def measured(model: Any, n: int) -> pd.DataFrame:
    """Points of every lens on every picture: sample, arm, metric (the group), value."""
    asked = list(pictures(model, n))
    read = readings(model, fitted(model))
    rows = []
    for name, reading in read.items():
        seen = [reading(prompt, at) for _, prompt, _, at in asked]
        for (sample, _, word, _), own in zip(asked, seen, strict=True):
            others = [one for one, other in zip(seen, asked, strict=True) if other[2] != word]
            for layer, words in own.items():
                chance = sum(share(one[layer], word) for one in others) / len(others)
                points = 100 * (share(words, word) - chance)
                third = group(layer, model.cfg.n_layers)
                rows.append({"sample": sample, "arm": name, "metric": third, "value": points})
        here = pd.DataFrame(rows).query("arm == @name").groupby("metric")["value"]
        print(name, here.mean().round(1).to_dict(), flush=True)
    return pd.DataFrame(rows)


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
    options.add_argument("--pictures", type=int, default=24)
    options.add_argument("--print", action="store_true", help="show the table and write nothing")
    given = options.parse_args()
    torch.set_num_threads(1)
    rows = measured(mm.load(given.model), given.pictures)
    found = f"{table(rows)}\n\n`{given.model}`, {rows['sample'].nunique()} pictures of one thing."
    if given.print:
        print(found)
        return
    page = PAGE.read_text("utf-8")
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(f"{page[:start]}\n\n{found}\n\n{page[end:]}", "utf-8")


if __name__ == "__main__":
    main()
