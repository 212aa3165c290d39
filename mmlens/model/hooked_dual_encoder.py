"""A dual encoder as a hooked model: pictures and texts in one space (CLIP, SigLIP, CoCa).

    model = mm.load("open_clip:ViT-B-32/openai")
    attribute(model, photo, of="a photo of a dog")      # by units of the image encoder
    attribute(model, "a photo of a dog", of=photo)      # by units of the text encoder
    model.run_with_cache(photo)[1]["vision.blocks.3.hook_resid_post"]

Its towers are "vision" and "text", and its readout is the similarity of a picture x and a text y
(Radford et al. 2021, fig. 3; Zhai et al. 2023, eq. 1):

    logit = scale * <e(x), e(y)> / (|e(x)| |e(y)|) + bias

`run` gives logits Float[picture, text] where there are pictures and texts, and unit embeddings
Float[row, d_embed] where there is only one of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from mmlens.model import readouts
from mmlens.model.dual_reading import DualReading, prompts_in
from mmlens.model.hooked_model import Input
from mmlens.model.pictures_and_texts import PicturesAndTexts
from mmlens.model.similarity import aim_direction, aim_similarity
from mmlens.model.targets import Number, Target
from mmlens.towers.dual_halves import Halves
from mmlens.values.errors import ArgumentError, PromptError
from mmlens.values.labels import TEXT, Neuron
from mmlens.values.prompt import Prompt


class HookedDualEncoder(PicturesAndTexts):
    """An image encoder and a text encoder, frozen, plus edits.

    Args:
        halves: what `mmlens.towers.dual_halves.halves_of` returns.
        name: what the model is called in results.
        provenance: where it comes from, kept in every result.
        arch: open_clip's configuration of it, with which it can be saved.

    Attributes:
        scale, bias: the logit of a pair is scale * cosine + bias.
        sigmoid: whether each pair has its own probability (SigLIP), instead of a softmax over
            texts.
    """

    def __init__(
        self,
        halves: Halves,
        *,
        name: str,
        provenance: Mapping[str, Any] | None = None,
        arch: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(halves.image.vision, halves.text, name=name, provenance=provenance)
        self._image = halves.image
        self.scale, self.bias, self.sigmoid = halves.scale, halves.bias, halves.sigmoid
        self.rest, self.beside, self.arch = halves.rest, halves.beside, arch
        self.eval().requires_grad_(False)

    @property
    def d_embed(self) -> int:
        """Dimensions of the space that pictures and texts share."""
        return self.text.d_embed

    # -- running ------------------------------------------------------------------------------

    def run(
        self, input: Input, *, at: torch.Tensor | None = None, grad: bool = False, **how: Any
    ) -> torch.Tensor:
        """Logits Float[picture, text], or unit embeddings Float[row, d_embed] of one kind alone.

        Args:
            at: Int[k], indices of the rows that are returned.
            grad: whether a graph starts at the pixels; hooks may start one anywhere.
        """
        with self.running(input, grad, **how) as reading:
            if not len(reading):
                raise PromptError("There is no picture and no text here: give at least one.")
            found = [] if reading.pixels is None else [self._image(reading.pixels)]
            found += [] if reading.ids is None else [self.text(reading.ids, reading.mask)]
            rows = [F.normalize(one, dim=-1) for one in found]
            out = rows[0] if len(rows) == 1 else self.logits(rows[0] @ rows[1].T)
            return out if at is None else out[at.to(out.device)]

    def logits(self, cosines: torch.Tensor) -> torch.Tensor:
        """The logits of pairs with these cosines."""
        return self.scale * cosines + self.bias

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Float[picture, text]: a softmax over the texts, or a sigmoid per pair (SigLIP)."""
        return logits.sigmoid() if self.sigmoid else logits.softmax(-1)

    def run_to(self, tower: str, input: Input) -> None:
        """Run the towers that this input needs."""
        self.run(input)

    def answer_rows(self, reading: Any, rows: torch.Tensor) -> torch.Tensor:
        """Rows of the output for these pictures (or texts), Float[k, ...]."""
        return self.run(reading, at=rows)

    # -- explained ----------------------------------------------------------------------------

    def aim(
        self, prompt: Input, of: Any, target: str | Number = "logit", after: str | None = None
    ) -> tuple[DualReading, Target]:
        """One picture or text, and the scalar that is explained: its similarity with `of`.

        Args:
            of: a text or picture of the other kind, a direction Float[d_embed] of the shared space,
                or a Neuron; None where the prompt holds a picture and a text, or `target` is a
                function of the unit embedding.
            target: "logit" (scale * cosine + bias), "cosine", or a function of the row of logits.

        Raises:
            PromptError: several pictures or texts, or two of the same kind.
            TargetError: nothing to compare with, or no such target.
        """
        if after is not None:
            raise ArgumentError(f"{self.name!r} generates no words and takes no after=.")
        if isinstance(of, Neuron):
            return self.one(prompt), readouts.aim_unit(self, of, target)
        if isinstance(of, torch.Tensor):
            return self.one(prompt), aim_direction(self, of, target)
        reading = self.one(prompt if of is None else self._pair(prompt, of))
        return reading, aim_similarity(self, reading, of, target)

    def _pair(self, prompt: Input, of: Any) -> Prompt:
        """One prompt of both: a picture and a text."""
        both = [*prompts_in(prompt), *prompts_in(of)]
        kinds = [sum(map(len, (p.pictures for p in both))), sum(bool(p.text) for p in both)]
        if kinds != [1, 1]:
            raise PromptError(
                f"The similarity of one picture with one text is explained, and here are {kinds[0]}"
                f" pictures and {kinds[1]} texts: write attribute(model, photo, of='a photo of a"
                " dog'), or the text first."
            )
        return Prompt(*(part for p in both for part in p.parts))

    def side_by_side(
        self,
        reading: DualReading,
        n: int,
        *,
        position: int = -1,
        tower: str = "",
        grad: bool = False,
    ) -> torch.Tensor:
        """The unit embedding of each of `n` copies of a picture (or text): Float[n, d_embed].

        Of a picture and a text, of which this tower's is copied, their logit: Float[n, 1].
        """
        tower = tower or self.reading_tower(reading)
        out = self.run(reading.copies(n, tower), grad=grad)
        return out.T if tower == TEXT and reading.n_pictures else out

    def save(self, folder: Any) -> Any:
        """Write it in the format of its own library; `mmlens.load(folder)` reads it."""
        from mmlens.checkpoints.dual_folder import save_dual

        return save_dual(self, folder)
