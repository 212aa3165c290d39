"""Token ids that carry their pictures, so that tools which only know ids can run on prompts.

`model.to_tokens(prompt)` gives an Int[batch, pos] tensor with `IMAGE_TOKEN` (-1) at patches; it is
what `transformer_lens.patching.*` and `tools.analysis.*` want, and the model finds the pictures in
it. Ids whose pictures were lost on the way (arithmetic, concatenation) still hold -1 and are
refused aloud instead of being read without the picture.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from mmlens.prompt import SoftPrompt

_SAME = {torch.Tensor.to, torch.Tensor.clone, torch.Tensor.detach, torch.Tensor.contiguous}
_SAME |= {torch.Tensor.cpu, torch.Tensor.cuda, torch.Tensor.long}


class PromptTokens(torch.Tensor):
    """Int[batch, pos] ids of a `SoftPrompt`, which copies and rows keep as `.soft`."""

    soft: SoftPrompt | None = None

    @classmethod
    def of(cls, soft: SoftPrompt) -> PromptTokens:
        """The ids of a soft prompt."""
        tokens = soft.ids.detach().clone().as_subclass(cls)
        tokens.soft = soft
        return tokens

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})
        source = args[0] if args and isinstance(args[0], PromptTokens) else None
        if isinstance(result, PromptTokens) and source is not None and source.soft is not None:
            if func in _SAME and result.shape == source.shape:
                result.soft = source.soft
            elif (
                func is torch.Tensor.__getitem__
                and result.ndim == 2
                and not isinstance(args[1], tuple)
            ):
                result.soft = rows(source.soft, args[1])
        return result


def rows(soft: SoftPrompt, index: Any) -> SoftPrompt:
    """Some prompts of a batch, as a slice, a list or a tensor of row numbers picks them."""
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
    )
