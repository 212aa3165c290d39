"""Causal verbs asked of many pairs: one result with the axis `pair` in front.

    moved = patch(model, pairs, "logit", "z", pos=-1)        # Scores(pair, layer, head)
    patch(model, data, "logit")                              # pairs of a data set (`thing_pairs`)
    knockouts(model, pairs, "logit", lambda pair: {"thing": (pair.patches, -1)})
    captions(model, pairs, {"steered": steer("resid_post", dog, layer=5)})  # a column `pair`

What differs from pair to pair: a metric that is given by its name is measured for the pair's own
word (`Pair.of`), and an argument that is a function is called with the pair. Verbs that change one
run alone read the clean prompt of a pair. Means, intervals and tests: `pair_means`. What is stopped
is lost; `mmlens.sweep.sweep` asks the same of the same pairs, keeps what is done, and goes on.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, TypeVar

import torch

from mmlens.causal import measures
from mmlens.causal.pairs import Pair
from mmlens.causal.thing_pairs import thing_pairs
from mmlens.datasets.sample import Samples
from mmlens.runtime.progress import over_all, tracked
from mmlens.values.arguments import function
from mmlens.values.errors import AddressError, MMLensError, PromptError, TargetError, nearest
from mmlens.values.joined_labels import EACH_PAIRS, joined, joined_attrs, of_all
from mmlens.values.scores import Scores

Verb = TypeVar("Verb", bound=Callable[..., Any])
METRICS = ("logit", "logit_difference", "probability", "log_probability", "rank")
"""Metrics that can be given by name, for the word of a pair."""
_STOPPED = (
    "{verb} was stopped after {done} of {of} pairs. To keep what is done and go on later, ask by"
    " mm.sweep.sweep({verb}, model, pairs, folder, options=...)."
)
_OF_EACH = ("clean", "corrupt", "prompt", "logit", "bias")
"""What results tell of each pair."""


def over_pairs(reads: str = "pair", metric: str | None = "metric") -> Callable[[Verb], Verb]:
    """A verb (model, pair or prompt, metric, ...) that also takes many of them, or a data set.

    Args:
        reads: "pair", or "clean" for verbs of one prompt.
        metric: the name of its metric, or "of" of a verb that measures a word itself; None for one
            that measures nothing.
    """

    def declare(verb: Verb) -> Verb:
        subject, *names = list(inspect.signature(verb).parameters)[1:]

        def single(model: Any, one: Any, given: dict[str, Any]) -> Any:
            own = dict(given)
            for name, value in given.items() if isinstance(one, Pair) else ():
                if type(value) is FunctionType and name not in (metric, "progress"):
                    write = "a function of the pair, or what it would return"
                    own[name] = function(value, name, write, takes=1)(one)
            if metric is not None:
                own[metric] = _metric(model, own.get(metric), one, metric)
            if metric is not None and own[metric] is None and metric not in given:
                write = "' dog'" if metric == "of" else "patching.metrics.logit(model, ' dog')"
                raise TargetError(
                    f"{verb.__name__} is told nothing to measure: write {metric}={write}, or give"
                    " pairs with of=' dog'."
                )
            read = one.clean if reads == "clean" and isinstance(one, Pair) else one
            return verb(model, read, **own)

        @functools.wraps(verb)
        def asked(model: Any, *args: Any, **options: Any) -> Any:
            given = {**dict(zip([subject, *names], args, strict=False)), **options}
            if subject not in given or len(args) > 1 + len(names):
                return verb(model, *args, **options)  # Python says what is wrong
            of = given.pop(subject)
            if (many := pairs_in(model, of)) is None:
                return single(model, of, given)
            found = []
            part = over_all(given.get("progress"), len(many))
            for at, one in enumerate(tracked(many, f"{verb.__name__} of pairs", _shown(given))):
                own = {**given, "progress": part(at)} if "progress" in given else given
                try:
                    found.append(single(model, one, own))
                except MMLensError as error:
                    name = getattr(one, "name", "") or at
                    raise type(error)(f"Pair {name}: {error}") from error
                except KeyboardInterrupt as stop:
                    stop.add_note(_STOPPED.format(verb=verb.__name__, done=at, of=len(many)))
                    raise
            return side_by_side(found, [getattr(one, "name", "") for one in many])

        return asked  # type: ignore[return-value]

    return declare


def _shown(given: dict[str, Any]) -> Any:
    """The caller's choice of a bar; none where a function is told instead, pair by pair."""
    asked = given.get("progress")
    return asked if asked is None or isinstance(asked, bool) else False


def pairs_in(model: Any, of: Any) -> list[Any] | None:
    """The pairs (or prompts) of a list, or of a data set; None where it is one.

    Raises:
        PromptError: there is none.
    """
    if isinstance(of, Samples):
        return list(thing_pairs(model, of))
    if not isinstance(of, (list, tuple)) or any(isinstance(one, int | float) for one in of):
        return None
    if not of:
        raise PromptError("A list of no pairs asks nothing: give at least one.")
    return list(of)


def _metric(model: Any, metric: Any, pair: Any, name: str) -> Any:
    """The caller's metric, or the named one for the pair's word."""
    if name == "of":
        return getattr(pair, "of", None) if metric is None else metric
    if not isinstance(metric, str):
        return metric
    if metric not in METRICS:
        raise TargetError(
            f"There is no metric {metric!r} (of a word, patching.metrics.logit(model, ' dog')):"
            f" {nearest(metric, METRICS)}"
        )
    words = [getattr(pair, "of", None)]
    words += [getattr(pair, "minus", None)] if metric == "logit_difference" else []
    if any(word is None for word in words):
        which = "of=' dog', minus=' cat'" if len(words) > 1 else "of=' dog'"
        raise TargetError(
            f"The metric {metric!r} is measured for the word of a pair, and here is none: write"
            f" Pair(clean, corrupt, {which}), or give patching.metrics.{metric}(model, ...)."
        )
    return getattr(measures, metric)(model, *words)


def side_by_side(found: Sequence[Any], names: Sequence[str] = ()) -> Any:
    """Results of pairs with the axis `pair` in front; tables with a column `pair`.

    Args:
        names: of the pairs; 0, 1, 2, ... where they have none of their own.

    Raises:
        AddressError, PromptError: they do not stand for the same places.
    """
    own = tuple(names) if len(set(names)) == len(found) and all(names) else None
    if not isinstance(found[0], Scores):
        import pandas as pd

        labels = own or range(len(found))
        parts = [part.assign(pair=label) for part, label in zip(found, labels, strict=True)]
        table = pd.concat(parts, ignore_index=True)
        table = table[["pair", *(name for name in table.columns if name != "pair")]]
        table.attrs.update(joined_attrs(found))
        return table
    first = found[0]
    for other in found[1:]:
        if other.axes != first.axes or other.shape != first.shape:
            raise AddressError(
                f"{first!r} of one pair and {other!r} of another have no mean: ask about places"
                " that all pairs have, as in pos=-1, or pos=lambda pair: {'thing': pair.patches}."
            )
    labels = {axis: _label(axis, found) for axis in first.axes}
    every = {name: [part.about.get(name) for part in found] for name in first.about}
    told = {name: each if name in _OF_EACH else of_all(each) for name, each in every.items()}
    told |= {"metric": _shared_name(every["metric"])} if "metric" in every else {}
    told |= {"pairs": len(found)}
    values = torch.stack([part.values.cpu() for part in found])
    return Scores(values, ("pair", *first.axes), {"pair": own, **labels}, told)


def _shared_name(metrics: Sequence[Any]) -> Any:
    """The name of a metric of all pairs: where each has its own word, without these."""
    if all(one == metrics[0] for one in metrics):
        return metrics[0]
    kind = str(metrics[0]).split("'")[0].removesuffix("of ").strip()
    return f"{kind}{EACH_PAIRS}"


def _label(axis: str, found: Sequence[Scores]) -> Any:
    """The labels of an axis for all pairs; positions are named by all their words."""
    rows = [tuple(part.of(axis)) for part in found]
    if all(row == rows[0] for row in rows):
        return found[0].labels.get(axis)
    if axis == "pos":
        return joined(tuple(rows))
    if len({len(row) for row in rows}) == 1 and axis in ("sender", "neuron", "head"):
        return tuple(range(len(rows[0])))  # each pair's own: the first, the second, ...
    raise AddressError(f"The pairs have different labels on the axis {axis!r}: ask them by turns.")


def ends(scores: Scores, name: str) -> torch.Tensor:
    """The metric of the clean or the corrupt run, as wide as the values: one, or one per pair."""
    told = scores.about[name]
    if isinstance(told, list) and told and isinstance(told[0], dict):  # of several metrics
        told = [[one[metric] for metric in scores.of("metric")] for one in told]
    found = torch.as_tensor(told, dtype=torch.float32)
    return found.reshape(*found.shape, *[1] * (scores.values.ndim - found.ndim))
