"""Contrastive decoding: what a second run would say as well is taken off the next token's logits.

    noised = mm.Prompt(decoding.diffusion_noise()(photo), "A picture of")
    model.generate(prompt, logits_processor=decoding.contrast(model, noised))    # VCD
    model.generate(prompt, logits_processor=decoding.contrast(model, "A picture of", alpha=0.1))

    l = (1 + alpha) l(y | v, x) - alpha l(y | v', x),     where p(y | v, x) >= beta max p(. | v, x)

Visual contrastive decoding (Leng et al. 2023, arXiv:2311.16922): v' is the picture in
noise, alpha = 1, beta = 0.1. In PAI (Liu et al. 2024, arXiv:2407.21771) v' is no picture at all and
gamma = 1 + alpha = 1.1. Tokens below the cut-off get -inf; alpha = 0 leaves the greedy text.

The second run reads the same new tokens after its own prompt. It keeps a cache of keys and values
where the model's is exact (`language.kv_cache`), and reads everything again elsewhere.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.capabilities import needs
from mmlens.model.provenance import prompts_told
from mmlens.values.arguments import number
from mmlens.values.errors import PromptError

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@needs("generate")
def contrast(model: HookedVLM, prompt: Any, *, alpha: float = 1.0, beta: float = 0.1) -> Contrast:
    """A logits processor that contrasts with a run of the same tokens after another prompt.

    Args:
        model: runs the other prompt; an edited model contrasts with its own edits.
        prompt: what the second run reads: the picture in noise, the words alone, anything; of
            several prompts as many as are generated from.
        alpha: how much of the second run is taken off, from 0.
        beta: tokens of a probability below this share of the largest are left out, 0 to 1.
    """
    alpha = number(alpha, "alpha", least=0)
    beta = number(beta, "beta", least=0, most=1)
    return Contrast(Following(model, prompt), alpha, beta)


class Contrast:
    """What `contrast` returns: (ids Int[row, new], logits Float[row, d_vocab]) -> logits."""

    def __init__(self, second: Following, alpha: float, beta: float) -> None:
        self.second, self.alpha, self.beta = second, alpha, beta

    def __repr__(self) -> str:
        told = f"{self.second.model.name!r}, {prompts_told(self.second.soft)}"
        return f"contrast({told}, alpha={self.alpha}, beta={self.beta})"

    def __call__(self, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        other = self.second(ids).to(logits)
        if other.shape[-1] != logits.shape[-1]:
            raise PromptError(
                f"{self.second.model.name!r} has {other.shape[-1]} words and what generates has"
                f" {logits.shape[-1]}: only models of one vocabulary are contrasted."
            )
        out = (1 + self.alpha) * logits - self.alpha * other
        if self.beta == 0:
            return out
        least = logits.max(-1, keepdim=True).values + math.log(self.beta)
        return out.masked_fill(logits < least, -math.inf)


class Following:
    """A run of a model that reads, after its own prompt, the tokens that another run generates.

    Args:
        prompt: read here, before anything is generated, with the model's edits of its encoder.
    """

    def __init__(self, model: HookedVLM, prompt: Any) -> None:
        self.model, self.soft = model, model.read(prompt)
        self.cached = model.lm.is_bridge and model.lm.caching.exact
        self.read: torch.Tensor | None = None
        self.cache: Any = None

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """The logits behind these new tokens Int[row, new]: Float[row, d_vocab].

        Raises:
            PromptError: there are other rows than prompts (other prompts, or beams).
        """
        if len(ids) != len(self.soft):
            raise PromptError(
                f"{len(ids)} texts are generated and contrasted with {len(self.soft)} prompts: give"
                " one for each, and generate without beams."
            )
        with torch.no_grad():
            return self._on(ids) if self.cached else self._again(ids)

    def _on(self, ids: torch.Tensor) -> torch.Tensor:
        """From the cache, token by token, as `generate` reads them."""
        old = self.read
        if old is None or old.shape[1] >= ids.shape[1] or not ids[:, : old.shape[1]].equal(old):
            logits = self._fed(self.soft, None)  # another text begins
            old = ids[:, :0]
        else:
            logits = torch.empty(0)
        for at in range(old.shape[1], ids.shape[1]):
            logits = self._fed(ids[:, at : at + 1], self.cache)
        self.read = ids.clone()
        return logits[:, -1]

    def _fed(self, new: Any, past: Any) -> torch.Tensor:
        how = {"return_type": "logits_and_cache", "past_key_values": past}
        logits, self.cache = self.model.forward(new, **how)
        return logits

    def _again(self, ids: torch.Tensor) -> torch.Tensor:
        """Everything anew, the prompt being what it was, so that edits keep their positions."""
        with self.model.running(self.soft, grad=False) as soft:
            whole = torch.cat([soft.ids.clamp(min=0), ids.to(soft.ids)], 1)
            mask = torch.cat([soft.mask.long(), torch.ones_like(ids, device=soft.ids.device)], 1)
            return self.model.lm.forward(whole, mask)[:, -1]
