"""Stroop test: does a model name the ink of a word, or read the word?

Words for colours are drawn in coloured ink, and the model says which colour the ink has. People are
slowed down when word and ink disagree (Stroop 1935); CLIP answers with the word: of the 49 pictures
of Goh et al. (2021) in which they disagree, RN50x4 names the ink of none and the word of all.

Axes: (ink, word, answer), the probability of each answer. `stroop_rates` counts; `stroop_probs`
gives the nested form of the paper's own data, probs[ink][word][answer].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmlens.datasets.written_words import colour
from mmlens.methods.linear_probe import LinearProbe
from mmlens.methods.named_classes import named_logits
from mmlens.methods.typographic_attack import share_interval
from mmlens.methods.unit_responses import TOWER
from mmlens.methods.word_probe import distinct, word_canvas
from mmlens.model.capabilities import needs
from mmlens.model.provenance import about
from mmlens.values.errors import AddressError, ArgumentError
from mmlens.values.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel

INKS = ("black", "red", "green", "blue", "purple", "orange", "pink", "yellow")
WORDS = ("example", "red", "green", "blue", "purple", "orange", "pink", "yellow")
"""The paper's inks and words: "example" names no colour."""
STROOP_TEMPLATE = "my favorite word, written in the color {}"
AXES = ("ink", "word", "answer")


@needs("pictures")
def stroop(
    model: HookedModel,
    *,
    inks: Sequence[str] = INKS,
    words: Sequence[str] = WORDS,
    template: str = STROOP_TEMPLATE,
    probe: LinearProbe | None = None,
    size: float = 0.2,
    at: tuple[float, float] = (0.5, 0.5),
    batch: int = 32,
) -> Scores:
    """The probability of each ink as the answer: Scores(ink, word, answer), a softmax over answers.

    Args:
        inks: names of colours, as Pillow and the model know them; they are the answers, too.
        words: as they are written; those that are no ink are neutral.
        template: of a dual encoder, the text in which {} stands for a colour.
        probe: asked instead of the model itself; its classes are the inks.
        size: of the font, as a share of the picture's height.
        at: (x, y) of the word, 0 to 1, within the room that it leaves.

    Raises:
        ArgumentError: fewer than two inks, or one that is no colour.
        CapabilityError: the model names no classes, and there is no probe.
    """
    colours, written = distinct(inks), distinct(words)
    if len(colours) < 2:
        raise ArgumentError(f"inks={colours}: name at least two.")
    for one in colours:
        colour(one, "inks")
    canvas = word_canvas(model.towers[TOWER])
    pictures = [canvas(word, size, at, ink=ink) for ink in colours for word in written]
    found = named_logits(model, pictures, colours, template=template, probe=probe, batch=batch)
    values = found.values.softmax(-1).reshape(len(colours), len(written), len(colours))
    labels = {"ink": tuple(colours), "word": tuple(written), "answer": tuple(colours)}
    told = about(model, method="stroop", template=template, classifier=found.classifier)
    return Scores(values, AXES, labels, told)


def stroop_rates(scores: Scores) -> pd.DataFrame:
    """How often the answer is the ink, and how often the word, by condition.

    Columns: condition ("congruent", "incongruent", "neutral"), n, ink and word (the share of
    pictures that are answered so) with ink_low, ink_high, word_low, word_high (exact 95 %
    intervals). Of a neutral word, no answer is the word: NaN.

    Raises:
        AddressError: scores of other axes.
    """
    import pandas as pd

    scores = _checked(scores)
    answers = [scores.of("answer")[i] for i in scores.values.argmax(-1).flatten().tolist()]
    pairs = [(ink, word) for ink in scores.of("ink") for word in scores.of("word")]
    kinds = {"congruent": [], "incongruent": [], "neutral": []}
    for (ink, word), answer in zip(pairs, answers, strict=True):
        named = word in scores.of("answer")
        kind = ("congruent" if ink == word else "incongruent") if named else "neutral"
        kinds[kind].append((answer == ink, answer == word))
    rows = []
    for kind, found in kinds.items():
        row: dict[str, Any] = {"condition": kind, "n": len(found)}
        for what, hits in (("ink", [a for a, _ in found]), ("word", [b for _, b in found])):
            known = len(hits) if what == "ink" or kind != "neutral" else 0
            row[what] = sum(hits) / known if known else float("nan")
            row[f"{what}_low"], row[f"{what}_high"] = share_interval(sum(hits), known)
        rows.append(row)
    return pd.DataFrame(rows)


def stroop_probs(scores: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """The probabilities as the paper's data have them: probs[ink][word][answer]."""
    scores = _checked(scores)
    inks, words, answers = (scores.of(axis) for axis in AXES)
    values = scores.numpy()
    return {
        ink: {
            word: dict(zip(answers, map(float, values[i, j]), strict=True))
            for j, word in enumerate(words)
        }
        for i, ink in enumerate(inks)
    }


def _checked(scores: Any) -> Scores:
    if not isinstance(scores, Scores) or scores.axes != AXES:
        raise AddressError(f"{scores!r} is no Stroop table: give what stroop(model) returns.")
    return scores
