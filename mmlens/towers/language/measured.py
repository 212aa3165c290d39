"""What a language model's logits depend on, each measured by comparing two routes.

A capability is never assumed from a class or a version: two ways of computing the same logits are
run over a few tokens, and their largest difference, relative to the largest logit, is compared with
a tolerance for the dtype.

    padded      a left-padded row of a batch            =  the same row alone
    cut         the last position, cut off from others  =  the same after other words
    hugging     the hooked model                        =  the Hugging Face model it was made of
    injected    vectors inserted at the embedding hook  =  Hugging Face's own `inputs_embeds`

The language model measures once what a call depends on (`LanguageModel.padded`, `.cut`) and refuses
calls for which it does not hold; `mmlens doctor` measures and prints all of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from mmlens.runtime.run import reading
from mmlens.runtime.sharing import share_weights
from mmlens.runtime.turns import turn
from mmlens.towers.language import attention_mask
from mmlens.values.errors import CapabilityError
from mmlens.values.labels import Token
from mmlens.values.prompt import IMAGE_TOKEN, SoftPrompt

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel

RELATIVE = {torch.float64: 1e-6, torch.float32: 1e-4}
NOT_FINITE = "the logits are NaN or infinite"
ONE_SIDED = f"{NOT_FINITE} on one of the two routes"
LOOSE = 3e-2
"""The tolerance of lower precisions than those named in `RELATIVE`."""


@dataclass(frozen=True)
class Measured:
    """Two routes to the same logits, compared.

    Attributes:
        error: their largest |difference| relative to the largest logit; infinite where one raised.
        tolerance: how large it may be at this dtype.
        reason: the exception in one line, or "".
    """

    error: float
    tolerance: float
    reason: str = ""

    @property
    def exact(self) -> bool:
        """Whether the two agree."""
        return self.error <= self.tolerance

    def __str__(self) -> str:
        reason = self.reason or (ONE_SIDED if self.error == float("inf") else "")
        return f"off by {self.error:.2g}, at most {self.tolerance:.0e}" + (
            f"; {reason}" if reason else ""
        )


def tolerance(lm: LanguageModel) -> float:
    """The largest difference of two routes at this model's dtype, relative to the largest logit."""
    return RELATIVE.get(lm.dtype, LOOSE)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest |difference| relative to the largest value of `b`; infinite for NaN.

    Words that are never said are left out.
    """
    a, b = said(a.detach()).float(), said(b.detach()).float()
    error = float((a - b).abs().max() / b.abs().max().clamp(min=1))
    return error if error == error else float("inf")


def said(logits: torch.Tensor) -> torch.Tensor:
    """Logits with 0 for words that a class never says, beside whose logits no error is large.

    Their logits are the lowest number of the dtype (Chameleon's codes of pictures).
    """
    return logits.masked_fill(logits < torch.finfo(logits.dtype).min / 2, 0.0)


def compared(lm: LanguageModel, routes: Callable[[], tuple[Any, Any]]) -> Measured:
    """Compare both results of `routes()`; an exception makes the error infinite."""
    try:
        with torch.no_grad():
            one, other = routes()
        error = apart(one, other)
        reason = "" if bool(torch.isfinite(other).all()) else NOT_FINITE
    except Exception as raised:  # of any library; the reason is kept and shown
        first = next(iter(str(raised).splitlines()), "")
        error, reason = float("inf"), f"{type(raised).__name__}: {first}"
    return Measured(error, tolerance(lm), reason)


def tokens(lm: LanguageModel, n: int, first: int = 1) -> torch.Tensor:
    """Int[1, n]: different ids of words."""
    return torch.arange(first, first + n, device=lm.device).unsqueeze(0) % max(1, lm.n_words)


def padded(lm: LanguageModel) -> Measured:
    """A left-padded row compared with the same row alone: its mask and its position ids."""

    def routes() -> tuple[torch.Tensor, torch.Tensor]:
        long, short = tokens(lm, 7), tokens(lm, 4, first=11)
        ids = torch.cat([long, torch.cat([torch.zeros_like(long[:, :3]), short], 1)])
        mask = torch.ones_like(ids)
        mask[1, :3] = 0
        both = lm.forward(ids, mask, **lm.beside(ids))
        return both[1, 3:], lm.forward(short, torch.ones_like(short), **lm.beside(short))[0]

    return compared(lm, routes)


def cut(lm: LanguageModel) -> Measured:
    """The last position cut off from all others in every layer: their tokens must not matter."""

    def only_itself(mask: torch.Tensor) -> torch.Tensor:
        mask = mask.clone()
        mask[..., -1, :-1] = torch.finfo(mask.dtype).min
        return mask

    def routes() -> tuple[torch.Tensor, torch.Tensor]:
        ids, other = tokens(lm, 6), tokens(lm, 6, first=21)
        other[:, -1] = ids[:, -1]
        every = {layer: [only_itself] for layer in attention_mask.layers_with(lm)}
        ones = torch.ones_like(ids)
        with attention_mask.tapped(lm, every):
            return lm.forward(ids, ones)[0, -1], lm.forward(other, ones)[0, -1]

    return compared(lm, routes)


def hugging(lm: LanguageModel) -> Measured | None:
    """The hooked model compared with the caller's Hugging Face model; None if that does not run.

    An exception of the hooked model gives an infinite error.
    """
    if lm.hf is None:
        return None

    ids = tokens(lm, 6)
    trains = any(module.training for module in lm.hf.modules())
    hf: Any = share_weights(lm.hf) if trains else lm.hf
    ones = torch.ones_like(ids)
    beside, own = lm.beside(ids), list[torch.Tensor]()

    def alone() -> tuple[torch.Tensor, torch.Tensor]:
        given = {name: value.to(hf.device) for name, value in beside.items()}
        asked = {"input_ids": ids, "attention_mask": ones}
        run = hf(**{n: x.to(hf.device) for n, x in asked.items()}, **given, use_cache=False)
        own.append(run.logits.to(ids.device))
        return own[0], own[0]

    if not compared(lm, alone).exact:
        return None
    return compared(lm, lambda: (lm.forward(ids, ones, **beside), own[0]))


def refuse_unfaithful(lm: LanguageModel) -> None:
    """Compare the hooked model with the Hugging Face model that it was made of.

    In half precision the two differ by rounding, so a large difference is a warning there.

    Raises:
        CapabilityError: the hooked model does not run, or gives other logits, so that all its
            numbers would be wrong.
    """
    found = hugging(lm)
    if found is None or found.exact:
        return
    what = f"The hooked {type(lm.hf).__name__} ({lm.dtype})"
    builds = " and ".join(f"{p} {version(p)}" for p in ("transformer-lens", "transformers"))
    other = "Install tested versions (`mmlens doctor` lists them) or load it in float32."
    if found.reason:
        raise CapabilityError(
            f"{what} does not run where the model of transformers does ({found.reason}): {builds}"
            f" do not fit together for it. {other}"
        )
    told = (
        f"{what} gives other logits than the model of transformers that it was made of ({found}):"
        f" {builds} do not fit together for it. {other}"
    )
    if lm.dtype in RELATIVE:
        raise CapabilityError(told)
    warnings.warn(told, stacklevel=3)


def injected(lm: LanguageModel) -> Measured | None:
    """Vectors inserted at the embedding hook, compared with `inputs_embeds`; None without `hf`."""
    if lm.hf is None:
        return None
    hf: Any = share_weights(lm.hf)
    vectors = lm.embed(tokens(lm, 6)).flip(-1)  # of the right size, and no token's embedding
    ids = torch.full((1, 6), IMAGE_TOKEN, device=vectors.device)
    ones = torch.ones_like(ids)
    soft = SoftPrompt(vectors, ids, ones.bool(), (tuple(Token("", at) for at in range(6)),))
    scale = lm.entrance.scale

    def routes() -> tuple[torch.Tensor, torch.Tensor]:
        own = hf(
            inputs_embeds=vectors.to(hf.device, hf.dtype),
            attention_mask=ones.to(hf.device),
            use_cache=False,
        )
        with turn(lm.root), reading(soft, scale=scale):
            lm.open()
            return lm.forward(ids.clamp(min=0), ones), own.logits.to(ids.device)

    return compared(lm, routes)
