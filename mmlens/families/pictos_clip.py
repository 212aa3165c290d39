"""pictos-clip, the CLIP that mmlens ships: pictograms, outlines and printed words beside captions.

    model = mmlens.load("pictos-clip")       # from the package's own folder; no download

Its folder is one of open_clip, `open_clip.create_model_and_transforms("local-dir:FOLDER")` reads it
too. It knows the bundled world's 223 things; the model card lies beside its weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlens.families import family
from mmlens.families.dual import load_dual
from mmlens.values.errors import ModelError

FOLDER = Path(__file__).parent.parent / "pictos_clip"


@family({"pictos-clip": "the bundled CLIP: EfficientNet and text, trained on pictograms and words"})
def pictos_clip(name: str, *, dtype: Any = None, device: Any = None) -> Any:
    """The bundled dual encoder.

    Args:
        dtype, device: None leaves them as they are (float32, CPU).

    Raises:
        ModelError: this installation has no weights for it.
    """
    if not (FOLDER / "open_clip_model.safetensors").is_file():
        raise ModelError(
            "This installation of mmlens has no weights for 'pictos-clip' (the folder"
            " mmlens/pictos_clip is missing): install the wheel, or give a folder of open_clip."
        )
    model = load_dual(str(FOLDER), dtype=dtype, device=device)
    model.name = name
    model.provenance |= {"family": "pictos-clip", "source": name}
    return model
