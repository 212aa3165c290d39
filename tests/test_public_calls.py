"""No public name answers a bad argument with an error from somewhere else.

`public_calls.py` makes the calls from the signatures of all public names, in a process of its own,
and says what is a fault.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from public_calls import names

HERE = Path(__file__).parent


@cache
def answers() -> dict[str, Any]:
    """What every public name was asked and answered, by name: once for all workers of a run."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", f"{os.getpid()}")
    shared = Path(tempfile.gettempdir()) / f"mmlens-public-calls-{run}.jsonl"
    with open(f"{shared}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait for the first, which asks
        if not shared.exists():
            shared.write_text(asked(), encoding="utf-8")
    rows = [json.loads(line) for line in shared.read_text(encoding="utf-8").splitlines()]
    return {row["name"]: row for row in rows}


def asked() -> str:
    """The lines that `public_calls.py` prints."""
    command = [sys.executable, str(HERE / "public_calls.py")]
    here = {**os.environ, "PYTHONPATH": str(HERE.parent)}  # this checkout, and not another one
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=here)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", names())
def test_a_bad_argument_is_refused_in_one_sentence_that_is_ours(name: str):
    answer = answers()[name]
    assert answer["calls"] > 0
    faults = [f"{argument}={value}: {told}" for argument, value, told in answer["faults"]]
    assert faults == []
