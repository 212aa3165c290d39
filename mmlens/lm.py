"""The language model of a bridge: a TransformerLens model that reads soft prompts.

TransformerLens 4 wraps a live Hugging Face model in a `TransformerBridge`; 3.x has a real
`HookedTransformer` as well. Both have the same hook names and the same numbers, and both are taken
here, composed and never subclassed. Three things are added: the permanent hook that puts patches in
place of placeholder tokens (`run.inject`), a copy that shares the weights so that the caller's
model survives, and a probe that measures what this architecture can do.
"""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mmlens import copies, kv_cache
from mmlens.autograd import differentiable, ordinary
from mmlens.errors import CapabilityError
from mmlens.lm_kinds import check_lm, refusing
from mmlens.probe import Capabilities, probe
from mmlens.run import inject


def share_weights(module: nn.Module) -> nn.Module:
    """A frozen copy of a module tree over the same memory, in eval mode.

    Parameters and buffers are new tensor objects on the old storage, so freezing, moving or
    casting the copy leaves the caller's module as it is.
    """
    differentiable(module)
    memo: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        if type(tensor) is nn.Parameter:
            memo[id(tensor)] = nn.Parameter(tensor.detach(), requires_grad=False)
        else:
            memo[id(tensor)] = tensor.detach() if type(tensor) is torch.Tensor else tensor
    return copy.deepcopy(module, memo).requires_grad_(False).eval()


@dataclass(eq=False)
class LanguageModel:
    """A TransformerLens model (`root`), the Hugging Face model it came from, and its tokenizer.

    Attributes:
        root: TransformerBridge or HookedTransformer.
        hf: the caller's Hugging Face model, untouched; None for a HookedTransformer. What this
            model computes with is `mmlens.copies.hugging_face(lm)`.
        tokenizer: a Hugging Face tokenizer, or None.
        folded: whether the gains of the norms were folded into the weights after them.
        parts: the modules of the copy of `hf` that the bridge runs, by their names in `hf`.
        lock: held during every call, since TransformerLens' hooks are not thread-safe.
        decoded: what `decode` has read so far.
    """

    root: Any
    hf: Any = None
    tokenizer: Any = None
    folded: bool = False
    parts: dict[str, nn.Module] = field(default_factory=dict, repr=False)
    lock: Any = field(default_factory=threading.RLock, repr=False)
    decoded: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> Any:
        return copies.reduced_lm(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> LanguageModel:
        return copies.deep_lm(self, memo)

    @property
    def is_bridge(self) -> bool:
        """Whether `root` is a TransformerBridge (else a HookedTransformer)."""
        return hasattr(self.root, "original_model")

    @property
    def cfg(self) -> Any:
        """TransformerLens' configuration."""
        return self.root.cfg

    @property
    def device(self) -> torch.device:
        """Where the embedding lives."""
        return next(iter(self.root.parameters())).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(iter(self.root.parameters())).dtype

    @cached_property
    def n_words(self) -> int:
        """Rows of the vocabulary that are words: the rest is padding (LiMBeR: ids >= 50257 + 1)."""
        size = int(self.root.W_U.shape[-1])
        return min(size, len(self.tokenizer)) if self.tokenizer is not None else size

    @cached_property
    def can(self) -> Capabilities:
        """What the hooks of this architecture really do, measured once by short forward passes."""
        with self.lock, torch.no_grad():
            return probe(self)

    @cached_property
    def caching(self) -> kv_cache.Caching:
        """Whether cached steps give the logits of full ones, measured once."""
        with self.lock:
            return kv_cache.measure(self)

    def switch(self, setter: Callable[..., Any]) -> Callable[..., Any]:
        """A `set_use_...` of TransformerLens opens or closes hook points: measure them again."""

        def switched(*args: Any, **options: Any) -> Any:
            self.__dict__.pop("can", None)
            return setter(*args, **options)

        return switched

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, **options: Any) -> Any:
        """One pass of the hooked model over ids [batch, pos] under a 0/1 mask [batch, pos]."""
        if self.is_bridge:
            options.setdefault("use_cache", False)
        elif options.pop("logits_to_keep", None) is not None:
            raise CapabilityError("A HookedTransformer computes the logits of all positions.")
        return self.root(ids, attention_mask=mask.long(), **options)

    def logits_at(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Logits Float[batch, len(positions), d_vocab] of these positions, the others left out."""
        if self.keeps_logits:
            return self.forward(ids, mask, logits_to_keep=positions)
        return self.forward(ids, mask)[:, positions]

    @cached_property
    def keeps_logits(self) -> bool:
        """Whether the logits of a few positions can be had without those of the others."""
        if not self.is_bridge:
            return False
        return "logits_to_keep" in inspect.signature(self.root.original_model.forward).parameters

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Word embeddings Float[batch, pos, d_model], as they leave the embedding hook point."""
        table = (
            self.root.original_model.get_input_embeddings() if self.is_bridge else self.root.embed
        )
        table = getattr(table, "original_component", table)  # below the hooks of the bridge
        return table(ids.to(self.device))

    @cached_property
    def final_gain(self) -> tuple[torch.Tensor, bool]:
        """The gain Float[d_model] of the final norm and whether it centres, read off its output.

        Measured rather than looked up: Gemma keeps `gain - 1`, and names differ per architecture.
        """
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 1, self.cfg.d_model, generator=generator).to(self.device, torch.float32)
        with torch.no_grad():
            norm = lambda v: self.root.ln_final(v.to(self.dtype)).float()  # noqa: E731
            scaled = (norm(x) - norm(-x)) / 2
            centres = bool((norm(x + 3.0) - norm(x)).abs().max() < 0.05)
        y = x - x.mean() if centres else x
        return (scaled / (y / y.pow(2).mean().sqrt())).flatten(), centres

    def logits_of(self, resid: torch.Tensor) -> torch.Tensor:
        """The final norm, the unembedding and what the architecture does to its logits.

        Args:
            resid: Float[..., d_model], the residual stream.
        """
        lead = resid.shape[:-1]
        flat = resid.reshape(1, -1, resid.shape[-1])
        logits = self.root.unembed(self.root.ln_final(flat))
        adapter = getattr(self.root, "adapter", None)
        transform = getattr(adapter, "apply_output_logits_transform", None)
        logits = transform(logits) if transform is not None else logits
        return logits.reshape(*lead, -1)


def wrap_lm(model: Any, tokenizer: Any = None, *, fold_ln: bool = False) -> LanguageModel:
    """A language model from a Hugging Face causal LM, a TransformerBridge or a HookedTransformer.

    Args:
        model: the model; a Hugging Face model is not changed and shares its weights.
        tokenizer: its tokenizer (a HookedTransformer or bridge brings its own).
        fold_ln: fold the gain of every norm into the weights after it, as
            `HookedTransformer.from_pretrained` does; on a bridge made here only.
    """
    hf, parts = None, {}
    check_lm(model)
    with ordinary():
        if hasattr(model, "run_with_cache"):
            if fold_ln:
                raise CapabilityError(
                    "fold_ln=True needs the Hugging Face model: give that, or fold the"
                    " TransformerLens model yourself before it is wrapped."
                )
            root, tokenizer = model.eval(), tokenizer or getattr(model, "tokenizer", None)
            root.requires_grad_(False)
        else:
            hf, (root, parts) = model, _bridge(model, fold_ln)
        lm = LanguageModel(root, hf, tokenizer, fold_ln, parts)
        _attach(root, "embed.hook_out" if lm.is_bridge else "hook_embed")
    return lm


def _attach(root: Any, name: str) -> None:
    """Put `inject` on the embedding, once: twice would count every position twice."""
    point = root.hook_dict[name]
    if getattr(root, "_mmlens_inject", None) not in point.fwd_hooks:
        root.add_perma_hook(name, inject)
        root._mmlens_inject = point.fwd_hooks[-1]


def _bridge(hf: Any, fold_ln: bool) -> tuple[Any, dict[str, nn.Module]]:
    """A TransformerBridge of a copy that shares the weights, and the modules of that copy."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    twin: Any = share_weights(hf)
    parts = dict(twin.named_modules())
    twin.set_attn_implementation("eager")
    with refusing(hf):
        root = build_bridge_from_module(twin, type(hf).__name__, hf_config=twin.config)
    if fold_ln:
        _own_weights(twin)
        root.enable_compatibility_mode(
            center_writing_weights=False, center_unembed=False, fold_value_biases=False
        )
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
    return root.eval(), parts


def _own_weights(module: nn.Module) -> None:
    """Folding writes into the weights: give the copy its own before that."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
