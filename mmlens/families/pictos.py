"""pictos, the bridge that mmlens ships: every picture of its world comes with caption and masks.

    model = mmlens.load("pictos")       # from the package's own folder; no download, no extras

It knows pictograms, not photographs; the model card lies beside its weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlens.families import family
from mmlens.values.errors import ModelError

FOLDER = Path(__file__).parent.parent / "pictos" / "weights"


@family({"pictos": "the bundled bridge: BEiT - linear - GPT-J, trained on pictograms; no download"})
def pictos(
    name: str,
    *,
    dtype: Any = None,
    device: Any = None,
    fold_ln: bool | None = None,
    verify: bool = True,
) -> Any:
    """The bundled model; options as in `mmlens.checkpoints.folder.load`."""
    from mmlens.checkpoints.folder import load

    if not (FOLDER / "bridge.json").is_file():
        raise ModelError(
            "This installation of mmlens has no weights for 'pictos' (the folder"
            " mmlens/pictos/weights is missing): install the wheel, or load 'toy-gptj' for a tiny"
            " random bridge."
        )
    return load(FOLDER, name=name, dtype=dtype, device=device, fold_ln=fold_ln, verify=verify)
