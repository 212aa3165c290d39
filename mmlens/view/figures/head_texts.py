"""The texts that attention heads vary along, a card per head: `view.head_texts(table)`."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from mmlens.values.errors import AddressError
from mmlens.view.figures.cards import CSS, MOST, chips, plainly
from mmlens.view.still.row_sheet import SheetRow, sheet
from mmlens.view.style import given
from mmlens.view.style.html import Html, framed

if TYPE_CHECKING:
    import pandas as pd


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
    if len(heads) > MOST:
        raise AddressError(f"{len(heads)} cards are more than can be read: ask about fewer layers.")
    made, still = [], []
    for head in heads:
        rows: Any = table[table["head"] == head]
        own = rows.sort_values("place")
        whole = f"<span>{own['explained'].iloc[-1]:.0%} of its variance</span>"
        line = f'<div class="mm-line"><b class="mm-name">{escape(str(head))}</b>{whole}</div>'
        row = {"words": list(own["text"]), "probs": list(own["explained"])}
        still.append(SheetRow(str(head), plainly(own["text"])))
        made.append(f'<div class="mm-card"><div>{line}{chips(row)}</div></div>')
    told = f"{len(heads)} heads \u00b7 beside a text the share of variance up to it"
    body = f'<div class="mm-cards">{"".join(made)}</div>'
    top = given.title(title)
    return framed(
        top, told, body, CSS, "mm-neurons",
        rows=lambda: table, still=lambda: sheet(top, told, still),
    )  # fmt: skip
