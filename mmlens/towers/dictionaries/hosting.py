"""Towers that hold dictionaries: a copy of a tower that shares its parts and has more points."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmlens.runtime.hook_calls import Hook
from mmlens.towers.dictionaries.attached import Attached
from mmlens.values.labels import LM


def hosting(tower: Any, attached: Attached) -> Any:
    """The tower with a dictionary: the same modules, weights and lock, and more hook points."""
    out = object.__new__(type(tower))
    vars(out).update(vars(tower))
    vars(out)["dictionaries"] = {**dictionaries_of(tower), attached.layer: attached}
    if tower.name == LM:
        if "units" in vars(out):  # what was measured stays, for the tower that has the dictionary
            vars(out)["units"] = type(tower.units)(out, tower.units.layers)
        return out
    vars(out)["lender"] = tower.shared
    prefix = f"{tower.name}."
    points = {name.removeprefix(prefix): point for name, point in attached.points.items()}
    vars(out)["hook_dict"] = {**tower.hook_dict, **points}
    units, rest = ("pos", "unit"), ("pos", "dim")
    axes = {name: rest if name.endswith("hook_error") else units for name in points}
    vars(out)["axes"] = {**tower.axes, **axes}
    grid = tower.grids.get(attached.out.removeprefix(prefix))
    vars(out)["grids"] = (
        tower.grids if grid is None else {**tower.grids, **dict.fromkeys(points, grid)}
    )
    return out


def hosting_all(tower: Any, held: Mapping[int, Attached]) -> Any:
    """The tower with several dictionaries."""
    for attached in held.values():
        tower = hosting(tower, attached)
    return tower


def dictionaries_of(tower: Any) -> dict[int, Attached]:
    """The dictionaries of a tower by layer."""
    return vars(tower).get("dictionaries") or {}


def splices(towers: Iterable[Any]) -> list[Hook]:
    """The hooks of all dictionaries of a model, for behind its edits and before what reads."""
    return [h for tower in towers for one in dictionaries_of(tower).values() for h in one.hooks()]
