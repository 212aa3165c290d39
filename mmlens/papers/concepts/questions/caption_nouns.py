"""Which noun does a caption say first, and what does the stream hold where it is predicted?

CoX-LMM (Parekh et al. 2024, section 3.1) takes the pictures whose caption has a token, and of each
the stream of a late layer at the first position that predicts it. Here it is the first noun of the
caption, whatever it is, and the layer is the last, so that what is added to the stream gives the
logits exactly: U(h + v).

Positions: the one that predicts the noun. Path: none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.methods.concepts import stream_before
from mmlens.model.targets import extend, one
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule
from mmlens.papers.tables import UNNAMED
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

COLUMNS = ("noun", "token", "ids", "things")


def nouns_said(
    model: HookedVLM,
    sample: Sample,
    *,
    prompt: str = PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
) -> pd.DataFrame:
    """The first noun of the picture's caption, and the things that the picture is known to show.

    Returns:
        noun, token (its first), ids (of the caption before it), things (names), skipped, options.
    """
    asked = Asked.from_arguments(locals(), COLUMNS)
    seen = asked.explained()
    if seen is None:
        return asked.skipped(UNNAMED)
    ids = seen.soft.ids[0, seen.prompt.ids.shape[1] :].tolist()
    return asked.answered([(seen.noun.lower(), seen.token, ids, list(sample.names))])


def noun_stream(
    model: HookedVLM,
    sample: Sample,
    *,
    said: Mapping[str, Sequence[int]],
    prompt: str = PROMPT,
) -> Scores:
    """The stream after the last layer where the noun is predicted: Scores(dim).

    Args:
        said: by the sample's id, the tokens that lead to the noun and that of the noun.
    """
    *ids, token = said[sample.id]
    soft = up_to(model, sample, ids, prompt)
    return stream_before(model, [soft], int(token), after="", progress=False).sel(prompt=0)


def up_to(model: HookedVLM, sample: Sample, ids: Sequence[int], prompt: str = PROMPT) -> SoftPrompt:
    """The picture's prompt, and these tokens of its caption."""
    read: Any = one(model, Prompt(sample.image, prompt))
    return extend(model, read, [int(token) for token in ids])
