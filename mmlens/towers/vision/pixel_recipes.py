"""Reading the preprocessing settings of open_clip and timm into one `Pixels`.

open_clip keeps them in a `PreprocessCfg`, timm in a data config, and both also as a torchvision
Compose. Each function takes any of these, mmlens's own dict (it has the key "image_size"), or None
for the defaults of the library. Those of transformers are read in `vision_processors`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmlens.towers.vision.pixels import Pixels, pair
from mmlens.towers.vision.processors import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD
from mmlens.values.errors import CheckpointError


def open_clip_recipe(cfg: Any, image_size: Any = 224) -> Pixels:
    """From an open_clip `PreprocessCfg`, its dict, a Compose, or None (CLIP's own numbers)."""
    if hasattr(cfg, "transforms"):
        return compose_recipe(cfg)
    cfg = _settings(cfg)
    if "image_size" in cfg:
        return Pixels.from_dict(cfg)
    fill = int(cfg.get("fill_color") or 0)
    return Pixels(
        size=pair(cfg.get("size") or image_size),
        resize=cfg.get("resize_mode") or "shortest",
        interpolation=cfg.get("interpolation") or "bicubic",
        mean=tuple(cfg.get("mean") or CLIP_MEAN),
        std=tuple(cfg.get("std") or CLIP_STD),
        rounding="even",
        fill=(fill, fill, fill),
    )


def timm_recipe(cfg: Any) -> Pixels:
    """From timm's data config (`resolve_model_data_config(model)`), a Compose, or None."""
    if hasattr(cfg, "transforms"):
        return compose_recipe(cfg)
    cfg = _settings(cfg)
    if "image_size" in cfg:
        return Pixels.from_dict(cfg)
    given = cfg.get("input_size") or (3, 224, 224)
    rows, cols = pair(given[1:] if isinstance(given, (tuple, list)) else given)
    percent = cfg.get("crop_pct") or 0.875
    mean = tuple(cfg.get("mean") or IMAGENET_MEAN)
    modes = {"squash": "squash", "border": "longest"}
    resize: Any = modes.get(cfg.get("crop_mode") or "center", "shortest")
    red, green, blue = (round(255 * m) for m in mean)
    return Pixels(
        size=(rows, cols),
        resize=resize,
        scale=(math.floor(rows / percent), math.floor(cols / percent)),
        interpolation=cfg.get("interpolation") or "bilinear",
        mean=mean,
        std=tuple(cfg.get("std") or IMAGENET_STD),
        rounding="even",
        fill=(red, green, blue) if resize == "longest" else (0, 0, 0),
    )


def _settings(cfg: Any) -> dict[str, Any]:
    """A config of either library as a dict; None gives an empty one."""
    if isinstance(cfg, Mapping):
        return dict(cfg)
    if cfg is None or hasattr(cfg, "__dict__"):
        return dict(vars(cfg)) if cfg is not None else {}
    raise CheckpointError(
        f"{cfg!r} does not say how pictures are preprocessed: give the library's own config or"
        ' transform, or a dict, e.g. {"image_size": 224, "mean": [...], "std": [...]}.'
    )


def compose_recipe(compose: Any) -> Pixels:
    """From a torchvision evaluation transform: Resize, CenterCrop and Normalize in a Compose."""
    steps = {type(t).__name__: t for t in compose.transforms}
    if "Resize" not in steps or "Normalize" not in steps or any("Random" in s for s in steps):
        raise CheckpointError(
            f"The transform {list(steps)} is not a plain Resize, CenterCrop, Normalize; "
            'give its numbers as a dict, e.g. {"image_size": 224, "mean": [...], "std": [...]}.'
        )
    target = steps["Resize"].size
    one_edge = isinstance(target, int) or len(target) == 1
    scale = pair(target if isinstance(target, int) or len(target) == 2 else target[0])
    return Pixels(
        size=pair(steps["CenterCrop"].size) if "CenterCrop" in steps else scale,
        resize="shortest" if one_edge else "squash",
        scale=scale,
        interpolation=str(steps["Resize"].interpolation.value).lower(),
        mean=tuple(float(m) for m in steps["Normalize"].mean),
        std=tuple(float(s) for s in steps["Normalize"].std),
        rounding="even",
    )
