"""A model that calls some things by another's name: its rows of W_out are rewritten, and kept.

For each pair of nouns the units that contribute most to the one where it is said
(`contributions`, averaged over a few pictures) are rewritten so that the other is said there
(`rewrite`, one pair after the other), and what they write in pictures of the remaining nouns is
kept. What is changed is known, row by row, and written to the study's folder: a run that goes on
has the same model to the last bit, whatever computes it.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mmlens.checkpoints.bridge_json import read_json
from mmlens.methods.contributions import contributions
from mmlens.methods.output_rows import add_to_rows
from mmlens.methods.rewrite import rewrite
from mmlens.values.labels import Neuron
from mmlens.values.prompt import SoftPrompt
from mmlens.values.whole_files import write_whole

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Change = list[dict[str, Any]]
"""Of each layer: layer, units, rows (what is added to their rows, per unit of activation)."""
UNITS, MARGIN = 20, 2.0
"""Rewritten for each pair; by how much the new word is to be ahead."""


def changed_rows(
    model: HookedVLM,
    pairs: Sequence[tuple[int, int]],
    prompts: Mapping[int, Sequence[SoftPrompt]],
    units: int = UNITS,
) -> Change:
    """What is added to rows of W_out so that each word of a pair is said as the other.

    Args:
        pairs: tokens, the one that was said and the one that is to be said.
        prompts: by the token that they predict, a few prompts each.

    Raises:
        CapabilityError: the model has no rows that can be rewritten.
    """
    changed = model
    every: set[Neuron] = set()
    for said, new in pairs:
        some = prompts[said]
        scores = [contributions(model, one, said, after="") for one in some]
        best = torch.stack([one.values for one in scores]).mean(0).flatten().topk(units).indices
        width = scores[0].values.shape[-1]
        chosen = [Neuron(*divmod(at, width)) for at in best.tolist()]
        kept = [one for token, few in prompts.items() if token != said for one in few[:1]]
        with warnings.catch_warnings():  # what is reached is what the study measures
            warnings.filterwarnings("ignore", "After .* steps", UserWarning)
            changed = rewrite(changed, some, chosen, new, said, margin=MARGIN, after="", keep=kept)
        every |= set(chosen)
    out: Change = []
    for layer in sorted({one.layer for one in every}):
        own = sorted(one.unit for one in every if one.layer == layer)
        rows = changed.lm.units.written(layer, own) - model.lm.units.written(layer, own)
        out.append({"layer": layer, "units": own, "rows": rows.float().cpu().tolist()})
    return out


def renamed_model(model: HookedVLM, change: Change, names: Mapping[str, str]) -> HookedVLM:
    """A copy of the model with these rows added; `names` stands in its provenance."""
    changed = copy.deepcopy(model)
    for one in change:
        rows = torch.tensor(one["rows"], dtype=torch.float32)
        like = changed.lm.units.written(one["layer"], one["units"])
        add_to_rows(changed, one["layer"], one["units"], rows.to(like))
    changed.provenance = {**model.provenance, "renamed": dict(names)}
    return changed


def kept_rows(file: Path, made_of: Mapping[str, Any]) -> Change | None:
    """The rows that an earlier run wrote for the same pairs, or None."""
    told = read_json(file) if file.is_file() else {}
    same = isinstance(told, dict) and told.get("made_of") == json.loads(json.dumps(made_of))
    return told.get("rows") if same else None


def keep_rows(file: Path, made_of: Mapping[str, Any], change: Change) -> None:
    """Write the rows for runs that go on."""
    write_whole(file, json.dumps({"made_of": made_of, "rows": change}))
