"""A bridge as one hooked model: vision encoder, projection, language model, and its edits.

    logits, cache = model.run_with_cache(Prompt(photo, "A picture of"))
    cache["blocks.3.mlp.hook_post"]              # [batch, pos, d_mlp], patches and words alike
    cache["vision.blocks.1.hook_resid_post"]     # [picture, patch, d_vision]

To someone who knows TransformerLens it is a HookedTransformer: the same methods and hook names, all
of which accept a Prompt. The parts are composed; nothing of TransformerLens is subclassed, and what
this class does not define (`blocks`, `unembed`, `W_E`, `OV`, ...) is the language model's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from mmlens.model import (
    continuation,
    generation,
    hooking,
    loss,
    options,
    reading,
)
from mmlens.model.bridge_answers import Answering
from mmlens.model.bridge_copies import Joined
from mmlens.model.capture import capture
from mmlens.model.hooked_model import HookedModel
from mmlens.model.image_reader import ImageReader
from mmlens.model.prompt_reader import PromptReader
from mmlens.model.prompts_from_ids import tokens_of
from mmlens.model.surface import Surface, check_left
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.run import reading as being_read
from mmlens.runtime.turns import turn
from mmlens.towers.language.language_model import LanguageModel
from mmlens.towers.projection import Projection
from mmlens.values.arguments import instance, shown
from mmlens.values.errors import ArgumentError, CapabilityError
from mmlens.values.prompt import Prompt, SoftPrompt
from mmlens.values.sites import SITES, Site

Input = Any
"""A Prompt, text, a list of these, a SoftPrompt, token ids, vectors Float[batch, pos, d_model]."""


class HookedVLM(Joined, Answering, Surface, HookedModel):
    """vision - projection - lm, frozen, plus edits.

    Args:
        vision: a `HookedVision`, or None for a language model alone.
        projection: features [crop, patch, d_vision] to vectors [crop, pos, d_model].
        lm: what `wrap_lm` returns.
        name: what the model is called in results.
        provenance: where the parts come from (ids, revisions, hashes), kept in every result.
        prepend_bos: whether a text starts with the BOS token (LiMBeR: no).
        image_reader: what a picture becomes (positions, or keys of cross-attention); by default one
            grid of positions.
        prompt_reader: how a prompt becomes ids and labels; by default words by the tokenizer.

    Raises:
        CapabilityError: pictures are keys of cross-attention, and the language model has none.
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
        image_reader: ImageReader | None = None,
        prompt_reader: PromptReader | None = None,
    ) -> None:
        from transformer_lens.hook_points import HookPoint

        super().__init__(name, provenance)
        self.vision, self.projection = vision, projection
        self.root = lm.root
        vars(self)["lm"] = lm
        self.hook_projection = HookPoint()
        self.hook_projection.name = "projection.hook_out"
        self.prepend_bos = prepend_bos
        self.image_reader = image_reader or ImageReader()
        self.prompt_reader = prompt_reader or PromptReader()
        if self.image_reader.crosses and lm.crossing is None:
            raise CapabilityError(
                f"The pictures of {name!r} are keys of cross-attention, and its language model has"
                " none that can be opened: give a decoder of transformers that takes"
                " encoder_hidden_states, such as GPT-2 with add_cross_attention=True."
            )
        self.eval().requires_grad_(False)

    # -- words --------------------------------------------------------------------------------

    def to_tokens(
        self,
        input: Input,
        prepend_bos: bool | None = None,
        padding_side: str | None = None,
        move_to_device: bool = True,
    ) -> torch.Tensor:
        """Token ids Int[batch, pos], which carry the pictures (`mmlens.model.prompt_tokens`).

        Pictures that are read by cross-attention have no ids, so they are refused.

        Args:
            prepend_bos: whether texts begin with the BOS token; by default `model.prepend_bos`.
            padding_side: "left", the only side there is.
            move_to_device: return them on the model's device, otherwise on the CPU.
        """
        check_left(padding_side)
        with self.running(input, None, prepend_bos) as soft:
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
            stop_at_layer: return the stream entering this layer (n_layers: leaving the last).
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
        with self.running(input, attention_mask, prepend_bos) as soft:
            out = self.lm.forward(soft.ids.clamp(min=0), soft.mask, stop_at_layer=stop, **more)
        if stop is not None:
            return out
        return loss.returned(out, soft, returns, loss_per_token)

    def _behind_the_last(self, *how: Any) -> torch.Tensor:
        name = SITES["resid_post"].at(self.cfg.n_layers - 1)
        with capture(self, [name]) as kept:
            self.run(how[0], mask=how[1], prepend_bos=how[2], grad=True)
        return kept[name]

    @property
    def towers(self) -> dict[str, Any]:
        """The towers by name: vision and projection, where there are any, and lm."""
        found: dict[str, Any] = {}
        if self.vision is not None:
            found["vision"] = self.vision
        if self.projection is not None:
            grid = (0, 0) if self.vision is None else self.image_reader.grid(self.vision)
            found["projection"] = Projection(self.projection, self.hook_projection, grid)
        return {**found, "lm": self.lm}

    def read(self, input: Input, prepend_bos: bool | None = None) -> SoftPrompt:
        """The prompt as the language model receives it: one vector and one label per position."""
        with self.running(input, prepend_bos=prepend_bos) as soft:
            return soft

    @contextmanager
    def running(
        self,
        input: Input,
        mask: torch.Tensor | None = None,
        prepend_bos: bool | None = None,
        grad: bool = True,
        past: Any = None,
    ) -> Iterator[SoftPrompt]:
        """A context with all hooks attached, in which the prompt is read; one thread at a time.

        Args:
            mask: Int[batch, pos], on top of the prompt's own.
            grad: whether a graph starts at the embedding where gradients are enabled.
            past: a KV cache that the prompt continues.
        """
        if mask is not None:
            instance(mask, "attention_mask", torch.Tensor, "a tensor Int[batch, pos]")
        hooks = self._hooks_now()
        with ordinary(), turn(*self._shared()), ExitStack() as stack:
            self.lm.open()
            scale = self.lm.entrance.scale
            prompts = reading.prompts_of(input)
            if len(prompts) > 1:
                _ = self.lm.padded  # measured before hooks are attached; `embed` needs it
            stack.enter_context(hooking.attached(self, hooks, prompts))
            held = continuation.length(past)
            own = mask if mask is None or mask.shape[-1] <= held else mask[:, held:]
            new = reading.embed(self, input, mask=own, prepend_bos=prepend_bos)
            soft = continuation.after(new, past, self.image_reader.crosses)
            run = stack.enter_context(being_read(soft, grad, scale))
            run.enters = held
            yield soft

    def run(
        self,
        input: Input,
        *,
        at: torch.Tensor | None = None,
        grad: bool = False,
        mask: torch.Tensor | None = None,
        prepend_bos: bool | None = None,
        **how: Any,
    ) -> torch.Tensor:
        """One forward pass: logits Float[batch, pos, d_vocab], or those of the positions `at`.

        Args:
            at: Int[k], positions whose logits are computed alone.
            grad: whether a graph starts at the embedding; hooks may start one anywhere.
            mask, prepend_bos: as in `running`.
            how: further options of the language model's forward pass.
        """
        if at is not None:
            instance(at, "at", torch.Tensor, "positions as a tensor Int[k]")
            if at.ndim != 1 or at.dtype == torch.bool:
                raise ArgumentError(f"at={shown(at)}: write positions as a tensor Int[k].")
        options.refuse_unknown("run", how, options.FORWARD)
        with self.running(input, mask, prepend_bos, grad) as soft:
            ids = soft.ids.clamp(min=0)
            if at is not None:
                return self.lm.logits_at(ids, soft.mask, at)
            return self.lm.forward(ids, soft.mask, **how)

    def run_to(self, tower: str, input: Input) -> None:
        """Run the towers up to this one; those before the lm run when a prompt is read."""
        if tower == "lm":
            self.run(input)
        else:
            self.read(input)

    def prompts_of(self, input: Input) -> tuple[Prompt, ...]:
        """The prompts in an input; none when it is made of ids or vectors."""
        return reading.prompts_of(input)

    def picture_rows(self, prompts: Sequence[Prompt], site: Site, layer: int | None = None) -> Any:
        """The label of each position of a site in pictures: a row per picture, or crop of one."""
        instance(site, "site", Site, "a row of mmlens.values.sites.SITES")
        return reading.picture_rows(self, prompts, site, layer)

    def _shared(self) -> list[Any]:
        vision = None if self.vision is None else self.vision.shared
        return [part for part in (self.root, vision) if part is not None]

    def _open(self) -> None:
        self.lm.open()

    def generate(self, input: Input, max_new_tokens: int = 30, **more: Any) -> Any:
        """The generated text (see `mmlens.model.generation.generate` for the options)."""
        more.pop("verbose", None)  # TransformerLens' progress bar; there is none here
        return generation.generate(self, input, max_new_tokens, **more)

    def save(self, folder: Any) -> Any:
        """Write the bridge as safetensors and JSON; `mmlens.load(folder)` reads it."""
        from mmlens.checkpoints.folder import save

        return save(self, folder)
