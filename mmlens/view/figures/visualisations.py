"""Pictures made by optimisation, a row per unit with its variants: `view.visualisations(made)`.

The number under a picture is the activation that the encoder gives for it; the line beside it is
the way there, step by step.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mmlens.values.arguments import instance
from mmlens.values.errors import AddressError
from mmlens.values.visualisation import Visualisation
from mmlens.view.still.row_sheet import SheetRow, sheet
from mmlens.view.style import given
from mmlens.view.style.html import Html, data_address, framed

_SIDE, _MOST = 128, 200


def visualisations(made: Visualisation, *, title: str | None = None) -> Html:
    """A row per unit: its name, its pictures with their activations, and how they got there.

    Args:
        made: what `mm.visualise` returns.

    Raises:
        AddressError: more pictures than can be looked at.
    """
    made = instance(made, "made", Visualisation, "what mmlens.visualise returns")
    if made.pixels.shape[0] * made.variants > _MOST:
        raise AddressError(
            f"{made!r} is more than can be looked at: make pictures of fewer units, or save the"
            " sheet with made.save('units.png')."
        )
    rows = "".join(_row(made, i) for i in range(len(made)))
    low = made.about.get("sign") == -1
    told = f"pictures that {'lower' if low else 'raise'} it most, found in {_steps(made)} steps"
    told += f" from seed {made.about['seed']}" if "seed" in made.about else ""
    told += " · the number is the activation of the picture as it is"
    head = given.title(
        title, "What these units see" if len(made) > 1 else f"What {made.labels[0]} sees"
    )
    return framed(
        head, told, rows, _CSS, "mm-made",
        rows=lambda: _numbers(made), still=lambda: sheet(head, told, _still(made)),
    )  # fmt: skip


def _numbers(made: Visualisation) -> pd.DataFrame:
    return pd.DataFrame(
        {"unit": str(label), "variant": j, "start": float(made.start[i, j]),
         "activation": float(made.activation[i, j])}
        for i, label in enumerate(made.labels)
        for j in range(made.variants)
    )  # fmt: skip


def _still(made: Visualisation) -> list[SheetRow]:
    return [
        SheetRow(
            str(label),
            pictures=[
                (Image.fromarray(made.pixels[i, j]), f"{made.activation[i, j]:.3g}")
                for j in range(made.variants)
            ],
            side=_SIDE,
        )
        for i, label in enumerate(made.labels)
    ]


def _row(made: Visualisation, i: int) -> str:
    name = escape(str(made.labels[i]))
    dead = "<span>dead: no step moved it</span>" if made.dead[i] else ""
    shown = "".join(_shown(made, i, j) for j in range(made.variants))
    return (
        f'<div class="mm-row"><div class="mm-side"><b>{name}</b>{dead}</div>'
        f'<div class="mm-strip">{shown}</div></div>'
    )


def _shown(made: Visualisation, i: int, j: int) -> str:
    picture = Image.fromarray(made.pixels[i, j])
    zoom = 2 * _SIDE / max(picture.size)
    size = (round(picture.width * zoom), round(picture.height * zoom))
    large = picture.resize(size, Image.Resampling.BICUBIC)
    value, start = made.activation[i, j], made.start[i, j]
    told = f"{made.labels[i]}: {value:.4g}, from {start:.4g} at the start"
    return (
        f'<figure><img src="{data_address(large)}" width="{_SIDE}"'
        f' alt="{escape(told, quote=True)}" title="{escape(told, quote=True)}">'
        f"<figcaption><span>{value:.3g}</span>{_line(made.curve[i, j])}</figcaption></figure>"
    )


def _line(curve: np.ndarray) -> str:
    """The way of the activation as a small line."""
    low, high = float(curve.min()), float(curve.max())
    x = np.linspace(1, 63, len(curve))
    y = 15 - 14 * (curve - low) / ((high - low) or 1.0)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return (
        '<svg viewBox="0 0 64 16" width="64" height="16" aria-hidden="true"><polyline'
        f' points="{points}" fill="none" stroke="currentColor" stroke-width="1.2"/></svg>'
    )


def _steps(made: Visualisation) -> Any:
    return made.about.get("steps", made.curve.shape[-1])


_CSS = """
.mm-made .mm-row{display:flex;gap:14px;padding:10px 0;border-top:1px solid var(--line)}
.mm-made .mm-side{width:150px;flex:none;color:var(--muted)}
.mm-made .mm-side span{display:block;font-size:12px}
.mm-made b{font:600 14px/1.4 ui-monospace,Menlo,Consolas,monospace;color:var(--ink);
overflow-wrap:anywhere}
.mm-made .mm-strip{display:flex;flex-wrap:wrap;gap:8px}
.mm-made figure{margin:0}
@media (max-width:600px){.mm-made .mm-row{flex-direction:column;gap:6px}}
.mm-made img{display:block;border-radius:3px;margin:0}
.mm-made figcaption{display:flex;justify-content:space-between;align-items:center;font-size:12px;
color:var(--muted);font-variant-numeric:tabular-nums}
"""
