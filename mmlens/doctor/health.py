"""What a model's answers depend on, measured on it; a check that fails says what still works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.capture import capture
from mmlens.towers.language import measured
from mmlens.towers.language.measured import Measured
from mmlens.values.prompt import Prompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was compared.
        holds: True or False, or None where it cannot be measured on this model.
        measured: the error and its tolerance, or a count.
        follows: where it does not hold: what goes another way, is refused, or still works.
    """

    name: str
    holds: bool | None
    measured: str
    follows: str = ""


def checks(model: HookedVLM) -> list[Check]:
    """Every check; one that raises does not keep the others from being made."""
    return [_made(name, follows, measure, model) for name, follows, measure in CHECKS]


def _made(
    name: str, follows: str, measure: Callable[[Any], Measured | Check | None], model: HookedVLM
) -> Check:
    try:
        found = measure(model)
    except Exception as error:  # of any library below: it is the finding
        first = next(iter(str(error).splitlines()), "")
        return Check(name, False, f"{type(error).__name__}: {first}", follows)
    if found is None:
        return Check(name, None, "no second route to compare with")
    if isinstance(found, Measured):
        return Check(name, found.exact, str(found), "" if found.exact else follows)
    return Check(name, found.holds, found.measured, "" if found.holds else found.follows or follows)


def _hugging(model: HookedVLM) -> Measured | None:
    return measured.hugging(model.lm)


def _injected(model: HookedVLM) -> Measured | None:
    return measured.injected(model.lm)


def _cached(model: HookedVLM) -> Measured | Check | None:
    if not model.lm.is_bridge:
        return None
    found = model.lm.caching
    if found.exact and found.renamed:
        return Check("", True, f"{found} (handed over under a second name)")
    return found


def _padded(model: HookedVLM) -> Measured:
    return model.lm.padded


def _cut(model: HookedVLM) -> Measured:
    return model.lm.cut


def _lens(model: HookedVLM) -> Measured:
    return Measured(model.lm.can.lens_error, max(1e-3, measured.tolerance(model.lm)))


def _pattern(model: HookedVLM) -> Check:
    writable = model.lm.can.pattern_writable
    told = "writing one changes " + ("the logits" if writable else "nothing")
    return Check("", writable or None, told)


def _units(model: HookedVLM) -> Check:
    layers = model.lm.units.layers
    with_units = [one for one in layers if one.width]
    told = f"{len(with_units)} of {len(layers)} layers have them"
    reasons = dict.fromkeys(one.reason for one in layers if not one.width)
    follows = f"attribute, decode and Edit('neurons', ...) are refused there: {'; '.join(reasons)}"
    return Check("", len(with_units) == len(layers) or None, told, follows if reasons else "")


def _points(model: HookedVLM) -> Check:
    there, fire = len(model.lm.every_point), len(model.lm.can.fires)
    return Check("", fire > 0, f"{fire} of {there} names fire in a plain forward pass")


def _gradient(model: HookedVLM) -> Check:
    from PIL import Image

    if model.vision is None or model.projection is None:
        prompt: Any = measured.tokens(model.lm, 6)
    else:
        prompt = Prompt(Image.effect_noise((64, 64), 80).convert("RGB"))
    soft = model.embed(prompt)
    at = SITES["resid_pre"].at(0)
    with torch.enable_grad(), capture(model, [at]) as kept:
        logits = model.run(soft, grad=True)
        (gradient,) = torch.autograd.grad(logits[0, -1].max(), kept[at])
    size = float(gradient.abs().max())
    return Check("", 0 < size < float("inf"), f"largest {size:.2g}")


CHECKS: tuple[tuple[str, str, Callable[[Any], Measured | Check | None]], ...] = (
    (
        "logits are Hugging Face's own",
        "no number of this model can be trusted: install tested versions",
        _hugging,
    ),
    (
        "soft prompt = inputs_embeds",
        "no number that a picture has a part in can be trusted: text alone works",
        _injected,
    ),
    (
        "cached = full generation",
        "generate goes without the cache, slower; patched passes read all positions again",
        _cached,
    ),
    (
        "left padding changes nothing",
        "prompts of different lengths in one batch are refused; one at a time works",
        _padded,
    ),
    (
        "attention can be cut in its mask",
        "knockout is refused; Edit('z', ...) of a head works",
        _cut,
    ),
    (
        "lens of the last layer = logits",
        "logit_lens and direct_logits do not add up to the model's own logits",
        _lens,
    ),
    (
        "attention patterns can be written",
        "Edit('pattern', ...) is refused; knockout and Edit('z', ...) work",
        _pattern,
    ),
    ("MLP units are rows of W_out", "", _units),
    ("hook points fire", "run_with_cache and edits are refused", _points),
    ("a gradient reaches the first layer", "attribution is refused", _gradient),
)
