"""The encoder of a model that reads codes of a picture, up to what its codes are chosen by.

Emu3 and Chameleon look up the nearest entry of a codebook at each place of a map. The map is the
features; which entries are the nearest belongs to the projection (`mmlens.families.codes`).
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn


class CodeEye(nn.Module):
    """Pixels to the map that codes are chosen by.

    Args:
        vq: the class's own autoencoder, whose decoder and codebook are not used.
        step: the edge of the square of pixels that is one place of the map.
    """

    def __init__(self, vq: Any, step: int) -> None:
        super().__init__()
        self.encoder, self.quant_conv = vq.encoder, vq.quant_conv
        self.config, self.step = vq.config, step
        self.frames = getattr(vq.config, "temporal_downsample_factor", None)

    def forward(self, pixel_values: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d row col"]:
        """The map of each picture; a model of films is shown the picture in every frame."""
        if self.frames is None:
            return self.quant_conv(self.encoder(pixel_values))
        film = pixel_values[:, None].repeat(1, self.frames, 1, 1, 1)
        return self.quant_conv(self.encoder(film).transpose(1, 2))[:, :, 0]
