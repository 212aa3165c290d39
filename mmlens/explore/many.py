"""`look` for every picture of a data set, and the top pictures of its neurons.

    found = read_all(model, "pictos:held_out:200", "runs/pictos")     # resumable
    found = read_found("runs/pictos")                                 # later, without the model

    runs/pictos/looks       a sweep: caption, neurons, maps, lens and ablations of every picture
    runs/pictos/activity    a sweep: the activations of these neurons on every picture

Top pictures are those with the neuron's largest activation at any patch (as in `top_images`), among
all pictures and not only those whose caption it contributes to.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from mmlens.datasets.sample import Sample
from mmlens.datasets.spec import dataset as named_data
from mmlens.explore.deeper import Depth
from mmlens.explore.encoder_units import patch_activity, shown_patches
from mmlens.explore.look import Look, look
from mmlens.explore.patches import maps_of, seen_places
from mmlens.model.provenance import about
from mmlens.sweep.record import SweepError
from mmlens.sweep.sweep_folder import Sweep
from mmlens.sweep.sweeping import sweep
from mmlens.tally import Top
from mmlens.values.labels import LM, Neuron
from mmlens.values.prompt import Prompt
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd


SIDE = 320
"""Pixels of the longer side of the copies that a sweep keeps."""
_TABLES = ("table", "firing", "decoded", "lens")
_SCORES = ("maps", "activations", "before", "without", "together")


@dataclass(frozen=True, eq=False)
class Found:
    """The results for many pictures.

    Attributes:
        looks: one per picture that could be read.
        names: their ids.
        tops: neuron, rank (from 0), sample, place, value, picture, map (Scores(pos)), box; None
            where only the first of the two sweeps was run.
        failed: the pictures that could not be read: sample, error.
    """

    looks: list[Look]
    names: list[str]
    tops: pd.DataFrame | None
    failed: pd.DataFrame


def read_all(
    model: Any,
    dataset: Any,
    out: str | Path,
    *,
    prompt: str | None = None,
    of: Sequence[str] | None = None,
    k: int = 5,
    lens: int = 3,
    firing: int = 3,
    tops: int = 6,
    progress: bool = True,
) -> Found:
    """Run `look` on every picture of a data set; finished pictures are not computed again.

    Args:
        dataset: `Samples`, or what `mmlens.dataset` takes.
        prompt: as in `look`.
        of: the texts that a dual encoder holds each picture against, or classes of a classifier.
        k: neurons per word of a caption, each ablated alone and all together.
        lens, firing: words of the lens and firing neurons per patch.
        tops: top pictures per neuron.

    Raises:
        SweepError: the folder holds something else.
    """
    samples, folder = named_data(dataset), Path(out)
    said = {"of": list(of)} if of is not None else {}
    said |= {"prompt": prompt or "A picture of"} if LM in model.towers else {}
    options = {**said, "k": k, "lens": lens, "firing": firing}
    done = sweep(read_one, model, samples, folder / "looks", options=options, on_error="record",
                 progress=progress)  # fmt: skip
    names = [str(neuron) for neuron in sorted(set(done.table("table")["neuron"]))]
    same = _neurons_of(folder) in (None, names)
    sweep(activity, model, samples, folder / "activity", options={"neurons": names},
          on_error="record", resume=same, progress=progress)  # fmt: skip
    return read_found(folder, tops)


def read_found(folder: str | Path, tops: int = 6) -> Found:
    """The results of `read_all`, as far as they are finished.

    Raises:
        SweepError: the folder has none.
    """
    folder = Path(folder)
    if folder.is_file():
        raise SweepError(
            f"{str(folder)!r} is a file, and explore reads many pictures into a folder of their"
            f" own: of one picture ask `mmlens look {folder}`."
        )
    if not (folder / "looks" / "manifest.json").is_file():
        raise SweepError(
            f"{str(folder)!r} holds no pictures that were read: read some with"
            f" `mmlens explore {folder} --data pictos:held_out:200`."
        )
    done = Sweep(folder / "looks")
    head = done.table("head").set_index("sample")
    tables = {
        name: dict(list(done.table(name).groupby("sample", sort=False)))
        for name in _TABLES
        if name in done.names("tables")
    }
    there = done.names("tensors")
    scores: dict[str, dict[str, Scores]] = {
        name: dict(done.each(name)) for name in _SCORES if name in there
    }
    looks = {name: _look(head.loc[name], name, tables, scores) for name in head.index}
    found = _tops(folder, looks, tops) if _neurons_of(folder) is not None else None
    return Found(list(looks.values()), list(looks), found, done.failed)


def read_one(
    model: Any,
    sample: Sample,
    k: int,
    lens: int,
    firing: int,
    prompt: str | None = None,
    of: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The question of the first sweep: a `Look` in tables and Scores."""
    import pandas as pd

    depth = Depth(lens=lens, firing=firing, silenced=k)
    seen = look(model, sample.image, prompt, of=of, k=k, full=depth)
    small, buffer = seen.picture.copy(), io.BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(buffer, "png" if max(seen.picture.size) <= SIDE // 2 else "jpeg")
    zoom = small.width / seen.picture.width
    head = {"caption": seen.caption, "prompt": seen.prompt, "token": seen.token,
            "box": [edge * zoom for edge in seen.box], "picture": buffer.getvalue()}  # fmt: skip
    parts = {name: getattr(seen, name) for name in (*_TABLES, *_SCORES)}
    there = {name: part for name, part in parts.items() if part is not None}
    return {"head": pd.DataFrame([head]), **there}


def activity(model: Any, sample: Sample, neurons: Sequence[str]) -> dict[str, Scores]:
    """The question of the second sweep: Scores(neuron, pos) of a picture alone, in float16."""
    import torch

    named = tuple(Neuron.parse(name) for name in neurons)
    if LM not in model.towers:
        values = patch_activity(model, sample.image, named).half()
        there = {"neuron": named, "pos": shown_patches(model)}
        return {"activity": Scores(values, ("neuron", "pos"), there)}
    with torch.no_grad():
        soft = model.embed(Prompt(sample.image))
    places = seen_places(soft.labels[0])
    at = torch.tensor(places, device=model.lm.device)
    values = maps_of(model, soft, named, at).half()
    labels = {"neuron": named, "pos": tuple(soft.labels[0][i] for i in places)}
    told = about(model, method="activations", site="neurons", prompt=soft)
    return {"activity": Scores(values, ("neuron", "pos"), labels, told)}


def _neurons_of(folder: Path) -> list[str] | None:
    """The neurons of the second sweep, if there is one."""
    try:
        return Sweep(folder / "activity").manifest["options"]["neurons"]
    except SweepError:
        return None


def _look(head: Any, name: str, tables: Any, scores: Any) -> Look:
    maps: Scores = scores["maps"][name]
    own = {
        key: tables[key][name].drop(columns="sample").reset_index(drop=True)
        for key in _TABLES
        if key in tables
    }
    return Look(
        picture=Image.open(io.BytesIO(head["picture"])).convert("RGB"),
        prompt=head["prompt"],
        caption=head["caption"],
        tokens=tuple(scores.get("before", scores["maps"])[name].of("token")),
        token=head["token"],
        box=tuple(head["box"]),
        about=maps.about,
        **own,
        **{key: scores[key][name] for key in _SCORES if key in scores},
    )


def _tops(folder: Path, looks: dict[str, Look], k: int) -> pd.DataFrame:
    done, best = Sweep(folder / "activity"), Top(keep=("neuron",), k=k)
    names = [name for name, _ in done.each("activity")]
    for place, (name, scores) in enumerate(done.each("activity")):
        if name in looks:
            best.add(Scores(scores.values.float(), scores.axes, scores.labels, scores.about), place)
    table = best.table(ids=names)
    maps: dict[int, Scores] = {}
    rows: Any = table.groupby("sample").groups
    for name, scores in done.each("activity"):
        for row in rows.get(name, ()):
            maps[row] = scores.sel(neuron=table.loc[row, "neuron"])
    return table.assign(
        map=[maps[row] for row in table.index],
        picture=[looks[name].picture for name in table["sample"]],
        box=[looks[name].box for name in table["sample"]],
    )
