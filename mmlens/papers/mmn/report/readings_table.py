"""The table of readings: which share of units fits, by reading and layer, above both controls."""

from __future__ import annotations

from typing import Any

from mmlens.papers.claims import Row
from mmlens.papers.mmn.report.open_choices import choices_table
from mmlens.papers.mmn.report.outcomes import Outcome
from mmlens.papers.mmn.report.verdicts import P, interval, probability

ABOVE = ("attributed - other pictures", "attributed - random")


def readings_table(found: Outcome) -> list[list[str]]:
    """A head and a line per layer: of each reading the units that fit, above other pictures'."""
    own = found.rows(metric="fits")
    names = list(dict.fromkeys(own["through"]))
    layers = sorted((one for one in set(own["layer"]) if one != "all"), key=int)
    lines = [["layer", *names]]
    for layer in [*layers, "all"]:
        cells = [_cell(own[(own["through"] == name) & (own["layer"] == layer)]) for name in names]
        lines.append([layer, *cells])
    return lines


def _cell(rows: Any) -> str:
    """Share of units, and in brackets how far above other pictures' where that is no chance."""
    by_arm = {row["arm"]: row for row in rows.to_dict("records")}
    if "attributed" not in by_arm:
        return "–"
    text = f"{by_arm['attributed']['mean']:.0%}".replace("%", " %")
    gap = by_arm.get(ABOVE[0])
    if gap is not None and gap["p"] <= P:
        text += f" ({100 * gap['mean']:+.0f})"
    return text


def readings_told(found: Outcome) -> tuple[str, list[Row], list[str]]:
    """The reading that fits most above other pictures, a row about each, and what is below."""
    rows = found.rows(metric="fits", layer="all")
    gaps = rows[rows["arm"] == ABOVE[0]].sort_values("mean", ascending=False)
    lines = [Row(str(gap["through"]), _gaps(rows, gap)) for gap in gaps.to_dict("records")]
    if not lines:
        return "No reading was measured.", [], []
    best = gaps.iloc[0]
    clear = "most above" if best["p"] <= P else "no clearer than by chance above"
    says = f"By {best['through']} a picture's units fit it {clear} those of other pictures."
    note = (
        "By layer: units that fit, and in brackets the points above other pictures' where that is"
        " more than chance (p <= .05 by dealing pictures anew)."
    )
    return says, lines, [note]


def _gaps(rows: Any, gap: Any) -> str:
    """Both differences of a reading, with intervals and p-values."""
    more = rows[(rows["arm"] == ABOVE[1]) & (rows["through"] == gap["through"])]
    told = [("other pictures'", gap), *(("random units", row) for row in more.to_dict("records"))]
    return "; ".join(
        f"{100 * row['mean']:+.1f} points {interval(_hundred(row), '.1f')} above {than},"
        f" p {probability(row['p'])}"
        for than, row in told
    )


def _hundred(row: Any) -> dict[str, float]:
    """An interval of shares in points."""
    return {name: 100 * float(row[name]) for name in ("low", "high")}


TABLES = {"sensitivity": choices_table, "readings": readings_table}
"""The experiments that are told in a table of their own."""
