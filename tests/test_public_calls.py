"""No public name answers a bad argument with an error from somewhere else.

`public_calls.py` makes the calls from the signatures of all public names, in a process of its own,
and says what is a fault. A fault that is known and not yet mended stands in `NOT_YET` with its
argument and what it is: take the line out with the fault.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from public_calls import names

HERE = Path(__file__).parent
NOT_YET = """
load name: TypeError in families/__init__.py
activations model: AttributeError in methods/activations.py
attribute_caption k: IndexError in methods/attribute.py
attribute_caption words: TypeError in words.py
attribute_caption target: TypeError in targets.py
attribute_caption point: TypeError in methods/attribute.py
top_neurons active: AttributeError in methods/top_neurons.py
decode model: AttributeError in methods/decode.py
decode neurons: TypeError in methods/decode.py
decode k: TypeError in methods/decode.py
decode active: TypeError in methods/decode.py
interpretable table: AttributeError in methods/decode.py
logit_lens model: AttributeError in methods/logit_lens.py
nearest_tokens k: RuntimeError in methods/nearest_tokens.py
look target: AttributeError in reading/things.py
look words: TypeError in words.py
look k: TypeError in reading/strongest.py
look full: AttributeError in reading/picture.py
datasets.images folder: TypeError in datasets/folders.py
datasets.pictos n: takes longer than 2 s
patching.ablate by: TypeError in patching/places.py
patching.ablation_curve randoms: takes longer than 2 s
patching.attention model: AttributeError in hooking.py
patching.attribution_patching steps: MemoryError in quadrature.py
patching.captions model: AttributeError in patching/captions.py
patching.knockouts model: AttributeError in patching/routes.py
patching.mean_difference model: AttributeError in methods/activations.py
patching.only_at model: AttributeError in patching/corrupters.py
patching.other_patches labels: TypeError in patching/places.py
patching.patch by: TypeError in patching/places.py
patching.patch progress: TypeError in patching/variants.py
patching.patches_under model: AttributeError in patching/places.py
patching.path_patching pair: AttributeError in patching/paths.py
patching.shuffled model: AttributeError in patching/corrupters.py
patching.soft_noise seed: RuntimeError in patching/pairs.py
patching.word model: AttributeError in patching/steering.py
patching.written_by model: AttributeError in patching/steering.py
patching.written_by neuron: AttributeError in unit_check.py
HookedVLM.forward attention_mask: AttributeError in model.py
HookedVLM.run_with_cache names_filter: TypeError in caching.py
HookedVLM.run_with_cache device: RuntimeError in caching.py
HookedVLM.run_with_cache pos_slice: ValueError in caching.py
HookedVLM.to args: RuntimeError in model.py
HookedVLM.save folder: TypeError in files.py
HookedVLM.get_caching_hooks names_filter: TypeError in caching.py
HookedVLM.add_caching_hooks names_filter: TypeError in caching.py
HookedVLM.accumulated_bias args: TypeError in surface.py
HookedVLM.tokens_to_residual_directions tokens: ValueError in surface.py
HookedVLM.loss_fn logits: AttributeError in token_loss.py
HookedVLM.loss_fn tokens: RuntimeError in token_loss.py
HookedVLM.loss_fn attention_mask: AttributeError in model.py
HookedVLM.to_string tokens: RuntimeError in words.py
HookedVLM.to_single_str_token int_token: ValueError in surface.py
HookedVLM.get_token_position single_token: ValueError in surface.py
"""


@cache
def answers() -> dict[str, Any]:
    """What every public name was asked and answered, by name."""
    command = [sys.executable, str(HERE / "public_calls.py")]
    here = {**os.environ, "PYTHONPATH": str(HERE.parent)}  # this checkout, and not another one
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=here)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["name"]: row for row in rows}


def known() -> dict[str, set[str]]:
    """The arguments with a fault that is known, by name."""
    found: dict[str, set[str]] = {}
    for line in NOT_YET.strip().splitlines():
        name, argument = line.split(":")[0].split()
        found.setdefault(name, set()).add(argument)
    return found


@pytest.mark.parametrize("name", names())
def test_a_bad_argument_is_refused_in_one_sentence_that_is_ours(name: str):
    answer = answers()[name]
    assert answer["calls"] > 0
    faults = [f"{argument}={value}: {told}" for argument, value, told in answer["faults"]
              if argument not in known().get(name, ())]  # fmt: skip
    assert faults == []


def test_the_known_faults_are_of_public_names():
    assert set(known()) <= set(names())
