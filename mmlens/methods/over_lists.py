"""One question asked of several prompts, or about several words: results side by side.

    attribute(model, [a, b], of=" dog")             # Scores(prompt, layer, pos, unit)
    attribute(model, prompt, of=[" dog", " cat"])   # Scores(token, layer, pos, unit)
    logit_lens(model, [a, b])                       # a table with a column prompt
    attribute_caption(model, [a, b])                # the same

Prompts of one list have one layout, as in `activations`, and labels of positions name the words of
all of them; of a table they may differ. A bar is shown after two seconds (`runtime.progress`); a
function `progress` counts on over all prompts and words.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mmlens.runtime.progress import over_all, tracked
from mmlens.values.arguments import shown
from mmlens.values.errors import AddressError, PromptError, TargetError
from mmlens.values.joined_labels import joined, joined_attrs, of_all
from mmlens.values.labels import Neuron
from mmlens.values.scores import Scores
from mmlens.values.unit_lists import as_unit, has_units, units_in

Verb = TypeVar("Verb", bound=Callable[..., Any])
_SHARED = ("pos", "query", "key")


def over_lists(verb: Verb) -> Verb:
    """A verb (model, prompt, of=None, ...) that also takes lists of prompts, and of words."""

    @functools.wraps(verb)
    def asked(model: Any, prompt: Any, of: Any = None, *args: Any, **options: Any) -> Any:
        if (words := words_in(of)) is None:
            return verb(model, prompt, as_unit(of), *args, **options)
        every = tracked(words, f"{verb.__name__} of words", _shown(options))
        each = _each(options, len(words))
        found = [verb(model, prompt, one, *args, **each(at)) for at, one in enumerate(every)]
        return beside(found, word_axis(model, words), words)

    return over_prompts(asked)  # type: ignore[return-value]


def over_prompts(verb: Verb, *, own: str = "") -> Verb:
    """A verb (model, prompt, ...) that also takes a list of prompts.

    Args:
        own: an option by name of which every prompt may have its own: a list, in their order.
    """

    @functools.wraps(verb)
    def asked(model: Any, prompt: Any, *args: Any, **options: Any) -> Any:
        prompts = prompts_of(prompt)
        listed = isinstance(options.get(own), (list, tuple))
        if listed and len(options[own]) != (-1 if prompts is None else len(prompts)):
            many = "one prompt" if prompts is None else f"{len(prompts)} prompts"
            raise PromptError(
                f"{own}= is a list of {len(options[own])} for {many}: give one text, or a list of"
                " prompts and as many texts."
            )
        if prompts is None:
            return verb(model, prompt, *args, **options)
        every = tracked(prompts, f"{verb.__name__} of prompts", _shown(options))
        each = _each(options, len(prompts), own if listed else "")
        found = [verb(model, one, *args, **each(at)) for at, one in enumerate(every)]
        return beside(found, "prompt")

    return asked  # type: ignore[return-value]


def _each(options: dict[str, Any], many: int, own: str = "") -> Callable[[int], dict[str, Any]]:
    """By number the options of one of several calls: one count over all, and its own text."""
    part = over_all(options.get("progress"), many)

    def of(at: int) -> dict[str, Any]:
        counted = {"progress": part(at)} if "progress" in options else {}
        return {**options, **counted, **({own: options[own][at]} if own else {})}

    return of


def _shown(options: dict[str, Any]) -> bool | None:
    """The caller's choice of a bar; none where a function is told instead."""
    asked = options.get("progress")
    return asked if asked is None or isinstance(asked, bool) else False


def prompts_of(prompt: Any) -> list[Any] | None:
    """The prompts of a list of them; None where it is one prompt.

    Raises:
        PromptError: an empty list.
    """
    if not isinstance(prompt, (list, tuple)) or any(
        isinstance(one, (int, float)) for one in prompt
    ):
        return None
    if not prompt:
        raise PromptError("A list of no prompts asks nothing: give at least one.")
    return list(prompt)


def words_in(of: Any) -> list[Any] | None:
    """What is explained, where it is several; None where it is one.

    Raises:
        TargetError: an empty list.
    """
    if has_units(of) and not isinstance(of, (str, Neuron)):
        return units_in(of, "of", Neuron, least=1, error=TargetError)
    if not isinstance(of, (list, tuple)) and not hasattr(of, "to_list"):  # a list, or a Series
        return None
    words: list[Any] = list(of)  # type: ignore[arg-type]
    if not words or any(word is None for word in words):
        raise TargetError(f"of={shown(of)} names nothing to explain: write of=[' dog', ' cat'].")
    return words


def word_axis(model: Any, words: Sequence[Any]) -> str:
    """The axis of what is explained: "neuron", "token", "text", "picture" or "class"."""
    if all(isinstance(word, Neuron) for word in words):
        return "neuron"
    if model.can("logits"):
        return "token"
    if model.can("pairs"):
        return "token" if model.answers == "words" else "class"
    if model.can("similarity"):
        return "text" if all(isinstance(word, str) for word in words) else "picture"
    return "class"


def layers_before(every: Sequence[Any], of: Sequence[Any], tower: str) -> list[Any] | None:
    """The layers that a Neuron of this tower reads; None, for all, where none is explained."""
    units = [one.layer for one in of if isinstance(one, Neuron) and one.tower == tower]
    return ([n for n in every if n < min(units)] or [*every[:1]]) if units else None


def beside(found: Sequence[Any], axis: str, names: Sequence[Any] = ()) -> Any:
    """Results of one verb side by side: Scores along a new first axis, tables with a new column.

    Args:
        names: labels of the new axis; 0, 1, 2, ... when left out.

    Raises:
        PromptError, AddressError: they do not stand for the same places.
    """
    if not isinstance(found[0], Scores):
        import pandas as pd

        labels = names or range(len(found))
        rows = [part.assign(**{axis: label}) for part, label in zip(found, labels, strict=True)]
        table = pd.concat(rows, ignore_index=True)
        table = table[[axis, *(name for name in table.columns if name != axis)]]
        table.attrs.update(joined_attrs(found))
        return table
    shared = {one: joined(tuple(tuple(part.of(one)) for part in found))
              for one in found[0].axes if one in _SHARED}  # fmt: skip
    if len({part.axes for part in found}) > 1:
        raise AddressError(f"{found[0]!r} and {found[-1]!r} cannot stand side by side.")
    told = {name: of_all([part.about.get(name) for part in found]) for name in found[0].about}
    named = [str(name) if not isinstance(name, (str, int, Neuron)) else name for name in names]
    alike = [
        Scores(part.values, part.axes, {**part.labels, **shared}, {"method": told.get("method")})
        for part in found
    ]
    whole = Scores.concat(alike, axis, named)
    return Scores(whole.values, whole.axes, whole.labels, told)
