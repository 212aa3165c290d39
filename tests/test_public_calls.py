"""No public name answers a bad argument with an error from somewhere else.

`public_calls.py` makes the calls from the signatures of all public names, in a process of its own,
and says what is a fault.
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


@cache
def answers() -> dict[str, Any]:
    """What every public name was asked and answered, by name."""
    command = [sys.executable, str(HERE / "public_calls.py")]
    here = {**os.environ, "PYTHONPATH": str(HERE.parent)}  # this checkout, and not another one
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=here)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("name", names())
def test_a_bad_argument_is_refused_in_one_sentence_that_is_ours(name: str):
    answer = answers()[name]
    assert answer["calls"] > 0
    faults = [f"{argument}={value}: {told}" for argument, value, told in answer["faults"]]
    assert faults == []
