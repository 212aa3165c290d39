"""What the checks of arguments take, what they refuse, and that the argument is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmlens.model.capabilities import require
from mmlens.values.arguments import (
    choice,
    count,
    flag,
    function,
    instance,
    number,
    path,
    several,
    text,
)
from mmlens.values.errors import AddressError, ArgumentError


def test_what_counts_as_a_number_is_taken_and_returned_as_one():
    for three in (3, np.int64(3), torch.tensor(3)):
        assert count(three, "k") == 3 and type(count(three, "k")) is int
    assert count(0, "seed", least=0) == 0
    for half in (0.5, np.float32(0.5), torch.tensor(0.5)):
        assert number(half, "share") == 0.5 and type(number(half, "share")) is float
    assert choice("pre", "point", ("pre", "post")) == "pre"
    assert several((1, 2), "ks") == several(range(1, 3), "ks") == several({1, 2}, "ks") == [1, 2]
    assert flag(np.bool_(True), "gain") is True and text("", "words") == ""
    assert instance(3, "k", int, "a number") == 3
    assert path("saved", "folder") == path(Path("saved"), "folder") == Path("saved")
    assert function(len, "progress", "a function") is len


@pytest.mark.parametrize(
    "check, sentence",
    [
        (lambda: count(0, "k"), "k=0: write a whole number from 1 on."),
        (lambda: count(-1, "seed", least=0), "seed=-1: write a whole number from 0 on."),
        (lambda: count(9, "top", most=8), "top=9: write a whole number from 1 to 8."),
        (lambda: count(2.0, "k"), "k=2.0: write a whole number from 1 on."),
        (lambda: count(True, "k"), "k=True: write a whole number from 1 on."),
        (lambda: count(torch.arange(2), "k"), "k=tensor([0, 1]): write a whole number from 1 on."),
        (lambda: number(float("nan"), "share"), "share=nan: write a finite number."),
        (lambda: number("2", "x", most=1), "x='2': write a finite number to 1."),
        (lambda: number(0, "x", above=0, most=1), "x=0: write a finite number above 0 to 1."),
        (lambda: number(10**999, "x"), "write a finite number."),
        (lambda: choice("prae", "point", ("pre", "post")), "point='prae': did you mean 'pre'?"),
        (lambda: choice(None, "by", ("a", "b")), "by=None: there is 'a', 'b'"),
        (lambda: choice([], "by", ("a", "b")), "by=[]: there is 'a', 'b'"),
        (lambda: choice(1, "gain", (True, False)), "gain=1: there is 'True', 'False'"),
        (lambda: several("abc", "ks"), "ks='abc': write a list, [...]."),
        (lambda: several([], "ks"), "ks=[]: write a list of at least 1."),
        (lambda: several(None, "ks"), "ks=None: write a list, [...]."),
        (lambda: text(3, "words"), "words=3: write a text."),
        (lambda: text("", "name", empty=False), "name='': write a text that is not empty."),
        (lambda: flag(1, "gain"), "gain=1: write True or False."),
        (lambda: path(3, "out"), "out=3: write the name of a file or folder."),
        (lambda: path(None, "out"), "out=None: write the name of a file or folder."),
        (lambda: function(3, "f", "a function"), "f=3 cannot be called: give a function."),
        (lambda: require(None), "model=None is no HookedModel: give what mmlens.load returns."),
        (lambda: instance(None, "f", dict, "a table"), "f=None is no dict: give a table."),
    ],
)
def test_what_is_refused_names_the_argument_in_one_sentence(check: Any, sentence: str):
    with pytest.raises(ArgumentError) as caught:
        check()
    assert str(caught.value).endswith(sentence) and "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, TypeError)


def test_a_module_may_refuse_with_an_error_of_its_own():
    with pytest.raises(AddressError, match="layer=9"):
        count(9, "layer", least=0, most=3, error=AddressError)
