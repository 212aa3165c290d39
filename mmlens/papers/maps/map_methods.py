"""The methods that are compared, each as a map of one word in one picture, and their families.

Sizes follow the grid of patches, so that they are the papers' on a grid like theirs: the noise of
VisEdit reaches an eighth of the side (3 of 24), the cells of RISE are a sixth of it (theirs a
seventh). The late layer is two thirds up, the early one, its control, an eighth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mmlens.methods.attribute_picture import attribute_picture
from mmlens.methods.chefer import chefer
from mmlens.methods.grad_cam import grad_cam
from mmlens.methods.grad_eclip import grad_eclip
from mmlens.methods.lrp import lrp
from mmlens.methods.noise_map import noise_map
from mmlens.methods.occlusion import occlusion
from mmlens.methods.project_away import lens_map
from mmlens.methods.rise import rise
from mmlens.methods.rollout import rollout
from mmlens.methods.token_activation_map import tam
from mmlens.papers.tables import ExperimentError
from mmlens.values.arguments import choice, several
from mmlens.values.labels import Label
from mmlens.values.prompt import SoftPrompt
from mmlens.values.scores import Scores

CHANCE = "random numbers"
ROLLOUT, CHEFER = "rollout", "chefer"
ROLLOUT_PIXELS, CHEFER_PIXELS = "rollout (through the encoder)", "chefer (through the encoder)"
GRAD_CAM, GRAD_CAM_EACH, GRAD_ECLIP = "grad_cam", "grad_cam (weights='each')", "grad_eclip"
GRADIENT, INTEGRATED = "attribute_picture (gradient)", "attribute_picture (integrated)"
ATTN_LRP, CP_LRP = "lrp (AttnLRP)", "lrp (CP-LRP)"
TAM, LENS, ABSENT = "tam", "lens_map", "lens_map (an absent word)"
LATE, EARLY = "noise_map (late layer)", "noise_map (early layer)"
OCCLUSION, RISE = "occlusion", "rise"
NOISES, MASKS = 2, 100
"""Draws of noise, and masks of RISE."""


@dataclass(frozen=True, eq=False)
class Mapped:
    """What is mapped: a word, at the place where the model says it.

    Attributes:
        soft, token: the prompt up to the word, and the word's id.
        patches: of the picture, as it is covered.
        batch: rows or pictures side by side.
    """

    model: Any
    soft: SoftPrompt
    token: int
    patches: tuple[Label, ...]
    batch: int

    @property
    def side(self) -> int:
        """The shorter side of the grid of patches."""
        return min(1 + max(getattr(one, way) for one in self.patches) for way in ("row", "col"))

    @property
    def asked(self) -> tuple[Any, SoftPrompt, int]:
        return self.model, self.soft, self.token

    def random(self, generator: torch.Generator) -> Scores:
        """A random number for each patch."""
        values = torch.rand(len(self.patches), generator=generator)
        return Scores(values, ("pos",), {"pos": self.patches}, {"method": CHANCE})


def _noise(one: Mapped, layer: int) -> Scores:
    radius = max(1, round(one.side / 8))
    return noise_map(one.model, one.soft, layer=layer, radius=radius, draws=NOISES, batch=one.batch)


def _rise(one: Mapped) -> Scores:
    side = max(1, round(one.side / 6))
    return rise(*one.asked, after="", at="pixels", side=side, masks=MASKS, batch=one.batch,
                progress=False)  # fmt: skip


def _integrated(one: Mapped) -> Scores:
    """Integrated gradients: what their sum misses does not matter to an order."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The attributions at", UserWarning)
        return attribute_picture(*one.asked, after="", batch=one.batch)


METHODS: dict[str, Callable[[Mapped], Scores]] = {
    ROLLOUT: lambda one: rollout(one.model, one.soft),
    ROLLOUT_PIXELS: lambda one: rollout(one.model, one.soft, at="pixels"),
    CHEFER: lambda one: chefer(*one.asked, after=""),
    CHEFER_PIXELS: lambda one: chefer(*one.asked, after="", at="pixels"),
    GRAD_CAM: lambda one: grad_cam(*one.asked, after=""),
    GRAD_CAM_EACH: lambda one: grad_cam(*one.asked, after="", weights="each"),
    GRAD_ECLIP: lambda one: grad_eclip(*one.asked, after=""),
    GRADIENT: lambda one: attribute_picture(
        *one.asked, after="", attribution="gradient", batch=one.batch
    ),
    INTEGRATED: _integrated,
    ATTN_LRP: lambda one: lrp(*one.asked, after=""),
    CP_LRP: lambda one: lrp(*one.asked, after="", rule="cp"),
    TAM: lambda one: tam(*one.asked, after=""),
    LENS: lambda one: lens_map(*one.asked),
    LATE: lambda one: _noise(one, one.model.cfg.n_layers * 2 // 3),
    EARLY: lambda one: _noise(one, one.model.cfg.n_layers // 8),
    OCCLUSION: lambda one: occlusion(
        *one.asked, after="", at="pixels", batch=one.batch, progress=False
    ),
    RISE: _rise,
}  # fmt: skip
"""By name, which begins with the function's."""
FAMILIES: dict[str, tuple[str, ...]] = {
    "attention": (ROLLOUT, ROLLOUT_PIXELS, CHEFER, CHEFER_PIXELS),
    "gradients": (GRAD_CAM, GRAD_CAM_EACH, GRAD_ECLIP, GRADIENT, INTEGRATED),
    "propagation": (ATTN_LRP, CP_LRP),
    "lenses": (TAM, LENS),
    "noise": (LATE,),
    "covering": (OCCLUSION, RISE),
}
"""Methods by what they take for a reason. The early layer's noise map is a control."""


def function_of(name: str) -> str:
    """The function that makes a map, by the map's name."""
    return name.split(" ")[0]


FUNCTIONS = tuple(dict.fromkeys(map(function_of, METHODS)))


def chosen(methods: Sequence[str] | None) -> list[str]:
    """The names of the maps of some functions, in their order; of all where it is None.

    Raises:
        ExperimentError: there is no such function.
    """
    if methods is None:
        return list(METHODS)
    asked = [
        choice(one, "methods", FUNCTIONS, error=ExperimentError)
        for one in several(methods, "methods", error=ExperimentError)
    ]
    return [name for name in METHODS if function_of(name) in asked]
