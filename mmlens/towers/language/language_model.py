"""The language model of a bridge: a TransformerLens model that reads soft prompts.

TransformerLens 4 wraps a live Hugging Face model in a `TransformerBridge`; 3.x has a real
`HookedTransformer` as well. Both have the same hook names and the same numbers, and both are
accepted, composed and never subclassed. Three things are added: the permanent hook that puts
patches in place of placeholder tokens (`run.inject`), a copy that shares the weights so that the
caller's model is not changed, and a probe that measures the capabilities of this architecture.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from mmlens.runtime.autograd import ordinary
from mmlens.runtime.run import inject, nothing_read
from mmlens.runtime.turns import alone, lock_of, turn
from mmlens.towers.language import adapters, copies, ends, kv_cache, measured, patterns
from mmlens.towers.language.crossing import Crossing, open_crossing
from mmlens.towers.language.deepstack import Deepstack, open_deepstack
from mmlens.towers.language.gated_crossing import KINDS
from mmlens.towers.language.kinds import check_lm
from mmlens.towers.language.mixture import Mixture, open_mixtures
from mmlens.towers.language.norms import gain_of
from mmlens.towers.language.probe import Capabilities, probe
from mmlens.towers.language.telling import Telling, open_telling
from mmlens.towers.language.tower import LanguageTower
from mmlens.towers.language.transformer_bridge import bridge
from mmlens.towers.language.unit_checks import check_units
from mmlens.towers.language.units import Units
from mmlens.values.errors import CapabilityError


@dataclass(eq=False)
class LanguageModel(LanguageTower):
    """A TransformerLens model (`root`), the Hugging Face model it came from, and its tokenizer.

    Attributes:
        root: TransformerBridge or HookedTransformer.
        hf: the caller's Hugging Face model, untouched, or a copy with its adapters merged; None for
            a HookedTransformer. What this model computes with is `copies.hugging_face(lm)`.
        tokenizer: a Hugging Face tokenizer, or None.
        folded: whether the gains of the norms were folded into the weights after them.
        parts: the modules of the copy of `hf` that the bridge runs, by their names in `hf`.
        crossing: its cross-attention to pictures, where it has one.
        mixtures: by layer its mixture of experts, where it has one that is read.
        closed: by layer why a mixture is not read.
        telling: what else its class is told of pictures among its positions.
        deepstack: what its class adds of pictures behind its first layers.
        decoded: a cache of `decode`'s results.
        dictionaries: by layer the dictionary that was attached (`towers.dictionaries`).
    """

    root: Any
    hf: Any = None
    tokenizer: Any = None
    folded: bool = False
    parts: dict[str, nn.Module] = field(default_factory=dict, repr=False)
    crossing: Crossing | None = field(default=None, repr=False)
    mixtures: dict[int, Mixture] = field(default_factory=dict, repr=False)
    closed: dict[int, str] = field(default_factory=dict, repr=False)
    telling: Telling | None = field(default=None, repr=False)
    deepstack: Deepstack | None = field(default=None, repr=False)
    decoded: dict[Any, Any] = field(default_factory=dict, repr=False)
    dictionaries: dict[int, Any] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> Any:
        return copies.reduced_lm(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> LanguageModel:
        return copies.deep_lm(self, memo)

    @property
    def is_bridge(self) -> bool:
        """Whether `root` is a TransformerBridge (else a HookedTransformer)."""
        return hasattr(self.root, "original_model")

    @property
    def lock(self) -> Any:
        """Held during every call: hooks are on the root, which several models may share."""
        return lock_of(self.root)

    @contextmanager
    def bare(self) -> Iterator[None]:
        """A context for measurements, also within a run: without hooks and without a prompt."""
        empty = alone(lambda stack: None, self.root)
        crossing = self.crossing
        with turn(self.root), empty, nothing_read(), torch.inference_mode(False), torch.no_grad():
            if crossing is not None:
                crossing.measuring += 1
            try:
                yield
            finally:
                if crossing is not None:
                    crossing.measuring -= 1

    @property
    def cfg(self) -> Any:
        """TransformerLens' configuration."""
        return self.root.cfg

    @cached_property
    def _entrance(self) -> Any:
        """The hook point of the embedding, where pictures enter."""
        return self.root.hook_dict["embed.hook_out" if self.is_bridge else "hook_embed"]

    def open(self) -> None:
        """Ensure that `inject` is a hook of the embedding, exactly once.

        Called before every run, because TransformerLens' `reset_hooks(including_permanent=True)`
        removes it, and without it a model reads placeholders in place of its pictures.
        """
        point: Any = self._entrance
        mine: Any = getattr(self.root, "_mmlens_inject", None)
        if mine not in point.fwd_hooks or mine.hook.id not in point._forward_hooks:
            point.add_hook(inject, is_permanent=True, prepend=True)
            self.root._mmlens_inject = point.fwd_hooks[0]

    @cached_property
    def n_words(self) -> int:
        """Rows of the vocabulary that are words: the rest is padding (LiMBeR: ids >= 50257 + 1)."""
        size = int(self.root.W_U.shape[-1])
        return min(size, len(self.tokenizer)) if self.tokenizer is not None else size

    @property
    def unsaid(self) -> frozenset[int]:
        """Words that the class never says, with the lowest logit there is (Chameleon's codes)."""
        return frozenset(getattr(getattr(self.root, "adapter", None), "codes", ()))

    @cached_property
    def can(self) -> Capabilities:
        """What hooks can do on this architecture, measured once by short forward passes."""
        with self.bare():
            return probe(self)

    @cached_property
    def caching(self) -> kv_cache.Caching:
        """Whether cached steps give the logits of full ones, measured once."""
        with self.bare():
            return kv_cache.measure(self)

    @cached_property
    def padded(self) -> measured.Measured:
        """Whether a left-padded row of a batch gives the logits of the row alone, measured once."""
        with self.bare():
            return measured.padded(self)

    @cached_property
    def cut(self) -> measured.Measured:
        """Whether attention can be cut in its mask, measured once."""
        with self.bare():
            return measured.cut(self)

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

    def beside(self, ids: torch.Tensor) -> dict[str, Any]:
        """For measurements: the cross-attention arguments for ids [batch, pos], if it has any."""
        if self.crossing is None:
            return {}
        return self.crossing.something(len(ids), next(iter(self.root.parameters())))

    def logits_at(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Logits Float[batch, len(positions), d_vocab] of these positions alone."""
        if self.keeps_logits:
            return self.forward(ids, mask, logits_to_keep=positions)
        return self.forward(ids, mask)[:, positions]

    @cached_property
    def keeps_logits(self) -> bool:
        """Whether the logits of a few positions can be computed without those of the others."""
        if not self.is_bridge:
            return False
        return "logits_to_keep" in inspect.signature(self.root.original_model.forward).parameters

    @property
    def d_embed(self) -> int:
        """The size of a soft-prompt vector, which is that of the rows of the embedding."""
        return int(ends.embedding_of(self.root, self.is_bridge).weight.shape[-1])

    @cached_property
    def entrance(self) -> ends.Entrance:
        """How vectors enter, measured once (`mmlens.towers.language.ends`)."""
        with self.bare():
            return ends.entrance(self)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """What `inputs_embeds` would receive for words: Float[batch, pos, d_embed]."""
        rows = ends.embedding_of(self.root, self.is_bridge)(ids.to(self.device))
        scale = self.entrance.table
        return rows if scale == 1.0 else rows * scale

    @cached_property
    def units(self) -> Units:
        """The MLP units of every layer and what they write, measured once (`language.units`)."""
        with self.bare():
            return check_units(self)

    @property
    def final_gain(self) -> tuple[torch.Tensor, bool]:
        """The gain Float[d_model] of the final norm and whether it centres (`language.norms`)."""
        norm = ends.final_norm(self.root)
        if norm is None:
            return torch.ones(self.cfg.d_model, device=self.device), False
        return gain_of(norm, self.cfg.d_model, self.device, self.dtype)

    def final_norm(self, resid: torch.Tensor) -> torch.Tensor:
        """The residual stream Float[..., d_model] after the final norm, where there is one."""
        norm = ends.final_norm(self.root)
        return resid if norm is None else norm(resid)

    def to_words(self, normed: torch.Tensor) -> torch.Tensor:
        """The input of the unembedding, Float[..., d_embed], from the final norm's output."""
        out = ends.project_out(self.root)
        return normed if out is None else out(normed.to(self.dtype))

    def word_directions(self, tokens: Any) -> torch.Tensor:
        """Float[d_model, token]: the directions after the final norm that these logits read."""
        columns = self.root.W_U[:, tokens]
        out = ends.project_out(self.root)
        return columns if out is None else out.weight.T.to(columns) @ columns

    def logits_of(self, resid: torch.Tensor) -> torch.Tensor:
        """Logits Float[..., d_vocab]: final norm, unembedding and any transformation of logits.

        Args:
            resid: Float[..., d_model], the residual stream.
        """
        lead = resid.shape[:-1]
        flat = resid.reshape(1, -1, resid.shape[-1])
        logits = self.root.unembed(self.to_words(self.final_norm(flat)))
        adapter = getattr(self.root, "adapter", None)
        transform = getattr(adapter, "apply_output_logits_transform", None)
        logits = transform(logits) if transform is not None else logits
        return logits.reshape(*lead, -1)


def wrap_lm(model: Any, tokenizer: Any = None, *, fold_ln: bool = False) -> LanguageModel:
    """A language model from a Hugging Face causal LM, a TransformerBridge or a HookedTransformer.

    Args:
        model: the model; a Hugging Face model is not changed and shares its weights.
        tokenizer: its tokenizer (a HookedTransformer or bridge has its own).
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
            hf = adapters.plain(model)
            root, parts = bridge(hf, fold_ln)
        lm = LanguageModel(root, hf, tokenizer, fold_ln, parts)
        lm.open()
        if hf is not None:
            lm.crossing, lm.telling = open_crossing(lm, KINDS), open_telling(lm)
            lm.deepstack = open_deepstack(lm)
        with lm.bare():
            measured.refuse_unfaithful(lm)
        if hf is not None:
            patterns.open_patterns(lm)
            lm.mixtures, lm.closed = open_mixtures(lm)
    return lm
