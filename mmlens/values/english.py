"""Interpretable neurons: the English dictionary filter of "Multimodal Neurons", section 2.2.

A neuron is interpretable when at least 7 of its 10 most probable tokens are words of at least
three letters in the SCOWL English dictionary, en-US or en-GB (Schwettmann et al. 2023,
arXiv:2308.01544). The list here is SCOWL's default size, 60, of both spellings with all
inflections ("kittens", "flying", "colour"); names keep their capital, so " London" is a word and
the fragment "ned" is not, though "Ned" is. The paper does not say how it treats capitals and a
token's leading space: here the space is stripped and a capitalised word counts as its lower case.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from mmlens.values.errors import MMLensError

MIN_LETTERS = 3


@lru_cache(maxsize=1)
def english_words() -> frozenset[str]:
    """SCOWL 60, en-US and en-GB: 75,863 words of three or more letters, in the list's spelling."""
    packed = files("mmlens").joinpath("data/scowl-60.txt.gz").read_bytes()
    return frozenset(gzip.decompress(packed).decode("utf-8").split())


def is_english(word: str) -> bool:
    """Is this token, spaces stripped, a word of three or more letters in the dictionary?"""
    word = word.strip()
    if len(word) < MIN_LETTERS or not word.isalpha():
        return False
    words = english_words()
    spelt_as_a_name = word[0].isupper() and (word in words or word.capitalize() in words)
    return word.lower() in words or spelt_as_a_name


def interpretable_tokens(tokens: Sequence[str], at_least: int = 7, of: int = 10) -> bool:
    """Are at least `at_least` of the first `of` decoded tokens, best first, English words?

    Raises:
        MMLensError: fewer than `of` tokens were given, so the answer would depend on the rest.
    """
    if len(tokens) < of:
        raise MMLensError(
            f"Cannot judge {at_least} of {of} tokens from {len(tokens)}:"
            f" decode at least {of} tokens, or lower `of` and `at_least`."
        )
    return sum(is_english(token) for token in tokens[:of]) >= at_least
