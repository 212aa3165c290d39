"""How alike a picture that is being made is to a text, as a number that can be explained.

    like = picture_similarity(mm.load("pictos-clip"), "a photo of a dog")
    attribute(diffusion_model, prompt, of="picture", target=like, ...)

The picture is brought to the size that the encoder reads by bilinear sampling, which has a gradient
(`fourier_pictures.as_seen`); libraries resize by other filters, so the number is near to that of
`zero_shot` for the finished picture, and not the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmlens.methods.embed import embed
from mmlens.methods.fourier_pictures import as_seen
from mmlens.model.capabilities import needs
from mmlens.values.arguments import text as checked_text
from mmlens.values.errors import TargetError

if TYPE_CHECKING:
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder


@needs("similarity")
def picture_similarity(model: HookedDualEncoder, text: str) -> Callable[[Tensor], Tensor]:
    """The cosine of a text with a picture: a function of Float[3, h, w] between 0 and 1.

    Args:
        text: such as "a photo of a dog".
    """
    along = embed(model, [checked_text(text, "text", empty=False)])[0]

    def like(picture: Tensor) -> Tensor:
        """The cosine of the text with this picture."""
        if picture.ndim != 3 or len(picture) != 3:
            raise TargetError(
                f"A tensor of shape {tuple(picture.shape)} is no picture [3, h, w]: write"
                " of='picture'."
            )
        still = torch.zeros(1, 4)
        seen = as_seen(picture[None].to(along), model.vision.pixels, still)
        return model.run(seen, grad=True)[0] @ along

    return like
