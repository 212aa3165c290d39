"""The data of the explorer's page: plain JSON with packed numbers, by picture.

Numbers are stored as 16-bit integers in base64 with one scale per map (error below 0.002 % of its
largest value); probabilities of the lens as parts of 65,535; words of the lens as indices in one
vocabulary. Pictures are data addresses: PNG where pixels count, JPEG for photos.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmlens.values.errors import AddressError
from mmlens.values.labels import Marker, Patch
from mmlens.values.scores import Scores
from mmlens.view.style.laid import levels
from mmlens.view.style.printed import plain, visible

if TYPE_CHECKING:
    import pandas as pd

MISSING = -32768
SMALL = 160
"""Pictures up to this many pixels a side are shown pixel by pixel."""
Box = tuple[float | int, float | int, float | int, float | int]
TOPS = ("neuron", "rank", "sample", "value", "picture", "map")
"""The columns of a table of top pictures."""

Read = Any
"""The results for one picture: an object with the attributes of `mmlens.explore.Look`."""


@dataclass(frozen=True)
class Detail:
    """How much of each picture goes into a page.

    Attributes:
        side: the most pixels of a picture's longer side.
        neurons: the most neurons of a word.
        lens: words per patch and layer.
        firing: neurons per patch.
        tops: top pictures per neuron.
        thumb: pixels of the longer side of a thumbnail.
    """

    side: int
    neurons: int
    lens: int
    firing: int
    tops: int
    thumb: int


LEVELS = (
    Detail(720, 100, 5, 8, 9, 160),
    Detail(480, 10, 5, 8, 6, 96),
    Detail(320, 10, 3, 5, 6, 96),
    Detail(160, 8, 3, 3, 4, 72),
    Detail(112, 5, 1, 2, 3, 56),
    Detail(80, 3, 1, 0, 2, 48),
)
"""From full to little detail; the first whose page fits the budget is used."""


@dataclass
class Shared:
    """Data shared by all pictures of a page: the words of the lens, and the neurons."""

    words: dict[str, int] = field(default_factory=dict)
    neurons: dict[str, dict[str, Any]] = field(default_factory=dict)

    def word(self, token: Any) -> int:
        """The index of a word in the vocabulary."""
        return self.words.setdefault(visible(token), len(self.words))

    def neuron(self, neuron: Any) -> dict[str, Any]:
        """The entry of a neuron: what it decodes to, and for how many words it is a top neuron."""
        return self.neurons.setdefault(str(neuron), {"says": [], "probs": [], "count": 0})

    def end(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The entry for the sign of a row: a negative activation writes minus the output row."""
        known = self.neuron(row["neuron"])
        return known.setdefault("minus", {"probs": []}) if row.get("sign", 1) < 0 else known


def picture_data(seen: Read, name: str, detail: Detail, shared: Shared) -> dict[str, Any]:
    """One picture as JSON.

    Raises:
        AddressError: other axes, no patches, or a token that is none of the tokens.
    """
    maps, active = seen.maps, seen.activations
    if maps.axes != ("token", "pos") or active.axes != ("neuron", "pos"):
        raise AddressError(
            f"An explorer needs Scores(token, pos) and Scores(neuron, pos), not {maps!r} and"
            f" {active!r}."
        )
    explained, patches = list(maps.of("token")), list(maps.of("pos"))
    if seen.token not in explained:
        raise AddressError(f"The token {seen.token!r} is none of the tokens {explained!r}.")
    tokens = list(seen.tokens)
    map_of = dict(zip(explained, maps.numpy(), strict=True))
    index = {patch: n for n, patch in enumerate(patches)}
    tops = [_tops(seen.table, token, detail.neurons, shared, index) for token in tokens]
    fires, firing = _firing(seen.firing, patches, detail.firing)
    shown = {one["neuron"] for top in tops for one in top} | set(firing)
    _says(seen, shared, shown)
    rows = zip(active.of("neuron"), active.numpy(), strict=True)
    return {
        "name": name,
        "prompt": seen.prompt,
        "levels": _levels(patches, maps.about, seen.box, seen.picture.size),
        "target": tokens.index(seen.token),
        "words": _words(tokens, seen.before, seen.together),
        "tops": tops,
        "firing": firing,
        "fires": fires,
        "without": _without(seen.without, shown),
        **photo(seen.picture, detail.side, seen.box),
        "maps": [packed(map_of[token]) if token in map_of else None for token in tokens],
        "active": {str(neuron): packed(row) for neuron, row in rows if str(neuron) in shown},
        "lens": _lens(seen.lens, patches, detail.lens, shared),
    }


def tops_data(
    tops: pd.DataFrame | None, names: Sequence[str], detail: Detail, shared: Shared
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Per neuron its top pictures, and the thumbnails that they refer to."""
    found: dict[str, Any] = {}
    thumbs: dict[str, dict[str, Any]] = {}
    places: dict[str, int] = {}
    for row in tops.to_dict("records") if tops is not None else []:
        neuron, sample = str(row["neuron"]), str(row["sample"])
        if row["rank"] >= detail.tops or neuron not in shared.neurons:
            continue
        if sample not in thumbs:
            places[sample] = len(thumbs)
            at = names.index(sample) if sample in names else -1
            picture, box, where = row["picture"], row.get("box"), row["map"]
            cut = photo(picture, detail.thumb, box)
            cut["levels"] = _levels(list(where.of("pos")), where.about, box, picture.size)
            thumbs[sample] = {"name": sample, "at": at, **cut}
        one = {"thumb": places[sample], "value": number(row["value"])}
        one["map"] = packed(row["map"].numpy())
        found.setdefault(neuron, []).append(one)
    return found, list(thumbs.values())


def packed(values: np.ndarray) -> dict[str, Any]:
    """`{scale, data}`: 16-bit integers in base64, value = integer * scale."""
    finite = np.isfinite(values)
    top = float(np.abs(values[finite]).max(initial=0.0)) or 1.0
    small = np.where(finite, np.rint(np.nan_to_num(values) / top * 32767), MISSING)
    return {"scale": float(f"{top / 32767:.7g}"), "data": _base64(small.astype("<i2").tobytes())}


def number(value: Any) -> float | None:
    """A number to five digits; None if it is not finite."""
    return float(f"{float(value):.5g}") if np.isfinite(value) else None


def photo(picture: Image.Image, side: int, box: Box | None = None) -> dict[str, Any]:
    """A picture as a data address, its shape, and the part that the encoder reads, in per cent."""
    image, buffer = picture.convert("RGB"), io.BytesIO()
    width, height = picture.size
    sharp = max(image.size) <= SMALL
    image.thumbnail((side, side))
    kind = "png" if sharp and max(image.size) == max(width, height) else "jpeg"
    image.save(buffer, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return {
        "src": f"data:image/{kind};base64,{_base64(buffer.getvalue())}",
        "sharp": sharp,
        "ratio": number(width / height),
        "window": _window(box or (0, 0, width, height), picture.size),
    }


def _window(box: Box, size: tuple[int, int]) -> list[float | None]:
    """Left, top, width and height of a box in per cent of a picture."""
    (x0, y0, x1, y1), (width, height) = box, size
    place = (x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height)
    return [number(100 * part) for part in place]


def _levels(
    patches: Sequence[Any], about: Mapping[str, Any], box: Box | None, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """What can be drawn of a picture: name, grid, window, and a cell per position, or None."""
    if not patches or not all(isinstance(one, (Patch, Marker)) for one in patches):
        raise AddressError("An explorer shows patches only: narrow the maps with .sel(pos=Patch).")
    made, whole = [], (0, 0, *size)
    for one in levels(patches, about):
        parts: Any = one.part and tuple(a * b for a, b in zip(one.part, size * 2, strict=True))
        window = _window(whole if one.name == "list" else parts or box or whole, size)
        cells = [list(one.cells[i]) if i in one.cells else None for i in range(len(patches))]
        made.append({"name": one.name, "grid": list(one.shape), "window": window, "patches": cells})
    return made


def _words(
    tokens: Sequence[Any], before: Scores | None, together: Scores | None
) -> list[dict[str, Any]]:
    """Every token as text; one that continues a word is marked, to be joined to it."""
    at_first, without = (
        {} if one is None else dict(zip(one.of("token"), one.numpy(), strict=True))
        for one in (before, together)
    )
    found = lambda values, token: number(values[token]) if token in values else None  # noqa: E731
    return [
        {
            "text": plain(token),
            "token": visible(token),
            "joined": i > 0 and not str(token).startswith((" ", "\n")),
            "before": found(at_first, token),
            "together": found(without, token),
        }
        for i, token in enumerate(tokens)
    ]


def _tops(
    table: Any, token: Any, most: int, shared: Shared, index: Mapping[Any, int]
) -> list[dict[str, Any]]:
    rows = table[table["token"] == token].head(most).to_dict("records")
    for row in rows:
        end = shared.end(row)
        end["says"] = end.get("says") or [visible(word) for word in row["words"]]
        end["clear"] = bool(row.get("interpretable"))
        shared.neuron(row["neuron"])["count"] += 1
    return [
        {
            "neuron": str(row["neuron"]),
            "at": index[row["patch"]],
            "score": number(row["score"]),
            **({"sign": -1} if row.get("sign", 1) < 0 else {}),
        }
        for row in rows
    ]


def _firing(table: Any, patches: Sequence[Any], most: int) -> tuple[list[list[int]], list[str]]:
    """For every patch the indices of its neurons in the list that is returned second."""
    names: dict[str, int] = {}
    rows: dict[Any, list[int]] = {patch: [] for patch in patches}
    for row in table.to_dict("records") if table is not None else []:
        if row["rank"] < most and row["patch"] in rows:
            rows[row["patch"]].append(names.setdefault(str(row["neuron"]), len(names)))
    return list(rows.values()), list(names)


def _says(seen: Read, shared: Shared, shown: set[str]) -> None:
    """Add what the neurons decode to, where all of them were decoded."""
    for row in seen.decoded.to_dict("records") if seen.decoded is not None else []:
        if str(row["neuron"]) in shown:
            known = shared.end(row)
            known["says"] = [visible(word) for word in row["words"]]
            known["probs"] = [number(prob) for prob in row["probs"]]
            known["clear"] = bool(row.get("interpretable"))


def _without(without: Scores | None, shown: set[str]) -> Mapping[str, Any]:
    if without is None:
        return {}
    rows = zip(without.of("neuron"), without.numpy(), strict=True)
    return {str(n): [number(prob) for prob in row] for n, row in rows if str(n) in shown}


def _lens(table: Any, patches: Sequence[Any], k: int, shared: Shared) -> dict[str, Any] | None:
    """`{layers, k, wide, words, probs}`: words and probabilities [layer, patch, rank] in base64."""
    if table is None or not k:
        return None
    rows = table[table["rank"] < k]
    layers, k = sorted(rows["layer"].unique().tolist()), int(rows["rank"].max()) + 1
    place = {patch: i for i, patch in enumerate(patches)}
    depth = {layer: i for i, layer in enumerate(layers)}
    at = (
        rows["layer"].map(depth).to_numpy(),
        rows["pos"].map(place).to_numpy(),
        rows["rank"].to_numpy(),
    )
    words = np.zeros((len(layers), len(patches), k), "<u4")
    probs = np.zeros(words.shape, "<u2")
    words[at] = [shared.word(token) for token in rows["token"]]
    probs[at] = np.rint(rows["prob"].to_numpy() * 65535)
    wide = len(shared.words) > 65535
    ids = words if wide else words.astype("<u2")
    packs = {"words": _base64(ids.tobytes()), "probs": _base64(probs.tobytes())}
    return {"layers": layers, "k": k, "wide": wide, **packs}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
