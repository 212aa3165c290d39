"""What of a dual encoder comes after its image encoder: pictures to the space shared with texts.

Pooling and the projection belong to the library's own forward pass, which is run here as it is;
the hook points of the encoder fire in it, and `hook_embedding` at its end. Before the pooling the
patches pass through `hook_features`, as in a classifier (`vision.class_head`). In an encoder that
pools a CLS token, everything the last layers write to the embedding is at that position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.towers.text.hooked_text import EMBEDDING
from mmlens.towers.vision.class_head import FeaturesTap
from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.painting import ramp
from mmlens.towers.vision.tap_hooks import looking
from mmlens.values.errors import CapabilityError

FEATURES = "hook_features"
Encode = Callable[[Any, Tensor], Tensor]
"""(whole, pixels) -> Float[picture, d_embed]: how the library runs the image half."""


class JointHead:
    """The image half of a dual encoder, run through the hook points of its encoder.

    Args:
        vision: the encoder, wrapped with the module that holds it as `whole`; its `hook_dict` keeps
            the points that fire on the way to the embedding.
        encode: how that module is run.

    Raises:
        CapabilityError: it can't be run on pixels alone, or differs when hooks are set.
    """

    def __init__(self, vision: HookedVision, encode: Encode) -> None:
        from transformer_lens.hook_points import HookPoint

        self.vision, self.encode = vision, encode
        point = HookPoint()
        point.name = EMBEDDING
        vision.hook_dict[EMBEDDING] = point
        vision.axes[EMBEDDING] = ("dim",)
        with torch.no_grad():
            self.tap = self._tapped()
            self._measure()

    def __call__(self, pixels: Float[Tensor, "picture 3 h w"]) -> Float[Tensor, "picture d_embed"]:
        """Embeddings of pictures, not yet of unit length."""
        vision = self.vision
        pixels = vision.hook_dict["hook_pixels"](pixels).to(vision.device, vision.dtype)
        self._switch(True)
        try:
            return vision.hook_dict[EMBEDDING](self.encode(vision.whole, pixels))
        finally:
            self._switch(False)

    def _switch(self, on: bool) -> None:
        if self.tap is not None:
            self.tap.on = on

    def _tapped(self) -> FeaturesTap | None:
        """A tap after the last module whose output is the encoder's features."""
        made: list[tuple[Any, Tensor]] = []

        def note(part: Any, args: Any, output: Any) -> None:
            first = output
            if isinstance(output, (dict, tuple)) and output:
                first = output[next(iter(output))] if isinstance(output, dict) else output[0]
            made.append((part, first))

        vision = self.vision
        parts = [part for part in vision.module.modules() if part is not vision.module]
        handles = [part.register_forward_hook(note) for part in parts]
        try:
            features = vision._values(ramp(vision))
        finally:
            for handle in handles:
                handle.remove()
        makers = [part for part, value in made if value is features]
        if not makers:
            return None
        tap = FeaturesTap(vision.hook_dict[FEATURES], vision.n_prefix, vision.channels_last)
        makers[-1].register_forward_hook(tap)
        return tap

    def _measure(self) -> None:
        vision, name = self.vision, type(self.vision.whole).__name__
        seen: dict[str, None] = {}

        def look(tensor: Tensor, hook: Any) -> None:
            seen.setdefault(hook.name)

        picture = ramp(vision)
        try:
            plain = self.encode(vision.whole, picture)
            with looking(vision.hook_dict.values(), look):
                ours = self(torch.cat((picture, 1.0 - picture)))
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CapabilityError(f"The image half of {name} can't be run ({why}).") from error
        near = 1e-4 if vision.dtype in (torch.float32, torch.float64) else 5e-2
        if plain.dim() != 2 or not (ours[:1] - plain).abs().max() <= near * plain.abs().max():
            raise CapabilityError(
                f"{name} gives another embedding of a picture when hooks are set, so nothing"
                " measured in it would hold."
            )
        self.d_embed = plain.shape[-1]
        vision.hook_dict = {n: p for n, p in vision.hook_dict.items() if n in seen}

    def __reduce__(self) -> Any:
        """For pickles and copies: the points are placed anew, in the copied encoder."""
        return JointHead, (self.vision, self.encode)
