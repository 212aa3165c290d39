"""`mmlens doctor`: what is installed here, whether it fits together, and what a model can do.

Everything is measured: versions stand beside those that are tested, torchvision's operators are
called, folders are written to, and a model's answers are compared with a second way of computing
them. `examine` collects it all as plain data; its first line can be pasted into a bug report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def examine(model: Any = None) -> dict[str, Any]:
    """All findings, as JSON takes them.

    Args:
        model: a model, or a name or folder for `mmlens.load`; None examines the machine alone.

    Returns:
        line, packages, devices, torchvision, hub, folders, and with a model its name and checks;
        `well`: whether nothing is wrong.

    Raises:
        ModelError, CheckpointError: the model cannot be loaded.
    """
    from dataclasses import asdict

    from mmlens.doctor.machine import devices, first_line, folders, hub, packages, vision_pair

    found: dict[str, Any] = {
        "line": first_line(),
        "packages": packages(),
        "devices": devices(),
        "torchvision": vision_pair(),
        "hub": hub(),
        "folders": folders(),
    }
    wrong = [p for p in found["packages"] if p["state"] == "too old"]
    wrong += [folder for folder in found["folders"] if not folder["writable"]]
    if model is not None:
        from mmlens.doctor.health import checks
        from mmlens.families import load

        loaded = load(model) if isinstance(model, str | Path) else model
        made = checks(loaded)
        found["model"] = {"name": loaded.name, "checks": [asdict(check) for check in made]}
        wrong += [check for check in made if check.holds is False]
    found["well"] = not wrong and found["torchvision"]["fits"] is not False
    return found
