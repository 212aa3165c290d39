"""What studies write and judge by: a folder with one page, and claims that intervals decide.

OUT/report.html      verdicts, figures, tables, provenance; one file
OUT/results.md       the same as Markdown
OUT/tables/KEY.csv   the numbers of each experiment
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import pandas as pd

from mmlens.papers.bootstrap import LEAST
from mmlens.papers.study_report import Frame, Part, report_markdown, report_page
from mmlens.values.errors import writing
from mmlens.values.whole_files import write_whole
from mmlens.view.style.printed import one_line


@dataclass(frozen=True, eq=False)
class StudyReport:
    """What a study wrote and found.

    Attributes:
        page, results: OUT/report.html and OUT/results.md.
        verdicts: experiment, claim, holds (None: undecided), says.
        sections: of every experiment, in the order of the page.
        contests: of its methods against their controls, for the shoot-out.
    """

    page: Path
    results: Path
    verdicts: pd.DataFrame = field(repr=False)
    sections: list[Part] = field(repr=False)
    contests: Sequence[Any] = field(default=(), repr=False, kw_only=True)


def opened(model: Any) -> Any:
    """The model of a study: one in memory, or by its name or folder."""
    from mmlens.families import load

    return load(model) if isinstance(model, str | Path) else model


def framed(
    study: str,
    title: str,
    lead: str,
    read: str,
    cited: str,
    about: Mapping[str, Any],
    command: str = "",
    *,
    several: bool | None = False,
    headline: str = "",
) -> Frame:
    """The frame of a report: provenance in words, and the command line that wrote it."""
    named = {name.replace("_", " "): one_line(value) for name, value in about.items()}
    told = f"Written by `{command}`." if command else ""
    return Frame(study, title, lead, read, cited, named, told, several, headline)


def write_study(
    frame: Frame,
    parts: Sequence[Part],
    out: str | Path,
    results: str | Path | None = None,
    contests: Sequence[Any] = (),
) -> StudyReport:
    """The folder of a report; `results` gets the Markdown, too."""
    folder = Path(out)
    with writing(folder):
        (folder / "tables").mkdir(parents=True, exist_ok=True)
    for one in parts:
        if len(one.summary):
            write_whole(folder / "tables" / f"{one.key}.csv", one.summary.to_csv(index=False))
    markdown = report_markdown(frame, parts)
    write_whole(folder / "report.html", report_page(frame, parts))
    for path in (folder / "results.md", *([Path(results)] if results is not None else [])):
        write_whole(path, markdown)
    told = [asdict(one.verdict) for one in parts if one.verdict is not None]
    table = pd.DataFrame(told, columns=["experiment", "claim", "holds", "says"])
    return StudyReport(
        folder / "report.html", folder / "results.md", table.astype({"holds": object}), list(parts),
        contests=tuple(contests),
    )  # fmt: skip


def by_arm(found: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """The rows of a summary by their arm, which stands once."""
    return {str(row["arm"]): {str(name): value for name, value in row.items()}
            for row in found.to_dict("records")}  # fmt: skip


def above(row: Mapping[str, Any], bound: float = 0.0) -> bool | None:
    """Whether an interval lies above a bound (True), below it (False), or on both sides (None).

    Args:
        row: low, high, n; of fewer than `LEAST` pictures nothing is decided.
    """
    if row["n"] < LEAST:
        return None
    return True if row["low"] > bound else False if row["high"] < bound else None


def below(row: Mapping[str, Any], bound: float = 0.0) -> bool | None:
    """As `above`, of an interval that should lie below the bound."""
    found = above(row, bound)
    return None if found is None else not found


def together(*decided: bool | None) -> bool | None:
    """A claim of several parts: it holds if all do, and fails if one fails."""
    if False in decided:
        return False
    return None if None in decided else True


def told_interval(row: Mapping[str, Any], digits: int = 2) -> str:
    """Mean and interval in words: 0.32 (0.20 to 0.41)."""
    mean, low, high = (f"{row[name]:.{digits}f}" for name in ("mean", "low", "high"))
    if not (isfinite(row["low"]) and isfinite(row["high"])):
        return f"{mean} (no interval)"
    return f"{mean} ({low} to {high})"
