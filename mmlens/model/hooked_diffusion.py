"""A diffusion model as a hooked model: words in, latents (and a picture or a sound) out.

    model = mm.from_model(pipe).sampling(steps=4, seed=0)
    picture = model.generate("a dog on a bicycle")
    latents, cache = model.run_with_cache("a dog", "denoiser.blocks.1.mlp.hook_post")
    cache["denoiser.blocks.1.mlp.hook_post"]            Float[step, row, pos, unit]

It is no language model: it answers with a picture, after several steps. Its one tower, "denoiser",
runs once a step, so what is read there has the axis `step`, and hooks are called at every step
(`hook.step`). With classifier-free guidance it reads two rows, the branches "negative" and
"prompt" (Ho & Salimans 2022, eq. 6):

    noise = noise(negative) + guidance * (noise(prompt) - noise(negative))

What is read is the branch "prompt", unless branch="negative" is asked for; an edit acts in both,
unless it names one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any

import torch

from mmlens.model import denoising_edits, hooking
from mmlens.model.denoising_reading import DenoisingReading, texts_in
from mmlens.model.hooked_model import HookedModel, Input
from mmlens.model.stepped_cache import stepped_cache
from mmlens.model.targets import Number, Target, one_number
from mmlens.runtime.autograd import ordinary
from mmlens.runtime.denoising import NEGATIVE, PROMPT
from mmlens.runtime.turns import turn
from mmlens.towers.denoiser.pipeline import Pipeline, Sampling
from mmlens.values.arguments import choice, count, number, shown, text
from mmlens.values.errors import ArgumentError, PromptError, TargetError
from mmlens.values.labels import DENOISER, Label
from mmlens.values.prompt import Prompt
from mmlens.values.sites import Site

LATENTS, DECODED = "latents", ("picture", "sound")
"""What a target is a function of."""


class HookedDiffusion(HookedModel):
    """A pipeline of diffusers, frozen, plus edits and how it samples.

    Args:
        pipeline: what `mmlens.towers.denoiser.pipeline.Pipeline` makes of it.
        name: what the model is called in results.
        provenance: where it comes from, kept in every result.

    Attributes:
        denoiser: the tower; `denoiser.paths` says which module a layer is.
        settings: steps, guidance, seed, size and negative prompt (`sampling`).
    """

    def __init__(
        self, pipeline: Pipeline, *, name: str, provenance: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(name, provenance)
        self.pipeline, self.denoiser, self.settings = pipeline, pipeline.denoiser, Sampling()
        self.eval().requires_grad_(False)

    @property
    def towers(self) -> dict[str, Any]:
        """The one tower, denoiser."""
        return {DENOISER: self.denoiser}

    @property
    def makes(self) -> str:
        """What its latents are decoded to: "picture" or "sound"."""
        return DECODED[self.pipeline.sounds]

    def sampling(
        self,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int | None = None,
        size: tuple[int, int] | None = None,
        negative: str | None = None,
    ) -> HookedDiffusion:
        """This model with other settings; what isn't named stays as it is.

        Args:
            steps: how many the scheduler is asked for.
            guidance: scale of classifier-free guidance; at most 1: none, which is twice as quick.
            seed: of the noise that every prompt begins with.
            size: (height, width) of pictures in pixels.
            negative: the negative prompt, what guidance leads away from.
        """
        asked: dict[str, Any] = {
            "steps": None if steps is None else count(steps, "steps"),
            "guidance": None if guidance is None else number(guidance, "guidance", least=0),
            "seed": None if seed is None else count(seed, "seed", least=0),
            "size": None if size is None else self._size(size),
            "negative": negative,
        }
        if negative is not None:
            text(negative, "negative")
        if steps == 1 and self.pipeline.needs_two:
            raise ArgumentError(f"{self.name!r} ends a loop of one step in another way: steps=2.")
        out = copy.copy(self)
        out._added = list(self._added)
        out.settings = replace(self.settings, **{k: v for k, v in asked.items() if v is not None})
        return out

    def _size(self, size: Any) -> tuple[int, int]:
        if self.makes == "sound":
            raise ArgumentError(f"{self.name!r} makes sounds, which have no size: leave size= out.")
        factor = self.pipeline.pipe.vae_scale_factor
        sides: tuple[Any, ...] = tuple(size) if isinstance(size, (tuple, list)) else ()
        fits = len(sides) == 2 and all(isinstance(s, int) and s > 0 and s % 8 == 0 for s in sides)
        if not fits or any(side % factor for side in sides):
            raise ArgumentError(
                f"size={shown(size)}: write (height, width) in pixels, multiples of"
                f" {max(8, factor)}."
            )
        return sides[0], sides[1]

    # -- reading ------------------------------------------------------------------------------

    @property
    def branches(self) -> tuple[str, str]:
        """The branches of guidance, in the order of their rows."""
        return NEGATIVE, PROMPT

    def read(self, input: Input) -> DenoisingReading:
        """The prompts, and the labels of their tokens.

        Raises:
            PromptError: a picture, or more words than the model reads.
        """
        if isinstance(input, DenoisingReading):
            return input
        texts = texts_in(input)
        told = {name: value for name, value in asdict(self.settings).items() if value is not None}
        return DenoisingReading(texts, self.pipeline.labels(texts), told)

    def prompts_of(self, input: Input) -> tuple[Prompt, ...]:
        """The prompts of an input."""
        return self.read(input).prompts

    @contextmanager
    def running(self, input: Input, *args: Any, **how: Any) -> Iterator[DenoisingReading]:
        """A context in which all hooks are attached; one thread at a time.

        Raises:
            ArgumentError: an option that only language models have.
        """
        for name in how:
            raise ArgumentError(f"{self.name!r} reads a prompt alone and takes no {name}=.")
        hooks, reading = self._hooks_now(), self.read(input)
        with ordinary(), turn(*self._shared()), ExitStack() as stack:
            stack.enter_context(hooking.attached(self, hooks, reading.prompts))
            yield reading

    def run(
        self, input: Input, *, at: torch.Tensor | None = None, grad: bool = False, **how: Any
    ) -> torch.Tensor:
        """All steps: the last latents, Float[prompt, channel, y, x] (of a sound [prompt, channel,
        x]).

        Args:
            at: Int[k], indices of the prompts whose latents are returned.
            grad: of no effect, since words have no gradient; hooks may start a graph anywhere.
        """
        with self.running(input, **how) as reading:
            out = self.made(reading, LATENTS)
            return out if at is None else out[at.to(out.device)]

    def made(self, reading: DenoisingReading, what: str, recompute: bool = False) -> torch.Tensor:
        """Inside of `running`: the latents, or the decoded pictures or sounds.

        Args:
            what: "latents", "picture" or "sound".
            recompute: whether each step's activations are computed again when its gradient is.
        """
        decode = what != LATENTS
        texts = reading.texts
        return self.pipeline.sample(texts, self.settings, decode=decode, recompute=recompute)

    def generate(self, input: Input) -> Any:
        """The picture of a prompt as a PIL image, or the sound as Float[channel, sample].

        Of a list of prompts a list.
        """
        from PIL import Image

        with torch.no_grad(), self.running(input) as reading:
            made = self.made(reading, self.makes).float().cpu()
        if self.makes == "picture":
            rows = (made * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            found: list[Any] = [Image.fromarray(row) for row in rows]
        else:
            found = list(made)
        return found if isinstance(input, (list, tuple)) else found[0]

    def run_to(self, tower: str, input: Input) -> None:
        """Run all steps."""
        with torch.no_grad():
            self.run(input)

    def run_with_cache(self, input: Input, names_filter: Any = None, device: Any = None) -> Any:  # pyright: ignore
        """The last latents, and what was at the named points (None: all) at every step.

        Returns:
            (latents, {name: Float[step, row, ...]}), rows being the negative prompts before the
            others; latents also after the last step.
        """
        return stepped_cache(self, input, names_filter, device)

    # -- labels -------------------------------------------------------------------------------

    def rows(
        self, prompts: Sequence[Prompt], site: Site, layer: int | None, branch: str = PROMPT
    ) -> denoising_edits.Labels:
        """By axis of positions its labels: a row per prompt, or one where all have the same."""
        tokens = site.point.endswith("hook_prompt_embeds")
        if tokens or site.has_other_keys:
            texts = [prompt.text for prompt in prompts]
            if branch == NEGATIVE:
                texts = [self.settings.negative or ""] * len(prompts)
            words = self.pipeline.labels(texts)
            if tokens:
                return {"pos": words}
        shape = self.pipeline.shape(self.settings)
        places = (self.denoiser.positions(layer, shape),)
        keys = {"key": words} if site.has_other_keys else {}  # pyright: ignore
        return {"pos": places, "query": places, "key": places} | keys

    def picture_rows(
        self, prompts: Sequence[Prompt], site: Site, layer: int | None = None
    ) -> tuple[tuple[Label, ...], ...]:
        """The label of each position of a site, one row."""
        return self.rows(prompts, site, layer)["pos"]

    def edit_hooks(self, prompts: Sequence[Prompt]) -> list[Any]:
        """Its edits as hooks."""
        return denoising_edits.hooks_of_edits(self, prompts)

    # -- explained ----------------------------------------------------------------------------

    def aim(
        self, prompt: Input, of: Any, target: str | Number = "logit", after: str | None = None
    ) -> tuple[DenoisingReading, Target]:
        """One prompt, and the function of what it makes that is explained.

        Args:
            of: "latents" (the default), "picture" or "sound".
            target: a function to one number: of latents Float[channel, y, x], of a picture
                Float[3, h, w] between 0 and 1, of a sound Float[channel, sample].

        Raises:
            TargetError: no function, or of something that the model does not make.
        """
        reading = self.one(prompt)
        what = LATENTS if of is None else choice(of, "of", (LATENTS, self.makes), error=TargetError)
        if after is not None:
            raise ArgumentError(f"{self.name!r} generates no words and takes no after=.")
        if not callable(target):
            raise TargetError(
                f"{self.name!r} has no {target!r} to explain: write a function of what it makes, as"
                f" in of={what!r}, target=lambda made: made[0].mean()."
            )

        def value(made: torch.Tensor) -> torch.Tensor:
            return one_number(target, made, "The target", f"one of the {what}")

        return reading, Target(0, value, what)

    def answer_rows(self, reading: Any, rows: torch.Tensor) -> torch.Tensor:
        """The last latents of these prompts."""
        return self.run(reading, at=rows)

    def one(self, prompt: Input) -> DenoisingReading:
        """One prompt as it is read.

        Raises:
            PromptError: several prompts.
        """
        reading = self.read(prompt)
        if len(reading.texts) != 1:
            raise PromptError(
                f"This question takes one prompt at a time, not {len(reading)}: ask in a loop."
            )
        return reading

    def side_by_side(
        self, reading: DenoisingReading, n: int, *, position: int = -1, tower: str = "",
        grad: bool = False,
    ) -> torch.Tensor:  # fmt: skip
        """The last latents of each of `n` copies of one prompt."""
        return self.run(replace(reading, texts=reading.texts * n, labels=reading.labels * n))
