"""Are a dictionary's units about one thing? Measured on pictos, into docs/dictionaries.md.

    python scripts/dictionary.py --out runs/sae               # trains, judges, prints the table
    python scripts/dictionary.py --out runs/sae --write       # and writes it into the page

Scenes show things among the first 20 of the world, so that each is seen often in a training of a
few minutes on a CPU. A sparse autoencoder is trained on patches of the bundled bridge at one
place. Its figures are those of `mmlens.train.dictionary_figures`, on held-out scenes. Then the
units are judged by scenes of one thing each, whose truth is known: a unit's activation on a
picture is its largest on a patch.

    purity      of the 10 pictures of largest activation, the share that show the commonest thing
    MonoScore   sum over pairs of pictures of a_n a_m s_nm / sum of a_n a_m, with activations scaled
                to [0, 1] and s_nm = 1 where both show one thing (Pach et al. 2025, arXiv
                2504.02821, with the world's truth in the place of an encoder's similarity)

Beside them the same of MLP neurons of that layer, of the coordinates of the stream, and of random
directions of it (as many as there are coordinates). Means are over units, with 95 % intervals
(`mmlens.tally.intervals`); units active on fewer than 10 pictures are left out and counted.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from page_part import write_between  # pyright: ignore[reportMissingImports]
from torch import Tensor

import mmlens as mm
from mmlens import train
from mmlens.pictos import World
from mmlens.tally.intervals import intervals

ROOT = Path(__file__).parents[1]
PAGE, STORED = ROOT / "docs" / "dictionaries.md", ROOT / "docs" / "dictionary.json"
BEGIN, END = "<!-- table: python scripts/dictionary.py -->", "<!-- end -->"
LAYER, TOP, THINGS, PICTURES, HELD_OUT = 4, 10, 20, 300, 40
AT = f"blocks.{LAYER}.hook_resid_post"
BARS = {"explained": 0.8, "recovered_mean": 0.9, "alive": 0.8}
"""What the dictionary is asked to reach, set before it was trained."""
RECIPE: dict[str, Any] = {"kind": "batchtopk", "units": 1024, "k": 16, "steps": 250, "lr": 2e-3,
                          "batch_size": 512, "dead_after": 30_000, "buffer": 300}  # fmt: skip


def scenes(split: str, n: int, each: int | None = None) -> Any:
    """Scenes of a split that show the first `THINGS` things alone.

    Args:
        n: how many scenes; with `each`, so many scenes of one thing for every thing instead.
    """
    many = 60_000 if each is None else 20_000
    world = World(split, 0, things=None if each is None else 1)
    _, _, shown = world.cast(range(many))
    fits = (shown < THINGS).all(1)
    if each is None:
        places = fits.nonzero()[:n, 0].tolist()
    else:
        rows = [(shown[:, 0] == thing).nonzero()[:each, 0] for thing in range(THINGS)]
        places = torch.cat(rows).tolist()
    return mm.datasets.pictos(split, many, things=world.things).pick(places)


def peaks(model: Any, samples: Any, batch: int = 20) -> dict[str, Tensor]:
    """Per kind of unit the largest activation on a patch of every picture: Float[picture, unit]."""
    d = model.cfg.d_model
    draw = torch.Generator().manual_seed(0)
    random = torch.nn.functional.normalize(torch.randn(d, d, generator=draw), dim=0)
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(samples), batch):
        numbers = range(start, min(start + batch, len(samples)))
        prompts = [mm.Prompt(samples[i].image) for i in numbers]
        read = {name: mm.activations(model, prompts, site, layer=LAYER, pos=mm.Patch).values
                for name, site in (("units of the dictionary", "sae"), ("MLP neurons", "neurons"),
                                   ("coordinates of the stream", "resid_post"))}  # fmt: skip
        read["random directions"] = read["coordinates of the stream"] @ random
        for name, values in read.items():
            found.setdefault(name, []).append(values.amax(1))
    return {name: torch.cat(parts) for name, parts in found.items()}


def judged(values: Tensor, things: Tensor) -> tuple[Tensor, Tensor, int]:
    """Purity and MonoScore of each unit that is active often enough, and how many are not.

    Args:
        values: Float[picture, unit]. things: Int[picture], what each picture shows.
    """
    often = (values > 0).sum(0) >= TOP
    values = values[:, often]
    best = things[values.topk(TOP, dim=0).indices]  # [TOP, unit]
    purity = torch.nn.functional.one_hot(best, int(things.max()) + 1).sum(0).amax(-1) / TOP
    low, high = values.amin(0), values.amax(0)
    a = (values - low) / (high - low).clamp(min=1e-12)
    of_thing = torch.zeros(int(things.max()) + 1, a.shape[1]).index_add_(0, things, a)
    squares = a.square().sum(0)
    same = of_thing.square().sum(0) - squares
    mono = same / (a.sum(0).square() - squares).clamp(min=1e-12)
    return purity, mono, int((~often).sum())


def interval(values: Tensor) -> list[float]:
    """Mean, low and high over units."""
    found = intervals(values.double().numpy()[:, None], None, [(0.0, 1.0)], draws=2000)
    return [float(x) for x in found[0]]


def measure(out: Path, each: int, recipe: dict[str, Any]) -> dict[str, Any]:
    """Train (or go on), and everything that the table shows."""
    model, began = mm.load("pictos"), time.perf_counter()
    trained = train.fit_dictionary(model, scenes("train", PICTURES), at=AT, out=out, batch=20,
                                   **recipe)  # fmt: skip
    seconds = time.perf_counter() - began
    held_out = scenes("held_out", HELD_OUT)
    figures = train.dictionary_figures(
        model, trained.dictionary, held_out, prompt="A picture of", batch=20
    )
    samples = scenes("held_out", 0, each)
    names = [samples[i].names[0] for i in range(len(samples))]
    known = sorted(set(names))
    things = torch.tensor([known.index(one) for one in names])
    rows = {}
    for name, values in peaks(model.attach(trained.dictionary), samples).items():
        purity, mono, silent = judged(values, things)
        mixed = things[torch.randperm(len(things), generator=torch.Generator().manual_seed(1))]
        chance = judged(values, mixed)
        rows[name] = {
            "judged": len(purity), "silent": silent, "purity": interval(purity),
            "pure": interval((purity >= 0.8).double()), "mono": interval(mono),
            "chance": [float(chance[0].mean()), float(chance[1].mean())],
        }  # fmt: skip
    told = {"at": AT, "recipe": recipe, "pictures": len(samples), "things": len(known)}
    return told | {"figures": figures, "seconds": seconds, "rows": rows}


def page(found: dict[str, Any]) -> str:
    """The figures and the table as Markdown."""
    f, rows, recipe = found["figures"], found["rows"], found["recipe"]
    reached = {"explained": f["explained"], "recovered_mean": f["recovered_mean"],
               "alive": 1 - f["dead"]}  # fmt: skip
    said = {"explained": "explained variance", "recovered_mean": "loss recovered, from the mean",
            "alive": "units that are alive"}  # fmt: skip
    lines = [
        f"`pictos`, `{found['at']}`, {recipe['kind']} with {recipe['units']} units and k ="
        f" {recipe['k']}, {recipe['steps']} steps of {recipe['batch_size']} patches of {PICTURES}"
        " scenes; L0"
        f" {f['l0']:.1f}, loss recovered from zero {f['recovered_zero']:.3f}.",
        "",
        "| figure | reached | bar | |",
        "|---|---|---|---|",
        *[f"| {said[name]} | {value:.3f} | {BARS[name]} |"
          f" {'reached' if value >= BARS[name] else '**missed**'} |"
          for name, value in reached.items()],
        "",
        f"On {found['pictures']} held-out scenes of one of {found['things']} things:",
        "",
        "| directions | judged | left out | purity of the top 10 | chance | at least 0.8 pure |"
        " MonoScore | chance |",
        "|---|---|---|---|---|---|---|---|",
        *[f"| {name} | {row['judged']} | {row['silent']} | {_shown(row['purity'])} |"
          f" {row['chance'][0]:.2f} | {_shown(row['pure'])} | {_shown(row['mono'], 3)} |"
          f" {row['chance'][1]:.3f} |" for name, row in rows.items()],
        "",
        _verdict(rows),
    ]  # fmt: skip
    return "\n".join(lines)


def _shown(value: list[float], digits: int = 2) -> str:
    mean, low, high = (f"{x:.{digits}f}" for x in value)
    return f"{mean} [{low}, {high}]"


def _verdict(rows: dict[str, Any]) -> str:
    """Whether the intervals of the dictionary's units lie above those of all others."""
    own, *others = rows.values()
    parts = []
    for name, said in (("purity", "purity"), ("mono", "MonoScore")):
        above = all(own[name][1] > other[name][2] for other in others)
        parts.append(f"in {said} {'they do' if above else 'they do not'}")
    asked = "Do the dictionary's units beat all others, interval against interval?"
    said = ", ".join(parts)
    return f"{asked} {said[:1].upper()}{said[1:]}."


def main() -> None:
    """Measure, print, and write where that is asked for."""
    ask = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    ask.add_argument("--out", type=Path, required=True)
    ask.add_argument("--each", type=int, default=15, help="pictures of a thing to judge by")
    ask.add_argument("--steps", type=int, default=RECIPE["steps"])
    ask.add_argument("--write", action="store_true")
    asked = ask.parse_args()
    found = measure(asked.out, asked.each, RECIPE | {"steps": asked.steps})
    text = page(found)
    print(text)
    print(f"{found['seconds']:.0f} s of training")
    if asked.write:
        kept = {name: value for name, value in found.items() if name != "seconds"}
        STORED.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
        write_between(PAGE, BEGIN, END, text)


if __name__ == "__main__":
    main()
