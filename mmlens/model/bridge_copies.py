"""A bridge copied, pickled and cast: by its parts, which are made again.

`copy.deepcopy(model)` and `pickle.dumps(model)` take the way of `save` and `load`, and all four
agree; how a language model is written out is told in `mmlens.towers.language.copies`.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any

from mmlens.runtime.casting import Movable
from mmlens.values.errors import CapabilityError


class Joined(Movable):
    """The base of a bridge: how it is cast, copied and pickled."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """What `.to`, `.cuda`, `.half` and their like come down to, for all three parts."""
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
        except Exception as error:  # pickle raises half a dozen kinds
            raise CapabilityError(
                f"{model.name!r} has {what} whose function cannot be pickled ({error}): define it"
                " with `def` at the top of a module, or pickle the model without them."
            ) from error
    parts = (model.vision, model.projection, model.lm)
    told = {"name": model.name, "provenance": model.provenance, "prepend_bos": model.prepend_bos}
    told["image_reader"] = model.image_reader
    return _joined, (type(model), parts, told, model.edits, model._added)


def deep(model: Any, memo: dict[int, Any]) -> Any:
    """A bridge with weights of its own and the same edits and hooks."""
    parts = copy.deepcopy((model.vision, model.projection, model.lm), memo)
    told = copy.deepcopy(model.provenance, memo)
    told = {"name": model.name, "provenance": told, "prepend_bos": model.prepend_bos}
    told["image_reader"] = copy.deepcopy(model.image_reader, memo)
    return _joined(type(model), parts, told, model.edits, list(model._added))


def _joined(kind: Any, parts: tuple[Any, ...], told: Any, edits: Any, added: Any) -> Any:
    model = kind(*parts, **told)
    model.edits, model._added = edits, added
    return model
