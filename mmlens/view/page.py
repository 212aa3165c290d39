"""One picture and its caption as a page: a single HTML file that loads nothing and runs offline.

    html = page(photo, maps, table, activations, target=token, prompt="A picture of")

Every text goes into the page as text: escaped in the HTML, and as JSON whose `<` is escaped, from
which the script makes text nodes only. A content security policy forbids the page every request.
Numbers travel as 16-bit integers with one scale per map (error below 0.002 %).
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmlens.errors import AddressError
from mmlens.prompt import Patch
from mmlens.scores import Scores
from mmlens.view.photo import Box
from mmlens.view.words import plain, visible

if TYPE_CHECKING:
    import pandas as pd

_SIDE, _SMALL = 720, 160
MISSING = -32768


def page(
    picture: Image.Image,
    maps: Scores,
    neurons: pd.DataFrame,
    activations: Scores,
    *,
    target: Any,
    prompt: str = "",
    title: str = "A picture, read by the model",
    box: Box | None = None,
    about: Mapping[str, Any] | None = None,
) -> str:
    """The page as text.

    Args:
        picture: RGB.
        maps: Scores(token, pos) over the patches: what each did for each word.
        neurons: columns token, neuron, patch, score, words; the rows of a token in their order.
        activations: Scores(neuron, pos) over the same patches.
        target: the label of `maps` that is shown first.
        box: the pixels that the patches cover; by default the whole picture.
        about: provenance, shown at the foot.

    Raises:
        AddressError: other axes, or a target that is none of the tokens.
    """
    if maps.axes != ("token", "pos") or activations.axes != ("neuron", "pos"):
        raise AddressError(
            f"A page needs Scores(token, pos) and Scores(neuron, pos), not {maps!r} and"
            f" {activations!r}."
        )
    tokens, patches = list(maps.of("token")), list(maps.of("pos"))
    if target not in tokens:
        raise AddressError(f"The target {target!r} is none of the tokens {tokens!r}.")
    data = {
        "grid": _grid(patches),
        "patches": [[patch.row, patch.col] for patch in patches],
        "target": tokens.index(target),
        "words": _words(tokens, maps.numpy()),
        "neurons": {
            str(neuron): {"says": [], **_packed(row)}
            for neuron, row in zip(activations.of("neuron"), activations.numpy(), strict=True)
        },
        "tops": [_top(neurons[neurons["token"] == token]) for token in tokens],
    }
    for row in neurons.to_dict("records"):
        data["neurons"][str(row["neuron"])]["says"] = [visible(word) for word in row["words"]]
    return _fill(
        title=escape(title),
        css=_static("look.css"),
        js=_static("look.js"),
        data=json.dumps(data, ensure_ascii=True, allow_nan=False).replace("<", "\\u003c"),
        prompt=escape(prompt),
        picture=_picture(picture),
        alt=escape(f"The picture: {title}", quote=True),
        sharp="sharp" if max(picture.size) <= _SMALL else "smooth",
        ratio=f"{picture.width / picture.height:.5g}",
        window=_window(picture, box),
        about=_about(about or {}),
        caption=escape("".join(str(token) for token in tokens)),
        explained=escape(plain(target)),
    )


def _grid(patches: Sequence[Any]) -> list[int]:
    if not patches or not all(isinstance(patch, Patch) for patch in patches):
        raise AddressError("A page shows patches only: narrow the maps with .sel(pos=Patch).")
    return [max(p.row for p in patches) + 1, max(p.col for p in patches) + 1]


def _words(tokens: Sequence[Any], maps: np.ndarray) -> list[dict[str, Any]]:
    """Text and map per token; a token that continues a word is marked, to stand close to it."""
    return [
        {
            "text": plain(token),
            "token": visible(token),
            "joined": i > 0 and not str(token).startswith((" ", "\n")),
            **_packed(row),
        }
        for i, (token, row) in enumerate(zip(tokens, maps, strict=True))
    ]


def _top(rows: Any) -> list[dict[str, Any]]:
    return [
        {
            "neuron": str(row["neuron"]),
            "patch": [row["patch"].row, row["patch"].col],
            "score": _number(row["score"]),
        }
        for row in rows.to_dict("records")
    ]


def _number(value: Any) -> float | None:
    return float(f"{float(value):.5g}") if np.isfinite(value) else None


def _packed(values: np.ndarray) -> dict[str, Any]:
    """`{scale, data}`: 16-bit integers in base64, value = integer * scale."""
    finite = np.isfinite(values)
    top = float(np.abs(values[finite]).max(initial=0.0)) or 1.0
    small = np.where(finite, np.rint(np.nan_to_num(values) / top * 32767), MISSING)
    raw = small.astype("<i2").tobytes()
    return {"scale": top / 32767, "data": base64.b64encode(raw).decode("ascii")}


def _picture(picture: Image.Image) -> str:
    """A data address: PNG for small pictures, whose pixels count, JPEG for photos."""
    image, buffer = picture.convert("RGB"), io.BytesIO()
    kind = "png" if max(image.size) <= _SMALL else "jpeg"
    image.thumbnail((_SIDE, _SIDE))
    image.save(buffer, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _window(picture: Image.Image, box: Box | None) -> str:
    """The CSS place of what the encoder sees, in per cent of the picture."""
    width, height = picture.size
    x0, y0, x1, y1 = box or (0, 0, width, height)
    return (
        f"left:{100 * x0 / width:.4f}%;top:{100 * y0 / height:.4f}%;"
        f"width:{100 * (x1 - x0) / width:.4f}%;height:{100 * (y1 - y0) / height:.4f}%"
    )


def _about(about: Mapping[str, Any]) -> str:
    """Provenance as rows of a description list."""
    return "\n".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(_told(value))}</dd></div>"
        for name, value in about.items()
    )


def _told(value: Any) -> str:
    """Nested values as one line."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {_told(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_told, value)) or "none"
    return str(value)


def _static(name: str) -> str:
    return files("mmlens.view").joinpath("static", name).read_text(encoding="utf-8")


def _fill(**parts: str) -> str:
    """The skeleton with its `{{names}}` filled in one pass, so that no part is read as skeleton."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _static("look.html"))
