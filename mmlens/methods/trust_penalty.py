"""A penalty on tokens that go on trusting one earlier token: after OPERA (Huang et al. 2024).

    model.generate(prompt, logits_processor=decoding.trust_penalty(model, prompt))

Before a model hallucinates, its new tokens often all attend to one token of the text, which has
become a summary, and no more to the picture. With w[i, j] the attention of generated token i to
generated token j <= i (the largest of the heads, its row normalized again), of each candidate y:

    phi(y) = max_c prod_{i >= c} scale * w[i, c]        over the last tokens, y among them
    l(y) -> l(y) - alpha phi(y)                         of the k candidates; all others -inf

arXiv:2311.17911: alpha = 1, scale = 50, k = 5, the last layer. What is simplified: one
text instead of beams, so candidates compete within it alone; and no roll-back ("retrospection"), in
which the authors' beams return to the summary token and choose another. Each step is a pass over k
rows that reads the text again, without a cache of keys and values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.prompt_tokens import rows
from mmlens.model.provenance import prompts_told
from mmlens.values.addresses import places
from mmlens.values.arguments import count, number
from mmlens.values.errors import CapabilityError, PromptError
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@needs("generate", "attention")
def trust_penalty(
    model: HookedVLM,
    prompt: Any,
    *,
    alpha: float = 1.0,
    k: int = 5,
    scale: float = 50.0,
    window: int = 16,
    layer: int = -1,
) -> TrustPenalty:
    """A logits processor that takes alpha times each candidate's over-trust off its logit.

    Args:
        prompt: what is generated from; of several as many as are.
        alpha: the weight of the penalty, from 0.
        k: so many candidates, the most probable.
        scale: a factor of attention weights, whose products would vanish otherwise.
        window: at most so many of the last new tokens count.
        layer: whose attention is read; by default the last that attends among positions.

    Raises:
        AddressError: no such layer. CapabilityError: its attention never holds its pattern.
    """
    every = hooking.layers(model, SITES["pattern"])
    at = every[places(every, count(layer, "layer", least=-len(every)), "layer")[0]]
    point = SITES["pattern"].at(at)
    if point not in hooking.points(model):
        raise CapabilityError(
            f"The attention of {model.name!r} never holds its pattern in layer {at} (a fused"
            " kernel): load the model with attn_implementation='eager'."
        )
    return TrustPenalty(
        model, model.read(prompt), point, number(alpha, "alpha", least=0), count(k, "k"),
        number(scale, "scale", above=0), count(window, "window"),
    )  # fmt: skip


class TrustPenalty:
    """What `trust_penalty` returns: (ids Int[row, new], logits Float[row, d_vocab]) -> logits."""

    def __init__(
        self, model: Any, soft: Any, point: str, alpha: float, k: int, scale: float, window: int
    ) -> None:
        self.model, self.soft, self.point = model, soft, point
        self.alpha, self.k, self.scale, self.window = alpha, k, scale, window

    def __repr__(self) -> str:
        told = f"{self.model.name!r}, {prompts_told(self.soft)}, alpha={self.alpha}, k={self.k}"
        layer = int(self.point.split(".")[1])
        more = f"scale={self.scale}, window={self.window}, layer={layer}"
        return f"trust_penalty({told}, {more})"

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        if len(ids) != len(self.soft):
            raise PromptError(
                f"{len(ids)} texts are generated from {len(self.soft)} prompts: give the prompts"
                " that are generated from, and generate without beams."
            )
        out = torch.full_like(logits, -math.inf)
        for row, new in enumerate(ids):
            best = logits[row].topk(min(self.k, logits.shape[1]))
            phi = self._trust(row, new, best.indices).to(best.values)
            out[row, best.indices] = best.values - self.alpha * phi
        return out

    def _trust(self, row: int, new: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """phi of each candidate behind the new tokens: Float[candidate]."""
        n, first = len(tokens), self.soft.ids.shape[1]
        added = torch.cat([new.expand(n, -1), tokens[:, None]], 1)
        with (
            torch.no_grad(),
            capture(self.model, [self.point]) as kept,
            self.model.running(rows(self.soft, [row] * n), grad=False) as soft,
        ):
            ids = torch.cat([soft.ids.clamp(min=0), added.to(soft.ids)], 1)
            mask = torch.cat([soft.mask.long(), torch.ones_like(added).to(soft.ids)], 1)
            self.model.lm.forward(ids, mask)
        pattern = kept[self.point]
        return over_trust(pattern[:, :, first:], self.scale, self.window)


def over_trust(
    pattern: Float[Tensor, "row head query key"], scale: float, window: int
) -> Float[Tensor, " row"]:
    """The largest product of attention down a column among the last positions: Float[row].

    Args:
        pattern: of the new positions, to all keys; the last query is the last key.
        window: at most so many of the new positions count.
    """
    weights = pattern.float().amax(1)
    weights = weights / weights.sum(-1, keepdim=True)
    size = min(window, weights.shape[1])
    among = weights[:, -size:, -size:]
    below = torch.ones(size, size, dtype=torch.bool, device=among.device).tril()
    logs = (scale * among).clamp(min=1e-30).log().masked_fill(~below, 0.0)
    return logs.sum(1).amax(-1).exp()
