"""Typographic attack: a word written over a picture, and what the model calls it then.

Goh et al. (2021) write a word eight times over 1,000 ImageNet pictures ("trash", "iPod", "$$$") and
ask a linear probe on CLIP RN50x4. Of all pictures,

    fraction_changed_to               were something else, and are the target now: the success rate
    fraction_already_equal            were the target before, and are still
    fraction_changed_away             were the target before, and are not any more
    fraction_both_results_not_target  the rest; the four sum to 1

and `avg_img_l0_norm_diff` is the mean share of pixels that the words changed. The columns have the
names of the paper's own data. The words are drawn as there (`mmlens.datasets.written_words`); who
answers is a dual encoder (zero-shot), a classifier, or a probe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmlens.datasets.written_words import (
    ATTACK_PLACES,
    ATTACK_SIZE,
    attack_canvas,
    pixel_cover,
    written_over,
)
from mmlens.methods.linear_probe import LinearProbe
from mmlens.methods.named_classes import TEMPLATE, named_logits
from mmlens.model.capabilities import needs
from mmlens.values.arguments import count, instance, several, text
from mmlens.values.errors import ArgumentError

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel


@needs("pictures")
def typographic_attack(
    model: HookedModel,
    pictures: Sequence[Any],
    attacks: Mapping[str, str],
    classes: Sequence[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    template: str = TEMPLATE,
    probe: LinearProbe | None = None,
    side: int = ATTACK_SIZE,
    size: int = 20,
    stroke: int = 2,
    at: Sequence[tuple[int, int]] = ATTACK_PLACES,
    batch: int = 32,
) -> pd.DataFrame:
    """One row per attack: the four fractions, pixel cover, and accuracy before and after.

    Columns: target, text, fraction_changed_to with its 95 % interval low and high (Clopper &
    Pearson 1934), the other fractions, avg_img_l0_norm_diff, n, baseline_accuracy and accuracy (NaN
    without labels), classifier.

    Args:
        pictures: their middle squares are resized to `side`, as all of the paper's were.
        attacks: per target class the text that is written.
        classes: all classes that the answer is one of; None takes those of the probe or the head.
        labels: the true class of each picture.
        template: of a dual encoder, the text in which {} stands for a class.
        probe: asked instead of the model itself.
        side, size, stroke, at: of the picture and the words, in pixels.

    Raises:
        ArgumentError: a target is none of the classes, or there are not as many labels as pictures.
        CapabilityError: the model names no classes, and there is no probe.
    """
    import pandas as pd

    clean = [attack_canvas(one, side) for one in several(pictures, "pictures")]
    what = "a mapping from target classes to texts, {'pizza': 'pizza'}"
    asked = {
        text(target, "attacks", empty=False): text(word, "attacks", empty=False)
        for target, word in instance(attacks, "attacks", Mapping, what).items()
    }
    how: dict[str, Any] = {"template": template, "probe": probe, "batch": batch}
    before = named_logits(model, clean, classes, **how)
    if missing := [target for target in asked if target not in before.classes] or not asked:
        raise ArgumentError(
            f"attacks={missing or asked}: a target is one of the classes {before.classes[:8]}."
        )
    truth = _labels(labels, len(clean))
    rows = []
    for target, word in asked.items():
        drawn = [written_over(one, word, size=size, stroke=stroke, at=at) for one in clean]
        after = named_logits(model, drawn, classes, **how)
        covers = [pixel_cover(*pair) for pair in zip(clean, drawn, strict=True)]
        found = fractions(before.best, after.best, target)
        rows.append(
            {
                "target": target, "text": word, **found,
                "avg_img_l0_norm_diff": float(np.mean(covers)), "n": len(clean),
                "baseline_accuracy": _agree(before.best, truth),
                "accuracy": _agree(after.best, truth), "classifier": before.classifier,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def fractions(before: Sequence[str], after: Sequence[str], target: str) -> dict[str, float]:
    """The four fractions of one attack, and the interval of the first."""
    n = count(len(before), "pictures")
    was = np.array([one == target for one in before])
    is_now = np.array([one == target for one in after])
    success = int((~was & is_now).sum())
    low, high = share_interval(success, n)
    return {
        "fraction_changed_to": success / n,
        "low": low,
        "high": high,
        "fraction_already_equal": float((was & is_now).mean()),
        "fraction_changed_away": float((was & ~is_now).mean()),
        "fraction_both_results_not_target": float((~was & ~is_now).mean()),
    }


def share_interval(successes: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper & Pearson 1934); NaN of nothing."""
    from scipy.stats import binomtest

    if not n:
        return float("nan"), float("nan")
    found = binomtest(successes, n).proportion_ci(0.95)
    return float(found.low), float(found.high)


def _labels(labels: Any, n: int) -> list[str] | None:
    if labels is None:
        return None
    named = [text(one, "labels", empty=False) for one in several(labels, "labels")]
    if len(named) != n:
        raise ArgumentError(f"{n} pictures and {len(named)} labels: give as many.")
    return named


def _agree(answers: Sequence[str], truth: Sequence[str] | None) -> float:
    if truth is None:
        return float("nan")
    return float(np.mean([a == b for a, b in zip(answers, truth, strict=True)]))
