"""A pipeline of diffusers, run by its own code: text encoder, denoising loop, decoder.

Its `__call__` is run without the `torch.no_grad()` that diffusers puts around it, on a copy of the
pipeline whose modules share the caller's memory. So the loop, guidance and scheduler are the
library's own, whichever they are. Three places are routed: the denoiser (`DenoiserCall`), the noise
that the loop begins with, and what the scheduler makes of the latents at each step. The safety
checker and watermarks are left out: a picture is what the decoder gives.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmlens.runtime.casting import Movable
from mmlens.runtime.denoising import Loop, looping
from mmlens.runtime.sharing import share_weights
from mmlens.towers.attention import measuring, openings
from mmlens.towers.denoiser.hooked_denoiser import HookedDenoiser
from mmlens.towers.vision.tap_hooks import looking
from mmlens.values.errors import CapabilityError, MMLensError, PromptError, reason
from mmlens.values.labels import Label, Marker, Padding, Token

_LEFT_OUT = ("safety_checker", "watermark")
_PROBE = 16
"""Rows and columns of the latents with which a denoiser is measured, at most."""
_AS_GIVEN = {"use_resolution_binning": False, "clean_caption": False}
"""Options of PixArt: the size asked for is the one that is made, and words are not rewritten."""
_PIECES = ("</w>", "\u2581", "\u0120")
"""What tokenizers write for the space before or after a word."""


@dataclass(frozen=True)
class Sampling:
    """How a pipeline makes its picture; None leaves what the pipeline does by itself.

    Attributes:
        steps: how often the scheduler is asked to step.
        guidance: scale of classifier-free guidance; at most 1: none, and one branch.
        seed: of the noise, the same for every prompt.
        size: (height, width) of the picture in pixels.
        negative: the negative prompt.
    """

    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    size: tuple[int, int] | None = None
    negative: str | None = None


class Pipeline(Movable):
    """A copy of a pipeline that shares its memory, with its denoiser as a tower.

    Args:
        pipe: of diffusers.

    Attributes:
        denoiser: the tower.
        sounds: whether it makes sounds instead of pictures.
        needs_two: whether a loop of one step ends in what no step begins with.
        n_tokens: how many tokens of a prompt the denoiser reads.
        markers: names of what it reads behind them.

    Raises:
        CapabilityError: its denoiser has no hook points here, or its loop cannot be differentiated.
    """

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        if not hasattr(type(pipe).__call__, "__wrapped__"):
            raise CapabilityError(
                f"The loop of a {type(pipe).__name__} cannot be run with gradients: mmlens takes"
                " Stable Diffusion, SDXL, PixArt and Stable Audio."
            )
        self.pipe: Any = copy.copy(pipe)
        self.pipe.set_progress_bar_config(disable=True)
        own = "unet" if getattr(pipe, "unet", None) is not None else "transformer"
        self.denoiser = HookedDenoiser(getattr(pipe, own, nn.Module()))
        self.parts = nn.ModuleDict({own: self.denoiser.module})
        for name in (*pipe.components, "watermark"):
            part = getattr(pipe, name, None)
            if hasattr(part, "_hf_hook"):
                raise CapabilityError(
                    f"The {name} of this {type(pipe).__name__} is moved between devices while it"
                    " runs (offload): give the pipeline without, .to('cuda') in float16."
                )
            if name in _LEFT_OUT:
                vars(self.pipe)[name] = None
            elif isinstance(part, nn.Module) and name != own:
                self.parts[name] = share_weights(part)
        vars(self.pipe).update(self.parts.items())
        self.sounds = hasattr(pipe, "projection_model")
        self.needs_two = hasattr(pipe, "_text_preprocessing")  # PixArt: another output of one step
        self.markers = ("seconds_start", "seconds_end") if self.sounds else ()
        try:
            with torch.no_grad():
                self._measure()
        except (RuntimeError, TypeError, ValueError, AttributeError, LookupError) as error:
            if isinstance(error, MMLensError):
                raise
            raise CapabilityError(
                f"A {type(pipe).__name__} cannot be run from a prompt alone: {reason(error)}"
            ) from error

    # -- sizes and words ----------------------------------------------------------------------

    def shape(self, settings: Sampling) -> tuple[int, int]:
        """Rows and columns of the latents; of a sound one row."""
        if settings.size is not None:
            rows, cols = (side // self.pipe.vae_scale_factor for side in settings.size)
            return rows, cols
        own = self.denoiser.module.config.sample_size
        if self.sounds:
            return 1, own
        return (own, own) if isinstance(own, int) else tuple(own)

    def labels(self, texts: Sequence[str]) -> tuple[tuple[Label, ...], ...]:
        """Per text the label of everything that the denoiser reads of it.

        Raises:
            PromptError: a text has more tokens than are read.
        """
        tokenizer, length, rows = self.pipe.tokenizer, self.n_tokens, []
        prepared = getattr(self.pipe, "_text_preprocessing", None)  # PixArt reads lower case
        for text in texts if prepared is None else prepared(list(texts)):
            many = len(tokenizer(text)["input_ids"])
            if many > length:
                raise PromptError(
                    f"{text!r} has {many} tokens and {type(self.pipe).__name__} reads {length}:"
                    " shorten it."
                )
            read = tokenizer(
                text, padding="max_length", max_length=length, return_attention_mask=True
            )
            words = map(_word, tokenizer.convert_ids_to_tokens(read["input_ids"]))
            tokens: list[Label] = [Token(word, at) for at, word in enumerate(words)]
            if self.denoiser.call.masked:
                seen = enumerate(read["attention_mask"])
                tokens = [tokens[at] if real else Padding(at) for at, real in seen]
            tokens += [Marker(name, length + i) for i, name in enumerate(self.markers)]
            rows.append(tuple(tokens))
        return tuple(rows)

    # -- running ------------------------------------------------------------------------------

    def sample(
        self, texts: Sequence[str], settings: Sampling, *, decode: bool, recompute: bool = False
    ) -> Tensor:
        """The denoising loop: latents Float[prompt, channel, y, x], or decoded pictures.

        Args:
            decode: whether the latents are decoded: to Float[prompt, 3, h, w] between 0 and 1, or
                to the samples of a sound.
            recompute: whether activations of a step are computed again in the backward pass.
        """
        loop = Loop(len(texts), recompute)
        pipe, negative = self._routed(loop, self.shape(settings)), settings.negative
        asked: dict[str, Any] = {
            "prompt": list(texts),
            "num_inference_steps": settings.steps,
            "guidance_scale": settings.guidance,
            "negative_prompt": None if negative is None else [negative] * len(texts),
            "height": settings.size and settings.size[0],
            "width": settings.size and settings.size[1],
        }
        asked = {name: value for name, value in asked.items() if value is not None}
        noise = [torch.Generator().manual_seed(settings.seed) for _ in texts]
        kind: dict[str, Any] = {"output_type": "pt" if decode else "latent"}
        call: Any = type(pipe).__call__
        known = inspect.signature(call).parameters
        kind |= {name: value for name, value in _AS_GIVEN.items() if name in known}
        with looping(loop):
            out = call.__wrapped__(pipe, **asked, generator=noise, return_dict=False, **kind)
        return out[0]

    def _routed(self, loop: Loop, shape: tuple[int, int]) -> Any:
        """The pipeline for one run: with a scheduler of its own, latents through a point."""
        pipe, scheduler = copy.copy(self.pipe), copy.deepcopy(self.pipe.scheduler)
        vars(pipe)["scheduler"] = scheduler
        loop.count = lambda: len(scheduler.timesteps)

        def through(latents: Tensor) -> Tensor:
            if tuple(latents.shape[2:]) not in (shape, shape[1:]):
                raise CapabilityError(
                    f"{type(pipe).__name__} makes latents of {tuple(latents.shape[2:])}, where"
                    f" {shape} were expected, so mmlens cannot label them."
                )
            with loop.at(loop.step + 1):
                return self.denoiser.hook_dict["hook_latents"](latents)

        begin, step = pipe.prepare_latents, scheduler.step

        @functools.wraps(begin)
        def begun(*args: Any, **kwargs: Any) -> Tensor:
            return through(begin(*args, **kwargs))

        @functools.wraps(step)
        def stepped(*args: Any, **kwargs: Any) -> Any:
            out = step(*args, **kwargs)
            if isinstance(out, tuple):
                return (through(out[0]), *out[1:])
            out.prev_sample = through(out.prev_sample)
            return out

        vars(pipe)["prepare_latents"], vars(scheduler)["step"] = begun, stepped
        return pipe

    def _measure(self) -> None:
        """Run two steps with small latents, to see what fires, where, and in which order."""
        shape = self.shape(Sampling())
        settings = Sampling(steps=2)
        if not self.sounds:
            shape = (min(shape[0], _PROBE), min(shape[1], _PROBE))
            rows, cols = (side * self.pipe.vae_scale_factor for side in shape)
            settings = Sampling(steps=2, size=(rows, cols))
        with measuring(openings(self.denoiser.module)):
            self.sample(["a"], settings, decode=False)
        seen: dict[str, list[Tensor]] = {}

        def look(tensor: Tensor, hook: Any) -> None:
            seen.setdefault(hook.name, []).append(tensor)

        with looking(self.denoiser.hook_dict.values(), look):
            self.sample(["a"], settings, decode=False)
        calls = len(seen.get("hook_noise", ()))
        self.n_tokens = seen["hook_prompt_embeds"][0].shape[1] - len(self.markers)
        self.denoiser.measured(seen, calls, shape)


def _word(piece: str) -> str:
    for mark in _PIECES:
        piece = piece.replace(mark, "")
    return piece
