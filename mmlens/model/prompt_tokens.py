"""Token ids that carry their pictures, so that tools that take ids can run on prompts.

`model.to_tokens(prompt)` gives an Int[batch, pos] tensor with `IMAGE_TOKEN` (-1) at patches;
`transformer_lens.patching.*` and `tools.analysis.*` take it, and the model finds the pictures in
it. The ids are authoritative: words are read from the tensor when it is used, including words that
were written into it (`reading.embed`).

What an operation does to the pictures is measured: it is repeated on ids in which every patch has a
unique number, in two numberings. If it only moved, copied or replaced ids, both agree on where each
patch went, and the result carries the pictures there. If it computed with the ids, the two
disagree, and using the result as a prompt raises an error instead of reading it without the
picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from mmlens.values.labels import Label, Padding, Token
from mmlens.values.prompt import Prompt, SoftPrompt, next_at

UNREAD = -2
"""The id, in a `SoftPrompt` that tokens carry, of a word that has not been read yet."""


class PromptTokens(torch.Tensor):
    """Int[batch, pos] (or Int[pos]) ids of a `SoftPrompt`, which is kept as `.soft`.

    Attributes:
        soft: pictures and padding at their places; None after an operation that lost them.
        parts: the vision encoder, projection and language model that made it.
        owner: the tokens whose memory these are a view of.
    """

    soft: SoftPrompt | None = None
    parts: tuple[Any, ...] = ()
    owner: PromptTokens | None = None

    @classmethod
    def of(cls, soft: SoftPrompt, parts: tuple[Any, ...] = ()) -> PromptTokens:
        """The ids of a soft prompt that these parts of a model made."""
        tokens = soft.ids.detach().clone().as_subclass(cls)
        tokens.soft, tokens.parts = soft, parts
        return tokens

    def __deepcopy__(self, memo: Any) -> torch.Tensor:
        return self.clone()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        carriers = [x for x in _tensors((args, kwargs)) if isinstance(x, PromptTokens)]
        if func is torch.Tensor.as_subclass:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func.__name__ == "__get__" or all(x.soft is None for x in carriers):
            return super().__torch_function__(func, types, args, kwargs)
        before = {id(x): plain(x).clone() for x in carriers}
        result = super().__torch_function__(func, types, args, kwargs)
        target = args[0] if args and isinstance(args[0], PromptTokens) else None
        if target is not None and (result is target or func is torch.Tensor.__setitem__):
            target.soft = _Trace(func, args, kwargs, before).of(target, 0)
            if target.soft is None or len(before) > 1:
                _forget(target.owner)
            return result
        several = isinstance(result, (tuple, list))
        made = list(result) if several else [result]
        if not any(isinstance(x, PromptTokens) for x in made):
            return result
        trace = _Trace(func, args, kwargs, before)
        made = [_with(x, trace.of(x, i), carriers) for i, x in enumerate(made)]
        return (
            type(result)(made) if type(result) in (tuple, list) else result if several else made[0]
        )


def plain(tokens: torch.Tensor) -> torch.Tensor:
    """The ids as a plain tensor that shares the memory."""
    return tokens.as_subclass(torch.Tensor).detach()


def rows(soft: SoftPrompt, index: Any) -> SoftPrompt:
    """Some prompts of a batch, selected by a slice, a list or a tensor of row numbers."""
    kept = torch.arange(len(soft))[
        torch.as_tensor(index) if isinstance(index, torch.Tensor) else index
    ]
    return replace(
        soft,
        vectors=soft.vectors[kept],
        ids=soft.ids[kept],
        mask=soft.mask[kept],
        labels=tuple(soft.labels[i] for i in kept.tolist()),
        prompts=tuple(soft.prompts[i] for i in kept.tolist()) if soft.prompts else (),
        picture_keys=None if soft.picture_keys is None else soft.picture_keys.rows(kept.tolist()),
        deep=None if soft.deep is None else soft.deep[kept],
    )


class _Trace:
    """One operation, repeated on patches (and paddings) in two numberings."""

    def __init__(self, func: Any, args: Any, kwargs: Any, before: dict[int, torch.Tensor]) -> None:
        self.softs: list[SoftPrompt] = []
        self.made: list[Any] = []
        if any(x.dtype.is_floating_point for x in _tensors((args, kwargs))):
            return  # ids that index or scale other numbers: the result is no prompt
        for step in (1, 3):
            number = lambda x, step=step: self._numbered(x, before, step)  # noqa: E731
            again = _mapped(args, number), _mapped(kwargs, number)
            try:
                made = func(*again[0], **again[1])
            except (RuntimeError, IndexError, TypeError, ValueError):
                return
            changed = func is torch.Tensor.__setitem__
            made = again[0][0] if changed else made
            self.made.append(list(made) if isinstance(made, (tuple, list)) else [made])

    def _numbered(self, x: torch.Tensor, before: dict[int, torch.Tensor], step: int) -> Any:
        """A copy on the CPU, in which the carried place n is -2 - step * (n + 1)."""
        ids = plain(before.get(id(x), x)).to("cpu", copy=True)
        soft = getattr(x, "soft", None)
        if not isinstance(x, PromptTokens) or soft is None or ids.numel() != soft.ids.numel():
            return ids
        if not any(soft is known for known in self.softs):
            self.softs.append(soft)
        known = [one is soft for one in self.softs].index(True)
        first = sum(one.ids.numel() for one in self.softs[:known])
        numbers = torch.arange(ids.numel()).view(ids.shape) + first
        placed = _placed(soft).view(ids.shape) & (ids == soft.ids.cpu().view(ids.shape))
        return torch.where(placed, -2 - step * (numbers + 1), ids)

    def of(self, result: Any, i: int) -> SoftPrompt | None:
        """The soft prompt that the result carries, or None where it cannot be determined."""
        if not isinstance(result, torch.Tensor) or len(self.made) < 2:
            return None
        a, b = (made[i] for made in self.made)
        ids = plain(result).cpu()
        if ids.dtype != torch.long or ids.ndim not in (1, 2) or a.shape != ids.shape:
            return None
        n = torch.where(a <= -3, -a - 3, -1)
        same = torch.where(n >= 0, b == -2 - 3 * (n + 1), (a == b) & (a == ids) & (a >= 0))
        if not bool(same.all()) or not self.softs:
            return None
        width = ids.shape[-1]
        return _gathered(self.softs, n.reshape(-1, width)) if ids.numel() else None


def _placed(soft: SoftPrompt) -> torch.Tensor:
    """Bool[batch, pos], on the CPU: patches and masked positions, which hold no word."""
    return (soft.is_picture | ~soft.mask).cpu()


def _gathered(softs: list[SoftPrompt], n: torch.Tensor) -> SoftPrompt | None:
    """A soft prompt with the carried places `n` Int[batch, pos] (-1: a word, not read yet).

    None where one row has places of several prompts, or padding behind a word.
    """
    first = softs[0]
    numbers = torch.arange(first.ids.numel()).view(first.ids.shape)
    if n.shape == numbers.shape and bool(((n == numbers) | (n < 0)).all()):
        return first
    every = [
        (soft, at, label) for soft in softs for at, row in enumerate(soft.labels) for label in row
    ]
    labels: list[tuple[Label, ...]] = []
    prompts: list[Prompt] = []
    for row in n.tolist():
        sources = {(id(every[i][0]), every[i][1]): every[i] for i in row if i >= 0}
        named: list[Label] = []
        for i in row:
            named.append(every[i][2] if i >= 0 else Token("", next_at(tuple(named))))
        padding = [isinstance(label, Padding) for label in named]
        if len(sources) > 1 or sorted(padding, reverse=True) != padding:
            return None
        labels.append(tuple(named))
        prompts += [soft.prompts[at] for soft, at, _ in sources.values() if soft.prompts]
        prompts += [] if sources else [Prompt(" ")]  # words alone, to be read
    at = n.clamp(min=0).to(first.ids.device)
    word = (n < 0).to(first.ids.device)
    vectors, ids, mask = (
        torch.cat([part.flatten(0, 1) for part in parts])[at]
        for parts in zip(*((one.vectors, one.ids, one.mask) for one in softs), strict=True)
    )
    known = tuple(prompts) if len(prompts) == len(labels) else ()
    words = ids.masked_fill(word, UNREAD)
    return SoftPrompt(vectors, words, mask | word, tuple(labels), known, deep=_deep(softs, at))


def _deep(softs: list[SoftPrompt], at: torch.Tensor) -> torch.Tensor | None:
    """What pictures add behind layers at these places of several prompts, in a row."""
    there = [soft.deep for soft in softs if soft.deep is not None]
    if not there:
        return None
    like = there[0]
    every = [
        like.new_zeros(soft.ids.numel(), *like.shape[2:])
        if soft.deep is None
        else soft.deep.flatten(0, 1)
        for soft in softs
    ]
    return torch.cat(every)[at]


def _with(x: Any, soft: SoftPrompt | None, carriers: list[PromptTokens]) -> Any:
    """A result with its soft prompt; a plain tensor where it has words alone."""
    if not isinstance(x, PromptTokens):
        return x
    if x.dtype != torch.long or (soft is not None and not bool(_placed(soft).any())):
        return plain(x)
    source = next(one for one in carriers if one.soft is not None)
    x.soft, x.parts = soft, source.parts
    if any(one.parts != source.parts for one in carriers if one.soft is not None):
        x.soft = None
    memory = lambda t: plain(t).untyped_storage().data_ptr()  # noqa: E731
    x.owner = next((one for one in carriers if one is not x and memory(one) == memory(x)), None)
    return x


def _forget(tokens: PromptTokens | None) -> None:
    """Drop the pictures of tokens that were changed through a view: their places are unknown."""
    while tokens is not None:
        tokens.soft, tokens = None, tokens.owner


def _tensors(parts: Any) -> Iterator[torch.Tensor]:
    if isinstance(parts, torch.Tensor):
        yield parts
    elif isinstance(parts, (tuple, list)):
        for part in parts:
            yield from _tensors(part)
    elif isinstance(parts, dict):
        yield from _tensors(list(parts.values()))


def _mapped(parts: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(parts, torch.Tensor):
        return change(parts)
    if type(parts) in (tuple, list):
        return type(parts)(_mapped(part, change) for part in parts)
    if type(parts) is dict:
        return {name: _mapped(part, change) for name, part in parts.items()}
    return parts
