"""The figures of the study, in the theme in use."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mmlens.papers.interval_plots import strips
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
        shown, arms, "One unit per concept, chosen on other pictures",
        "95 % intervals; 0 is what distractors give, the line what mixed-up concepts give",
        kinds=colours,
    )  # fmt: skip
    line = {"color": theme.colours()["muted"], "width": 1, "dash": "dot"}
    return figure.add_vline(bar, line=line)


def given_activation(table: pd.DataFrame) -> Any:
    """T5: what pictures show, by activation of a unit."""
    unit = table["unit"].iloc[0]
    return conditional(table, title=f"What a picture shows, given the activation of {unit}")
