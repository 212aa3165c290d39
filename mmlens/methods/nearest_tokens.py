"""The tokens nearest to a soft prompt, by cosine similarity to the input embeddings.

MMN 3.1 and Table 2: projected patches are not nearer to words of the picture than random vectors
are; their meaning is computed inside the language model. Cosine ignores length, and soft prompts
are far longer than word embeddings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.over_lists import over_prompts
from mmlens.model.capabilities import needs
from mmlens.model.targets import finite, one
from mmlens.runtime.chunks import in_chunks
from mmlens.values.addresses import places
from mmlens.values.arguments import count

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM


@needs("unembed")
@over_prompts
def nearest_tokens(model: HookedVLM, prompt: Any, k: int = 5, *, pos: Any = None) -> pd.DataFrame:
    """The `k` words of highest cosine similarity at each position.

    Args:
        prompt: a Prompt, a SoftPrompt or vectors Float[1, pos, d_model]; of a list, a column
            `prompt` tells them apart.
        pos: some positions only, as in `Scores.sel` (Patch: the picture's).

    Returns:
        Columns pos, rank (from 0), token, cosine.
    """
    import pandas as pd

    k = count(k, "k")
    soft = one(model, prompt)
    labels = soft.labels[0]
    where = places(labels, pos, "pos")
    ids = torch.arange(model.lm.n_words, device=model.lm.device)
    with torch.no_grad():
        table = torch.nn.functional.normalize(model.lm.embed(ids[None])[0].float(), dim=-1)
        vectors = finite(soft.vectors[0, where].float(), "the vectors of the soft prompt")
        vectors = torch.nn.functional.normalize(vectors, dim=-1)

        def near(start: int, stop: int) -> list[tuple[list[float], list[int]]]:
            best = (vectors[start:stop] @ table.T).topk(min(k, len(table)))
            return list(zip(best.values.tolist(), best.indices.tolist(), strict=True))

        found_rows = [row for block in in_chunks(len(where), 1024, near) for row in block]
    rows = [
        (labels[place], rank, model.to_string([token]), value)
        for place, (values, tokens) in zip(where, found_rows, strict=True)
        for rank, (value, token) in enumerate(zip(values, tokens, strict=True))
    ]
    return pd.DataFrame(rows, columns=["pos", "rank", "token", "cosine"])
