"""What each option of a question may be: one table for all questions, read before a model runs.

An option of one name means the same in every question, so its check stands here once. `checked` is
asked at the door of each question, and refuses with the option's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from mmlens.causal.silencing import WHERE
from mmlens.datasets.sample import Sample
from mmlens.model.capabilities import require
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import choice, count, flag, function, instance, number, several, text
from mmlens.values.errors import nearest

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

RULES = ("auto", "pictos", "content")
POINTS, RANKINGS = ("pre", "post"), ("pair", "max", "sum")
ARMS = ("attributed", "interpretable", "random")
_own: dict[str, Any] = {"error": ExperimentError}


def _noun(value: Any, name: str) -> None:
    if not callable(value) and not (isinstance(value, str) and value in RULES):
        raise ExperimentError(f"There is no rule {value!r} for nouns: {nearest(value, RULES)}")
    if callable(value):
        function(value, name, "a function of a text that returns its nouns", takes=1, **_own)


def _target(value: Any, name: str) -> None:
    if not callable(value):
        choice(value, name, ("logit", "prob", "logprob"), **_own)
    else:
        function(value, name, "a function of logits, Float[d_vocab]", takes=1, **_own)


def _value(value: Any, name: str) -> None:
    if not (isinstance(value, str) and value == "mean"):
        number(value, name, **_own)


def _some(value: Any, name: str, known: tuple[str, ...] = ()) -> None:
    for one in several(value, name, **_own):
        if known:
            choice(one, name, known, **_own)


def _optional(check: Callable[..., Any]) -> Callable[[Any, str], Any]:
    return lambda value, name: None if value is None else check(value, name)


_WHOLE, _SEED = partial(count, **_own), partial(count, least=0, **_own)
_FLAG = partial(flag, **_own)
CHECKS: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("k", "tokens", "top", "average", "max_new_tokens"), _WHOLE),
    "size": partial(count, most=4096, **_own),
    **dict.fromkeys(("seed", "drawn_nouns"), _SEED),
    **dict.fromkeys(("gain", "captions", "caption"), _FLAG),
    **dict.fromkeys(("batch", "vectors"), _optional(_WHOLE)),
    "percentile": partial(number, least=0.0, most=0.999999, **_own),
    "share": partial(number, least=0.0, most=1.0, **_own),
    "silence": partial(number, above=0.0, most=1.0, **_own),
    "point": partial(choice, known=POINTS, **_own),
    "rank_by": partial(choice, known=RANKINGS, **_own),
    "random_from": partial(choice, known=("others", "any"), **_own),
    "keep": partial(choice, known=("all", "interpretable"), **_own),
    "where": partial(choice, known=("same", *WHERE), **_own),
    "positions": partial(_some, known=("image", "last")),
    "arms": partial(_some, known=ARMS),
    "target": _target,
    "value": _value,
    **dict.fromkeys(("prompt", "label_prompt", "site"), partial(text, **_own)),
    "noun": _noun,
}


def checked(
    model: HookedVLM, sample: Sample, asked: Mapping[str, Any], *beside: str, **more: Any
) -> None:
    """The options of a question, each by its name.

    Args:
        asked: by name; those without a check of their own are the question's to check.
        beside: names that mean something else in this question.
        more: options that are not recorded, since no answer depends on them.

    Raises:
        ExperimentError: an option is none that there is.
        ArgumentError: no model, or no sample.
    """
    require(model)
    instance(sample, "sample", Sample, "one of mmlens.dataset(...)")
    for name, value in {**asked, **more}.items():
        if name in CHECKS and name not in beside:
            CHECKS[name](value, name)
