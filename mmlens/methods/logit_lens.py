"""The logit lens: predictions from the residual stream of each layer (nostalgebraist 2020).

The residual stream after every layer goes through the final norm and the unembedding, with the
architecture's transformation of logits (soft caps, scales). At the last layer these are the model's
own logits, exactly. Computed in float32, hook by hook, in chunks: no cache is kept.

With `through=` a tuned or Jacobian lens the stream goes through the layer's affine map first
(`translators`), so early layers are read in the coordinates of the last:

    logits_l(h) = unembed(norm(t_l(h))),    t_l(h) = h @ matrices[l] + biases[l]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.over_lists import over_prompts
from mmlens.methods.predicted_words import asked, told
from mmlens.methods.translators import Translators
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import finite, one
from mmlens.runtime.chunks import in_chunks
from mmlens.values.addresses import places
from mmlens.values.arguments import instance
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
    through: Translators | None = None,
) -> Scores | pd.DataFrame:
    """Predicted tokens at every layer and position.

    Args:
        prompt: one, or a list: a leading axis `prompt` (then of one layout) or a column `prompt`.
        tokens: words of one token each; None: the `k` most probable of all.
        quantity: "prob", "logprob" or "logit".
        layer, pos: some layers or positions only, as in `Scores.sel`; the axes stay.
        through: a lens of this model, as `tuned_lens` and `jacobian_lens` return it.

    Returns:
        With `tokens`, Scores(layer, pos, token). Without, a table of layer, pos, rank (from 0),
        token, and a column named like `quantity`.

    Raises:
        TargetError: a word of several tokens.
        CapabilityError: the lens does not give the model's own logits at the last layer here.
        CheckpointError: another model's lens.
    """
    words = asked(model, tokens, k, quantity)
    check_unembedding(model)
    if through is not None:
        instance(through, "through", Translators, "what tuned_lens(model, prompts) returns")
        through.check(model)
    soft = one(model, prompt)
    labels = soft.labels[0]
    where = places(labels, pos, "pos")
    chosen = sorted(places(range(model.cfg.n_layers), layer, "layer"))
    if not where or not chosen:
        raise AddressError(f"layer={layer!r} and pos={pos!r} name nothing: leave them out for all.")
    kept: dict[int, Any] = {}

    def look(tensor: torch.Tensor, hook: Any) -> None:
        resid, here = tensor[0, where].detach(), hook.layer()
        if through is not None:
            resid = through.translate(here, resid.float()).to(resid.dtype)
        size = max(1, _FLOATS // max(1, model.lm.n_words))
        read = lambda a, b: words.read(model.lm.logits_of(resid[a:b]))  # noqa: E731
        pieces = in_chunks(len(where), size, read)
        kept[here] = tuple(torch.cat(part) for part in zip(*pieces, strict=True))

    names = [SITES["resid_post"].at(layer) for layer in chosen]
    end = torch.tensor([len(labels) - 1], device=model.lm.device)
    with torch.no_grad(), model.hooks(fwd_hooks=[(name, look) for name in names]):
        model.run(soft, at=end)
    for layer, found in kept.items():
        finite(found[0], f"the logit lens in layer {layer}")
    kind = {} if through is None else {"through": through.kind, "lens": through.digest}
    source = about(model, method="logit_lens", quantity=quantity, prompt=soft, **kind)
    ordered = {layer: kept[layer] for layer in chosen}
    return told(model, words, ordered, tuple(labels[i] for i in where), source)


def check_unembedding(model: HookedVLM) -> None:
    """Refuse a model whose final norm and unembedding do not give its own logits.

    Raises:
        CapabilityError: it is one.
    """
    if model.lm.can.lens_error > 1e-3:  # NaN passes here and is refused below, by its layer
        raise CapabilityError(
            f"The final norm and unembedding of {model.name!r} do not give its own logits"
            f" (off by {model.lm.can.lens_error:.3g}), so a lens would be wrong."
        )
