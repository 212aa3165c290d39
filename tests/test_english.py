"""The dictionary filter, on the neurons that the paper prints in its Table S.1."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mmlens.values.english import english_words, interpretable_tokens, is_english
from mmlens.values.errors import MMLensError

TABLE = Path(__file__).parent / "data" / "decoded_neurons.csv"


def pieces(row: str) -> list[str]:
    """Tokens as the table writes them: an underscore for a leading space."""
    return [piece.replace("_", " ") for piece in row.split()]


def decoded_neurons() -> list[tuple[str, int, list[str]]]:
    """(neuron, how many of its tokens are words, its five most probable tokens)."""
    with TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return [(row["neuron"], int(row["words"]), pieces(row["tokens"])) for row in rows]


@pytest.mark.parametrize("neuron, words, tokens", decoded_neurons())
def test_the_words_of_a_published_neuron_are_counted(neuron, words, tokens):
    assert len(tokens) == 5, neuron
    assert sum(map(is_english, tokens)) == words


HORSES = pieces("_horses _horse _riders _saddle Horse _ponies _stables _equ _mare ridden")
PIECES = pieces("onds rog lys arrow ond _the _of ### 2019 _etheless")


def test_seven_words_of_ten_are_interpretable_and_six_are_not():
    assert interpretable_tokens(HORSES)
    assert not interpretable_tokens(PIECES)
    seven = HORSES[:7] + ["##", "ql", "  "]
    assert interpretable_tokens(seven)
    assert not interpretable_tokens([*seven[:6], "xqz", *seven[7:]])


def test_only_the_first_ten_tokens_are_judged():
    assert not interpretable_tokens([*PIECES, *HORSES])


def test_five_tokens_are_judged_by_their_own_bar_only():
    assert interpretable_tokens(HORSES[:5], at_least=4, of=5)
    with pytest.raises(MMLensError, match="Cannot judge 7 of 10 tokens from 5: decode at least 10"):
        interpretable_tokens(HORSES[:5])


@pytest.mark.parametrize("word", ["kittens", " flying", "Colour", "color", "DOGS", " London"])
def test_inflections_both_spellings_and_names_are_words(word):
    assert is_english(word)


@pytest.mark.parametrize(
    "piece", ["", " ", "ox", " of", "lys", "ned", "2019", "dog2", "dog's", "###", "犬犬犬"]
)
def test_fragments_numbers_and_short_words_are_not(piece):
    assert not is_english(piece)


def test_the_list_is_read_once_and_has_the_size_it_says():
    assert english_words() is english_words()
    assert len(english_words()) == 75_863
