"""Cross-attention of a language model: how it reads pictures that are not positions of its prompt.

A decoder of transformers takes the states that it attends to as arguments of its forward pass:

    decoder(input_ids, encoder_hidden_states=..., encoder_attention_mask=...)

`Crossing` passes those of the current prompt to every forward pass of the model, under Hugging
Face's own `generate` as well, and opens the cross-attention modules (`mmlens.towers.attention`)
under the names `blocks.{layer}.cross_attn.hook_pattern` and so on. Modules whose opened forward is
not exact stay closed, and have no points. A model that takes other arguments has a subclass of
`Crossing` that names them (Mllama's: `mmlens.towers.language.gated_crossing`).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmlens.runtime.run import current
from mmlens.towers.attention import ATTENTION_POINTS, measuring, open_attention
from mmlens.values.prompt import PictureKeys
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel

_KEYS = 4
"""How many random keys a measurement uses."""


class Crossing:
    """The cross-attention of one language model.

    Attributes:
        d_key: the size of the states that it attends to.
        points: its hook points by name.
        masks: whether the model obeys the mask of the keys, as measured. GPT-2 of transformers 5.9
            takes one and ignores it.
        gates: by layer the numbers that multiply what is read across, where there are some.
        measuring: how many measurements are going on.
    """

    states, mask = "encoder_hidden_states", "encoder_attention_mask"
    """The names of the arguments with the states and their mask."""
    reads = ""
    """The argument of the attention module that has the states, where it has another name."""
    masked = True
    """Whether every position obeys the mask, where one does."""

    def __init__(self, d_key: int) -> None:
        self.d_key = d_key
        self.points: dict[str, Any] = {}
        self.masks = False
        self.gates: dict[int, dict[str, float]] = {}
        self.measuring = 0

    @classmethod
    def size(cls, config: Any) -> int | None:
        """The size of the states by the model's configuration; None for that of the stream."""
        return getattr(config, "cross_attention_hidden_size", None)

    def arguments(self, keys: PictureKeys, start: int, width: int = 0) -> dict[str, Tensor]:
        """The arguments of a forward pass over `width` positions from `start` on."""
        return {self.states: keys.vectors, self.mask: keys.mask.long()}

    def given(self, module: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        """The forward pre-hook of the model: adds the pictures of the prompt that is being read."""
        run = current()
        if run is None or run.soft.picture_keys is None:
            return None
        ids = options["input_ids"] if options.get("input_ids") is not None else args[0]
        found = self.arguments(run.soft.picture_keys, run.begins(ids.shape[1]), ids.shape[1])
        beams = ids.shape[0] // len(run.soft)
        return args, options | {n: x.repeat_interleave(beams, 0) for n, x in found.items()}

    def written(self, layer: int, point: Any, module: nn.Module, args: Any, out: Any) -> Any:
        """The hook of a cross-attention module: its output through the point of what is written."""
        return (point(out[0]), *out[1:]) if isinstance(out, tuple) else point(out)

    def open_block(self, layer: int, block: nn.Module) -> None:
        """What else is opened in a block that has cross-attention."""

    def writer(self, block: Any, module: nn.Module) -> nn.Module:
        """The module of a block whose output is what its attention `module` adds to the stream."""
        return module

    def something(self, rows: int, like: Tensor) -> dict[str, Tensor]:
        """Arguments for a measurement: the same few random keys for every row."""
        return self.arguments(_random_keys(rows, self.d_key, like), 0)


def open_crossing(
    lm: LanguageModel, kinds: Sequence[type[Crossing]] = (Crossing,)
) -> Crossing | None:
    """The cross-attention of a bridge made here, opened; None where it has none.

    A forward pass over five tokens beside a few keys finds out which modules can be opened, and two
    more whether the mask of the keys is obeyed.
    """
    takes = inspect.signature(lm.root.original_model.forward).parameters
    kind = next((one for one in kinds if one.states in takes), Crossing)
    modules = {
        at: _crossing(block, kind.reads or kind.states) for at, block in enumerate(lm.root.blocks)
    }
    if kind.states not in takes or not any(modules.values()):
        return None
    crossing = kind(int(kind.size(lm.root.original_model.config) or lm.cfg.d_model))
    blocks = {at: lm.root.blocks[at].original_component for at, one in modules.items() if one}
    opened = {at: _opened(crossing, at, blocks[at], modules[at]) for at in blocks}
    for at, block in blocks.items():
        crossing.open_block(at, block)
    lm.root.original_model.register_forward_pre_hook(crossing.given, with_kwargs=True)
    ids = torch.arange(5, device=lm.device).unsqueeze(0) % max(1, lm.n_words)
    like = next(iter(lm.root.parameters()))
    # a model that does not run raises when it is called
    with suppress(Exception), lm.bare(), measuring(opened.values()):
        lm.forward(ids, torch.ones_like(ids), **crossing.something(1, like))
    with suppress(Exception), lm.bare():
        crossing.masks = crossing.masked and _obeys_masks(lm, crossing, ids, like)
    closed = {at for at, one in opened.items() if not one.agrees}
    inside = {f"blocks.{at}.cross_attn." for at in closed}
    crossing.points = {
        name: point for name, point in crossing.points.items() if not name.startswith(tuple(inside))
    }
    return crossing


def _random_keys(rows: int, d_key: int, like: Tensor) -> PictureKeys:
    """The same few random keys for every row."""
    draw = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, _KEYS, d_key, generator=draw).repeat(rows, 1, 1).to(like)
    return PictureKeys(
        vectors, torch.ones(vectors.shape[:2], dtype=torch.bool, device=like.device), ()
    )


def _obeys_masks(lm: LanguageModel, crossing: Crossing, ids: Tensor, like: Tensor) -> bool:
    """Whether a masked key is as good as none, and a key that is not masked counts."""
    keys = _random_keys(1, crossing.d_key, like)
    first = torch.arange(_KEYS, device=like.device)[None] == 0
    masked, without, whole = (
        lm.forward(ids, torch.ones_like(ids), **crossing.arguments(some, 0)).float()
        for some in (
            replace(keys, mask=~first),
            PictureKeys(keys.vectors[:, 1:], keys.mask[:, 1:], ()),
            keys,
        )
    )
    off, counts = (masked - without).abs().max(), (whole - without).abs().max()
    return bool(off <= 1e-2 * counts)


def _crossing(block: Any, states: str) -> nn.Module | None:
    """The cross-attention module of a block, which the bridge does not wrap."""
    for module in block.original_component.children():
        if hasattr(module, "original_component"):
            continue
        if states in inspect.signature(module.forward).parameters:
            return module
    return None


def _opened(crossing: Crossing, layer: int, block: nn.Module, module: Any) -> Any:
    """The opening of a module, whose points and output are the crossing's."""
    from transformer_lens.hook_points import HookPoint

    inside = {name: HookPoint() for name in (*ATTENTION_POINTS, "hook_attn_scores")}
    out = HookPoint()
    named = {f"blocks.{layer}.cross_attn.{name}": point for name, point in inside.items()}
    named[SITES["cross_attn_out"].at(layer)] = out
    for name, point in named.items():
        point.name = name
    crossing.points |= named
    crossing.writer(block, module).register_forward_hook(partial(crossing.written, layer, out))
    return open_attention(module, inside)
