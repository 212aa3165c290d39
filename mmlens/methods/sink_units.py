"""Sink units: units with massive activations at the first position, whatever its token.

Language models put massive activations on their first token, which attention then uses as a sink
(Sun et al. 2024, "Massive Activations in Large Language Models"; Xiao et al. 2023). The few units
that write them do not depend on a picture, and ablating one degrades all text. So they should be
left out of a list of units, and of random units for comparison.

    times = |activation at the first position| / root mean square of its layer at all others
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.jacobian_lens import prompts_in
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.targets import finite, one
from mmlens.runtime.progress import Progress, tracked
from mmlens.values.arguments import number
from mmlens.values.errors import PromptError
from mmlens.values.labels import Neuron
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

TIMES = 50.0


@needs("neurons")
def sink_units(
    model: HookedVLM,
    prompts: Sequence[Any] | Prompt | SoftPrompt | str,
    *,
    times: float = TIMES,
    progress: Progress | bool | None = None,
) -> pd.DataFrame:
    """The units with massive activations at the first position of any of these prompts.

    Args:
        prompts: one or several, of two positions at least.
        times: the least ratio to the layer's root mean square at other positions.
        progress: as in `patch`, prompt by prompt.

    Returns:
        Columns neuron, value (its activation there), times, prompt (the index of the prompt where
        it is largest); the largest first.

    Raises:
        PromptError: no prompt, or one of a single position. NumericsError: NaN in activations.
    """
    import pandas as pd

    least = number(times, "times", above=0)
    names = {SITES["neurons"].at(i): i for i, one in enumerate(model.lm.units.layers) if one.width}
    found: dict[Neuron, tuple[float, float, int]] = {}
    for place, prompt in enumerate(tracked(prompts_in(prompts), "sink units", progress)):
        soft = one(model, prompt)
        if soft.ids.shape[1] < 2:
            raise PromptError("A prompt of one position has no other to compare its first with.")
        end = torch.tensor([soft.ids.shape[1] - 1], device=model.lm.device)
        with torch.no_grad(), capture(model, names, _at_first) as kept:
            model.run(soft, at=end)
        for name, layer in names.items():
            value, ratio = kept[name]
            finite(value, f"the units of layer {layer}")
            for unit in (ratio >= least).nonzero()[:, 0].tolist():
                known = found.get(Neuron(layer, unit), (0.0, 0.0, 0))
                if float(ratio[unit]) > known[1]:
                    found[Neuron(layer, unit)] = float(value[unit]), float(ratio[unit]), place
    rows = [(neuron, *told) for neuron, told in found.items()]
    table = pd.DataFrame(rows, columns=["neuron", "value", "times", "prompt"])
    return table.sort_values("times", ascending=False, ignore_index=True)


def _at_first(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Float[unit] at the first position, and its ratio to the others."""
    first, rest = x[0, 0].float(), x[0, 1:].float()
    return first, first.abs() / rest.pow(2).mean().sqrt().clamp(min=1e-9)
