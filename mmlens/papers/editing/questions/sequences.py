"""Do words that are rewritten one after the other hold? (NSE, Jiang et al. 2025)

Every first picture of a sequence of nouns is to say a noun that is not in it, one after the other;
what is asked is the model after all edits: the same pictures, another picture of each thing and the
first one behind another prompt (whether each says the new word), and other things (whether each
says its own). Arms:

    NSE            `patching.rewrite_in_sequence` of the most active units
    random units   the same of as many others
    rewrite        `patching.rewrite` of the first of `contributions`, which keeps earlier prompts
    noise          NSE's changed rows, changed as much into random directions

Positions: the one where the noun is said. "size" is the length of the change of all W_out over that
of all W_out.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mmlens.methods.contributions import contributions
from mmlens.methods.output_rows import add_to_rows
from mmlens.methods.rewrite import rewrite
from mmlens.methods.rewrite_in_sequence import rewrite_in_sequence
from mmlens.methods.top_neurons import top_neurons
from mmlens.papers.bootstrap import DRAWS, summarise, with_differences
from mmlens.papers.editing.groups import Group, Planned
from mmlens.papers.editing.questions.rewriting import COLUMNS, RANGES, SAME, SECOND, SIZE, THINGS
from mmlens.papers.editing.questions.rewriting import values as values
from mmlens.papers.editing.said import edits_that_fail, keep_their_words, moved, says
from mmlens.papers.mmn.questions.asked import Asked
from mmlens.papers.mmn.questions.explained import PROMPT, Rule, explain
from mmlens.papers.tables import finished
from mmlens.values.arguments import instance
from mmlens.values.errors import NumericsError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

OTHER_PROMPT = "There is"
NSE, RANDOM_UNITS = "NSE", "as many units at random"
ROWS, NOISE = "`rewrite`, one after the other", "random directions, as long"
BEHIND = "another prompt"
ALL_RANGES = {**RANGES, BEHIND: (0.0, 1.0)}


def middle_layers(n_layers: int) -> list[int]:
    """The layers from the half of the depth to three quarters: 4, 5 and 6 of 8."""
    return list(range(n_layers // 2, 3 * n_layers // 4 + 1))


def rewritten_sequence(
    model: HookedVLM,
    sample: Group,
    *,
    layer: list[int] | None = None,
    share: float = 0.8,
    preserve: float = 100.0,
    k: int = 20,
    margin: float = 2.0,
    steps: int = 20,
    prompt: str = PROMPT,
    other_prompt: str = OTHER_PROMPT,
    noun: Rule = "auto",
    max_new_tokens: int = 30,
    seed: int = 0,
) -> pd.DataFrame:
    """What is said after a sequence of nouns was rewritten, by arm.

    Args:
        sample: a group of nouns (`groups.grouped`), with the pictures that NSE preserves.
        layer: of NSE; by default from the half of the depth to three quarters.
        share, preserve: as in `patching.rewrite_in_sequence`.
        k, margin, steps: of `rewrite`, as in `rewritten_word`.
        other_prompt: a second prompt; a noun counts where it is said behind that, too.
        seed: of all that is drawn.

    Returns:
        arm, metric (as in `rewritten_word`, and "another prompt"), value, skipped, options.
    """
    layer = middle_layers(model.cfg.n_layers) if layer is None else list(layer)
    asked = Asked.from_arguments(locals(), COLUMNS)
    instance(sample, "sample", Group, "one of papers.editing's groups")
    softs = [[one.soft(model, prompt) for one in edit[:2]] for edit in sample.edits]
    how: dict[str, Any] = {"noun": noun, "max_new_tokens": max_new_tokens}
    behind = [_said_behind(model, edit, other_prompt, how) for edit in sample.edits]
    random = asked.random()
    drawn = int(torch.randint(2**31, (1,), generator=random))
    nse: dict[str, Any] = {
        "of": [edit.word for edit in sample.edits], "layer": layer, "share": share,
        "preserve": preserve, "seed": drawn, "progress": False,
        "keep": [one.soft(model, prompt) for one in sample.kept],
    }  # fmt: skip
    first = [soft for soft, _ in softs]
    try:
        with edits_that_fail():
            changed = rewrite_in_sequence(model, first, **nse)
            arms = {
                NSE: changed,
                RANDOM_UNITS: rewrite_in_sequence(model, first, **nse, chosen_by="random"),
                ROWS: _in_a_row(model, first, sample.edits, k, margin, steps),
                NOISE: _noise(model, changed, layer, random),
            }
    except NumericsError as error:
        return asked.skipped(str(error))
    rows: list[tuple[str, str, float]] = []
    for arm, one in arms.items():
        for edit, (own, other), there in zip(sample.edits, softs, behind, strict=True):
            told = {SAME: own, SECOND: other, BEHIND: there}
            rows += [(arm, metric, says(one, soft, edit.word))
                     for metric, soft in told.items() if soft is not None]  # fmt: skip
        kept = keep_their_words(model, one, sample.others, prompt)
        rows += [(arm, THINGS, value) for value in kept]
        rows.append((arm, SIZE, moved(model, one)))
    return asked.answered(rows)


def summary(table: pd.DataFrame, *, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """Means over sequences by arm and metric, and NSE less each of the others."""
    both = with_differences(values(table), *((NSE, arm) for arm in (RANDOM_UNITS, ROWS, NOISE)))
    out = summarise(both, ["arm", "metric"], ranges=ALL_RANGES, draws=draws, seed=seed)
    return finished(out, "words rewritten in a row", table, draws=draws, seed=seed)


def _said_behind(model: HookedVLM, edit: Planned, words: str, how: dict[str, Any]) -> Any:
    """The first picture behind another prompt, up to the noun; None where another is said."""
    seen = explain(model, edit.first.sample, prompt=words, **how)
    return seen.soft if seen is not None and seen.token == edit.first.token else None


def _in_a_row(
    model: HookedVLM, softs: list[Any], edits: tuple[Planned, ...], k: int, margin: float,
    steps: int,
) -> HookedVLM:  # fmt: skip
    """`rewrite` of the first of `contributions`, again for each prompt."""
    changed = model
    for at, (soft, edit) in enumerate(zip(softs, edits, strict=True)):
        scores = contributions(changed, soft, edit.first.token, after="")
        best: Any = top_neurons(scores, k)
        changed = rewrite(
            changed, soft, list(best["neuron"]), edit.word, margin=margin, steps=steps,
            keep=softs[:at],
        )  # fmt: skip
    return changed


def _noise(
    model: HookedVLM, changed: HookedVLM, layers: list[int], random: torch.Generator
) -> HookedVLM:
    """The rows that were changed, changed as much into random directions."""
    other = copy.deepcopy(model)
    for layer in layers:
        before = model.lm.units.written(layer).detach()
        length = (changed.lm.units.written(layer).detach() - before).norm(dim=-1, keepdim=True)
        noise = torch.randn(before.shape, generator=random).to(before)
        change = length * noise / noise.norm(dim=-1, keepdim=True)
        add_to_rows(other, layer, range(len(before)), change)
    return other
