"""Where the numbers of a causal experiment begin: nothing changed is 0 in every figure.

A metric may lie around -7 whatever is patched, and a map of it would be one wall of red. So a
figure of `patch` and `path_patching` shows the share of the way from the run that was patched (0)
to the run that it was patched with (1), and a map or bars of `ablate` and `knockouts` the change
from the run as it is. The numbers of the runs stand in the subtitle, and Scores stay as they are.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

from mmlens.values.scores import Scores

NOTE, DRAWN = "drawn_note", "drawn"
UNNAMED = "value of your function"
"""Of a metric without a name."""
_PAIRED = ("patch", "path_patching")
_CHANGED = {
    "ablate": "without it",
    "knockouts": "without the route",
    "ablation_curve": "without the units",
}


def from_nothing(scores: Scores, *, lines: bool = False) -> Scores:
    """The same Scores, 0 where nothing has changed; others as they are.

    Args:
        lines: these are drawn as lines, where the run as it is has a line of its own.
    """
    about = scores.about
    method = str(about.get("method", ""))
    ends: Any = about.get("clean"), about.get("corrupt")
    if DRAWN in about or about.get("quantity") == "recovered":
        return scores
    if method in _PAIRED and _numbers(*ends):
        return _between(scores, *ends)
    if method in _CHANGED and _numbers(ends[0]) and not lines:
        metric = metric_of(scores)
        told = f"change of the {metric} {_CHANGED[method]}"
        note = f"0: the run as it is, {_short(ends[0])}"
        return _drawn(scores, scores.values.float() - ends[0], told, note)
    return scores


def _between(scores: Scores, clean: Any, corrupt: Any) -> Scores:
    """The share of the way from the run that is patched to the other."""
    noise = scores.about.get("direction") == "noise"
    start, end = (clean, corrupt) if noise else (corrupt, clean)
    values, metric = scores.values.float(), metric_of(scores)
    names = ("clean", "corrupt") if noise else ("corrupt", "clean")
    if start == end:
        note = f"both runs give {_short(start)}"
        return _drawn(scores, values - start, f"change of the {metric}", note)
    note = f"{metric}: 0 is the {names[0]} run, {_short(start)}; 1 the {names[1]}, {_short(end)}"
    told = f"share {'destroyed' if noise else 'restored'}"
    return _drawn(scores, (values - start) / (end - start), told, note)


def is_signed(scores: Scores) -> bool:
    """Whether 0 is the middle of these numbers even where none happens to be below it."""
    return DRAWN in scores.about or scores.about.get("quantity") == "recovered"


def metric_of(scores: Scores) -> str:
    """The name of the metric, as it stands in a sentence."""
    return str(scores.about.get("metric") or UNNAMED)


def _drawn(scores: Scores, values: Any, told: str, note: str) -> Scores:
    about = {**scores.about, DRAWN: told, NOTE: note}
    return Scores(values, scores.axes, scores.labels, about)


def _numbers(*ends: Any) -> bool:
    return all(isinstance(one, Real) and not isinstance(one, bool) for one in ends)


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
