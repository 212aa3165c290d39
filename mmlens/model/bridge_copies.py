"""Copying, pickling and casting a bridge: each part is copied, and a new bridge joins them.

`copy.deepcopy(model)` and `pickle.dumps(model)` copy the parts as `save` and `load` do, and all
four agree; how a language model is serialized is described in `mmlens.towers.language.copies`.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

from mmlens.model.dictionary_sites import hold
from mmlens.runtime.casting import Movable
from mmlens.values.errors import CapabilityError


class Joined(Movable):
    """The base of a bridge: how it is cast, copied and pickled."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """The step behind `.to`, `.cuda`, `.half` and the like, for all three parts."""
        out: Any = super()._apply(fn, recurse)
        out.cfg.device, out.cfg.dtype = str(out.lm.device), out.lm.dtype
        return out

    def __reduce__(self) -> Any:
        return reduced(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return deep(self, memo)


def reduced(model: Any) -> Any:
    """What pickle writes of a bridge: its parts, its edits and its hooks."""
    for what, functions in (("edits", model.edits), ("hooks", model._added)):
        try:
            pickle.dumps(functions)
        except Exception as error:  # pickle raises several exception types
            raise CapabilityError(
                f"{model.name!r} has {what} whose function cannot be pickled ({error}): define it"
                " with `def` at the top of a module, or pickle the model without them."
            ) from error
    parts = (model.vision, model.projection, model.lm)
    told = {"name": model.name, "provenance": model.provenance, "prepend_bos": model.prepend_bos}
    told |= {"image_reader": model.image_reader, "prompt_reader": model.prompt_reader}
    return _joined, (type(model), parts, told, model.edits, model._added)


def deep(model: Any, memo: dict[int, Any]) -> Any:
    """A bridge with copied weights and the same edits and hooks."""
    parts = copy.deepcopy((model.vision, model.projection, model.lm), memo)
    told = copy.deepcopy(model.provenance, memo)
    told = {"name": model.name, "provenance": told, "prepend_bos": model.prepend_bos}
    told["image_reader"] = copy.deepcopy(model.image_reader, memo)
    told["prompt_reader"] = copy.deepcopy(model.prompt_reader, memo)
    return _joined(type(model), parts, told, model.edits, list(model._added))


def _joined(kind: Any, parts: tuple[Any, ...], told: Any, edits: Any, added: Any) -> Any:
    model = kind(*parts, **told)
    model.edits, model._added = edits, added
    hold(model)
    return model
