"""The number that is explained: a token's logit or probability, or a function of the logits.

MMN explains a token of the model's own caption, at the position that predicts it: the input is the
prompt and the caption up to the token. That is the default here too. `after=` puts other words (or
none, `after=""`) between the prompt and the token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from mmlens.model.capabilities import require
from mmlens.model.generation import end_ids
from mmlens.model.reading import going_on
from mmlens.model.text_end import SENTENCE, Stop, TextEnd, stops
from mmlens.towers.language.tokenization import id_of, printed, word
from mmlens.values.arguments import shown
from mmlens.values.errors import MMLensError, NumericsError, PromptError, TargetError
from mmlens.values.labels import Padding, Token
from mmlens.values.prompt import SoftPrompt, next_at
from mmlens.values.written import accepts, written

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM

Number = Callable[[torch.Tensor], torch.Tensor]
_NUMBERS: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {
    "logit": lambda logits, token: logits[token],
    "prob": lambda logits, token: logits.float().softmax(-1)[token],
    "logprob": lambda logits, token: logits.float().log_softmax(-1)[token],
}


@dataclass(frozen=True)
class Target:
    """One number of one forward pass.

    Attributes:
        position: index of the position whose logits are read.
        number: Float[d_vocab] -> a scalar.
        token: the explained token with its position (or a class or unit by name), or None for a
            callable alone.
        at: the hook whose activation the number is a function of, instead of the logits.
    """

    position: int
    number: Number
    token: Any = None
    at: str | None = None


def aim(
    model: HookedVLM,
    prompt: Any,
    of: str | int | None,
    target: str | Number = "logit",
    after: str | None = None,
) -> tuple[SoftPrompt, Target]:
    """The prompt, extended up to the explained token, and the scalar that is explained.

    Raises:
        TargetError: the word is not one token, or the model does not generate it and `after` is
            None.
    """
    soft = one(model, prompt)
    if of is None:
        if not callable(target):
            raise TargetError(
                "There is no word to explain: write of=' dog', or a callable as target,"
                f" not {target!r}."
            )
        soft = soft if not after else extend(model, soft, going_on(model, soft, after, "after"))
        return soft, Target(soft.ids.shape[1] - 1, checked(target))
    token = id_of(model.lm, of)
    if after is None:
        said = caption(model, soft)
        if token not in said:
            says = printed(model.tokenizer, said) if model.tokenizer else said
            raise TargetError(
                f"The model does not predict {word(model.lm, token)!r} here, its caption is"
                f" {says!r}: write after='' to explain it right after the prompt, or after=' a'"
                " after other words."
            )
        before = said[: said.index(token)]
    else:
        before = going_on(model, soft, after, "after")
    soft = extend(model, soft, before)
    return soft, _target(model, soft, soft.ids.shape[1] - 1, token, target)


def aim_caption(
    model: HookedVLM,
    prompt: Any,
    target: str | Number = "logit",
    given: Any = None,
    max_new_tokens: int = 30,
    stop: Stop = SENTENCE,
) -> tuple[SoftPrompt, list[Target]]:
    """The prompt with its caption (the model's own, or `given`), and one target per token of it.

    Args:
        stop: what ends the model's own caption, as in `generate`.
    """
    soft = one(model, prompt)
    if given is None:
        said = caption(model, soft, max_new_tokens, stop)
    else:
        said = going_on(model, soft, given, "caption")
    if not said:
        raise TargetError(
            "The caption is empty, so there is no token to explain: give caption='...'."
        )
    length = soft.ids.shape[1]
    whole = extend(model, soft, said[:-1])
    return whole, [_target(model, whole, length - 1 + i, t, target) for i, t in enumerate(said)]


def one(model: HookedVLM, prompt: Any) -> SoftPrompt:
    """The soft prompt of one prompt; padding, if it comes from a batch, is removed.

    Raises:
        PromptError: several prompts.
    """
    require(model)
    with torch.no_grad():
        soft = model.embed(prompt)
    if len(soft) != 1:
        raise PromptError(
            f"This question takes one prompt at a time, not {len(soft)}: ask in a loop."
        )
    if soft.picture_keys is not None:
        soft = replace(soft, picture_keys=soft.picture_keys.unpadded())
    pad = sum(isinstance(label, Padding) for label in soft.labels[0])
    return soft.between(pad) if pad else soft


def caption(
    model: HookedVLM, soft: SoftPrompt, max_new_tokens: int = 30, stop: Stop = None
) -> list[int]:
    """Ids of the model's own greedy caption, without the end-of-text token."""
    new = model.generate(soft, max_new_tokens, return_type="tokens", stop=stop)[0]
    return TextEnd(model.lm, end_ids(model), stops(stop)).of(new.tolist())[0]


def extend(model: HookedVLM, soft: SoftPrompt, ids: Sequence[int]) -> SoftPrompt:
    """The prompt with these tokens after it."""
    if not ids:
        return soft
    new = torch.tensor([list(ids)], device=soft.ids.device)
    with torch.no_grad():
        vectors = model.lm.embed(new)
    return soft.extend(new, vectors, [[word(model.lm, token) for token in ids]])


def checked(function: Number) -> Number:
    """A caller's function of the logits, which gives one number or is refused.

    Raises:
        NumericsError: the number has no gradient where gradients are enabled.
    """

    def number(logits: torch.Tensor) -> torch.Tensor:
        value = one_number(function, logits, "The target", "one position")
        if torch.is_grad_enabled() and logits.requires_grad and not value.requires_grad:
            raise NumericsError(
                "The target has no gradient (a rank, a count, a float(...), what is detached):"
                " write a differentiable function of the logits, which gives a tensor."
            )
        return value

    return number


def one_number(
    function: Callable[[torch.Tensor], Any], logits: torch.Tensor, what: str, of: str
) -> torch.Tensor:
    """What a caller's function of one row of logits gives, as a tensor without axes.

    Args:
        what: the function, as error messages call it.
        of: the position whose logits it gets, as error messages call it.

    Raises:
        TargetError: it takes other arguments, fails, or gives something else than one number.
    """
    write = f"it gets the logits of {of}, Float[d_vocab], so write lambda logits: logits[5]"
    if not callable(function) or not accepts(function, 1):
        raise TargetError(
            f"{what} {written(function)!r} cannot be called with 1 argument: {write}."
        )
    try:
        value = function(logits)
    except (MMLensError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the caller's own code: whatever it raises is reported
        raise TargetError(f"{what} failed ({type(error).__name__}: {error}): {write}.") from error
    if isinstance(value, (int, float)) or type(value).__module__ == "numpy":
        value = torch.as_tensor(value)
    if not isinstance(value, torch.Tensor) or value.is_complex():
        raise TargetError(f"{what} gives {shown(value)}, which is no real number: {write}.")
    if value.numel() != 1:
        raise TargetError(
            f"{what} gives {value.numel()} numbers for one row of logits: reduce them to one."
        )
    return value.reshape(())


def finite(values: torch.Tensor, what: str) -> torch.Tensor:
    """`values`, checked.

    Raises:
        NumericsError: a NaN or an infinity in them.
    """
    # a finite sum has finite terms, and costs a fortieth of looking at each; it may also overflow
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        raise NumericsError(
            f"NaN or infinity in {what}: look at the weights, the edits and the dtype (float16"
            " overflows; try float32 or bfloat16)."
        )
    return values


def _target(
    model: HookedVLM, soft: SoftPrompt, position: int, token: int, target: str | Number
) -> Target:
    label = Token(word(model.lm, token), next_at(soft.labels[0][: position + 1]))
    if token in model.lm.unsaid:
        raise TargetError(
            f"{model.name!r} never says {label.text!r}, a code of a picture: its class sets the"
            " logits of codes to the lowest number, so nothing explains one; ask about a word."
        )
    if callable(target):
        return Target(position, checked(target), label)
    if not isinstance(target, str) or target not in _NUMBERS:
        raise TargetError(
            f"There is no target {target!r}: write 'logit', 'prob', 'logprob' or a callable."
        )
    number = _NUMBERS[target]
    return Target(position, lambda logits: number(logits, token), label)
