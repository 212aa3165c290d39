"""pictos-clip-bridge: the picture half of pictos-clip - linear - the language model of pictos.

    model = mmlens.load("pictos-clip-bridge")       # both ends from the package; no download

It stands beside `pictos`, whose encoder never saw a caption, so that the same questions can be
asked of a language model behind a contrastive encoder. The projection (1280 -> 256, with bias)
reads the units of the last block after their ReLU6, at 2 x 2 positions. The model card lies beside
it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmlens.families import family
from mmlens.families.parts import from_parts
from mmlens.families.pictos import FOLDER as PICTOS
from mmlens.families.pictos_clip import pictos_clip
from mmlens.families.smol_parts import ENCODER_NAME
from mmlens.values.errors import ModelError

FOLDER = Path(__file__).parent.parent / "pictos_clip_bridge"
PROJECTION = FOLDER / "projection.safetensors"


@family({"pictos-clip-bridge": "the bundled CLIP's encoder - linear - the bundled language model"})
def pictos_clip_bridge(
    name: str, *, dtype: Any = None, device: Any = None, fold_ln: bool = False
) -> Any:
    """The bridge between the two bundled models.

    Args:
        dtype, device: of all parts; None leaves them as they are (float32, CPU).
        fold_ln: as in TransformerLens' `from_pretrained`.

    Raises:
        ModelError: this installation has no weights for it.
    """
    if not PROJECTION.is_file() or not (PICTOS / "lm").is_dir():
        raise ModelError(
            "This installation of mmlens has no weights for 'pictos-clip-bridge' (the file"
            " mmlens/pictos_clip_bridge/projection.safetensors is missing): install the wheel, or"
            " load 'pictos'."
        )
    from mmlens.towers.vision.wrap import HookedVision

    clip = pictos_clip("pictos-clip").vision
    arch = {"name": ENCODER_NAME, "kwargs": {"num_classes": 0}}
    eye = HookedVision(clip.inside, "timm", clip.pixels, class_names=(), arch=arch)
    model = from_parts(eye, PROJECTION, PICTOS / "lm", name=name, dtype=dtype, device=device,
                       fold_ln=fold_ln, family="pictos-clip-bridge")  # fmt: skip
    model.provenance |= {"vision": "pictos-clip", "lm": "pictos"}
    return model
