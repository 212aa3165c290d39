"""What a model calls a picture: the logits of named classes, whoever gives them.

A dual encoder gives them by the similarity with one text per class (zero-shot), a classifier by its
head, and every vision tower by a `LinearProbe`. Attacks and Stroop pictures are asked of all three
in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mmlens.methods.linear_probe import LinearProbe
from mmlens.methods.zero_shot import zero_shot
from mmlens.model.readouts import class_index
from mmlens.values.arguments import count, instance, several, text
from mmlens.values.errors import ArgumentError, CapabilityError

if TYPE_CHECKING:
    from mmlens.model.hooked_model import HookedModel

TEMPLATE = "a photo of a {}"


class NamedLogits(NamedTuple):
    """Logits Float[picture, class] on the CPU, the classes, and who gave them."""

    classes: tuple[str, ...]
    values: torch.Tensor
    classifier: str

    @property
    def best(self) -> list[str]:
        """The class of the largest logit, per picture."""
        return [self.classes[i] for i in self.values.argmax(1).tolist()]


def named_logits(
    model: HookedModel,
    pictures: Sequence[Any],
    classes: Sequence[str] | None = None,
    *,
    template: str = TEMPLATE,
    probe: LinearProbe | None = None,
    batch: int = 32,
) -> NamedLogits:
    """The logits of named classes for each picture.

    Args:
        classes: their names; None takes those of the probe or of the model's head.
        template: of a dual encoder, the text in which {} stands for the class.
        probe: a probe that is asked instead of the model itself.

    Raises:
        CapabilityError: the model neither compares pictures with texts nor has classes, and there
            is no probe. TargetError: the head has no such class. ArgumentError: no class is named.
    """
    seen = several(pictures, "pictures")
    step = count(batch, "batch")
    if probe is not None:
        instance(probe, "probe", LinearProbe, "what linear_probe or sparse_probe returns")
        names = probe.classes if classes is None else tuple(_names(classes))
        values = probe.logits(model, seen, batch=step)
        return NamedLogits(names, values[:, [probe.place(one) for one in names]], "linear probe")
    if model.can("similarity"):
        names = tuple(_names(classes))
        texts = [phrase(template, one) for one in names]
        found = zero_shot(model, seen, texts, batch=step)  # type: ignore[arg-type]
        return NamedLogits(names, found.sel(quantity="logit").values.float().cpu(), "zero-shot")
    need_names(model, "give probe=mm.linear_probe(model, pictures, labels)")
    known = model.towers["vision"].class_names  # type: ignore[attr-defined]
    names = tuple(known) if classes is None else tuple(_names(classes))
    at = [class_index(known, one) for one in names]
    with torch.no_grad():
        rows = [model.run(seen[i : i + step]) for i in range(0, len(seen), step)]
    return NamedLogits(names, torch.cat(rows)[:, at].float().cpu(), "classifier")


def need_names(model: HookedModel, instead: str) -> None:
    """Refuse a model that neither compares pictures with texts nor has classes.

    Raises:
        CapabilityError: with what to do instead.
    """
    if not model.can("similarity") and not model.can("classes"):
        raise CapabilityError(
            f"{model.name!r} neither compares pictures with texts nor has classes: {instead}."
        )


def phrase(template: str, name: str) -> str:
    """The text of a class.

    Raises:
        ArgumentError: the template has no place for the name.
    """
    if "{}" not in text(template, "template"):
        raise ArgumentError(f"template={template!r}: write {{}} where the class stands.")
    return template.replace("{}", name)


def _names(classes: Any) -> list[str]:
    if classes is None:
        raise ArgumentError("classes=None: name the classes that texts are made of, ['dog', ...].")
    names = [text(one, "classes", empty=False) for one in several(classes, "classes")]
    if len(set(names)) < len(names):
        raise ArgumentError(f"classes={names[:6]}: name every class once.")
    return names
