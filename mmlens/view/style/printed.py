"""Printing of tokens, patches and other labels, in figures and in HTML."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from mmlens.values.labels import Padding, Patch

_SIGNS = {"\n": "⏎", "\t": "⇥", "\r": "␍", "\u00a0": "⍽"}


def visible(token: Any) -> str:
    """A token with its outer spaces, line ends and control characters made visible: `·dog`."""
    text = str(token)
    if not text:
        return "∅"
    start = len(text) - len(text.lstrip(" "))
    inner = text.strip(" ")
    end = len(text) - start - len(inner)
    return "·" * start + "".join(_sign(letter) for letter in inner) + "·" * end


def plain(token: Any) -> str:
    """A token as a word in a sentence: outer spaces removed, the rest as `visible`."""
    return visible(str(token).strip(" ") or token)


def label(value: Any) -> str:
    """Any label as text: a patch by row and column, a word as `visible`."""
    if isinstance(value, Patch):
        return str(value)
    return "padding" if isinstance(value, Padding) else visible(value)


def one_line(value: Any) -> str:
    """Nested values of a record, such as `about`, as one line."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name} {one_line(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(one_line, value)) or "none"
    return str(value)


def _sign(letter: str) -> str:
    if letter in _SIGNS:
        return _SIGNS[letter]
    hidden = unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    return f"⟨{ord(letter):x}⟩" if hidden else letter
