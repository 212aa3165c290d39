"""Measures the table of whole vision-language models again: python scripts/native.py [NAME ...]

The tiny random twin of each family (`tests/native_twins.py`) is hooked, and asked every verb; what
was found becomes a row of docs/native.json, which `docs/native.md` shows. `tests/test_native.py`
checks each row, and the numbers beside it: parity, cached generation, painted patches.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import pytest  # noqa: E402
from native_rows import OTHERS, STORED, native_row, stored_rows  # noqa: E402
from native_twins import TWINS, twin  # noqa: E402
from verb_calls import refusals  # noqa: E402

import mmlens as mm  # noqa: E402


def main(names: list[str]) -> None:
    """Measure these twins, or all of them."""
    rows = stored_rows()
    warnings.simplefilter("ignore")
    every = [*TWINS, *OTHERS]
    for name in names or every:
        model = OTHERS[name][2]() if name in OTHERS else mm.from_model(*twin(name), name=name)
        rows[name] = native_row(model) | {"refused": refusals(model, pytest.MonkeyPatch)}
        print(name, rows[name]["crops"], list(rows[name]["refused"]), flush=True)
        kept = {name: rows[name] for name in every if name in rows}
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in kept.items())
        STORED.write_text(f"{{\n{lines}\n}}\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
