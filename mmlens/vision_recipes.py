"""Reading other libraries' preprocessing settings into one `Pixels`.

transformers keeps them in an image processor (or its dict), open_clip in a `PreprocessCfg`, timm in
a data config, and both of the latter also as a torchvision Compose. Each function takes any of
these, mmlens's own dict (it has the key "image_size"), or None for the habits of the library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmlens.errors import CheckpointError
from mmlens.vision_pixels import FILTER_NAMES, HALF, Pixels, pair

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def hf_recipe(source: Any, image_size: tuple[int, int], model_type: str = "") -> Pixels:
    """From a transformers image processor or its dict, or None: the habit of the model type."""
    if source is None:
        source = _habit(model_type, image_size)
    if not isinstance(source, Mapping):
        source = source.to_dict() if hasattr(source, "to_dict") else vars(source)
    if "image_size" in source:
        return Pixels.from_dict(source)
    target: Any = source.get("size") or image_size
    target = dict(target) if not isinstance(target, (int, tuple, list)) else target
    crop = bool(source.get("do_center_crop"))
    resize: Any = "squash" if source.get("do_resize", True) else "none"
    scale = image_size
    if isinstance(target, dict) and not target.get("height"):
        resize = "shortest" if target.get("shortest_edge") else "longest"
        scale = pair(target.get("shortest_edge") or target["longest_edge"])
    elif resize == "squash":
        scale = pair(target)
    resample = source.get("resample", 2)
    name = FILTER_NAMES.get(int(resample)) if isinstance(resample, int) else None
    normal = source.get("do_normalize", True)
    return Pixels(
        size=pair(source["crop_size"]) if crop else scale if resize == "squash" else image_size,
        resize=resize,
        scale=scale,
        interpolation=name or str(getattr(resample, "value", resample)).lower(),
        mean=tuple(source.get("image_mean") or HALF) if normal else (0.0, 0.0, 0.0),
        std=tuple(source.get("image_std") or HALF) if normal else (1.0, 1.0, 1.0),
        rescale=source.get("rescale_factor", 1 / 255) if source.get("do_rescale", True) else 1.0,
    )


def open_clip_recipe(cfg: Any, image_size: Any = 224) -> Pixels:
    """From an open_clip `PreprocessCfg`, its dict, a Compose, or None (CLIP's own numbers)."""
    if hasattr(cfg, "transforms"):
        return compose_recipe(cfg)
    cfg = dict(cfg) if isinstance(cfg, Mapping) else vars(cfg) if cfg is not None else {}
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
    cfg = cfg or {}
    if "image_size" in cfg:
        return Pixels.from_dict(cfg)
    rows, cols = pair(tuple(cfg.get("input_size") or (3, 224, 224))[1:])
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


def _habit(model_type: str, image_size: tuple[int, int]) -> dict[str, Any]:
    """The image processor that the public checkpoints of a model type come with."""
    rows, cols = image_size
    crop: dict[str, Any] = {"do_center_crop": True, "crop_size": (rows, cols)}
    imagenet = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "resample": 3}
    if model_type.startswith("clip"):
        clip = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD, "resample": 3}
        return crop | clip | {"size": {"shortest_edge": rows}}
    if model_type.startswith("siglip"):
        return {"size": (rows, cols), "resample": 3}
    if model_type == "deit":  # 256 -> 224
        return crop | imagenet | {"size": (rows * 8 // 7, cols * 8 // 7)}
    if model_type.startswith("dinov2"):
        return crop | imagenet | {"size": {"shortest_edge": rows * 8 // 7}}
    return {"size": (rows, cols), "resample": 2}  # ViT, BEiT: bilinear, mean = std = 0.5
