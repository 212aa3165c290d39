"""The figures of the study, in the theme in use."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mmlens.papers.interval_plots import strips
from mmlens.view.figures.conditional import conditional


def indices(table: pd.DataFrame, other: str) -> Any:
    """T2: the index of each concept's unit, and of the matched unit."""
    rows = []
    for row in table.to_dict("records"):
        for kind, prefix in (("this model", ""), (f"matched unit of {other}", "other_")):
            if f"{prefix}z" in row:
                rows.append((row["concept"], kind, *(row[f"{prefix}z{end}"]
                                                     for end in ("", "_low", "_high"))))  # fmt: skip
    shown = pd.DataFrame(rows, columns=["arm", "kind", "mean", "low", "high"])
    shown = shown.assign(panel="cross-format index (z)", n="the judging half of the")
    kinds = {kind: "other" if kind.startswith("matched") else "own" for kind in
             shown["kind"].unique()}  # fmt: skip
    arms = {concept: concept for concept in table["concept"]}
    return strips(
        shown, arms, "One unit per concept, chosen on other pictures",
        "the least z over formats, with its 95 % interval; 0 is what distractors give", kinds=kinds,
    )  # fmt: skip


def given_activation(table: pd.DataFrame) -> Any:
    """T5: what pictures show, by activation of a unit."""
    unit = table["unit"].iloc[0]
    return conditional(table, title=f"What a picture shows, given the activation of {unit}")
