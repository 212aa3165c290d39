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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from mmlens import embedding, generation, hooking, words
from mmlens.autograd import ordinary
from mmlens.copies import Joined
from mmlens.edit import Edit
from mmlens.errors import SiteError
from mmlens.hooking import Hook, Pairs
from mmlens.lm import LanguageModel
from mmlens.prompt import SoftPrompt
from mmlens.run import reading
from mmlens.tokens import PromptTokens

_within: ContextVar[dict[int, tuple[Hook, ...]]] = ContextVar("mmlens_hooks", default={})  # noqa: B039
Input = Any
"""A Prompt, text, a list of these, a SoftPrompt, token ids, vectors Float[batch, pos, d_model]."""


class HookedVLM(Joined):
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

    # -- what a HookedTransformer has ---------------------------------------------------------

    @property
    def cfg(self) -> Any:
        """TransformerLens' configuration of the language model."""
        return self.lm.cfg

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        return self.lm.tokenizer

    @property  # protocols look for these on the class (Python 3.12), not in __getattr__
    def blocks(self) -> Any:
        """The transformer blocks."""
        return self.root.blocks

    @property
    def ln_final(self) -> Any:
        """The final norm."""
        return self.root.ln_final

    def accumulated_bias(self, *args: Any, **options: Any) -> torch.Tensor:
        """TransformerLens' own: the sum of output biases up to a layer."""
        return self.root.accumulated_bias(*args, **options)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "root" not in self.__dict__.get("_modules", {}):
                raise
            value = getattr(self.root, name)
            return self.lm.switch(value) if name.startswith("set_use_") else value

    def tokens_to_residual_directions(self, tokens: Any) -> torch.Tensor:
        """Columns of W_U for tokens (a string of one token, or ids)."""
        if isinstance(tokens, str):
            tokens = self.to_single_token(tokens)
        return self.root.tokens_to_residual_directions(tokens)

    @property
    def hook_dict(self) -> dict[str, Any]:
        """Every hook point that fires, by name; dead and gated ones are left out."""
        return hooking.points(self)

    @property
    def watches_vision(self) -> bool:
        """Whether a hook now in force stands on the way from pixels to soft-prompt vectors."""
        return any(hooking.part(hook.name) != "lm" for hook in self._hooks_now())

    def _hooks_now(self) -> list[Hook]:
        return [*self._added, *_within.get().get(id(self), ())]

    # -- words --------------------------------------------------------------------------------

    def to_tokens(
        self, input: Input, prepend_bos: bool | None = None, move_to_device: bool = True
    ) -> torch.Tensor:
        """Ids Int[batch, pos], on the device; with pictures they carry them (`mmlens.tokens`)."""
        with self._running(input, None, prepend_bos) as soft:
            return PromptTokens.of(soft) if bool(soft.is_picture.any()) else soft.ids

    def to_str_tokens(self, input: Input) -> list[str]:
        """The label of every position, as text."""
        return [str(label) for label in self.embed(input).labels[0]]

    def to_string(self, tokens: Any) -> Any:
        """Text of ids [pos], or a list of texts of ids [batch, pos]; patches are left out."""
        return words.text(self.lm, tokens)

    def to_single_token(self, word: str) -> int:
        """The id of a word that is exactly one token; else a TargetError shows its pieces."""
        return words.single_token(self.lm, word)

    # -- running ------------------------------------------------------------------------------

    def embed(self, input: Input) -> SoftPrompt:
        """The prompt as the language model receives it: one vector and one label per position."""
        with self._running(input) as soft:
            return soft

    def forward(
        self,
        input: Input,
        return_type: str | None = "logits",
        *,
        loss_per_token: bool = False,
        attention_mask: torch.Tensor | None = None,
        prepend_bos: bool | None = None,
        stop_at_layer: int | None = None,
        **options: Any,
    ) -> Any:
        """Logits Float[batch, pos, d_vocab]; `return_type` "loss" and "both" as in TransformerLens.

        The loss is the mean over word tokens: patches and padding are no targets (LiMBeR, 2.4).
        With `stop_at_layer` it is the residual stream entering that layer.
        """
        with self._running(input, attention_mask, prepend_bos) as soft:
            ids = soft.ids.clamp(min=0)
            out = self.lm.forward(ids, soft.mask, stop_at_layer=stop_at_layer, **options)
        if stop_at_layer is not None or return_type == "logits":
            return out
        if return_type is None:
            return None
        return embedding.loss(out, soft, return_type, loss_per_token)

    @contextmanager
    def _running(
        self,
        input: Input,
        mask: torch.Tensor | None = None,
        prepend_bos: bool | None = None,
        differentiable: bool = True,
    ) -> Iterator[SoftPrompt]:
        """Inside: all hooks in place and the prompt being read; one thread at a time."""
        hooks = self._hooks_now()
        with ordinary(), self.lm.lock, ExitStack() as stack:
            prompts = embedding.prompts_of(input)
            stack.enter_context(hooking.attached(self, hooks, prompts))
            soft = embedding.embed(self, input, mask=mask, prepend_bos=prepend_bos)
            stack.enter_context(reading(soft, differentiable))
            yield soft

    @contextmanager
    def hooks(
        self,
        fwd_hooks: Pairs = (),
        bwd_hooks: Pairs = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
    ) -> Iterator[HookedVLM]:
        """Within this context (and this thread) every call runs with these hooks.

        Raises:
            SiteError: a name that does not exist or never fires; the sentence names the nearest.
        """
        new = hooking.hooks_of(self, fwd_hooks, "fwd") + hooking.hooks_of(self, bwd_hooks, "bwd")
        outer = _within.get()
        token = _within.set({**outer, id(self): (*outer.get(id(self), ()), *new)})
        try:
            yield self
        finally:
            _within.reset(token)
            if not reset_hooks_end:
                self._added += new

    def run_with_hooks(
        self,
        input: Input,
        fwd_hooks: Pairs = (),
        bwd_hooks: Pairs = (),
        reset_hooks_end: bool = True,
        clear_contexts: bool = False,
        **options: Any,
    ) -> Any:
        """One forward pass with hooks `fn(tensor, hook)`; what one returns replaces the tensor."""
        with self.hooks(fwd_hooks, bwd_hooks, reset_hooks_end, clear_contexts):
            return self(input, **options)

    def run_with_cache(
        self,
        input: Input,
        return_cache_object: bool = True,
        remove_batch_dim: bool = False,
        names_filter: Any = None,
        device: Any = None,
        incl_bwd: bool = False,
        pos_slice: Any = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """Output and an ActivationCache of the named hook points (all when `names_filter` is None).

        With `incl_bwd` (and `return_type="loss"`) gradients are cached as `<name>_grad`; with
        `pos_slice` only these positions of the language model are kept.
        """
        how = (names_filter, device, incl_bwd, remove_batch_dim, return_cache_object, pos_slice)
        return hooking.run_with_cache(self, input, *how, options)

    def add_hook(
        self, name: Any, hook: Callable[..., Any], dir: str = "fwd", **options: Any
    ) -> None:
        """A hook that stays until `reset_hooks()`, on this model and copies made of it later."""
        new = hooking.hooks_of(self, [(name, hook)], dir)
        self._added = [*new, *self._added] if options.get("prepend") else [*self._added, *new]

    def reset_hooks(self, *args: Any, **options: Any) -> None:
        """Remove what `add_hook` added."""
        self._added = []

    def generate(self, input: Input, max_new_tokens: int = 30, **options: Any) -> Any:
        """The words that follow (see `mmlens.generation.generate` for the options)."""
        return generation.generate(self, input, max_new_tokens, **options)

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
        from mmlens.files import save

        return save(self, folder)

    def __repr__(self) -> str:
        edits = f", {len(self.edits)} edits" if self.edits else ""
        return f"HookedVLM({self.name!r}, {self.cfg.n_layers} layers of {self.cfg.d_model}{edits})"
