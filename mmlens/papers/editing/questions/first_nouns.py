"""Which noun does the model say first of a picture, and behind which tokens?

The caption is generated once; what follows from it (which pictures have one noun, and the prompt up
to that noun) is rebuilt from the ids that this table keeps.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.tables import UNNAMED

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("noun", "token", "before", "caption")


def named_nouns(
    model: HookedVLM,
    sample: Sample,
    *,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
) -> pd.DataFrame:
    """The first noun of a picture's caption.

    Returns:
        noun, token (id of its first token), before (ids of the caption up to it, as JSON), caption,
        skipped, options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    said = seen.soft.ids[0, seen.prompt.ids.shape[1] :].tolist()
    return asked.answered([(seen.noun, seen.token, json.dumps(said), seen.caption)])
