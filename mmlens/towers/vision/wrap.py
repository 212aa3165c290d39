"""Making a HookedVision: around a module of transformers, open_clip or timm, or from its spec.

`wrap_vision` finds the library of a module and calls the right one of `from_hf`,
`from_open_clip`, `from_timm`; `build` is the inverse, from `HookedVision.spec()` and a folder
of weights. open_clip and timm are the optional extra `vision` and are imported only here, inside.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection
from typing import Any

from torch import nn

from mmlens.towers.vision.calls import without_pooler
from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.latents import HookedLatents
from mmlens.towers.vision.pixel_recipes import open_clip_recipe, timm_recipe
from mmlens.towers.vision.pixels import pair
from mmlens.towers.vision.processors import hf_recipe
from mmlens.values.errors import CapabilityError, CheckpointError
from mmlens.values.optional_packages import package

__all__ = ["HookedVision", "build", "from_hf", "from_open_clip", "from_timm", "wrap_vision"]


def from_hf(
    module: nn.Module, image_processor_or_config: Any = None, **options: Any
) -> HookedVision:
    """Around a transformers vision model: ViT, BEiT, DeiT, CLIP, SigLIP, DINOv2 and the like.

    Args:
        module: the model; of a larger one (CLIPModel, ...ForImageClassification) the vision part.
        image_processor_or_config: its image processor, that one's dict, mmlens's own dict, or None
            for what checkpoints of this type were trained with.
        options: `n_prefix`, `pooled`, `feature_layer` and `keep_prefix` of HookedVision.
    """
    if isinstance(getattr(module, "timm_model", None), nn.Module):  # TimmWrapper
        return _timm_inside(module, image_processor_or_config, options)
    if getattr(getattr(module, "config", None), "model_type", "") == "perceiver":
        side = pair(getattr(module.config, "image_size", 224))
        return HookedLatents(module, hf_recipe(image_processor_or_config, side, "perceiver"))
    inner = _eye_of(module)
    config: Any = getattr(inner, "config", None)
    size = pair(getattr(config, "image_size", None) or _from_patches(config) or 224)
    pixels = hf_recipe(image_processor_or_config, size, getattr(config, "model_type", ""))
    if inner is not module and _classifies(module):
        options.setdefault("whole", module)
    return HookedVision(inner, "hf", pixels, **options)


def _from_patches(config: Any) -> int:
    """The edge of a square picture where a configuration counts its patches (Siglip2); else 0."""
    counted, edge = (getattr(config, name, None) for name in ("num_patches", "patch_size"))
    return math.isqrt(counted) * edge if isinstance(counted, int) and isinstance(edge, int) else 0


def _classifies(module: nn.Module) -> bool:
    """Whether a transformers model is an encoder with the head of a classifier."""
    return "ForImageClassification" in type(module).__name__


def _eye_of(module: nn.Module) -> nn.Module:
    """The vision part of a larger transformers model; a vision model itself."""
    for _ in range(2):
        inner = getattr(module, "vision_model", None) or getattr(module, "vision_encoder", None)
        base = getattr(module, "base_model", None)  # DINOv3's is its encoder, which takes no pixels
        if not isinstance(inner, nn.Module) and "pixel_values" in _arguments(base):
            inner = base
        module = inner if isinstance(inner, nn.Module) else module
    return module


def _arguments(module: Any) -> Collection[str]:
    return inspect.signature(module.forward).parameters if module is not None else ()


def _timm_inside(module: Any, processor: Any, options: dict[str, Any]) -> HookedVision:
    """Around the timm model that a TimmWrapperModel of transformers holds."""
    config = getattr(processor, "data_config", processor)
    config = config if config is not None else getattr(module.config, "pretrained_cfg", None)
    name = getattr(module.config, "architecture", None)
    kwargs = dict(getattr(module.config, "model_args", None) or {})
    if _classifies(module):
        names = module.config.id2label
        options.setdefault("class_names", tuple(str(names[key]) for key in sorted(names)))
    return from_timm(module.timm_model, config, name=name, kwargs=kwargs, **options)


def from_open_clip(model: nn.Module, preprocess: Any = None, **options: Any) -> HookedVision:
    """Around an open_clip model or its `visual`: VisionTransformer, ModifiedResNet or a timm trunk.

    Args:
        model: e.g. the first item of `open_clip.create_model_and_transforms(name, pretrained)`.
        preprocess: its evaluation transform, a PreprocessCfg or dict, or None for the model's own.
    """
    visual: Any = getattr(model, "visual", model)
    cfg = preprocess if preprocess is not None else getattr(visual, "preprocess_cfg", None)
    if hasattr(visual, "trunk"):
        size = getattr(visual, "image_size", None) or 224
        options.setdefault("class_names", ())  # a trunk outputs an embedding
        return HookedVision(visual.trunk, "timm", open_clip_recipe(cfg, size), **options)
    if not hasattr(visual, "layer4") and not hasattr(visual, "_embeds"):
        raise CapabilityError(
            f"{type(visual).__name__} is not an image tower of open_clip that mmlens knows; it "
            "knows VisionTransformer, ModifiedResNet and towers that hold a timm `trunk`."
        )
    options.setdefault("arch", _open_clip_arch(visual))
    return HookedVision(visual, "open_clip", open_clip_recipe(cfg, visual.image_size), **options)


def from_timm(
    module: nn.Module,
    data_config: Any = None,
    *,
    name: str | None = None,
    kwargs: dict[str, Any] | None = None,
    **options: Any,
) -> HookedVision:
    """Around a timm model: ViT, BEiT, NF-ResNet and everything else with `forward_features`.

    Args:
        module: e.g. `timm.create_model(name, pretrained=True)`.
        data_config: `timm.data.resolve_model_data_config(module)`, a transform, or None for it.
        name, kwargs: what `create_model` was called with, if it was more than the bare name;
            needed only to save the model.
    """
    cfg = dict(getattr(module, "pretrained_cfg", None) or {})
    arch = {"name": name or cfg.get("architecture"), "kwargs": dict(kwargs or {})}
    if hasattr(module, "num_classes"):
        arch["kwargs"].setdefault("num_classes", module.num_classes)
    if data_config is None:
        size = getattr(getattr(module, "patch_embed", None), "img_size", None)
        data_config = cfg | ({"input_size": (3, *size)} if size else {})
        data_config.setdefault("interpolation", "bicubic")
    options.setdefault("arch", arch if arch["name"] else None)
    return HookedVision(module, "timm", timm_recipe(data_config), **options)


def wrap_vision(obj: Any, preprocess: Any = None, **options: Any) -> HookedVision:
    """A HookedVision around any module of the three libraries; a HookedVision is returned as it is.

    Also takes what `open_clip.create_model_and_transforms` returns.
    """
    if isinstance(obj, HookedVision):
        return obj
    if isinstance(obj, tuple) and obj and isinstance(obj[0], nn.Module):
        obj, preprocess = obj[0], preprocess or obj[-1]
    origins = {base.__module__.split(".")[0] for base in type(obj).__mro__}
    makers = {"transformers": from_hf, "open_clip": from_open_clip, "timm": from_timm}
    for origin, make in makers.items():
        if origin in origins:
            return make(obj, preprocess, **options)
    raise CapabilityError(
        f"mmlens can't tell what kind of vision encoder a {type(obj).__name__} is; pass a module "
        "of transformers, open_clip or timm, or call from_hf, from_open_clip or from_timm yourself."
    )


def build(spec: dict[str, Any], config: dict[str, Any] | None = None) -> nn.Module:
    """The bare module of a spec, with random weights.

    Args:
        spec: `HookedVision.spec()`.
        config: for kind "hf" the dict of its config.json.
    """
    kind, name = spec["kind"], spec.get("class", "")
    if kind == "hf":
        import transformers

        cls: Any = getattr(transformers, name, None)
        if not isinstance(cls, type) or not issubclass(cls, transformers.PreTrainedModel):
            raise CheckpointError(f"The vision class {name!r} is not a model of transformers.")
        config_class: Any = cls.config_class
        return cls(config_class.from_dict(config or {}), **without_pooler(cls))
    arch = spec.get("arch")
    if not arch:
        raise CheckpointError(
            f"Nothing says how to build this {name} again; wrap it with "
            'from_timm(module, name=..., kwargs=...) or arch={"name": ..., "kwargs": {...}}.'
        )
    if kind == "timm":
        timm = package("timm", "vision")
        return timm.create_model(arch["name"], pretrained=False, **arch["kwargs"])
    open_clip = package("open_clip", "vision")
    if name == "ModifiedResNet":
        return open_clip.modified_resnet.ModifiedResNet(**arch["kwargs"])
    quick = {"act_layer": open_clip.transformer.QuickGELU} if arch.get("quick_gelu") else {}
    return open_clip.transformer.VisionTransformer(**arch["kwargs"], **quick)


def _open_clip_arch(visual: Any) -> dict[str, Any]:
    """The constructor arguments of an open_clip image tower, read from the built module."""
    if hasattr(visual, "layer4"):
        stages = (visual.layer1, visual.layer2, visual.layer3, visual.layer4)
        kwargs = {"layers": [len(stage) for stage in stages], "output_dim": visual.output_dim}
        width, heads = visual.conv3.out_channels, getattr(visual.attnpool, "num_heads", 1)
        kwargs |= {"heads": heads, "image_size": visual.image_size, "width": width}
        return {"kwargs": kwargs}
    block = visual.transformer.resblocks[0]
    gamma = getattr(block.ls_1, "gamma", None)
    kwargs = {
        "image_size": list(visual.image_size),
        "patch_size": list(visual.patch_size),
        "width": visual.transformer.width,
        "layers": len(visual.transformer.resblocks),
        "heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.c_fc.out_features / visual.transformer.width,
        "ls_init_value": None if gamma is None else 1e-5,
        "no_ln_pre": isinstance(visual.ln_pre, nn.Identity),
        "pool_type": visual.pool_type,
        "final_ln_after_pool": visual.final_ln_after_pool,
        "output_dim": visual.output_dim,
    }
    quick = type(getattr(block.mlp, "gelu", None)).__name__ == "QuickGELU"
    return {"kwargs": kwargs} | ({"quick_gelu": True} if quick else {})
