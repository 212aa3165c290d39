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
Scores values: AttributeError in scores.py
Scores labels: AttributeError in scores.py
Sweep folder: TypeError in sweep/folder.py
top_images model: AttributeError in sweep/images.py
top_images out: TypeError in sweep/run.py
view.attention_on_image scores: AttributeError in view/attention.py
view.attention_on_image box: ValueError in view/attention.py
view.attention_on_image title: AttributeError in view/html.py
view.attention_text scores: AttributeError in view/circuits.py
view.attention_text title: AttributeError in view/html.py
view.bars scores: AttributeError in view/grid.py
view.bars title: AttributeError in view/theme.py
view.cards table: TypeError in view/portraits.py
view.cards activations: AttributeError in view/portraits.py
view.cards title: AttributeError in view/html.py
view.compare results: AttributeError in view/sidebyside.py
view.compare title: AttributeError in view/theme.py
view.curves scores: AttributeError in view/lines.py
view.curves title: AttributeError in view/theme.py
view.explore seen: AttributeError in view/explorer_data.py
view.explore tops: KeyError in view/explorer_data.py
view.gallery table: TypeError in view/portraits.py
view.gallery pictures: TypeError in view/portraits.py
view.gallery maps: AttributeError in view/portraits.py
view.gallery said: KeyError in view/portraits.py
view.gallery title: AttributeError in view/html.py
view.heatmap scores: AttributeError in view/grid.py
view.heatmap title: AttributeError in view/theme.py
view.lens table: AttributeError in view/wordgrid.py
view.lens title: AttributeError in view/theme.py
view.neurons table: AttributeError in view/table.py
view.on_image scores: AttributeError in view/photo.py
view.on_image box: ValueError in view/photo.py
view.on_image top: ValueError in view/paint.py
view.on_image mask: UFuncTypeError in view/paint.py
view.on_image title: AttributeError in view/theme.py
view.panels scores: AttributeError in view/multiples.py
view.panels box: ValueError in view/multiples.py
view.panels mask: UFuncTypeError in view/paint.py
view.panels columns: ValueError in view/paint.py
view.panels title: AttributeError in view/theme.py
view.save path: TypeError in view/write.py
view.tokens values: ValueError in view/words.py
view.tokens title: AttributeError in view/html.py
sweep.Sweep folder: TypeError in sweep/folder.py
sweep.sweep model: AttributeError in provenance.py
sweep.sweep out: TypeError in sweep/run.py
sweep.sweep options: ValueError in sweep/run.py
sweep.sweep tallies: AttributeError in sweep/run.py
sweep.top_images model: AttributeError in sweep/images.py
sweep.top_images out: TypeError in sweep/run.py
tally.Moments keep: TypeError in tally/base.py
tally.Quantiles keep: TypeError in tally/base.py
tally.Top keep: TypeError in tally/base.py
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
