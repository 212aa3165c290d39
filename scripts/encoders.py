"""Measures the table of encoders in the documentation again: python scripts/encoders.py [NAME ...]

One tiny random twin per class (`tests/encoders.py`) is wrapped, and what was found becomes a row of
docs/encoders.json, which `docs/encoders.md` shows. `tests/test_vision_classes.py` checks each row,
and the numbers beside it: parity, gradients, painted patches.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from encoder_rows import STORED, encoder_row, parity, stored_rows  # noqa: E402
from encoders import ENCODERS  # noqa: E402

import mmlens as mm  # noqa: E402
from mmlens.towers.vision.wrap import wrap_vision  # noqa: E402


def main(names: list[str]) -> None:
    """Measure these twins, or all of them."""
    rows = stored_rows()
    for name in names or ENCODERS:
        module, prepared = ENCODERS[name]()
        try:
            found = wrap_vision(module, prepared)
        except mm.MMLensError as error:
            found = str(error)
        rows[name] = encoder_row(name, found)
        if not isinstance(found, str):
            rows[name]["parity"] = float(f"{parity(name, module, found):.1e}")
        print(name, rows[name].get("refused") or rows[name]["attention"], flush=True)
    kept = {name: rows[name] for name in ENCODERS if name in rows}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in kept.items())
    STORED.write_text(f"{{\n{lines}\n}}\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
