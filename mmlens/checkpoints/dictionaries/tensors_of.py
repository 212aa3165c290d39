"""The tensors of a dictionary's state dict by name, in float32, or a sentence: which is missing."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mmlens.values.errors import CheckpointError


def taken(state: Mapping[str, Tensor], *names: str, where: str) -> list[Tensor]:
    """These tensors of a state dict, in float32.

    Raises:
        CheckpointError: one is missing.
    """
    missing = [name for name in names if name not in state]
    if missing:
        there = ", ".join(sorted(state)[:8]) or "nothing"
        raise CheckpointError(f"{where!r} lacks {missing[0]!r}; it holds {there}.")
    return [state[name].detach().float() for name in names]


def refused(where: str, what: str, value: object, known: str) -> CheckpointError:
    """The refusal of a configuration that is not read.

    Args:
        what: the name of the setting.
        known: what is read, as the sentence names it.
    """
    return CheckpointError(f"{where!r} has {what}={value!r}, and what is read is {known}.")
