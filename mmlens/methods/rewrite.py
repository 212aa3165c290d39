"""Rewriting neurons: the least change of W_out after which the model says another word.

Pan et al. (2024, section 5) change the rows of W_out that belong to a few neurons, so that a word
t1 is said in place of t0; they learn it by gradient descent. Here it is the least change, which
has a closed form. With a_i the activations of the chosen neurons at the last position of prompt i,
g_i the logit of t1 minus that of t0 there, and d_i the direction of the stream that raises this
difference (norm gain times W_U[:, t1] - W_U[:, t0], over the scale of the norm at that position),

    min |D|^2    so that    a_i . D d_i = margin - g_i    for each prompt whose g_i is too small
                            a_j . D     = 0               for each prompt that is to be kept

    D = sum over i of c_i b_i d_i^T,     b_i = a_i less its share in the span of all a_j
    (b_i . b_k) (d_i . d_k) c = margin - g

which is the least-squares solution where not all can be met. The path is the direct one, so that
later layers and the norm answer with something else than was demanded; the difference is measured
and demanded again, `steps` times. Without t0 the word is to be ahead of every other, and t0 is, at
each prompt and step, the one that leads.

What is kept is what the chosen neurons write at the last position of these prompts, exactly where
the neurons are of one layer; elsewhere, and at other prompts, nothing is promised: measure it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.methods.direct_logits import logit_direction
from mmlens.methods.jacobian_lens import prompts_in
from mmlens.methods.output_rows import add_to_rows, check_rows, prompt_up_to
from mmlens.model.capabilities import needs
from mmlens.model.capture import capture
from mmlens.model.targets import finite
from mmlens.towers.language.tokenization import id_of
from mmlens.values.arguments import count, number, several
from mmlens.values.errors import NumericsError, TargetError
from mmlens.values.labels import Neuron
from mmlens.values.least_squares import LEAST
from mmlens.values.prompt import SoftPrompt
from mmlens.values.sites import SITES
from mmlens.values.unit_lists import units_in

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Read = tuple[Float[Tensor, " neuron"], Float[Tensor, " d_model"], float]
"""Of a prompt: activations of the neurons, the direction of the difference, and the difference."""


@needs("logits", "neurons", "unembed")
def rewrite(
    model: HookedVLM,
    prompts: Any,
    neurons: Any,
    of: str | int,
    minus: str | int | None = None,
    *,
    margin: float = 1.0,
    after: str | None = None,
    keep: Sequence[Any] = (),
    steps: int = 5,
) -> HookedVLM:
    """A copy of the model that says one word in place of another: rows of W_out are changed.

    Args:
        prompts: one or several, at whose end the words are compared.
        neurons: Neurons of the language model, as `top_neurons(contributions(...))` gives them.
        of, minus: the word that is to be said, and the word that it replaces; without one, it is to
            be ahead of all others.
        margin: by how much the logit of the one shall exceed that of the other, at least.
        after: the words between a prompt and the word.
        keep: prompts at whose end the neurons shall write what they wrote.
        steps: how often the difference is measured and the rest demanded; where the margin is
            still not reached, a warning says by how much.

    Returns:
        A model with weights of its own; the model that was given is not changed. Its
        `provenance["rewritten"]` has the differences "before" and "after", and "norm", the length
        of the change over that of the rows.

    Raises:
        AddressError: no such neuron. CapabilityError: neurons of a mixture of experts, or with a
            norm behind the MLP.
        NumericsError: the neurons are silent where they are to write, or what is kept leaves them
            nothing to change. TargetError: both words are the same.
    """
    units = list(dict.fromkeys(units_in(neurons, "neurons", Neuron, least=1)))
    check_rows(model, units)
    margin, steps = number(margin, "margin"), count(steps, "steps", most=100)
    tokens = [id_of(model.lm, word) for word in (of, minus) if word is not None]
    if len(set(tokens)) < len(tokens):
        raise TargetError(f"{of!r} is to be said in place of itself: name two different words.")
    asked = [prompt_up_to(model, prompt, after) for prompt in prompts_in(prompts)]
    kept = [prompt_up_to(model, prompt, None) for prompt in several(keep, "keep", least=0)]
    changed = copy.deepcopy(model)
    before = _rows(changed, units)
    first: list[float] = []
    for _ in range(steps):
        found = [_read(changed, soft, units, tokens) for soft in asked]
        gaps = [gap for *_, gap in found]
        first = first or gaps
        if min(gaps) >= margin - 1e-6:
            break
        still = [_read(changed, soft, units, tokens)[0] for soft in kept]
        _add(changed, units, least_change(found, still, margin))
    last = [_read(changed, soft, units, tokens)[-1] for soft in asked]
    if min(last) < margin - 0.01 * max(1.0, abs(margin)):
        warnings.warn(
            f"After {steps} steps {str(of)!r} is ahead by {min(last):.3g} at the prompt where it is"
            f" least, and {margin:.3g} was asked: take more steps=, or other neurons.",
            stacklevel=3,
        )
    norm = float((_rows(changed, units) - before).norm() / before.norm())
    changed.provenance = {**model.provenance, "rewritten": {
        "neurons": ", ".join(map(str, units)), "of": str(of),
        "minus": "any other" if minus is None else str(minus),
        "before": first, "after": last, "norm": norm}}  # fmt: skip
    return changed


def least_change(
    found: Sequence[Read], still: Sequence[Tensor], margin: float
) -> Float[Tensor, "neuron d_model"]:
    """What each neuron shall write in addition, per unit of activation.

    Args:
        found: of the prompts that are changed. still: activations at the prompts that are kept.

    Raises:
        NumericsError: at a prompt that is to be changed the neurons are silent, or write what they
            write at those that are kept.
    """
    active = torch.stack([a for a, *_ in found]).double()
    rest = torch.tensor([max(0.0, margin - gap) for *_, gap in found]).to(active)
    silent = (active.norm(dim=-1) == 0) & (rest > 0)
    if bool(silent.any()):
        raise NumericsError(
            f"These neurons are silent at the end of prompt {int(silent.nonzero()[0, 0])}, so that"
            " nothing they write changes its word: choose neurons that are active there."
        )
    if still:
        kept = torch.stack(list(still)).double()
        own = active - active @ torch.linalg.pinv(kept, rtol=1e-6) @ kept
        none = own.norm(dim=-1) < 1e-5 * active.norm(dim=-1)
        if bool((none & (rest > 0)).any()):
            raise NumericsError(
                "What these neurons write at the prompts to keep is all that they write at prompt"
                f" {int((none & (rest > 0)).nonzero()[0, 0])}: keep fewer prompts, or take more"
                " neurons."
            )
        active = own.masked_fill(none[:, None], 0.0)
    d = torch.stack([direction for _, direction, _ in found]).double()
    weights = (
        torch.linalg.pinv((active @ active.T) * (d @ d.T), rtol=LEAST**2, hermitian=True) @ rest
    )
    change = torch.einsum("i,in,id->nd", weights, active, d)
    return finite(change.float(), "the change of W_out")


def _read(model: HookedVLM, soft: SoftPrompt, units: Sequence[Neuron], tokens: list[int]) -> Read:
    """The activations of the neurons at the end, the direction of the difference, and its size."""
    last = SITES["resid_post"].at(model.cfg.n_layers - 1)
    names = {unit.layer: SITES["neurons"].at(unit.layer) for unit in units}
    points = [*names.values(), last]
    with torch.no_grad(), capture(model, points, lambda x: x[0, -1].detach()) as kept:
        logits = model.run(soft)[0, -1].float()
    first, second = tokens if len(tokens) > 1 else (tokens[0], _leads(model, logits, tokens[0]))
    active = torch.stack([kept[names[unit.layer]][unit.unit] for unit in units]).float()
    direction, _ = logit_direction(model, kept[last], [first, second])
    gap = float(logits[first] - logits[second])
    return finite(active, "the activations"), direction.float(), gap


def _leads(model: HookedVLM, logits: Float[Tensor, " d_vocab"], token: int) -> int:
    """The most probable word but one."""
    others = logits[: model.lm.n_words].clone()
    others[token] = -torch.inf
    return int(others.argmax())


def _rows(model: HookedVLM, units: Sequence[Neuron]) -> Float[Tensor, "neuron d_model"]:
    """What the neurons write per unit of activation."""
    return torch.cat([model.lm.units.written(unit.layer, [unit.unit]) for unit in units])


def _add(
    model: HookedVLM, units: Sequence[Neuron], change: Float[Tensor, "neuron d_model"]
) -> None:
    """Add to the rows of W_out, in place."""
    for layer in dict.fromkeys(unit.layer for unit in units):
        here = [i for i, unit in enumerate(units) if unit.layer == layer]
        add_to_rows(model, layer, [units[i].unit for i in here], change[here])
