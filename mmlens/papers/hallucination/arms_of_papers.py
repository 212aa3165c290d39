"""The ways of decoding that papers recommend against hallucination, with their papers' numbers.

    VCD                     a contrast with the picture in noise      Leng et al. 2023
    PAI, attention alone    attention to the picture amplified        Liu et al. 2024
    PAI                     and a contrast with the words alone
    over-trust penalty      after OPERA, without its beams            Huang et al. 2024
    VTI                     shifts of encoder and words               Liu, Ye and Zou 2024

The directions of VTI are made of pictures of the bundled world's split "train": towards pictures of
which little is covered, and towards true captions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmlens.causal.corrupters import covered
from mmlens.methods.amplified_attention import amplify
from mmlens.methods.shift_steering import shift_directions, steer_along
from mmlens.pictos.scene_captions import canonical
from mmlens.pictos.world import World
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.values.edit import Edit

VCD, AMPLIFIED, PAI, TRUST, VTI = (
    "VCD", "PAI, attention alone", "PAI", "over-trust penalty", "VTI",
)  # fmt: skip
PAIRS, MASKS = 24, 4
"""Pictures of VTI's directions, and how often each is covered."""


def known_arms(model: HookedVLM) -> dict[str, Any]:
    """The arms of `hallucination(..., edited=)`, by their names."""
    return {
        VCD: "noise",
        AMPLIFIED: amplify(alpha=0.5),
        PAI: [amplify(alpha=0.5), "words"],
        TRUST: "trust",
        VTI: shifted(model),
    }


def shifted(model: HookedVLM) -> list[Edit]:
    """VTI: the encoder towards pictures of which little is covered, words towards true captions."""
    world = World("train", seed=1)
    scenes = [world.scene(i) for i in range(PAIRS)]
    photos = [Prompt(scene.image) for scene in scenes]
    masks = [covered(model, 0.99, seed) for seed in range(MASKS)]
    hidden = [[Prompt(mask(scene.image)) for mask in masks] for scene in scenes]
    seen = shift_directions(model, hidden, photos, "vision.resid_post", each=True)
    names = [thing.name for scene in scenes for thing in scene.objects]
    told = [Prompt(scene.image, f"A picture of{scene.caption}") for scene in scenes]
    false = [
        Prompt(scene.image, "A picture of" + canonical([_other(scene, names, i)], scene.style))
        for i, scene in enumerate(scenes)
    ]
    said = shift_directions(model, told, false)
    return [
        *steer_along("vision.resid_post", seen, scale=0.05),
        *steer_along("resid_post", said, scale=0.05),
    ]


def _other(scene: Any, names: list[str], i: int) -> str:
    """A thing that this scene does not have."""
    here = {thing.name for thing in scene.objects}
    return next(name for name in names[i:] + names if name not in here)
