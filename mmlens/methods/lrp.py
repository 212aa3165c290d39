"""Layer-wise relevance propagation in transformers: shares of a logit that add up to it.

AttnLRP (Achtibat et al. 2024, arXiv 2402.05602): relevance starts as the number that is explained
and is handed down operation by operation, each giving out what it got. `relevance_rules` has those
of linear maps, norms, activations and gates. Attention, z = A v with A = softmax(s), s = q k:

    z = A v        half of R to A, half to v                    (uniform rule, prop. 3.3)
    s to A         R(s_i) = s_i (R(A_i) - A_i sum_j R(A_j))     (Taylor at s, prop. 3.1)
    s = q k        half of R to q, half to k

With `rule="cp"` the pattern is held constant and v gets all (CP-LRP, Ali et al. 2022, arXiv
2202.07304). Relevance of a position is what arrives at the stream that enters the first layer, its
place in the prompt included, summed over dimensions.

Nothing is lost unseen: number = sum over positions + what biases keep + what the softmax keeps (the
constant term of its Taylor expansion) + missing. More than a hundredth missing means an operation
that has no rule here, and the model is refused.

Axes: (pos), signed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmlens.methods.attention_routes import pattern_points
from mmlens.methods.relevance_rules import RelevanceRules, halved, like_a_factor
from mmlens.model import hooking, readouts
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.model.targets import Number, Target, finite
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.backward import wide
from mmlens.values.arguments import choice
from mmlens.values.errors import CapabilityError, TargetError
from mmlens.values.labels import LM, TEXT
from mmlens.values.scores import Scores
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

RULES = ("attn", "cp")
MISSING = 1e-2
"""How much may be missing, of the sum of all magnitudes."""


@needs("positions")
@ordinary()
def lrp(
    model: HookedModel,
    prompt: Any,
    of: Any = None,
    *,
    target: str | Number = "logit",
    after: str | None = None,
    rule: str = "attn",
) -> Scores:
    """The relevance of each patch and word to one word (class, similarity): Scores(pos).

    Args:
        of, target, after: as in `attribute`; what is divided is the number's gradient times the
            logits, which of a logit is the logit.
        rule: "attn" (AttnLRP: through queries and keys as well) or "cp" (patterns held constant).

    Returns:
        The scores; `about` has the "number" and what of it "biases" and the "softmax" keep.

    Raises:
        CapabilityError: an operation without a rule: relevance gets lost.
        TargetError: as in `attribute`; a unit.
    """
    rule = choice(rule, "rule", RULES)
    tower = model.reading_tower(prompt)
    reading, aimed = model.aim(prompt, of, target, after)
    if aimed.at is not None:
        raise TargetError(
            "Relevance is propagated from the answer back to the first layer, so no unit can be"
            " explained by it: write of=' dog', a class or a text, or use grad_cam."
        )
    if tower == LM and rule == "attn" and not model.can("write:pattern"):
        raise CapabilityError(
            f"The attention patterns of {model.name!r} are read only, so no rule can be put there:"
            " write relevance.rollout(...), or relevance.occlusion(...)."
        )
    values, told = _propagated(model, tower, reading, aimed, rule)
    if tower == LM:
        labels = reading.labels[0]
    else:
        rows = model.picture_rows(reading.prompts, SITES[f"{tower}.resid_post"], 0)
        labels = tuple(label for row in rows for label in row)
    told = about(model, method="lrp", prompt=reading, of=aimed.token, target=target, rule=rule,
                 **told)  # fmt: skip
    return Scores(finite(values, "the relevance"), ("pos",), {"pos": labels}, told)


class _Attention:
    """The rules of one layer's attention, as hooks at its pattern and at z."""

    def __init__(self, rule: str) -> None:
        self.rule, self.pattern = rule, torch.zeros(0)

    def at_pattern(self, tensor: Tensor, hook: Any) -> Tensor:
        if self.rule == "cp":
            return tensor.detach()
        self.pattern = halved(tensor)  # on to q and k, half to each
        return self.pattern

    def at_z(self, tensor: Tensor, hook: Any) -> Tensor:
        return tensor if self.rule == "cp" else halved(tensor)  # on to A and v

    def kept(self, grad: Tensor | None) -> float:
        """What the softmax keeps: R(A) less R(s), where scores may be shifted, so log A will do."""
        if grad is None:
            return 0.0
        A, grad = wide(self.pattern.detach()).double(), wide(grad).double()
        shares = A * grad
        scores = torch.where(A > 0, A, torch.ones_like(A)).log()
        handed = scores * (shares - A * shares.sum(-1, keepdim=True))
        return float((shares - handed).sum())


class _Activation:
    """The identity rule of a plain MLP's activation, whatever it is written with."""

    def __init__(self) -> None:
        self.pre = torch.zeros(0)

    def at_pre(self, tensor: Tensor, hook: Any) -> None:
        self.pre = tensor

    def at_post(self, tensor: Tensor, hook: Any) -> Tensor:
        return like_a_factor(self.pre, tensor)


def _propagated(
    model: HookedModel, tower: str, reading: Any, aimed: Target, rule: str
) -> tuple[Tensor, dict[str, float]]:
    """The relevance that arrives at each position, and what is kept on the way."""
    prefix = "" if tower == LM else f"{tower}."
    entry: list[Tensor] = []

    def enter(tensor: Tensor, hook: Any) -> Tensor:
        entry.append(tensor.detach().requires_grad_())
        return entry[-1]

    hooks: list[tuple[str, Any]] = [(SITES[f"{prefix}resid_pre"].at(0), enter)]
    attended = []
    for name, _ in pattern_points(model, tower):
        attended.append(_Attention(rule))
        hooks += [(name, attended[-1].at_pattern), (_z_of(model, name), attended[-1].at_z)]
    hooks += activation_hooks(model) if tower == LM else []
    rules = RelevanceRules()
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(model.hooks(fwd_hooks=hooks))
        stack.enter_context(rules)
        row = readouts.answers(model, reading, [aimed])[0]
    finite(row.detach(), f"the answer of {model.name!r}")
    with torch.enable_grad():
        leaf = wide(row.detach()).requires_grad_()
        start = torch.autograd.grad(aimed.number(leaf), leaf)[0]
    patterns = [one.pattern for one in attended if one.pattern.requires_grad]
    wanted = [entry[-1], *rules.biases, *patterns]
    grads = torch.autograd.grad(row, wanted, grad_outputs=start.to(row), allow_unused=True)
    if grads[0] is None:
        raise CapabilityError(
            f"What is explained does not depend on the first layer of the tower {tower!r} of"
            f" {model.name!r}, so nothing arrives there."
        )
    values = (wide(entry[-1].detach()) * wide(grads[0])).sum(-1)
    values = values[0] if tower in (LM, TEXT) or len(values) == 1 else values.flatten()
    n = len(rules.biases)
    shares = [
        float(torch.where(grad == 0, 0.0, wide(bias.detach()) * wide(grad)).double().sum())
        for bias, grad in zip(rules.biases, grads[1 : n + 1], strict=True)
        if grad is not None
    ]
    begun = [one for one in attended if one.pattern.requires_grad]
    kept = [one.kept(grad) for one, grad in zip(begun, grads[n + 1 :], strict=True)]
    number = float((leaf.detach() * start).double().sum())
    told = {"number": number, "biases": sum(shares), "softmax": sum(kept)}
    told["missing"] = number - float(values.double().sum()) - told["biases"] - told["softmax"]
    size = float(values.abs().sum()) + sum(map(abs, [number, *shares, *kept]))
    _check(model, told["missing"], size, rule)
    return values, told


def _check(model: HookedModel, missing: float, size: float, rule: str) -> None:
    """Refuse a model that loses relevance.

    Raises:
        CapabilityError: it does.
    """
    half = model.answer_dtype in (torch.float16, torch.bfloat16)
    if not abs(missing) <= size * (10 * MISSING if half else MISSING):
        raise CapabilityError(
            f"In {model.name!r} {missing:.3g} of relevance gets lost (of {size:.3g} in all): it has"
            " an operation without a rule here (a mixture of experts, attention that pools,"
            " something added behind layers): "
            + ("write rule='cp', or " if rule == "attn" else "write ")
            + "relevance.chefer(...) or occlusion(...)."
        )


def _z_of(model: HookedModel, pattern: str) -> str:
    """The point of z beside a pattern.

    Raises:
        SiteError: there is none that fires.
    """
    return hooking.names(model, pattern.replace("hook_pattern", "hook_z"))[0]


def activation_hooks(model: HookedModel) -> list[tuple[str, Any]]:
    """Hooks around the activation of every MLP of the language model that has no gate."""
    lm: Any = model.towers[LM]
    found: list[tuple[str, Any]] = []
    for layer, units in enumerate(lm.units.layers):
        if units.width and units.pre and not units.gated:
            one = _Activation()
            found.append((SITES["neurons_pre"].at(layer), one.at_pre))
            found.append((SITES["neurons"].at(layer), one.at_post))
    return found
