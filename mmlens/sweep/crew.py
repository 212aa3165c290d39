"""The processes that work on a sweep: one, or those that `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from mmlens.datasets.extra import package


@dataclass(frozen=True)
class Crew:
    """This process among how many.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        wait: for the others.
    """

    rank: int = 0
    world: int = 1
    wait: Callable[[], None] = lambda: None


def crew() -> Crew:
    """All processes of this run; accelerate is needed only where there are several.

    Raises:
        CapabilityError: there are several, and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Crew()
    # whoever is done first may wait for days
    state = package("accelerate").PartialState(timeout=timedelta(days=30))
    return Crew(state.process_index, state.num_processes, state.wait_for_everyone)
