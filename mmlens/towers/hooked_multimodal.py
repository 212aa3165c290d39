"""A frozen encoder that reads a picture and a text together, as the tower "multimodal".

What the image encoder and the text encoder hold after their last blocks is projected, a token of
its own is put in front, and blocks like those of a ViT follow, in which every position sees every
other (Singh et al. 2022, FLAVA, section 3.1):

    x = [CLS_M, W_image h_image + b, W_text h_text + b]

    tower.hook_dict["hook_embed"]                  x                        [pair, pos, d]
    tower.hook_dict["blocks.1.mlp.hook_post"]      and the points of `vision.taps`
    tower.hook_dict["ln_final.hook_normalized"]    what comes out           [pair, pos, d]

Its positions are the picture's and the text's own, `Marker("CLS_M", 0)` before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlens.runtime.casting import Movable
from mmlens.towers.attention import measuring, openings
from mmlens.towers.text.text_layouts import BEFORE_ADDING
from mmlens.towers.tower import Placed
from mmlens.towers.vision.class_head import untapped
from mmlens.towers.vision.point_axes import fits, of_positions
from mmlens.towers.vision.tap_hooks import OutTap, looking
from mmlens.towers.vision.taps import attach
from mmlens.values.errors import CapabilityError, reason
from mmlens.values.labels import MULTIMODAL, Label, Marker, Token
from mmlens.values.sites import Site

CLS, FINAL = "CLS_M", "ln_final.hook_normalized"
LAYOUT = replace(BEFORE_ADDING, embed=(("encoder", "in"),))
_PATCHES, _TOKENS = 5, 3
"""Positions of the sample on which the encoder is measured."""


class Fusion(nn.Module):
    """The parts of a FLAVA behind its two encoders, run as its class runs them.

    Args:
        image: from the image encoder's states, Linear(d_vision, d).
        text: from the text encoder's states, Linear(d_text, d).
        encoder: a FlavaMultimodalModel.
        head: what answers from its states; None for the states themselves.
    """

    def __init__(self, image: Any, text: Any, encoder: Any, head: nn.Module | None = None) -> None:
        super().__init__()
        self.image, self.text, self.encoder, self.head = image, text, encoder, head

    def forward(self, image: Tensor, text: Tensor, mask: Tensor | None = None) -> Tensor:
        """States after the last norm, Float[pair, pos, d]."""
        both = torch.cat((self.image(image), self.text(text)), dim=1)
        seen = None
        if mask is not None:  # as the class makes it: ones for CLS_M and the picture
            ones = mask.new_ones(len(mask), both.shape[1] + self.n_front - mask.shape[1])
            seen = torch.cat((ones, mask), dim=1).float()
        return self.encoder(both, attention_mask=seen, return_dict=True).last_hidden_state

    @property
    def n_front(self) -> int:
        """How many positions stand before the picture's."""
        return int(self.encoder.use_cls_token)


class HookedMultimodal(Placed, Movable):
    """The encoder over a picture and a text.

    Args:
        module: its parts; a storage-sharing, frozen copy of them in eval mode becomes `.module`.

    Attributes:
        axes: per hook point what its axes are, batch axis left out.
        d_model: dimensions of its states.

    Raises:
        CapabilityError: it can't be run, or differs when hooks are set.
    """

    name = MULTIMODAL

    def __init__(self, module: Fusion) -> None:
        from transformer_lens.hook_points import HookPoint

        super().__init__()
        self.module: Any = untapped(module)
        taps, self._blocks = attach(self.module.encoder, LAYOUT)
        end = HookPoint()
        end.name = FINAL
        self.module.encoder.layernorm.register_forward_hook(OutTap(end))
        self.hook_dict: dict[str, Any] = {**taps, FINAL: end}
        with torch.no_grad():
            self._measure()

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self._blocks)

    @property
    def shared(self) -> Any:
        """The encoder itself."""
        return self

    @property
    def points(self) -> Mapping[str, Any]:
        """The hook points that fire."""
        return {f"{MULTIMODAL}.{name}": point for name, point in self.hook_dict.items()}

    @property
    def every_point(self) -> Mapping[str, Any]:
        """The same: an encoder keeps no hook points that never fire."""
        return self.points

    @property
    def front(self) -> tuple[Label, ...]:
        """The labels of the positions before the picture's."""
        return tuple(Marker(CLS, at) for at in range(self.module.n_front))

    def forward(
        self,
        image: Float[Tensor, "picture patch d_vision"],
        text: Float[Tensor, "text pos d_text"],
        mask: Bool[Tensor, "text pos"] | None = None,
        n: int = 1,
    ) -> Float[Tensor, "pair place d_model"]:
        """States after the last norm; one picture or text stands for all pairs.

        Args:
            n: how often the pair is read, where there is one of both.
        """
        n = max(n, len(image), len(text))
        parts = (image, text, mask)
        image, text, mask = (_times(part, n) for part in parts)
        return self.module(image, text, mask)

    def site(self, site: Site, layer: int | None = None) -> Site:
        """The site with its measured axes."""
        name = site.at(layer).removeprefix(f"{MULTIMODAL}.")
        return site.holding(self.axes.get(name, site.axes))

    def labels(
        self, site: Site, layer: int | None, image: int = 0, crop: int = 0
    ) -> tuple[Label, ...]:
        """The positions of any pair by number; the model, which reads both, has their labels."""
        return tuple(Token(str(at), at) for at in range(self._n))

    # -- measured -----------------------------------------------------------------------------

    def _measure(self) -> None:
        name = type(self.module.encoder).__name__
        draw = torch.Generator().manual_seed(0)
        image, text = (
            torch.randn(1, n, part.in_features, generator=draw).to(self.device, self.dtype)
            for n, part in ((_PATCHES, self.module.image), (_TOKENS, self.module.text))
        )
        mask = torch.arange(_TOKENS, device=self.device)[None] < _TOKENS - 1  # one is padding
        seen: dict[str, tuple[int, ...]] = {}

        def look(tensor: Any, hook: Any) -> None:
            seen[hook.name] = tuple(tensor.shape)

        try:
            with measuring(openings(self.module)):
                plain = self.module(image, text, mask)
            with looking(self.hook_dict.values(), look):
                ours = self(image, text, mask, n=2)
        except (RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise CapabilityError(
                f"{name} can't be run on states of a picture and a text: {reason(error)}"
            ) from error
        near = 1e-4 if self.dtype in (torch.float32, torch.float64) else 5e-2
        if not (ours[:1] - plain).abs().max() <= near * (1 + plain.abs().max()):
            raise CapabilityError(f"{name} gives other states when hooks are set.")
        self._n, self.d_model = plain.shape[1:]
        self.hook_dict = {one: point for one, point in self.hook_dict.items() if one in seen}
        self.axes = {
            one: of_positions(one) for one in self.hook_dict if fits(one, seen[one], self._n)
        }

    def __reduce__(self) -> Any:
        """For pickles and copies: the parts without taps, which are tapped again."""
        return HookedMultimodal, (untapped(self.module),)


def _times(rows: Tensor | None, n: int) -> Any:
    """One row as `n` of them; several as they are."""
    return rows if rows is None or len(rows) == n else rows.expand(n, *rows.shape[1:])
