"""Neurons as cards: what each decodes to, where it activates, and its top pictures.

    view.cards(mm.decode(model, neurons), picture=photo, activations=seen.activations)
    view.gallery(mm.top_images(model, data, neurons), pictures, maps=maps)

In a gallery an outline surrounds the part of a picture at which the neuron activates: where its
bilinearly upsampled activation is above half of its maximum. Pictures are larger while they are
pointed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mmlens.values.errors import AddressError
from mmlens.values.pictures import open_picture
from mmlens.values.scores import Scores
from mmlens.view.figures.on_image import patch_cells
from mmlens.view.still.row_sheet import SheetRow, sheet
from mmlens.view.style import given
from mmlens.view.style.html import Html, data_address, framed
from mmlens.view.style.paint import Box, finer, outlined, painted, paper, span, whole
from mmlens.view.style.printed import label, visible

if TYPE_CHECKING:
    import pandas as pd

Pictures = Mapping[Any, Any] | Sequence[Any] | Callable[[Any], Any]
_THUMB, _SMALL, _WORDS, _ZOOM = 132, 104, 8, 2.6
MOST = 60


def cards(
    table: pd.DataFrame,
    picture: Any = None,
    *,
    activations: Scores | None = None,
    box: Box | None = None,
    title: str | None = None,
) -> Html:
    """A card per neuron: name, score, words with their probabilities, where it activates.

    Args:
        table: columns neuron and words; score, patch, probs, interpretable and sign where there are
            any (sign -1: the words are those of a negative activation, marked with a minus).
        picture: the photo on which `activations`, Scores(neuron, pos), are shown.
        box: the pixels that the patches cover, as in `view.on_image`.

    Raises:
        AddressError: no such columns or rows, or a neuron without activations.
    """
    table = given.table(table, ("neuron", "words"), "mm.decode(model, neurons)")
    one = [name for name in ("neuron", "sign") if name in table.columns]
    rows: Any = table.drop_duplicates(one)
    first = rows.to_dict("records")
    if len(first) > MOST:
        raise AddressError(
            f"{len(first)} cards are more than can be read: take table.head({MOST})."
        )
    if activations is not None:
        activations = given.scores(activations, "activations")
    made, still = [], []
    for row in first:
        image, maps = "", []
        if activations is not None:
            here = activations.sel(neuron=row["neuron"])
            drawn, top = _map(picture, here, box)
            image = _img(drawn, f"Where {row['neuron']} is active, at most {top:.3g}", _THUMB)
            maps = [(drawn, f"at most {top:.3g}")]
        still.append(SheetRow(str(row["neuron"]), plainly(row["words"]), maps, _THUMB))
        made.append(f'<div class="mm-card">{image}<div>{_head(row)}{chips(row)}</div></div>')
    own = len({one["neuron"] for one in first})
    many = f"{own} neuron{'s' * (own != 1)}"
    told = "words that its output raises most, with their probability"
    told += "; on the picture its activation" if activations is not None else ""
    body = f'<div class="mm-cards">{"".join(made)}</div>'
    asked = "What these neurons say" if own > 1 else f"What {first[0]['neuron']} says"
    head, about = given.title(title, asked), f"{many} · {told}"
    return framed(
        head, about, body, CSS, "mm-neurons",
        rows=lambda: table, still=lambda: sheet(head, about, still),
    )  # fmt: skip


def gallery(
    table: pd.DataFrame,
    pictures: Pictures,
    *,
    maps: Mapping[Any, Scores] | None = None,
    said: pd.DataFrame | None = None,
    box: Box | None = None,
    title: str = "The pictures that excite each neuron most",
) -> Html:
    """A row per neuron with its pictures, the strongest first, and where it activates.

    Args:
        table: what `top_images` returns: neuron, sample, value, in the order of each neuron.
        pictures: sample -> a picture: the data set that was asked, a mapping or a function.
        maps: (neuron, sample) -> Scores(pos), the activation at the picture's patches.
        said: what the neurons decode to, from `mm.decode`.
        box: the pixels that the patches cover, as in `view.on_image`.

    Raises:
        AddressError: no such columns or rows, or a sample without a picture.
    """
    call, picture_of = "mm.top_images(model, data, neurons)", given.pictures(pictures)
    table = given.table(table, ("neuron", "sample", "value"), call)
    words = {} if said is None else _words(said)
    if maps is not None:
        maps = given.by_name(maps, "maps", "a mapping, {(neuron, sample): Scores(pos)}")
    rows, still = [], []
    for neuron in list(dict.fromkeys(table["neuron"]))[:MOST]:
        rows_of: Any = table[table["neuron"] == neuron]
        own = rows_of.to_dict("records")
        drawn = [_drawn(row, picture_of, maps, box) for row in own]
        shown = "".join(map(_shown, range(len(own)), own, drawn))
        each = [(image, f"#{i + 1}  {row['value']:.3g}") for i, (row, (image, _)) in
                enumerate(zip(own, drawn, strict=True))]  # fmt: skip
        still.append(SheetRow(str(neuron), plainly(words.get(neuron, ())), each))
        told = chips({"words": words[neuron]}) if neuron in words else ""
        rows.append(
            f'<div class="mm-row" id="{escape(str(neuron))}"><div class="mm-side"><b>'
            f"{escape(str(neuron))}</b>{told}</div><div class=mm-strip>{shown}</div></div>"
        )
    edge = "outlined: activation above half of its largest" if maps is not None else ""
    about = " · ".join(part for part in ("the number is the largest activation", edge) if part)
    head = given.title(title)
    return framed(
        head, about, "".join(rows), CSS, "mm-neurons",
        rows=lambda: table.drop(columns=["picture", "map", "box"], errors="ignore"),
        still=lambda: sheet(head, about, still),
    )  # fmt: skip


def spotlight(picture: Image.Image, grid: np.ndarray, box: Box | None = None) -> Image.Image:
    """The picture, outlined where the upsampled activation is above half of its maximum."""
    size = picture.size
    left, top, right, bottom = whole(given.box(box, picture), 1)
    fine = finer(grid, (right - left, bottom - top))
    x, y, x1, y1 = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    area = np.zeros(size[::-1], bool)
    peak = float(np.nan_to_num(grid).max())
    lit = fine[y - top : y1 - top, x - left : x1 - left]  # the part on the picture
    area[y:y1, x:x1] = (lit > peak / 2) if peak > 0 else False
    return outlined(_enlarged(picture), area, size)


def _enlarged(picture: Image.Image) -> Image.Image:
    zoom = _ZOOM * _SMALL / max(picture.size)
    method = Image.Resampling.NEAREST if zoom > 2 else Image.Resampling.LANCZOS
    return picture.resize((round(picture.width * zoom), round(picture.height * zoom)), method)


def _words(said: pd.DataFrame) -> dict[Any, Any]:
    """What each neuron decodes to."""
    call = "mm.decode(model, neurons)"
    said = given.table(said, ("neuron", "words"), call, name="said", empty=True)
    return dict(zip(said["neuron"], said["words"], strict=True)) if len(said) else {}


def _drawn(
    row: dict[str, Any],
    picture_of: Callable[[Any], Any],
    maps: Mapping[Any, Scores] | None,
    box: Box | None,
) -> tuple[Image.Image, bool]:
    """A top picture with its outline, and whether its pixels are to stay sharp."""
    sample = row["sample"]
    try:
        found = picture_of(sample)
    except KeyError:
        raise AddressError(
            f"There is no picture of {sample!r}: give pictures={{sample: picture}} for every sample"
            " of the table."
        ) from None
    photo = open_picture(found).convert("RGB")
    own = None if maps is None else maps.get((row["neuron"], sample))
    sharp = max(photo.size) <= 320
    if own is None:
        return _enlarged(photo), sharp
    own = given.scores(own, f"maps[{row['neuron']}, {sample!r}]")
    laid = patch_cells(own)
    area = laid.box(photo) if box is None else box
    return spotlight(photo, laid.grid(own.numpy()), area), sharp


def _shown(i: int, row: dict[str, Any], drawn: tuple[Image.Image, bool]) -> str:
    """A picture with its rank and number; larger while it is pointed at or has the focus."""
    image, sharp = drawn
    told = f"{row['sample']}: {row['value']:.4g}"
    return (
        f'<figure tabindex="0">{_img(image, told, _SMALL, sharp)}'
        f"<figcaption><span>#{i + 1}</span><span>{row['value']:.3g}</span></figcaption></figure>"
    )


def _img(image: Image.Image, told: str, width: int, sharp: bool = True) -> str:
    told = escape(told, quote=True)
    return f'<img src="{data_address(image, sharp)}" width="{width}" alt="{told}" title="{told}">'


def plainly(words: Any) -> list[tuple[str, str, float]]:
    """Words for a still picture, without a colour behind them."""
    return [(visible(word), "", 1.0) for word in list(words)[:_WORDS]]


def _map(picture: Any, scores: Scores, box: Box | None) -> tuple[Image.Image, float]:
    """A small map of an activation, and its largest value."""
    laid = patch_cells(scores)
    grid = laid.grid(scores.numpy())
    photo = open_picture(picture) if picture is not None else paper(*grid.shape)
    signed, limit = span(grid)
    area = given.box(laid.box(photo) if box is None else box, photo)
    image = painted(photo, grid, signed, limit, area, side=2 * _THUMB)
    return image, float(np.nanmax(grid))


def _head(row: dict[str, Any]) -> str:
    parts = [f'<b class="mm-name">{escape(str(row["neuron"]))}</b>']
    if not given.missing(row.get("score")):
        kind = "raises" if row["score"] >= 0 else "lowers"
        parts.append(f'<span class="mm-{kind}">{row["score"]:+.3g}</span>')
    if row.get("patch") is not None:
        parts.append(f"<span>at {escape(label(row['patch']))}</span>")
    if row.get("interpretable") is not None:
        parts.append(f"<span>{'words' if row['interpretable'] else 'no clear words'}</span>")
    return f'<div class="mm-line">{"".join(parts)}</div>'


def chips(row: dict[str, Any]) -> str:
    probs = row.get("probs")
    chips = []
    for i, word in enumerate(list(row["words"])[:_WORDS]):
        number = f"<i>{probs[i]:.2g}</i>" if probs is not None and i < len(probs) else ""
        chips.append(f"<span>{escape(visible(word))}{number}</span>")
    told = "at a negative activation: words that minus its output raises"
    end = f'<i title="{told}">\u2212</i>' if row.get("sign", 1) < 0 else ""
    return f'<div class="mm-chips">{end}{"".join(chips)}</div>'


CSS = """
.mm-neurons .mm-cards{display:grid;
grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));gap:10px}
.mm-neurons .mm-card{display:flex;gap:12px;border:1px solid var(--line);border-radius:6px;
padding:10px}
.mm-neurons .mm-card img{flex:none;align-self:start}
.mm-neurons .mm-line{display:flex;flex-wrap:wrap;gap:2px 10px;align-items:baseline;
color:var(--muted)}
.mm-neurons b{font:600 14px/1.4 ui-monospace,Menlo,Consolas,monospace;color:var(--ink)}
.mm-neurons .mm-raises{color:var(--raises)}
.mm-neurons .mm-lowers{color:var(--lowers)}
.mm-neurons .mm-chips{display:flex;flex-wrap:wrap;gap:4px;margin-top:6px}
.mm-neurons .mm-chips span{border:1px solid var(--line);border-radius:4px;padding:0 5px;
font:12px/1.6 ui-monospace,Menlo,Consolas,monospace;white-space:pre}
.mm-neurons .mm-chips i{font-style:normal;color:var(--muted);margin-left:6px}
.mm-neurons .mm-row{display:flex;gap:14px;padding:10px 0;border-top:1px solid var(--line)}
.mm-neurons .mm-side{width:170px;flex:none}
.mm-neurons .mm-strip{display:flex;flex-wrap:wrap;gap:8px}
.mm-neurons figure{margin:0;position:relative}
.mm-neurons figure img{transition:transform .12s;transform-origin:0 0}
.mm-neurons figure:hover img,.mm-neurons figure:focus-visible img{transform:scale(2.4);
position:relative;z-index:2;box-shadow:0 2px 12px #0008}
@media (max-width:600px){.mm-neurons .mm-row{flex-direction:column;gap:6px}
.mm-neurons .mm-cards{grid-template-columns:minmax(0,1fr)}}
@media (prefers-reduced-motion:reduce){.mm-neurons figure img{transition:none}}
.mm-neurons img{display:block;border-radius:3px;margin:0}
.mm-neurons figcaption{display:flex;justify-content:space-between;font-size:12px;
color:var(--muted);font-variant-numeric:tabular-nums}
"""
