"""The processes that work on a sweep: one, or those that `accelerate launch` started."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch

from mmlens.sweep.record import SweepError
from mmlens.values.optional_packages import package


@dataclass(frozen=True)
class Crew:
    """This process among those of the sweep.

    Attributes:
        rank: its number, from 0.
        world: the number of processes.
        wait: a function that waits for the others.
    """

    rank: int = 0
    world: int = 1
    wait: Callable[[], None] = lambda: None


def crew() -> Crew:
    """All processes of this run; accelerate is needed only where there are several.

    Raises:
        CapabilityError: there are several, and accelerate is not installed.
        SweepError: there are several, and accelerate sees only one.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started == 1:
        return Crew()
    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    on_cpu = on_cpu or not torch.accelerator.is_available()
    # the first to finish may wait for days
    state = package("accelerate", "train").PartialState(cpu=on_cpu, timeout=timedelta(days=30))
    if state.num_processes != started:  # each would compute and write everything
        raise SweepError(
            f"WORLD_SIZE says {started} processes and accelerate sees {state.num_processes}: start"
            " them with `accelerate launch`, on CPUs with `torchrun` and ACCELERATE_USE_CPU=true."
        )
    return Crew(state.process_index, state.num_processes, state.wait_for_everyone)
