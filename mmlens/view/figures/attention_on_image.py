"""A head's attention on the picture: choose a query, see its keys.

    view.attention_on_image(photo, patching.attention(model, prompt, layer=3))

It opens on the head that attends most to the picture. A query is a patch (point at it, or use the
arrow keys) or a word (the buttons below). Keys that are
patches are highlighted on the photo; attention to words is listed beside it. One scale per query:
the patch with the most attention is brightest, and the line below gives its weight.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mmlens.values.errors import AddressError
from mmlens.values.labels import Patch
from mmlens.values.pictures import open_picture
from mmlens.values.scores import Scores
from mmlens.view.still.row_sheet import SheetRow, sheet
from mmlens.view.style import given
from mmlens.view.style.html import Html, data_address, framed, props, static
from mmlens.view.style.laid import lay
from mmlens.view.style.paint import SIDE, Box, painted, paper
from mmlens.view.style.printed import label

_MOST = 2_000_000
_AXES = ("layer", "head", "query", "key")


def attention_on_image(
    scores: Any,
    picture: Any = None,
    *,
    image: int = 0,
    crop: str | int | None = None,
    box: Box | None = None,
    title: str = "Where each position attends",
) -> Html:
    """Attention patterns over the photo, one query at a time.

    Args:
        scores: Scores([[layer,] head,] query, key), between 0 and 1; keys are patches, and words
            where there are any; so are queries.
        picture: anything that `open_picture` reads, or None for no photo.
        image, crop, box: as in `view.on_image`.

    Raises:
        AddressError: other axes, no patch among the keys, or more than 2 million numbers.
    """
    scores, picture = given.scores_first(scores, picture)
    scores = given.scores(scores)
    if "key" not in scores.axes or list(scores.axes) != [a for a in _AXES if a in scores.axes]:
        raise AddressError(
            f"A pattern has the axis key, and perhaps layer, head and query; {scores!r} has others:"
            " take patching.attention(model, prompt, layer=...)."
        )
    if scores.values.numel() > _MOST:
        raise AddressError(
            f"{scores!r} holds {scores.values.numel()} numbers, and {_MOST} is what a page can"
            " carry: narrow it, as in scores.sel(layer=3)."
        )
    keys = list(scores.of("key"))
    queries = list(scores.of("query")) if "query" in scores.axes else [_asked(scores)]
    values = scores.numpy().reshape(-1, len(queries), len(keys))
    first = _start(queries)
    laid = lay(keys, scores.about, repr(scores), image=image, crop=crop)
    strongest = int(np.nan_to_num(values[:, first][:, list(laid.cells)]).sum(-1).argmax())
    grid = laid.grid(values[strongest, first])
    photo = open_picture(picture) if picture is not None else paper(*grid.shape)
    x0, y0, x1, y1 = given.box(laid.box(photo) if box is None else box, photo)
    cells = {keys[index]: cell for index, cell in laid.cells.items()}
    shown = painted(photo, grid, False, float(np.nanmax(grid)) or 1.0, (x0, y0, x1, y1))
    heads = _heads(scores)
    data = {
        "grid": list(grid.shape),
        "box": [x0 / photo.width, y0 / photo.height, x1 / photo.width, y1 / photo.height],
        "keys": [_place(one, cells) for one in keys],
        "queries": [_place(one, cells) for one in queries],
        "heads": heads,
        "head": strongest,
        "across": _across(scores),
        "start": first,
        "photo": data_address(_grey(photo)),
        "patterns": [_packed(pattern) for pattern in values],
    }
    about = [_narrowed(scores), str(scores.about.get("model", ""))]
    many = f"{len(heads)} heads, first the one that attends most to the picture"
    many = many if len(heads) > 1 else ""
    subtitle = " · ".join(part for part in ("attention weight", *about, many) if part)
    asked = escape(label(queries[first]), quote=True)
    body = (
        f'<div class="mm-attention" role="group"><img alt="{asked}"'
        f' src="{data_address(shown)}" width="420"></div>'
        f'<script type="application/json">{props(data)}</script>'
        f"<script>{static('attention.js')}</script>"
    )
    page, css, head = body.replace("\u2028", " "), static("attention.css"), given.title(title)
    told = f"from {label(queries[first])}, {heads[strongest]}".rstrip(", ")
    return framed(
        head, subtitle, page, css, "mm-looks", large=True, rows=scores.to_frame,
        still=lambda: sheet(head, subtitle, [SheetRow("", pictures=[(shown, told)], side=420)]),
    )  # fmt: skip


def _asked(scores: Scores) -> Any:
    """The one query of Scores that were narrowed to it."""
    return scores.about.get("query", "the query")


def _start(queries: list[Any]) -> int:
    """The last word, the position that predicts the next token; otherwise the middle patch."""
    words = [i for i, one in enumerate(queries) if not isinstance(one, Patch)]
    if words:
        return words[-1]
    rows, cols = (max(getattr(q, n) for q in queries) for n in ("row", "col"))
    near = lambda i: abs(queries[i].row - rows / 2) + abs(queries[i].col - cols / 2)  # noqa: E731
    return min(range(len(queries)), key=near)


def _heads(scores: Scores) -> list[str]:
    layers = scores.of("layer") if "layer" in scores.axes else [None]
    heads = scores.of("head") if "head" in scores.axes else [None]
    if len(layers) == 1 and layers[0] is None:
        return [""] if heads[0] is None else [f"head {one}" for one in heads]
    if heads[0] is None:
        return [f"layer {one}" for one in layers]
    return [f"L{x}H{y}" for x in layers for y in heads]


def _across(scores: Scores) -> int:
    """How many small maps stand side by side: the heads of a layer."""
    if "layer" in scores.axes and "head" in scores.axes:
        return len(scores.of("head"))
    return min(12, max(len(scores.of(a)) if a in scores.axes else 1 for a in ("layer", "head")))


def _narrowed(scores: Scores) -> str:
    """The layer and head that were selected before."""
    return ", ".join(f"{a} {scores.about[a]}" for a in ("layer", "head") if a in scores.about)


def _place(one: Any, cells: Mapping[Any, tuple[int, int]]) -> dict[str, Any]:
    """A patch that is drawn as row and column, another as text of its own kind, words as text."""
    if one in cells:
        return {"row": cells[one][0], "col": cells[one][1]}
    return {"other": f"patch {one}"} if isinstance(one, Patch) else {"text": label(one)}


def _packed(pattern: np.ndarray) -> dict[str, Any]:
    """Per query a scale and 8-bit integers: value = integer * scale (error below 0.2 %)."""
    clean = np.clip(np.nan_to_num(pattern), 0, None)
    top = np.maximum(clean.max(-1, keepdims=True), 1e-12)
    whole = np.rint(clean / top * 255).astype(np.uint8)
    scales = [float(f"{x:.4g}") for x in (top / 255).ravel()]
    return {"scale": scales, "data": base64.b64encode(whole.tobytes()).decode("ascii")}


def _grey(photo: Image.Image) -> Image.Image:
    if photo.mode == "RGBA":
        return photo
    zoom = SIDE / max(photo.size)
    method = Image.Resampling.LANCZOS if zoom < 2 else Image.Resampling.NEAREST
    size = (max(1, round(photo.width * zoom)), max(1, round(photo.height * zoom)))
    return ImageOps.grayscale(photo).resize(size, method)
