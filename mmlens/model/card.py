"""The card of a model: what it was trained on, how good it is, what it cannot know, its licences.

    model.card        # in a notebook as a page, elsewhere as text

Of a model that mmlens bundles it is the card beside its weights. Of any other model it is what the
model tells of itself: its towers, and where its parts come from.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

FILE = "MODEL_CARD.md"


class Card(str):
    """Markdown that displays itself."""

    __slots__ = ()

    def _repr_markdown_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return str(self)


def card_of(model: HookedModel) -> Card:
    """The bundled card of the model's family, or one that is made of what the model tells."""
    room = str(model.provenance.get("family", "")).replace("-", "_")
    beside = files("mmlens").joinpath(room, FILE) if room.isidentifier() else None
    if beside is not None and beside.is_file():
        return Card(beside.read_text(encoding="utf-8"))
    return Card(_made(model))


def _made(model: HookedModel) -> str:
    rows = [
        f"| {name} | {tower.n_layers} | {len(tower.points)} |"
        for name, tower in model.towers.items()
    ]
    parts = dict(model.provenance.get("parts") or {})
    sources = [
        f"- {part}: {told['source']}" + (f" ({told['licence']})" if "licence" in told else "")
        for part, told in parts.items()
    ]
    known = "\n".join(sources) or "Nothing is recorded of where its parts come from."
    head = f"# {model.name}\n\nA {type(model).__name__}. It came with no card of its own.\n\n"
    table = "| tower | layers | hook points |\n|---|---|---|\n" + "\n".join(rows)
    return f"{head}{table}\n\n## Parts\n\n{known}\n"
