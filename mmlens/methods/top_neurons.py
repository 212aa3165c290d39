"""The neurons with the largest scores, as a table.

MMN ranks (unit, patch) pairs (Table S.1: "units can repeat"); `rank_by="max"` and `rank_by="sum"`
rank units by their largest or summed score over the patches instead. The paper gives no rule for
unit-level lists: max over patches keeps the order of the pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlens.values.arguments import instance, shown, spelled
from mmlens.values.errors import AddressError
from mmlens.values.labels import LM, Neuron, Patch
from mmlens.values.maps import as_positions, inner_of, is_map
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd


@spelled
def top_neurons(
    scores: Scores,
    k: int = 10,
    *,
    rank_by: str = "pair",
    pos: Any = "default",
    active: Scores | None = None,
) -> pd.DataFrame:
    """The `k` largest of Scores(layer, pos, unit), or of the channels of a map, by its cells.

    Units of experts, Scores(layer, pos, expert, unit), are ranked in the same way.

    Args:
        rank_by: "pair" (unit and position), "max" or "sum" (units, over the positions).
        pos: the positions that are ranked, as in `Scores.sel`; by default the picture's if there is
            one, else all.
        active: Scores(layer, pos, unit), the activations of the same prompt, as
            `activations(model, prompt, "neurons")` gives them: they become a column, from which
            `decode` takes the sign ("pair" and "max").

    Returns:
        Columns neuron, patch (the position; with "pair" and "max"), score, active (where given);
        the largest first.

    Raises:
        AddressError: scores of other axes, or no such ranking. ArgumentError: `k` is no count.
    """
    if active is not None and rank_by == "sum":
        raise AddressError(
            "A sum over positions has no single activation: write rank_by='pair' or 'max'."
        )
    if rank_by not in ("pair", "max", "sum"):
        raise AddressError(f"There is no ranking {rank_by!r}: write 'pair', 'max' or 'sum'.")
    scores = _by_unit(scores)
    _check(scores)
    if active is not None:
        active = _by_unit(active)
        instance(active, "active", Scores, "what activations(model, prompt, 'neurons') returns")
    if isinstance(pos, str) and pos == "default":
        seen = "pos" in scores.axes and any(isinstance(x, Patch) for x in scores.of("pos"))
        pos = Patch if seen else None
    chosen = scores.sel(pos=pos) if pos is not None else scores
    if rank_by == "pair" or "pos" not in chosen.axes:
        table = chosen.to_frame(k)
    elif rank_by == "sum":
        table = chosen.sum("pos").to_frame(k)
    else:
        table = chosen.max("pos").to_frame(k)
        where = chosen.values.argmax(dim=chosen.axes.index("pos"))
        labels, axes = chosen.of("pos"), [axis for axis in chosen.axes if axis != "pos"]
        places = [list(chosen.of(axis)) for axis in axes]
        cells = zip(*(table[axis] for axis in axes), strict=True)
        at = [tuple(map(list.index, places, cell)) for cell in cells]
        table.insert(2, "pos", [labels[int(where[i])] for i in at])
    tower = str(scores.about.get("tower", LM))
    experts = table["expert"] if "expert" in table else [None] * len(table)
    cells = zip(table.layer, table.unit, experts, strict=True)
    table.insert(0, "neuron", [Neuron(layer, unit, tower, of) for layer, unit, of in cells])
    table = table.drop(columns=["layer", "unit", "expert"], errors="ignore")
    table = table.rename(columns={"pos": "patch"})
    if active is not None:
        at = zip(table["neuron"], table["patch"], strict=True)
        table["active"] = [active.sel(neuron, pos=label).item() for neuron, label in at]
    return table


def _by_unit(scores: Scores) -> Scores:
    """Scores of a map as those of units at positions: its channels at its cells."""
    if not isinstance(scores, Scores):
        return scores
    axes, values, labels = scores.axes, scores.values, scores.labels
    if is_map(axes):
        rows, cols = (values.shape[axes.index(one)] for one in ("row", "col"))
        inner = axes[-3:]
        cells = tuple(Patch(row, col) for row in range(rows) for col in range(cols))
        values, labels = as_positions(values, inner), {**labels, "pos": cells}
        axes = (*axes[:-3], "pos", inner_of(inner))
    if "channel" not in axes and axes == scores.axes:
        return scores
    named = {axis: "unit" if axis == "channel" else axis for axis in axes}
    kept = {named[axis]: there for axis, there in labels.items() if axis in axes}
    return Scores(values, tuple(named.values()), kept, scores.about)


def _check(scores: Scores) -> None:
    """Refuse Scores without units, or with other axes than layer, pos and unit."""
    axes = set(scores.axes) if isinstance(scores, Scores) else set()
    if not {"layer", "unit"} <= axes <= {"layer", "pos", "expert", "unit"}:
        raise AddressError(
            f"{shown(scores)} is not made of neurons: top_neurons reads Scores(layer, pos, unit),"
            " as attribute(...) gives them."
        )
