"""Pairs of prompts that differ in one thing: a clean one, and a corrupt one without it.

    Pair(Prompt(dog, "A picture of"), Prompt(cat, "A picture of"))   # another picture
    Pair.corrupted(Prompt(dog, "A picture of"), grey())              # a corrupter of pictures
    Pair(prompt, soft_noise(model, prompt, std=1.0))                 # noise after the projection
    Pair(dog, cat)                                                   # of an encoder: two pictures

Both must have the same layout: as many positions, pictures at the same places. The corruption
decides what a patch measures (Zhang & Nanda 2024): with another picture, what distinguishes the
two; with grey or noise, what distinguishes a picture from none; with an erased object, what carries
the object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from mmlens.model.capabilities import needs
from mmlens.model.targets import one
from mmlens.values.addresses import places
from mmlens.values.arguments import SEEDS, count, function, instance, number
from mmlens.values.errors import MMLensError, PictureError, PromptError
from mmlens.values.labels import Patch
from mmlens.values.prompt import Prompt, SoftPrompt

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel
    from mmlens.model.hooked_vlm import HookedVLM

Corrupter = Callable[[Image.Image], Image.Image]
A_PAIR = "Pair(clean, corrupt), or a list of pairs"


@dataclass(frozen=True, eq=False)
class Pair:
    """A clean and a corrupt prompt of one layout.

    Attributes:
        clean: the prompt that shows the thing.
        corrupt: the prompt without it.
        of: the word that the pair is about, which metrics given by name measure.
        minus: the word whose logit "logit_difference" subtracts.
        name: what the pair is called in results.
        patches: where the thing is.
    """

    clean: Prompt | SoftPrompt | Image.Image | str
    corrupt: Prompt | SoftPrompt | Image.Image | str
    of: Any = field(default=None, kw_only=True)
    minus: Any = field(default=None, kw_only=True)
    name: str = field(default="", kw_only=True)
    patches: tuple[Patch, ...] = field(default=(), kw_only=True, repr=False)

    @classmethod
    def corrupted(
        cls, prompt: Any, corrupter: Corrupter, picture: int | None = None, **about: Any
    ) -> Pair:
        """A prompt and the same prompt with its pictures (or one of them) corrupted.

        Args:
            about: `of=`, `minus=`, `name=`, `patches=` of the pair.

        Raises:
            PromptError: it has no such picture.
        """
        prompt = prompt if isinstance(prompt, Prompt) else Prompt(prompt)
        n = len(prompt.pictures)
        if n == 0 or (picture is not None and not 0 <= picture < n):
            which = "no picture" if n == 0 else f"{n} pictures and none of number {picture}"
            raise PromptError(f"This prompt has {which} to corrupt: {prompt!r}")
        new = [
            _corrupted(corrupter, one) if picture in (None, at) else one
            for at, one in enumerate(prompt.pictures)
        ]
        return cls(prompt, prompt.with_pictures(new), **about)

    def read(self, model: HookedModel) -> tuple[Any, Any]:
        """Both as the model reads them.

        Raises:
            PromptError: their layouts differ.
        """
        clean, corrupt = model.one(self.clean), model.one(self.corrupt)
        if difference := unlike(clean, corrupt):
            raise PromptError(
                f"The clean and the corrupt prompt have {difference}: give prompts of one layout."
            )
        return clean, corrupt


def _corrupted(corrupter: Corrupter, picture: Image.Image) -> Image.Image:
    write = "a function of a PIL picture, as patching.grey() returns"
    function(corrupter, "corrupter", write, takes=1, error=PictureError)
    try:
        corrupted = corrupter(picture)
    except (MMLensError, MemoryError):
        raise
    except Exception as error:  # the caller's own code: whatever it raises is reported
        raise PictureError(
            f"The corrupter failed ({type(error).__name__}: {error}): it gets a PIL picture and"
            " returns one of the same size."
        ) from error
    return instance(corrupted, "what the corrupter gives", Image.Image, "a PIL picture")


@needs("logits", "pictures")
def soft_noise(
    model: HookedVLM, prompt: Any, std: float = 1.0, seed: int = 0, pos: Any = None
) -> SoftPrompt:
    """The prompt with Gaussian noise on its soft-prompt vectors (Meng et al. 2022, on patches).

    Of a model that adds pictures again behind layers (Qwen3-VL), what is added has noise, too.

    Args:
        std: standard deviation of the noise, in units of the standard deviation of the picture's
            vectors.
        pos: which positions, default every patch.

    Raises:
        PromptError: it has no picture.
    """
    number(std, "std", least=0)
    seed = count(seed, "seed", least=0, most=SEEDS)
    soft = one(model, prompt)
    keys = soft.picture_keys
    if not soft.has_pictures:
        raise PromptError("This prompt has no picture whose vectors could be noised.")
    vectors = soft.vectors if keys is None else keys.vectors
    labels = soft.labels[0] if keys is None else keys.labels[0]
    pictured = soft.is_picture[0] if keys is None else keys.mask[0]
    where = pictured.cpu()
    if pos is not None:
        where = torch.zeros_like(where)
        where[places(labels, pos, "pos")] = True
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(vectors.shape, generator=generator).to(vectors)
    scale = vectors[0, pictured].std() * std
    noised = vectors + noise * scale * where.to(noise.device)[None, :, None]
    if keys is None:
        deep = None if soft.deep is None else _noised_deep(soft, where, std, generator)
        return replace(soft, vectors=noised, prompts=(), deep=deep)
    return replace(soft, picture_keys=replace(keys, vectors=noised), prompts=())


def _noised_deep(
    soft: SoftPrompt, where: torch.Tensor, std: float, generator: torch.Generator
) -> torch.Tensor:
    """What is added behind layers with noise of its own scale in each."""
    deep: Any = soft.deep
    scale = deep[0, soft.is_picture[0]].std((0, 2)) * std
    noise = torch.randn(deep.shape, generator=generator).to(deep) * scale[:, None]
    return deep + noise * where.to(deep.device)[None, :, None, None]


def unlike(first: Any, other: Any) -> str:
    """How the layouts of two prompts differ, as read by one model; empty if they don't."""
    kinds = [getattr(reading, "pixels", None) is not None for reading in (first, other)]
    if kinds[0] != kinds[1]:
        return "a picture and none"
    ids = [getattr(reading, "ids", None) for reading in (first, other)]
    lengths = [0 if one is None else one.shape[1] for one in ids]
    if lengths[0] != lengths[1]:
        return f"{lengths[0]} positions and {lengths[1]} (words of as many tokens have one layout)"
    if isinstance(first, SoftPrompt) and not _same_pictures(first, other):
        return "their pictures at different places"
    return ""


def _same_pictures(first: SoftPrompt, other: SoftPrompt) -> bool:
    """Whether two prompts have their pictures at the same positions, or the same picture keys."""
    keys = [None if soft.picture_keys is None else soft.picture_keys.labels
            for soft in (first, other)]  # fmt: skip
    return torch.equal(first.is_picture, other.is_picture) and keys[0] == keys[1]
