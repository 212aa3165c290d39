"""The door of every verb: what it is given first is a model.

model = opened(model)      # a HookedVLM, or one sentence that says what to give
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlens.values.arguments import instance

if TYPE_CHECKING:
    from mmlens.model.hooked import HookedVLM


def opened(model: Any) -> HookedVLM:
    """The model that a verb works on.

    Raises:
        ArgumentError: it is none.
    """
    from mmlens.model.hooked import HookedVLM  # which is made of modules that ask here

    return instance(model, "model", HookedVLM, "what mmlens.load returns")
