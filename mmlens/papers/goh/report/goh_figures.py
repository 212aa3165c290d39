"""The figures of the study, in the theme in use."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mmlens.papers.interval_plots import finish, strips
from mmlens.view.figures.conditional import conditional
from mmlens.view.style import theme


def indices(table: pd.DataFrame, other: str) -> Any:
    """T2: the index of each concept's unit, and of the matched unit."""
    kinds = {"this model": "", f"matched unit of {other}": "other_"}
    rows = [
        (row["concept"], kind, *(row[f"{prefix}z{end}"] for end in ("", "_low", "_high")))
        for row in table.to_dict("records")
        for kind, prefix in kinds.items()
        if f"{prefix}z" in row
    ]
    shown = pd.DataFrame(rows, columns=["arm", "kind", "mean", "low", "high"])
    shown = shown.assign(panel="cross-format index (z)", n="the judging half of the")
    colours = {kind: "other" if prefix else "own" for kind, prefix in kinds.items()}
    bar = float(table["bar"].iloc[0])
    arms = {concept: concept for concept in table["concept"]}
    figure = strips(
        shown, arms, "One unit per concept", "with 95 % intervals; dotted: mixed-up concepts",
        kinds=colours,
    )  # fmt: skip
    line = {"color": theme.colours()["muted"], "width": 1, "dash": "dot"}
    return figure.add_vline(bar, line=line)


def given_activation(table: pd.DataFrame) -> Any:
    """T5: what pictures show, by activation of a unit."""
    unit = table["unit"].iloc[0]
    figure = conditional(table)
    return finish(figure, f"Pictures by activation of {unit}", "share of each label, by bucket")
