"""What each attention head of a layer says in words: Scores(head, pos, token), or a table.

    logits_h = z_h @ W_O[h] @ W_U                    directly: the share that it writes, no norm
    logits_h = z_h @ maps[h] + bias / n_heads        by a trained attention lens (`attention_lens`)

Directly, the heads' logits add up to what attention (without its bias) writes, read by the
unembedding. A lens that was trained says what the head's state tells about the model's prediction,
whether or not later layers get it from this head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.attention_lens import HeadMaps, direct_maps, heads_at
from mmlens.methods.over_lists import over_prompts
from mmlens.methods.predicted_words import asked, told
from mmlens.methods.stream_map import layer_of
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.values.addresses import places
from mmlens.values.arguments import instance
from mmlens.values.errors import CheckpointError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM


@needs("unembed")
@over_prompts
def head_lens(
    model: HookedVLM,
    prompt: Any,
    tokens: Sequence[str | int] | str | None = None,
    *,
    layer: int,
    head: Any = None,
    pos: Any = -1,
    through: HeadMaps | None = None,
    k: int = 5,
    quantity: str = "logit",
) -> Scores | pd.DataFrame:
    """Words of each attention head of a layer, at some positions.

    Args:
        prompt: one, or a list: a leading axis or a column `prompt`.
        tokens: words of one token each; None: the `k` of the highest logit.
        layer: whose heads.
        head: some heads only.
        pos: positions, as in `Scores.sel`; by default the last.
        through: a lens trained by `attention_lens` for this layer; by default the unembedding.
        quantity: "logit"; "prob" or "logprob" of each head's own softmax.

    Returns:
        With `tokens`, Scores(head, pos, token). Without, a table of head, pos, rank, token and a
        column named like `quantity`.

    Raises:
        CapabilityError: what the heads write does not add up to what attention writes.
        CheckpointError: a lens of another layer or model.
    """
    words, here = asked(model, tokens, k, quantity), layer_of(model, layer, "layer")
    if through is not None:
        instance(through, "through", HeadMaps, "what attention_lens(model, prompts) returns")
        through.check(model)
        if through.layer != here:
            raise CheckpointError(
                f"This attention lens is one of layer {through.layer}, and layer {here} is asked."
            )
    maps = direct_maps(model, here) if through is None else through
    soft = one(model, prompt)
    labels = soft.labels[0]
    where = places(labels, pos, "pos")
    heads = places(range(len(maps.maps)), head, "head")
    z, _ = heads_at(model, soft, here, where)
    with torch.no_grad():
        said = finite(maps.logits(z), f"the logits of the heads of layer {here}")
    found = {one: words.read(said[:, one]) for one in heads}
    source = about(model, method="head_lens", layer=here, quantity=quantity, prompt=soft,
                   trained=through is not None)  # fmt: skip
    return told(model, words, found, tuple(labels[i] for i in where), source, "head")
