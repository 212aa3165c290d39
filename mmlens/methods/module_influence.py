"""Module influence: what each attention and MLP says of a word by itself, at one position.

Chen et al. (2025, "Attribution Analysis Meets Model Editing: Advancing Knowledge Correction in
Vision Language Models with VisEdit", AAAI; arXiv 2408.09916), their first attribution. With o the
output of one module (attention or MLP of one layer) at the last position of the prompt, and U the
final norm and the unembedding, read off that output alone,

    v = U(o)[t],    p = softmax(U(o))[t],    influence = sign(v) |v / M|^(1/2) p^(1/2)

where M is the largest |v| of the prompt. The number of each module is that of its output standing
alone in the stream, with a norm of its own. So these numbers add up to nothing; `direct_logits`
has the shares of the same modules that do.

Positions: the last, where the word is said. Path: module - final norm - unembedding, without later
layers.

Axes: (part), from -1 to 1, named as in `direct_logits`: "attn 0", "mlp 0", ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mmlens.methods.logit_lens import check_unembedding
from mmlens.methods.over_lists import over_lists
from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.provenance import about
from mmlens.model.targets import finite
from mmlens.towers.language.tokenization import id_of
from mmlens.values.arguments import choice
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

QUANTITIES = ("influence", "logit", "prob")
_PARTS = {"attn_out": "attn", "cross_attn_out": "cross", "mlp_out": "mlp"}
PATH = "module - final norm - unembedding, no later layers"


@needs("logits", "unembed")
@over_lists
def module_influence(
    model: HookedVLM,
    prompt: Any,
    of: str | int,
    *,
    after: str | None = None,
    quantity: str = "influence",
) -> Scores:
    """What each attention and MLP says of a word by itself, where it is said: Scores(part).

    Args:
        of, after: as in `attribute`; several words give a leading axis `token`.
        prompt: one, or a list of one layout, which gives a leading axis `prompt`.
        quantity: "influence" (the paper's, from -1 to 1), or the two that it is made of, "logit"
            and "prob".

    Raises:
        TargetError: as in `attribute`.
        CapabilityError: the final norm and unembedding do not give the model's own logits.
    """
    choice(quantity, "quantity", QUANTITIES)
    check_unembedding(model)
    reading, aimed = model.aim(prompt, of, "logit", after)
    known, layers = hooking.points(model), range(model.cfg.n_layers)
    names = {SITES[site].at(layer): f"{part} {layer}"
             for layer in layers for site, part in _PARTS.items()
             if SITES[site].at(layer) in known}  # fmt: skip
    at = aimed.position
    with torch.no_grad(), capture(model, list(names), lambda x: x[0, at].detach()) as kept:
        model.run(reading)
        outputs = torch.stack([kept[name] for name in names])
        logits = model.lm.logits_of(outputs)[:, : model.lm.n_words].float()
    token = id_of(model.lm, of)
    values = {"logit": logits[:, token], "prob": logits.softmax(-1)[:, token]}
    found = values[quantity] if quantity in values else influence(values["logit"], values["prob"])
    told = about(model, method="module_influence", prompt=reading, of=aimed.token,
                 quantity=quantity, path=PATH)  # fmt: skip
    parts = tuple(names.values())
    return Scores(finite(found, "the influence of modules"), ("part",), {"part": parts}, told)


def influence(logit: torch.Tensor, prob: torch.Tensor) -> torch.Tensor:
    """sign(v) |v / M|^(1/2) p^(1/2); 0 where all logits are 0."""
    most = logit.abs().max().clamp(min=torch.finfo(logit.dtype).tiny)
    return logit.sign() * (logit.abs() / most * prob).sqrt()
