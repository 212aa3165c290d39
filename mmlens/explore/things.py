"""The words of a caption that name things: the tokens that are explained."""

from __future__ import annotations

from typing import Any

from mmlens.values.arguments import text
from mmlens.values.english import is_english
from mmlens.values.errors import TargetError
from mmlens.values.labels import Token

_WORDS = """
the and with picture drawing word photo photograph image painting sketch icon symbol sign
two three four five some many several small big little large left right top bottom front back
next near under over behind above below between his her its their this that these those there
are was were has have had for from into onto out off not black white red orange yellow green
blue purple pink brown grey gray background standing sitting lying holding showing"""
NO_THINGS = frozenset(_WORDS.split())
"""Words of captions that name no thing; the first other word is explained by default."""


def thing_tokens(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
    """The tokens of the words that may name a thing, all tokens of each."""
    words: list[list[Token]] = []
    for token in tokens:
        goes_on = bool(words) and token.text[:1].isalpha() and words[-1][-1].text[-1:].isalpha()
        if goes_on:
            words[-1].append(token)
        else:
            words.append([token])
    text = lambda pieces: "".join(piece.text for piece in pieces).strip().lower()  # noqa: E731
    names = lambda word: word.isalpha() and len(word) >= 3 and word not in NO_THINGS  # noqa: E731
    return tuple(piece for pieces in words if names(text(pieces)) for piece in pieces)


def choose(model: Any, tokens: tuple[Token, ...], word: Any = None) -> Token:
    """The caption token to explain: `word`, or the first that names a thing.

    Raises:
        TargetError: `word` is several tokens, or not in the caption.
    """
    if word is not None:
        text(word, "of", error=TargetError)
        exact = [token for token in tokens if token.text == word]
        near = [token for token in tokens if token.text.strip() == word.strip()]
        if exact or near:
            return (exact or near)[0]
        model.to_single_token(word if word.startswith(" ") else f" {word}")
        there = ", ".join(repr(token.text) for token in tokens)
        raise TargetError(
            f"The model does not predict {word!r} here: choose one of its tokens ({there}),"
            " or give other words to explain."
        )
    whole = [
        token
        for token, after in zip(tokens, [*(t.text for t in tokens[1:]), ""], strict=True)
        if token.text.strip().isalpha() and not after[:1].isalpha()
    ]
    things = [
        token
        for token in whole
        if is_english(token.text) and token.text.strip().lower() not in NO_THINGS
    ]
    long = [token for token in whole if len(token.text.strip()) >= 3]
    return (things or long or whole or list(tokens))[0]
