"""A bridge as one hooked model: vision encoder, projection, language model, and its edits.

    logits, cache = model.run_with_cache(Prompt(photo, "A picture of"))
    cache["blocks.3.mlp.hook_post"]              # [batch, pos, d_mlp], patches and words alike
    cache["vision.blocks.1.hook_resid_post"]     # [picture, patch, d_vision]

To someone who knows TransformerLens it is a HookedTransformer: the same methods and hook names, all
of which accept a Prompt. The parts are composed; nothing of TransformerLens is subclassed, and what
this class does not define (`blocks`, `unembed`, `W_E`, `OV`, ...) is the language model's own.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from mmlens.model import (
    activation_cache,
    continuation,
    generation,
    hooking,
    loss,
    options,
)
from mmlens.model import (
    reading as embedding,
)
from mmlens.model.kept_hooks import KeepsHooks
from mmlens.model.surface import Surface, check_left
from mmlens.model.token_ids import tokens_of
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.hook_calls import Hook
from mmlens.runtime.run import reading
from mmlens.runtime.turns import turn
from mmlens.towers.language.copies import Joined
from mmlens.towers.language.language_model import LanguageModel
from mmlens.values.arguments import instance
from mmlens.values.edit import Edit
from mmlens.values.errors import SiteError
from mmlens.values.prompt import SoftPrompt
from mmlens.values.sites import SITES

Input = Any
"""A Prompt, text, a list of these, a SoftPrompt, token ids, vectors Float[batch, pos, d_model]."""


class HookedVLM(KeepsHooks, Surface, Joined):
    """vision - projection - lm, frozen, plus edits.

    Args:
        vision: a `HookedVision`, or None for a language model alone.
        projection: maps features [..., d_vision] to soft-prompt vectors [..., d_model].
        lm: what `wrap_lm` returns.
        name: what the model is called in results.
        provenance: where the parts come from (ids, revisions, hashes), kept in every result.
        prepend_bos: whether a text starts with the BOS token (LiMBeR: no).
    """

    def __init__(
        self,
        vision: Any,
        projection: nn.Module | None,
        lm: LanguageModel,
        *,
        name: str,
        provenance: Mapping[str, Any] | None = None,
        prepend_bos: bool = False,
    ) -> None:
        from transformer_lens.hook_points import HookPoint

        super().__init__()
        self.vision, self.projection = vision, projection
        self.root = lm.root
        self.__dict__["lm"] = lm
        self.hook_projection = HookPoint()
        self.hook_projection.name = "projection.hook_out"
        self.name, self.provenance = name, dict(provenance or {})
        self.prepend_bos = prepend_bos
        self.edits: tuple[Edit, ...] = ()
        self._added: list[Hook] = []
        self.eval().requires_grad_(False)

    # -- words --------------------------------------------------------------------------------

    def to_tokens(
        self,
        input: Input,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        move_to_device: bool = True,
    ) -> torch.Tensor:
        """Ids Int[batch, pos]; with pictures they carry them (`mmlens.model.prompt_tokens`).

        Args:
            prepend_bos: whether texts begin with the BOS token; by default `model.prepend_bos`.
            padding_side: "left", as always.
            move_to_device: onto the device of the model; else on the CPU.
        """
        check_left(padding_side)
        with self._running(input, None, prepend_bos) as soft:
            ids = tokens_of(self, soft)
            return ids if move_to_device else ids.cpu()

    # -- running ------------------------------------------------------------------------------

    def forward(
        self,
        input: Input,
        return_type: str | None = "logits",
        *,
        loss_per_token: bool = False,
        attention_mask: torch.Tensor | None = None,
        prepend_bos: bool | None = None,
        stop_at_layer: int | None = None,
        past_key_values: Any = None,
        **more: Any,
    ) -> Any:
        """Logits Float[batch, pos, d_vocab]; `return_type` "loss" and "both" as in TransformerLens.

        The loss is the mean over word tokens: patches and padding are no targets (LiMBeR, 2.4).

        Args:
            loss_per_token: the loss of every position, Float[batch, pos - 1].
            attention_mask: Int[batch, pos], on top of the prompt's own.
            stop_at_layer: return the residual stream entering this layer (n_layers: leaving the
                last).
            past_key_values: a cache to read on from; `return_type="logits_and_cache"` fills one.

        Raises:
            ArgumentError: an option or a `return_type` that does not exist.
            AddressError: no such layer.
        """
        options.refuse_unknown("model(...)", more, options.FORWARD)
        returns, stop = options.return_type(return_type), options.stop_layer(self, stop_at_layer)
        past = options.past(more, past_key_values)
        if past is not None or returns == "logits_and_cache":
            return continuation.read_on(
                self, input, past, returns, loss_per_token, attention_mask, prepend_bos, more
            )
        if stop == self.cfg.n_layers:
            return self._behind_the_last(input, attention_mask, prepend_bos)
        with self._running(input, attention_mask, prepend_bos) as soft:
            out = self.lm.forward(soft.ids.clamp(min=0), soft.mask, stop_at_layer=stop, **more)
        if stop is not None:
            return out
        return loss.returned(out, soft, returns, loss_per_token)

    def _behind_the_last(self, *how: Any) -> torch.Tensor:
        last: list[torch.Tensor] = []
        name = SITES["resid_post"].at(self.cfg.n_layers - 1)
        keep = self.hooks([(name, lambda tensor, hook: last.append(tensor))])
        with keep, self._running(*how) as soft:
            self.lm.forward(soft.ids.clamp(min=0), soft.mask)
        return last[0]

    @contextmanager
    def _running(
        self,
        input: Input,
        mask: torch.Tensor | None = None,
        prepend_bos: bool | None = None,
        differentiable: bool = True,
        past: Any = None,
    ) -> Iterator[SoftPrompt]:
        """Inside: all hooks in place and the prompt being read; one thread at a time."""
        if mask is not None:
            instance(mask, "attention_mask", torch.Tensor, "a tensor Int[batch, pos]")
        hooks = self._hooks_now()
        with ordinary(), turn(self.root, self.vision), ExitStack() as stack:
            self.lm.open()
            scale = self.lm.entrance.scale
            prompts = embedding.prompts_of(input)
            stack.enter_context(hooking.attached(self, hooks, prompts))
            held = continuation.length(past)
            own = mask if mask is None or mask.shape[-1] <= held else mask[:, held:]
            new = embedding.embed(self, input, mask=own, prepend_bos=prepend_bos)
            soft = continuation.after(new, past)
            run = stack.enter_context(reading(soft, differentiable, scale))
            run.enters = held
            yield soft

    def run_with_cache(
        self,
        input: Input,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        names_filter: Any = None,
        device: Any = None,
        incl_bwd: bool = False,
        pos_slice: Any = None,
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **more: Any,
    ) -> tuple[Any, Any]:
        """Output and an ActivationCache of the named hook points (all when `names_filter` is None).

        With `incl_bwd` (and `return_type="loss"`) gradients are cached as `<name>_grad`; with
        `pos_slice` only these positions of the language model are kept.
        """
        options.refuse_unknown("run_with_cache", more, [*options.CACHE, *options.FORWARD])
        below = options.stop_layer(self, more.get("stop_at_layer"))
        how = (names_filter, device, incl_bwd, remove_batch_dim, return_cache_object, pos_slice)
        contexts = (reset_hooks_end, clear_contexts)
        return activation_cache.run_with_cache(self, input, *how, contexts, below, more)

    def generate(self, input: Input, max_new_tokens: int = 30, **more: Any) -> Any:
        """The words that follow (see `mmlens.model.generation.generate` for the options)."""
        more.pop("verbose", None)  # TransformerLens' switch of a progress bar; here is none
        return generation.generate(self, input, max_new_tokens, **more)

    # -- edits --------------------------------------------------------------------------------

    def edit(self, *edits: Edit) -> HookedVLM:
        """This model with edits: a model like any other, sharing the weights.

        Raises:
            SiteError, AddressError: a site, layer or unit that does not exist, or a dead hook.
            CapabilityError: the site can be read but not written on this architecture.
        """
        for change in edits:
            if not isinstance(change, Edit):
                raise SiteError(f"{change!r} is no Edit: write mm.Edit(site, value, address).")
            hooking.check_edit(self, change)
        out = copy.copy(self)
        out.edits = (*self.edits, *edits)
        out._added = list(self._added)
        return out

    def save(self, folder: Any) -> Any:
        """Write the bridge as safetensors and JSON; `mmlens.load(folder)` reads it."""
        from mmlens.checkpoints.folder import save

        return save(self, folder)

    def __repr__(self) -> str:
        edits = f", {len(self.edits)} edits" if self.edits else ""
        return f"HookedVLM({self.name!r}, {self.cfg.n_layers} layers of {self.cfg.d_model}{edits})"
