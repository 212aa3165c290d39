"""The lenses that a study reads units through: made once, kept in its folder.

OUT/sweeps/PLAN/lenses/jacobian.safetensors     fitted on pictures that the study does not ask about
OUT/sweeps/PLAN/lenses/tuned.safetensors        where the data have so many; else on its first ones

The prompts are those of the questions: a picture, the words behind it, and the caption up to its
first noun, so that the last position is the one that says it. A unit writes at a patch, so the
Jacobian is that of patches.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlens.methods.jacobian_lens import jacobian_lens
from mmlens.methods.translators import KINDS, Translators
from mmlens.methods.tuned_lens import tuned_lens
from mmlens.papers.mmn.questions.explained import explain
from mmlens.papers.mmn.questions.readings import keep_lens
from mmlens.papers.mmn.report.plan import Plan
from mmlens.papers.tables import ExperimentError
from mmlens.values.errors import CheckpointError
from mmlens.values.labels import Patch

if TYPE_CHECKING:
    from mmlens.datasets.sample import Samples
    from mmlens.model.hooked_vlm import HookedVLM


def lenses(
    model: HookedVLM,
    samples: Samples,
    plan: Plan,
    folder: Path,
    tell: Callable[[str], None],
    **how: Any,
) -> list[str]:
    """The names under which the lenses lie beside the model, fitted where the folder has none.

    Args:
        how: how the noun is found, as questions take it.

    Raises:
        ExperimentError: no picture to fit on has a caption that names something.
    """
    prompts: list[Any] = []
    found = []
    for kind in KINDS:
        path = folder / f"{kind}.safetensors"
        lens = _there(path, model)
        if lens is None:
            prompts = prompts or _prompts(model, samples, plan, how)
            tell(f"{kind} lens: {len(prompts)} pictures to fit on")
            folder.mkdir(parents=True, exist_ok=True)
            if kind == "jacobian":
                lens = jacobian_lens(model, prompts[: plan.jacobian], pos=Patch)
            else:
                lens = tuned_lens(model, prompts, steps=100)
            lens = Translators.load(lens.save(path))  # as it will be read when the study goes on
        found.append(keep_lens(model, lens))
    return found


def _there(path: Path, model: HookedVLM) -> Translators | None:
    try:
        lens = Translators.load(path)
        lens.check(model)
    except CheckpointError:  # none, or another model's
        return None
    return lens


def _prompts(model: HookedVLM, samples: Samples, plan: Plan, how: dict[str, Any]) -> list[Any]:
    others = range(plan.readings, min(len(samples), plan.readings + plan.fitted))
    places = others if len(others) >= plan.fitted else range(min(len(samples), plan.fitted))
    seen = (explain(model, samples[place], **how) for place in places)
    prompts = [one.soft for one in seen if one is not None]
    if not prompts:
        raise ExperimentError("No caption names anything, so there is nothing to fit a lens on.")
    return prompts
