"""Captions generated under each edit, as the outcome of an experiment.

    captions(model, prompt, {"no dog patches": knockout(dog, -1)}, contains="dog")
    captions(model, pairs, lambda pair: {"cut": knockout(pair.patches, -1)},
             contains=lambda pair: pair.of)                     # a table with a column `pair`

A metric of patching reads the logits of one position; a caption has many, so it is generated
greedily, with the edits applied at every step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.causal.many_pairs import over_pairs
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about, described
from mmlens.model.targets import one
from mmlens.runtime.progress import Progress, tracked
from mmlens.values.arguments import instance, shown, text
from mmlens.values.edit import Edit
from mmlens.values.edit_lists import one_by_one
from mmlens.values.errors import AddressError, PromptError
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

NOTHING = "(nothing)"


@needs("generate")
@over_pairs(reads="clean", metric=None)
def captions(
    model: HookedVLM,
    prompt: Any,
    edits: Mapping[str, Any],
    contains: str | None = None,
    *,
    progress: Progress | bool | None = None,
    **options: Any,
) -> pd.DataFrame:
    """The greedy caption under each edit; the first row is the unedited model.

    Args:
        prompt: one; of a list of prompts or pairs, or a data set, the table has a column `pair`.
        edits: name -> an Edit, or a list of several that are applied together.
        contains: a word or phrase to find in the captions, in any letter case, as a whole, in the
            singular or with -s or -es.
        progress: as in `patch`, edit by edit.
        options: of `generate`, such as `max_new_tokens=`.

    Returns:
        A row for each edit: edit, caption and, if asked for, contains (bool). The table's
        attrs["about"] is its provenance.

    Raises:
        PromptError: `contains` without a letter. SiteError, AddressError: an edit that cannot act.
    """
    pattern = _whole(contains) if contains is not None else None
    instance(edits, "edits", Mapping, "a mapping from names to Edits, {'cut': knockout(dog, -1)}")
    if NOTHING in edits or "return_type" in options:
        raise AddressError(
            f"The row {NOTHING!r} is the model as it is, and captions are words: give the edit"
            " another name, and leave return_type out."
        )
    if not isinstance(prompt, (str, Prompt)):
        one(model, prompt)
    rows = []
    every: list[tuple[str, Any]] = [(NOTHING, ()), *edits.items()]
    for name, change in tracked(every, "captions", progress):
        several = one_by_one(change)
        if not all(isinstance(one, Edit) for one in several):
            raise AddressError(
                f"Under {name!r} stands {shown(change)}: give an Edit, or a list of Edits."
            )
        said = str(model.edit(*several).generate(prompt, **options))
        row: dict[str, Any] = {"edit": name, "caption": said}
        rows.append(row if pattern is None else row | {"contains": bool(pattern.search(said))})
    table = pd.DataFrame(rows)
    told = str(described(prompt)) if isinstance(prompt, Prompt) else prompt
    table.attrs["about"] = about(model, method="captions", prompt=told, contains=str(contains))
    return table


def _whole(phrase: str) -> re.Pattern[str]:
    words = text(phrase, "contains").strip()
    if not re.search(r"\w", words):
        raise PromptError(f"contains={phrase!r} has no word to look for: write contains='dog'.")
    return re.compile(rf"(?<!\w){re.escape(words)}(e?s)?(?!\w)", re.IGNORECASE)
