"""The classifier around an encoder: its class names, and the features that its head reads.

A classifier of transformers holds the encoder and reads its output; a timm model is both. Before
the head the patches pass through `hook_features`, as they do without one: after the module that
computes the features they are routed through the point and written back.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmlens.runtime.sharing import share_weights
from mmlens.towers.attention import warm
from mmlens.towers.vision import calls
from mmlens.towers.vision.painting import ramp
from mmlens.towers.vision.tap_hooks import OutTap, looking
from mmlens.towers.vision.taps import untap
from mmlens.values.errors import ArgumentError

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from mmlens.towers.vision.encoder import HookedVision


class FeaturesTap(OutTap):
    """Forward hook: the patches among a module's output go through `hook_features` while `on`."""

    def __init__(self, point: HookPoint, n_prefix: int, channels_last: bool) -> None:
        super().__init__(point)
        self.n_prefix, self.channels_last, self.on = n_prefix, channels_last, False

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        value = _first(output)
        if not self.on or value is None or not warm(self.point):
            return None
        value = self.through(value)
        if isinstance(output, dict):
            output[next(iter(output))] = value
            return output
        return (value, *output[1:]) if isinstance(output, tuple) else value

    def through(self, values: Tensor) -> Tensor:
        """The encoder's values, with their patches passed through the hooks."""
        if not warm(self.point):
            return values
        tokens = calls.flat(values, self.channels_last)
        patches = self.point(tokens[:, self.n_prefix :])
        tokens = torch.cat((tokens[:, : self.n_prefix], patches), dim=1)
        return calls.unflat(tokens, values.shape, self.channels_last)


@dataclass(frozen=True)
class ClassifierHead:
    """What was measured of a classifier.

    Attributes:
        names: one per class; empty where there are no class logits.
        points: the hook points that fire on the way to the logits.
        tap: routes the features; None where they cannot be edited.
        reason: why there are no class logits, as the beginning of an error sentence.
    """

    names: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    tap: FeaturesTap | None = None
    reason: str = ""


def find_head(vision: HookedVision, told: tuple[str, ...] | None) -> ClassifierHead:
    """Measures the classifier of an encoder that has been measured.

    Args:
        told: the names of the classes; None for those of the configuration, () for no classes.
    """
    module, own = vision.classifier, type(vision.module).__name__
    if module is None or told == () or not _count(module):
        return ClassifierHead(reason=f"{own} was wrapped without the head of a classifier")
    if vision.feature_layer != calls.LAST:
        return ClassifierHead(
            reason=f"{own} ends at its feature layer {vision.feature_layer!r} here"
        )
    name = type(module).__name__
    try:
        tap = None if vision.pooled else _tap(vision, module)
        plain = calls.logits(module, vision.kind, ramp(vision))
        ours, points = _with_every_hook(vision, module, tap)
    except Exception as error:  # a head may need more than the features
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        return ClassifierHead(reason=f"The head of {name} can't be run ({why})")
    near = 1e-3 if vision.dtype in (torch.float32, torch.float64) else 5e-2
    alike = plain.shape == ours.shape and plain.dim() == 2
    if not alike or not (ours - plain).abs().max() <= near * (1 + plain.abs().max()):
        return ClassifierHead(reason=f"{name} gives no class logits from its features")
    n = plain.shape[1]
    names = told or names_of(module)
    names = names if len(names) == n else tuple(str(number) for number in range(n))
    return ClassifierHead(names, points, tap)


def untapped(module: nn.Module) -> nn.Module:
    """A copy without taps that shares the weights."""
    return untap(share_weights(module))


def shared(whole: nn.Module | None, module: nn.Module) -> tuple[nn.Module | None, str]:
    """A copy of a classifier without taps that shares its weights, and the encoder's path in it.

    Raises:
        ArgumentError: the classifier does not hold the encoder.
    """
    if whole is None:
        return None, ""
    for path, part in whole.named_modules():
        if part is module:
            return untapped(whole), path
    raise ArgumentError(
        f"whole= is a {type(whole).__name__} that does not hold this {type(module).__name__}: write"
        " wrap_vision(classifier), which finds the encoder in it."
    )


def without_child(module: nn.Module, name: str) -> nn.Module:
    """A shallow copy of a module without one of its children."""
    bare = copy.copy(module)
    bare._modules = {**module._modules, name: None}
    return bare


def _count(module: Any) -> int:
    """The number of classes in a classifier's configuration."""
    said = getattr(module, "num_classes", None)  # timm
    said = getattr(getattr(module, "config", None), "num_labels", 0) if said is None else said
    return said if isinstance(said, int) else 0


def names_of(module: Any) -> tuple[str, ...]:
    """The names of the classes where the configuration or timm knows them."""
    known = getattr(getattr(module, "config", None), "id2label", None)
    if isinstance(known, Mapping):
        return tuple(str(known[key]) for key in sorted(known))
    cfg = dict(getattr(module, "pretrained_cfg", None) or {})
    if names := cfg.get("label_names"):
        described = cfg.get("label_descriptions") or {}
        return tuple(str(described.get(name, name)) for name in names)
    if cfg.get("num_classes") != module.num_classes:  # a head of the caller's own
        return ()
    from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(module)
    return tuple(ImageNetInfo(subset).label_descriptions()) if subset else ()


def _tap(vision: HookedVision, module: nn.Module) -> FeaturesTap | None:
    """The tap of the features; for transformers after the last module that outputs them."""
    tap = FeaturesTap(vision.hook_dict["hook_features"], vision.n_prefix, vision.channels_last)
    if vision.kind != "hf":
        return tap
    made: list[tuple[nn.Module, Any]] = []

    def note(part: nn.Module, args: Any, output: Any) -> None:
        made.append((part, output))

    encoder = vision.inside
    handles = [part.register_forward_hook(note) for part in encoder.modules()]
    try:
        calls.logits(module, vision.kind, ramp(vision))
    finally:
        for handle in handles:
            handle.remove()
    features = next(_first(output) for part, output in made if part is encoder)
    makers = [part for part, output in made if part is not encoder and _first(output) is features]
    if not makers:
        return None
    makers[-1].register_forward_hook(tap)
    return tap


def _with_every_hook(
    vision: HookedVision, module: nn.Module, tap: FeaturesTap | None
) -> tuple[Tensor, tuple[str, ...]]:
    """The logits while every hook point is read, and the points that fired."""
    seen: dict[str, None] = {}

    def look(tensor: Tensor, hook: Any) -> None:
        seen.setdefault(hook.name)

    with looking(vision.hook_dict.values(), look):
        out = run(vision, module, tap, ramp(vision))
    return out, tuple(name for name in vision.hook_dict if name in seen)


def run(vision: HookedVision, module: Any, tap: FeaturesTap | None, pixels: Tensor) -> Tensor:
    """Pixels to class logits, with the hooks of both and of everything between."""
    pixels = vision.hook_dict["hook_pixels"](pixels).to(vision.device, vision.dtype)
    if tap is None:
        return calls.logits(module, vision.kind, pixels)
    tap.on = True
    try:
        return calls.logits(module, vision.kind, pixels, tap.through)
    finally:
        tap.on = False


def _first(output: Any) -> Tensor | None:
    """A module's output, or the first item of it."""
    if isinstance(output, (dict, tuple)) and output:
        output = output[next(iter(output))] if isinstance(output, dict) else output[0]
    return output if isinstance(output, Tensor) else None
