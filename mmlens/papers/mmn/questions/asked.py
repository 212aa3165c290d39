"""What a question was asked: its options, checked at the door and recorded in every row.

    def a_question(model, sample, *, k=100, prompt=PROMPT, noun="auto", max_new_tokens=30):
        asked = Asked.from_arguments(locals(), COLUMNS)  # first, while locals are the arguments
        seen = asked.explained()
        if seen is None:
            return asked.skipped(UNNAMED)
        ...
        return asked.answered(table)

So an option is named once, in the signature, with its default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.datasets.sample import Sample
from mmlens.papers import tables
from mmlens.papers.mmn.questions.explained import Explained, explain
from mmlens.papers.mmn.questions.question_options import checked

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

_APART = ("model", "sample", "batch")
_EXPLAINING = ("prompt", "noun", "max_new_tokens")
_LAST = (*_EXPLAINING, "seed")
"""Options that every table records behind the question's own."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A question about one picture.

    Attributes:
        columns: of the question's table.
        options: what is recorded, by name, in the order of the signature.
    """

    model: HookedVLM
    sample: Sample
    columns: Sequence[str]
    options: Mapping[str, Any]

    @classmethod
    def from_arguments(
        cls,
        given: Mapping[str, Any],
        columns: Sequence[str],
        *,
        beside: Sequence[str] = (),
        **more: Any,
    ) -> Asked:
        """What was asked by these arguments, checked.

        Args:
            given: the arguments of the question, model and sample among them. `batch` is checked
                but not recorded, since no answer depends on it.
            beside: names that mean something else in this question than in others.
            more: what is recorded besides, or in place of an argument; it stands in front of how
                the noun is found.

        Raises:
            ExperimentError: an option is none that there is.
            ArgumentError: no model, or no sample.
        """
        own = {name: value for name, value in given.items() if name not in (*_APART, *_LAST)}
        last = {name: value for name, value in given.items() if name in _LAST}
        options = {**own, **more, **last}
        unrecorded = {"batch": given["batch"]} if "batch" in given else {}
        checked(given["model"], given["sample"], options, *beside, **unrecorded)
        return cls(given["model"], given["sample"], columns, options)

    def explained(self) -> Explained | None:
        """The first noun of the picture's caption, or None (see `explained`)."""
        how = {name: self.options[name] for name in _EXPLAINING}
        return explain(self.model, self.sample, **how)

    def random(self) -> torch.Generator:
        """Random numbers that depend on the option `seed` and on which picture it is."""
        return tables.generator(self.options["seed"], self.sample)

    def answered(self, table: pd.DataFrame | Sequence[Any]) -> pd.DataFrame:
        """The question's table, or its rows, with what was asked in every row."""
        if not isinstance(table, pd.DataFrame):
            table = pd.DataFrame(table, columns=list(self.columns))
        return tables.answered(table, self.model, **self.options)

    def skipped(self, reason: str) -> pd.DataFrame:
        """The one row of a picture that has no answer, and why."""
        return tables.skipped(reason, self.columns, self.model, **self.options)
