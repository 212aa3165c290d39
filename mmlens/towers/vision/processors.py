"""Reading an image processor of transformers into one `Pixels`, and verifying the result.

transformers has about 160 classes of image processors. Most resize, crop, rescale and normalise, by
keys of the same names; some do more by further keys, and some interpret the same keys differently.
So a key that mmlens does not understand, and that could matter, is refused by name; and where the
processor's class can be loaded, its pixels of two pictures of noise are compared with the recipe's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from mmlens.towers.vision.pixels import FILTER_NAMES, HALF, Pixels, pair
from mmlens.values.errors import CheckpointError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
_UNDERSTOOD = {
    *_STEPS,
    *("size", "resample", "crop_size", "crop_pct", "rescale_factor", "rescale_offset"),
    *("image_mean", "image_std", "include_top", "do_flip_channel_order"),
}
_HARMLESS = {  # about labels, files and containers; every picture is made RGB anyway
    *("image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "backend"),
    *("do_convert_rgb", "do_reduce_labels", "reduce_labels", "do_convert_annotations", "format"),
    *("num_labels", "ignore_index", "return_tensors", "data_format", "input_data_format"),
    *("device", "disable_grouping", "model_input_names", "image_seq_length", "image_seq_len"),
    *("input_size_patches", "total_mask_patches", "default_to_square"),
    *("_valid_processor_keys", "_auto_class"),
}
_HARMLESS_STARTS = ("codebook_", "mask_group_")  # FLAVA's second picture, made on request only
_THEIRS = {"image_processor_type", "feature_extractor_type", "image_mean", *_STEPS}
_ONLY_WITH = {  # keys that say how another one, when it is set, is done
    "do_pad": ("pad_size", "size_divisor", "padding_value", "padding_mode"),
    "crop_to_patches": ("min_patches", "max_patches"),
    "keep_aspect_ratio": ("ensure_multiple_of",),
}
_NUMBERS = 'give the numbers as a dict, e.g. {"image_size": 224, "mean": [...], "std": [...]}.'


def hf_recipe(source: Any, image_size: tuple[int, int], model_type: str = "") -> Pixels:
    """From a transformers image processor or its dict, or None: the default of the model type.

    Raises:
        CheckpointError: it has a setting that `Pixels` does not support.
    """
    if source is None:
        return _from_keys(_habit(model_type, image_size), image_size)
    if not isinstance(source, Mapping) and not callable(source):
        raise CheckpointError(
            f"A {type(source).__name__} is no image processor of transformers: {_NUMBERS}"
        )
    if isinstance(source, Mapping) and "image_size" in source and not _THEIRS & set(source):
        return Pixels.from_dict(source)
    processor: Any = _load(source, model_type) if isinstance(source, Mapping) else source
    keys: dict[str, Any] = dict(source) if isinstance(source, Mapping) else {}
    if processor is not None:
        keys = dict(processor.to_dict() if hasattr(processor, "to_dict") else vars(processor))
        keys |= {step: bool(getattr(processor, step, None)) for step in _STEPS}
    recipe = _from_keys(keys, image_size)
    if processor is not None:
        _compare(recipe, processor)
    return recipe


def _from_keys(source: Mapping[str, Any], image_size: tuple[int, int]) -> Pixels:
    """The recipe of these keys; refuses the first key that cannot be read."""
    _refuse_unknown(source)
    size, resize, scale = _edges(source, image_size)
    resample = source.get("resample", 2)
    name = FILTER_NAMES.get(int(resample)) if isinstance(resample, int) else None
    mean, std = (_three(source.get(key), HALF) for key in ("image_mean", "image_std"))
    twice = tuple(s * s for s in std) if source.get("do_normalize", True) else std
    if not source.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if source.get("include_top"):  # EfficientNet divides by the deviation once more
        std = twice
    if source.get("rescale_offset") and source.get("do_rescale", True):  # to -1 .. 1
        mean = tuple(m + 1.0 for m in mean)
    return Pixels(
        size=size,
        resize=resize,
        scale=scale,
        interpolation=name or str(getattr(resample, "value", resample)).lower(),
        mean=mean,
        std=std,
        rescale=source.get("rescale_factor", 1 / 255) if source.get("do_rescale", True) else 1.0,
        channels="BGR" if source.get("do_flip_channel_order") else "RGB",
    )


def _edges(
    source: Mapping[str, Any], image_size: tuple[int, int]
) -> tuple[tuple[int, int], Any, tuple[int, int] | None]:
    """(size, resize, scale) of `Pixels`."""
    crop, asked = bool(source.get("do_center_crop")), source.get("size") or image_size
    if crop and not source.get("crop_size"):
        raise CheckpointError(f"The image processor crops but names no crop_size: {_NUMBERS}")
    size = pair(source["crop_size"]) if crop else None
    if not source.get("do_resize", True):
        resize, scale = "none", size
    elif isinstance(asked, Mapping) and not asked.get("height"):
        edges = {key: value for key, value in asked.items() if value}
        if set(edges) not in ({"shortest_edge"}, {"longest_edge"}):
            raise CheckpointError(f"The image processor's size {dict(asked)!r} is new: {_NUMBERS}")
        ((edge, length),) = edges.items()
        resize, scale = edge.split("_")[0], pair(length)
        if source.get("crop_pct"):
            if resize == "shortest" and not crop and length >= 384:  # ConvNext's rule
                size, resize = scale, "squash"
            else:
                size, scale = size or scale, pair(int(length / source["crop_pct"]))
    else:
        resize, scale = "squash", pair(asked)
        size = size or scale
    if size is None:
        raise CheckpointError(
            "The image processor gives every picture a size of its own, and mmlens' encoders take"
            f" one size: {_NUMBERS}"
        )
    return size, resize, scale


def _refuse_unknown(source: Mapping[str, Any]) -> None:
    harmless = set(_HARMLESS)
    for switch, keys in _ONLY_WITH.items():
        if switch in source and not source[switch]:
            harmless |= set(keys)
    for key, value in source.items():
        if key in _UNDERSTOOD or key in harmless or str(key).startswith(_HARMLESS_STARTS):
            continue
        if value is not None and value is not False:
            raise CheckpointError(
                f"The image processor {_name(source)} sets {key}={value!r}, which mmlens does not"
                f" do, so its pixels would be wrong: {_NUMBERS}"
            )


def _three(values: Any, default: tuple[float, ...]) -> Any:
    """A mean or deviation per channel; one number stands for all three."""
    if isinstance(values, (int, float)) and not isinstance(values, bool):
        return (values,) * 3
    return tuple(values) if isinstance(values, list) else values if values else default


def _name(source: Mapping[str, Any]) -> str:
    return str(source.get("image_processor_type") or source.get("feature_extractor_type") or "")


def _load(source: Mapping[str, Any], model_type: str) -> Any:
    """The processor of a dict of settings; None where its class is not known.

    PIL's variant of a class needs no torchvision and gives exactly the pixels of `Pixels`.
    """
    import transformers

    name = _name(source).replace("FeatureExtractor", "ImageProcessor").removesuffix("Fast")
    name = name or _class_of(model_type)
    if not name:
        return None
    base = name.removesuffix("Pil")
    cls: Any = getattr(transformers, f"{base}Pil", None) or getattr(transformers, base, None)
    kind = transformers.image_processing_utils.BaseImageProcessor
    settings = {key: source[key] for key in source if key not in _HARMLESS}
    try:
        if not isinstance(cls, type) or not issubclass(cls, kind):
            raise ValueError("this transformers has no such class")
        return cls(**settings)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"The image processor {name} can't be made from its settings ({reason}): {_NUMBERS}"
        ) from error


def _class_of(model_type: str) -> str:
    """The name of the class of image processor that comes with a type of model, or ""."""
    from transformers.models.auto import image_processing_auto as auto

    table: Any = vars(auto)["IMAGE_PROCESSOR_MAPPING_NAMES"]
    found: Any = table.get(model_type) or table.get(model_type.replace("_vision_model", ""))
    names = list(found.values()) if isinstance(found, dict) else list(found or ())
    return next((str(n).removesuffix("Fast") for n in names if n), "")


def _compare(recipe: Pixels, processor: Any) -> None:
    """Refuse a recipe that does not give the pixels of its processor.

    Tensor resizing (torchvision) rounds between its two passes, so noise may differ from PIL's by
    two grey levels.
    """
    name, draw = type(processor).__name__, np.random.default_rng(0)
    for shape in ((45, 61, 3), (67, 38, 3)):
        noise = Image.fromarray(draw.integers(0, 256, shape).astype("uint8"))
        try:
            theirs = np.asarray(processor(images=noise, return_tensors="np")["pixel_values"])
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(
                f"The image processor {name} fails on a picture of noise ({reason}): {_NUMBERS}"
            ) from error
        ours = recipe(noise).numpy()
        if theirs.shape != (1, *ours.shape):
            raise CheckpointError(
                f"The image processor {name} makes an array of shape {theirs.shape} of a picture,"
                f" and mmlens {(1, *ours.shape)}: {_NUMBERS}"
            )
        grey = np.abs(theirs[0] - ours) * np.array(recipe.std)[:, None, None] / recipe.rescale
        if not (grey.max() < 3.0 and grey.mean() < 0.5):
            raise CheckpointError(
                f"The image processor {name} computes other pixels than mmlens by its"
                f" settings (off by {grey.max():.0f} grey levels): {_NUMBERS}"
            )


def _habit(model_type: str, image_size: tuple[int, int]) -> dict[str, Any]:
    """The image processor of the public checkpoints of a model type."""
    rows, cols = image_size
    crop: dict[str, Any] = {"do_center_crop": True, "crop_size": (rows, cols)}
    imagenet = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD, "resample": 3}
    if model_type.startswith("clip"):
        clip = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD, "resample": 3}
        return crop | clip | {"size": {"shortest_edge": rows}}
    if model_type.startswith("siglip"):
        return {"size": (rows, cols), "resample": 2 if "siglip2" in model_type else 3}
    if model_type == "deit":  # 256 -> 224
        return crop | imagenet | {"size": (rows * 8 // 7, cols * 8 // 7)}
    if model_type.startswith("dinov3"):
        return imagenet | {"size": (rows, cols), "resample": 2}
    if model_type.startswith("dinov2"):
        return crop | imagenet | {"size": {"shortest_edge": rows * 8 // 7}}
    return {"size": (rows, cols), "resample": 2}  # ViT, BEiT: bilinear, mean = std = 0.5
