"""What a model says of pictures beside what others say: texts from people, or from closed models.

    compare_outputs(model, {"scene.png": {"gpt-4v": "a dog on grass", "person": "our dog"}})

A model whose weights are not at hand can be compared by its texts alone. Every text stands beside
the model's own (greedy) one, with the log-probability that the model gives it: the sum over its
tokens of log p(token | picture, prompt, tokens before), in nats.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.reading import going_on
from mmlens.model.targets import caption, extend, one
from mmlens.model.text_end import SENTENCE, Stop
from mmlens.towers.language.tokenization import printed
from mmlens.values.arguments import instance, text
from mmlens.values.errors import ArgumentError
from mmlens.values.prompt import Prompt, SoftPrompt

COLUMNS = ("picture", "source", "text")


@needs("generate", "pictures")
def compare_outputs(
    model: Any,
    texts: Any,
    prompt: str = "A picture of",
    *,
    max_new_tokens: int = 30,
    stop: Stop = SENTENCE,
) -> pd.DataFrame:
    """The model's own text of each picture beside given ones, with log-probabilities.

    Args:
        texts: a mapping from picture to {source: text} (or to one text), pairs of these, or a table
            with the columns picture, source and text. A picture is a path, or anything else that
            `open_picture` reads.
        prompt: the words after each picture; in a model with a chat template the user's turn.
        max_new_tokens, stop: of the model's own text, as in `generate`.

    Returns:
        A row for each picture and source, the model's own first: picture (a path's name, else its
        number), source, text, tokens (how many), logprob (their sum, in nats), per_token (their
        mean).

    Raises:
        ArgumentError: no picture, or what is no text. PictureError: a picture cannot be read.
    """
    words, rows = text(prompt, "prompt"), []
    for place, (picture, said) in enumerate(_pairs(texts)):
        path = isinstance(picture, (str, os.PathLike))
        asked = Prompt(Path(picture) if path else picture, words)
        named = Path(picture).name if path else place
        with torch.no_grad():
            soft = one(model, asked)
            own = caption(model, soft, max_new_tokens, stop)
            spelt = printed(model.tokenizer, own, skip_special_tokens=True)  # as generate spells
            rows.append(_row(model, soft, own, named, model.name, spelt))
            for source, given in said.items():
                ids = going_on(model, soft, _joined(model, asked, given), "texts")
                rows.append(_row(model, soft, ids, named, str(source), given))
    table = pd.DataFrame(rows)
    table.attrs["about"] = about(model, method="compare_outputs", words=words)
    return table


def _row(
    model: Any, soft: SoftPrompt, ids: list[int], picture: Any, source: str, said: str
) -> dict[str, Any]:
    """One row; a text without a token has log-probability 0."""
    total = 0.0
    if ids:
        start = soft.ids.shape[1] - 1
        at = torch.arange(start, start + len(ids))
        logits = model.run(extend(model, soft, ids[:-1]), at=at)[0].float()
        total = float(logits.log_softmax(-1)[range(len(ids)), ids].sum())
    mean = total / max(len(ids), 1)
    return {"picture": picture, "source": source, "text": said, "tokens": len(ids),
            "logprob": total, "per_token": mean}  # fmt: skip


def _joined(model: Any, prompt: Prompt, said: str) -> str:
    """A text as it goes on from the prompt: after bare words it begins with a space."""
    answers = getattr(model.prompt_reader, "templated", False) and prompt.template
    spaced = answers or said[:1].isspace() or prompt.text[-1:].isspace()
    return said if spaced else f" {said}"


def _pairs(texts: Any) -> list[tuple[Any, dict[Any, str]]]:
    """(picture, {source: text}) of each picture.

    Raises:
        ArgumentError: no picture, or what is no text.
    """
    if isinstance(texts, pd.DataFrame):
        lacking = [name for name in COLUMNS if name not in texts.columns]
        if lacking:
            raise ArgumentError(
                f"texts= has no column {lacking[0]!r}: give a table with picture, source and text."
            )
        groups = texts.groupby("picture", sort=False)
        found = [(name, dict(zip(rows["source"], rows["text"], strict=True)))
                 for name, rows in groups]  # fmt: skip
    else:
        given = texts.items() if isinstance(texts, Mapping) else texts
        if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
            raise ArgumentError("texts= holds no pictures: write {'dog.jpg': {'who': 'a dog'}}.")
        found = [_pair(each) for each in given]
    if not found:
        raise ArgumentError("texts= holds no picture: write {'dog.jpg': {'who': 'a dog'}}.")
    for _, said in found:
        for one_text in said.values():
            text(one_text, "texts", empty=False)
    return found


def _pair(pair: Any) -> tuple[Any, dict[Any, str]]:
    instance(pair, "texts", tuple, "pairs of a picture and {source: text}")
    if len(pair) != 2:
        raise ArgumentError("texts= takes pairs: a picture, and {source: text}.")
    picture, said = pair
    said = {"given": said} if isinstance(said, str) else said
    return picture, dict(instance(said, "texts", Mapping, "a mapping from source to text"))
