"""Embeddings of pictures and texts in the space that they share.

    embed(model, [photo, drawing])                 # Float[2, d_embed], unit vectors
    embed(model, ["a photo of a dog", photo])      # both kinds, in the order given

The cosine of two of them is their product: `embed(model, photos) @ embed(model, texts).T`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model.capabilities import needs
from mmlens.model.dual_reading import prompts_in
from mmlens.model.targets import finite
from mmlens.values.arguments import count
from mmlens.values.errors import PromptError

if TYPE_CHECKING:
    from mmlens.model.hooked_dual_encoder import HookedDualEncoder


@needs("similarity")
def embed(model: HookedDualEncoder, inputs: Any, *, batch: int = 32) -> Float[Tensor, "n d_embed"]:
    """Unit embeddings of pictures and texts, one row each, in the order given.

    Args:
        inputs: a picture or a text, or a list of them; pixels or token ids as a tensor.
        batch: how many are run at once.

    Raises:
        PromptError: an input holds a picture and a text, which have an embedding each.
        NumericsError: NaN or infinity in an embedding.
    """
    batch = count(batch, "batch")
    with torch.no_grad():
        if isinstance(inputs, Tensor):
            parts = inputs.split(batch)
            return finite(torch.cat([model.run(part) for part in parts]), "the embeddings")
        prompts = prompts_in(inputs)
        if not prompts:
            raise PromptError("There is nothing to embed: give at least one picture or text.")
        kinds = [_is_picture(prompt) for prompt in prompts]
        out = torch.empty(len(prompts), model.d_embed, device=model.vision.device)
        for pictured in set(kinds):
            at = [i for i, kind in enumerate(kinds) if kind == pictured]
            for some in _batches(at, batch):
                rows = model.run([prompts[i] for i in some])
                out = out.to(rows.dtype)
                out[some] = rows
    return finite(out, "the embeddings")


def _is_picture(prompt: Any) -> bool:
    if (prompt.text and prompt.pictures) or len(prompt.pictures) > 1:
        raise PromptError(
            f"{prompt!r} has more than one embedding: give its pictures and its text one by one, in"
            " a list."
        )
    return bool(prompt.pictures)


def _batches(at: Sequence[int], size: int) -> list[list[int]]:
    return [list(at[i : i + size]) for i in range(0, len(at), size)]
