"""What a study says of a claim, and numbers of ours beside those of its paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

WORDS = {True: "holds", False: "fails", None: "undecided"}


@dataclass(frozen=True)
class Verdict:
    """A claim, whether it holds (None: undecided), and the numbers in a sentence."""

    experiment: str
    claim: str
    holds: bool | None
    says: str

    @property
    def word(self) -> str:
        return WORDS[self.holds]


class Row(NamedTuple):
    """One number: what it is, here, in the paper (empty: not printed), and where there."""

    what: str
    here: str
    paper: str = ""
    source: str = ""
