"""Capabilities: what a method needs of a model, and whether a model has it.

    @needs("logits", "neurons")
    def attribute(model, prompt, ...): ...

Every verb is decorated with `needs`: before anything is computed it refuses an argument that is no
model, a model that lacks a capability, and an option that the verb does not have. The table of
verbs and families in the docs is made from it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from mmlens.values.arguments import check_call, choice, shown
from mmlens.values.errors import ArgumentError, CapabilityError
from mmlens.values.labels import DENOISER, MULTIMODAL, TEXT

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

Verb = TypeVar("Verb", bound=Callable[..., Any])
WHAT = {
    "logits": "predicts the next token at every position",
    "generate": "generates text",
    "unembed": "has an unembedding, so directions correspond to tokens",
    "neurons": "has MLP units in its language model",
    "classes": "gives logits of classes for a picture",
    "denoise": "makes pictures or sounds out of noise, step by step",
    "one pass": "answers in one forward pass",
    "attention": "has a language model or a denoiser, whose attention can be read",
    "similarity": "compares pictures with texts",
    "pairs": "predicts a word or a match of a picture and a text that it reads together",
    "pictures": "reads pictures",
    "positions": "has every picture among the positions of its prompts",
    "grid": "reads a picture as one grid of positions",
    "text": "reads text",
    "blocks": "has a language model of blocks that can be patched one by one",
    "write:pattern": "applies edits of its attention patterns",
    "write:attn_mask": "applies cuts in its attention mask",
}
"""The capabilities, each with the clause that follows "a model that" in an error."""
IMPLIED = ("one pass", "attention")
"""What follows from others, and an error does not list."""


def abilities(model: HookedModel, what: str) -> bool:
    """Whether a model has a capability."""
    choice(what, "what", tuple(WHAT))
    lm, vision = model.towers.get("lm"), model.towers.get("vision")
    both = vision is not None and TEXT in model.towers
    if what == "similarity":
        return both and MULTIMODAL not in model.towers
    if what == "pairs":
        return both and bool(getattr(model, "answer_names", ()))
    denoises = DENOISER in model.towers
    if what in ("denoise", "one pass"):
        return denoises == (what == "denoise")
    if what == "attention":
        return denoises or lm is not None
    if what in _LAYOUT:
        reader = getattr(model, "image_reader", None)
        return reader is not None and _LAYOUT[what](reader)
    return bool(_TESTS[what](lm, vision))


_LAYOUT: dict[str, Callable[[Any], bool]] = {
    "positions": lambda reader: not reader.crosses,
    "grid": lambda reader: reader.one_grid,
}
_TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "logits": lambda lm, vision: lm is not None,
    "generate": lambda lm, vision: lm is not None,
    "unembed": lambda lm, vision: lm is not None,
    "text": lambda lm, vision: lm is not None,
    "blocks": lambda lm, vision: lm is not None,
    "neurons": lambda lm, vision: lm is not None and lm.units.width > 0,
    "pictures": lambda lm, vision: vision is not None,
    "classes": lambda lm, vision: lm is None and vision is not None and vision.n_classes > 0,
    "write:pattern": lambda lm, vision: lm is not None and lm.can.pattern_writable,
    "write:attn_mask": lambda lm, vision: lm is not None and lm.cut.exact,
}


def require(model: Any, *what: str) -> Any:
    """The model, if it is one and has what is needed.

    Raises:
        ArgumentError: it is no model.
        CapabilityError: it lacks something.
    """
    if not callable(getattr(type(model), "can", None)):
        raise ArgumentError(
            f"model={shown(model)} is no HookedModel: give what mmlens.load returns."
        )
    for one in what:
        if not model.can(one):
            having = [name for name in WHAT if name not in IMPLIED and model.can(name)]
            raise CapabilityError(
                f"This question needs a model that {WHAT[one]}, and {model.name!r} does not; it"
                f" can: {', '.join(having) or 'nothing of this kind'}."
            )
    return model


def need_gradient(model: HookedModel, tower: str) -> None:
    """Refuse a gradient from the answer to an encoder whose pictures become codes.

    Raises:
        CapabilityError: this is that encoder.
    """
    reader = getattr(model, "image_reader", None)
    if tower == "vision" and reader is not None and reader.coded:
        raise CapabilityError(
            f"{model.name!r} reads codes of a picture, the nearest entries of a codebook, through"
            " which no gradient passes: ask at 'soft_prompt' or in the language model, ablate, or"
            " write attribute_picture(..., attribution='occlusion')."
        )


def needs(*what: str) -> Callable[[Verb], Verb]:
    """Declare what a verb needs of the model that is its first argument."""

    def declare(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def asked(model: Any, *args: Any, **options: Any) -> Any:
            require(model, *what)
            check_call(verb, (model, *args), options)
            return verb(model, *args, **options)

        asked.needs = what  # type: ignore[attr-defined]
        return asked  # type: ignore[return-value]

    return declare
