"""Neurons as cards: what each decodes to, where it activates, and its top pictures.

    view.cards(mm.decode(model, neurons), picture=photo, activations=seen.activations)
    view.gallery(mm.top_images(model, data, neurons), pictures, maps=maps)

In a gallery the part of a picture at which the neuron activates is bright: where its bilinearly
upsampled activation is above half of its maximum; the rest is dimmed, with a border between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mmlens.values.errors import AddressError
from mmlens.values.pictures import open_picture
from mmlens.values.scores import Scores
from mmlens.view.figures.on_image import patch_cells
from mmlens.view.style import given
from mmlens.view.style.html import Html, data_address, framed
from mmlens.view.style.paint import Box, finer, outlined, painted, span, whole
from mmlens.view.style.printed import label, visible

if TYPE_CHECKING:
    import pandas as pd

Pictures = Mapping[Any, Any] | Sequence[Any] | Callable[[Any], Any]
_THUMB, _SMALL, _WORDS, _MOST = 132, 104, 8, 60


def cards(
    table: pd.DataFrame,
    picture: Any = None,
    *,
    activations: Scores | None = None,
    box: Box | None = None,
    title: str = "What these neurons say",
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
    if len(first) > _MOST:
        raise AddressError(
            f"{len(first)} cards are more than can be read: take table.head({_MOST})."
        )
    if activations is not None:
        activations = given.scores(activations, "activations")
    made = []
    for row in first:
        image = ""
        if activations is not None:
            here = activations.sel(neuron=row["neuron"])
            image = _map(picture, here, box, f"Where {row['neuron']} is active")
        made.append(f'<div class="mm-card">{image}<div>{_head(row)}{_chips(row)}</div></div>')
    told = "words that its output raises most, with their probability"
    told += "; on the picture its activation" if activations is not None else ""
    body = f'<div class="mm-cards">{"".join(made)}</div>'
    return framed(given.title(title), f"{len(first)} neurons · {told}", body, _CSS, "mm-neurons")


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
    rows = []
    for neuron in list(dict.fromkeys(table["neuron"]))[:_MOST]:
        rows_of: Any = table[table["neuron"] == neuron]
        own = rows_of.to_dict("records")
        shown = "".join(_shown(row, i, picture_of, maps, box) for i, row in enumerate(own))
        told = _chips({"words": words[neuron]}) if neuron in words else ""
        rows.append(
            f'<div class="mm-row" id="{escape(str(neuron))}"><div class="mm-side"><b>'
            f"{escape(str(neuron))}</b>{told}</div><div class=mm-strip>{shown}</div></div>"
        )
    bright = "bright: activation above half of its largest" if maps is not None else ""
    about = " · ".join(part for part in ("the number is the largest activation", bright) if part)
    return framed(given.title(title), about, "".join(rows), _CSS, "mm-neurons")


def head_texts(
    table: pd.DataFrame, *, title: str = "What each head's contributions vary along"
) -> Html:
    """A card per attention head with its texts, the first chosen first.

    Args:
        table: what `text_span` returns: head, place, text, explained.

    Raises:
        AddressError: no such columns or rows, or more heads than can be read.
    """
    call = "mm.text_span(model, pictures, texts)"
    table = given.table(table, ("head", "place", "text", "explained"), call)
    heads = list(dict.fromkeys(table["head"]))
    if len(heads) > _MOST:
        raise AddressError(f"{len(heads)} cards are more than can be read: ask about fewer layers.")
    made = []
    for head in heads:
        rows: Any = table[table["head"] == head]
        own = rows.sort_values("place")
        whole = f"<span>{own['explained'].iloc[-1]:.0%} of its variance</span>"
        line = f'<div class="mm-line"><b class="mm-name">{escape(str(head))}</b>{whole}</div>'
        row = {"words": list(own["text"]), "probs": list(own["explained"])}
        made.append(f'<div class="mm-card"><div>{line}{_chips(row)}</div></div>')
    told = f"{len(heads)} heads \u00b7 beside a text the share of variance up to it"
    body = f'<div class="mm-cards">{"".join(made)}</div>'
    return framed(given.title(title), told, body, _CSS, "mm-neurons")


def spotlight(picture: Image.Image, grid: np.ndarray, box: Box | None = None) -> Image.Image:
    """The picture, dimmed and grey where the upsampled activation is below half of its maximum."""
    size = picture.size
    left, top, right, bottom = whole(given.box(box, picture), 1)
    fine = finer(grid, (right - left, bottom - top))
    x, y, x1, y1 = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    area = np.zeros(size[::-1], bool)
    peak = float(np.nan_to_num(grid).max())
    lit = fine[y - top : y1 - top, x - left : x1 - left]  # the part on the picture
    area[y:y1, x:x1] = (lit > peak / 2) if peak > 0 else False
    dim = ImageEnhance.Brightness(ImageOps.grayscale(picture).convert("RGB")).enhance(0.45)
    done = Image.composite(picture, dim, Image.fromarray(np.uint8(area) * 255))
    zoom = 2 * _THUMB / max(size)
    method = Image.Resampling.NEAREST if zoom > 2 else Image.Resampling.LANCZOS
    large = done.resize((round(size[0] * zoom), round(size[1] * zoom)), method)
    return outlined(large, area, size)


def _words(said: pd.DataFrame) -> dict[Any, Any]:
    """What each neuron decodes to."""
    call = "mm.decode(model, neurons)"
    said = given.table(said, ("neuron", "words"), call, name="said", empty=True)
    return dict(zip(said["neuron"], said["words"], strict=True)) if len(said) else {}


def _shown(
    row: dict[str, Any],
    i: int,
    picture_of: Callable[[Any], Any],
    maps: Mapping[Any, Scores] | None,
    box: Box | None,
) -> str:
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
    if own is not None:
        own = given.scores(own, f"maps[{row['neuron']}, {sample!r}]")
        laid = patch_cells(own)
        image = spotlight(photo, laid.grid(own.numpy()), laid.box(photo) if box is None else box)
    else:
        zoom = 2 * _THUMB / max(photo.size)
        image = photo.resize((round(photo.width * zoom), round(photo.height * zoom)))
    told = f"{sample}: {row['value']:.4g}"
    return (
        f'<figure><img src="{data_address(image, max(photo.size) <= 320)}" width="{_SMALL}"'
        f' alt="{escape(told, quote=True)}" title="{escape(told, quote=True)}">'
        f"<figcaption><span>#{i + 1}</span><span>{row['value']:.3g}</span></figcaption></figure>"
    )


def _map(picture: Any, scores: Scores, box: Box | None, told: str) -> str:
    from mmlens.view.style.paint import paper

    laid = patch_cells(scores)
    grid = laid.grid(scores.numpy())
    photo = open_picture(picture) if picture is not None else paper(*grid.shape)
    signed, limit = span(grid)
    area = given.box(laid.box(photo) if box is None else box, photo)
    image = painted(photo, grid, signed, limit, area, side=2 * _THUMB)
    top = f"{told}, at most {float(np.nanmax(grid)):.3g}"
    return (
        f'<img src="{data_address(image)}" width="{_THUMB}" alt="{escape(top)}"'
        f' title="{escape(top)}">'
    )


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


def _chips(row: dict[str, Any]) -> str:
    probs = row.get("probs")
    chips = []
    for i, word in enumerate(list(row["words"])[:_WORDS]):
        number = f"<i>{probs[i]:.2g}</i>" if probs is not None and i < len(probs) else ""
        chips.append(f"<span>{escape(visible(word))}{number}</span>")
    told = "at a negative activation: words that minus its output raises"
    end = f'<i title="{told}">\u2212</i>' if row.get("sign", 1) < 0 else ""
    return f'<div class="mm-chips">{end}{"".join(chips)}</div>'


_CSS = """
.mm-neurons .mm-cards{display:grid;
grid-template-columns:repeat(auto-fill,minmax(340px,1fr));gap:10px}
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
.mm-neurons figure{margin:0}
.mm-neurons img{display:block;border-radius:3px;margin:0}
.mm-neurons figcaption{display:flex;justify-content:space-between;font-size:12px;
color:var(--muted);font-variant-numeric:tabular-nums}
"""
