"""The logit lens: predictions from the residual stream of each layer (nostalgebraist 2020).

The residual stream after every layer goes through the final norm and the unembedding, with the
architecture's transformation of logits (soft caps, scales). At the last layer these are the model's
own logits, exactly. Computed in float32, hook by hook, in chunks: no cache is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.over_lists import over_prompts
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.runtime.chunks import in_chunks
from mmlens.towers.language.tokenization import id_of
from mmlens.values.addresses import places
from mmlens.values.arguments import count, several
from mmlens.values.errors import AddressError, CapabilityError
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_vlm import HookedVLM

_FLOATS = 1 << 25


@needs("unembed")
@over_prompts
def logit_lens(
    model: HookedVLM,
    prompt: Any,
    tokens: Sequence[str | int] | str | None = None,
    *,
    k: int = 5,
    quantity: str = "prob",
    layer: Any = None,
    pos: Any = None,
) -> Scores | pd.DataFrame:
    """Predicted tokens at every layer and position.

    Args:
        prompt: one, or a list: a leading axis `prompt` (then of one layout) or a column `prompt`.
        tokens: words of one token each; None: the `k` most probable of all.
        quantity: "prob", "logprob" or "logit".
        layer, pos: some layers or positions only, as in `Scores.sel`; the axes stay.

    Returns:
        With `tokens`, Scores(layer, pos, token). Without, a table of layer, pos, rank (from 0),
        token, and a column named like `quantity`.

    Raises:
        TargetError: a word of several tokens.
        CapabilityError: the lens does not give the model's own logits at the last layer here.
    """
    if quantity not in ("prob", "logprob", "logit"):
        raise AddressError(
            f"There is no quantity {quantity!r}: write 'prob', 'logprob' or 'logit'."
        )
    if model.lm.can.lens_error > 1e-3:  # NaN passes here and is refused below, by its layer
        raise CapabilityError(
            f"The final norm and unembedding of {model.name!r} do not give its own logits"
            f" (off by {model.lm.can.lens_error:.3g}), so a lens would be wrong."
        )
    soft = one(model, prompt)
    labels = soft.labels[0]
    where = places(labels, pos, "pos")
    chosen = sorted(places(range(model.cfg.n_layers), layer, "layer"))
    if not where or not chosen:
        raise AddressError(f"layer={layer!r} and pos={pos!r} name nothing: leave them out for all.")
    k = count(k, "k")
    words = [tokens] if isinstance(tokens, (str, int)) else tokens
    ids = None if words is None else [id_of(model.lm, w) for w in several(words, "tokens")]
    kept: dict[int, Any] = {}

    def look(tensor: torch.Tensor, hook: Any) -> None:
        resid = tensor[0, where].detach()
        size = max(1, _FLOATS // max(1, model.lm.n_words))
        read = lambda a, b: _read(model, resid[a:b], quantity, ids, k)  # noqa: E731
        pieces = in_chunks(len(where), size, read)
        kept[hook.layer()] = [torch.cat(part) for part in zip(*pieces, strict=True)]

    names = [SITES["resid_post"].at(layer) for layer in chosen]
    end = torch.tensor([len(labels) - 1], device=model.lm.device)
    with torch.no_grad(), model.hooks(fwd_hooks=[(name, look) for name in names]):
        model.run(soft, at=end)
    for layer, found in kept.items():
        finite(found[0], f"the logit lens in layer {layer}")
    at = tuple(labels[i] for i in where)
    told = about(model, method="logit_lens", quantity=quantity, prompt=soft)
    if ids is not None:
        values = torch.stack([kept[layer][0] for layer in chosen])
        named = tuple(model.to_string([i]) for i in ids)
        return Scores(
            values,
            ("layer", "pos", "token"),
            {"layer": tuple(chosen), "pos": at, "token": named},
            told,
        )
    table = _table(model, chosen, at, kept, quantity)
    table.attrs["about"] = told
    return table


def _read(
    model: HookedVLM, resid: torch.Tensor, quantity: str, ids: list[int] | None, k: int
) -> tuple[torch.Tensor, ...]:
    logits = model.lm.logits_of(resid).float()
    words = logits[:, : model.lm.n_words]
    if ids is None:
        read, found = words.topk(min(k, model.lm.n_words))
    else:
        read, found = logits[:, ids], None
    if quantity != "logit":  # for the tokens that are kept only
        read = read - logits.logsumexp(-1, keepdim=True)
    read = read.exp() if quantity == "prob" else read
    return (read,) if found is None else (read, found)


def _table(
    model: HookedVLM, layers: list[int], at: tuple[Any, ...], kept: dict[int, Any], quantity: str
) -> pd.DataFrame:
    import pandas as pd

    different = {token for found in kept.values() for token in found[1].unique().tolist()}
    spelt = {token: model.to_string([token]) for token in different}
    rows = [
        (layer, label, rank, spelt[token], value)
        for layer in layers
        for label, values, tokens in zip(
            at, kept[layer][0].tolist(), kept[layer][1].tolist(), strict=True
        )
        for rank, (value, token) in enumerate(zip(values, tokens, strict=True))
    ]
    return pd.DataFrame(rows, columns=["layer", "pos", "rank", "token", quantity])
