"""What an edit does at one step of a denoising loop, and in which branch of its guidance.

Edit("denoiser.neurons", 0.0, layer=1, unit=5, step=[0, 1])      at the first two steps
Edit("denoiser.latents", other_run, step=3)                      the value that step 3 had there
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy

from mmlens.values.addresses import places
from mmlens.values.edit import Edit
from mmlens.values.scores import Scores


def at_step(edit: Edit, step: int, count: int) -> Edit | None:
    """The edit with its value at this step; None where it leaves the step as it is.

    Args:
        count: how many steps there are.

    Raises:
        AddressError: it names a step that the loop does not have.
    """
    wanted, value = edit.address.get("step"), edit.value
    by_step = isinstance(value, Scores) and "step" in value.axes
    if wanted is None and isinstance(value, Scores) and by_step:
        wanted = list(value.of("step"))
    if step not in places(range(count), wanted, "step"):
        return None
    if not by_step:
        return edit
    out = copy(edit)
    object.__setattr__(out, "value", value.sel(step=step))
    return out


def rows_of(edit: Edit, branches: Mapping[str, slice]) -> list[tuple[str, slice]]:
    """The branches that an edit acts in, each with its rows of the batch.

    Raises:
        AddressError: it names a branch that the loop does not have.
    """
    names = list(branches)
    chosen = places(names, edit.address.get("branch"), "branch")
    return [(names[i], branches[names[i]]) for i in chosen]
