"""Metrics as experiments take them: functions of texts and of the samples they are about.

A scorer gets texts and, one for each, samples, and returns a `MetricResult` with one value per
text. The paper uses CLIPScore and BERTScore with unnamed backbones; without a backbone the plain
word overlap stands in, under its own name.

    {"BERTScore": against_captions(metrics.bert_score, backbone="roberta-large", over="mean"),
     "CLIPScore": against_pictures(metrics.clip_score, backbone="openai/clip-vit-base-patch32")}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from mmlens.datasets.sample import Sample
from mmlens.metrics.counts import word_overlap_f1, world_score
from mmlens.metrics.result import MetricResult
from mmlens.papers.tables import ExperimentError, by_id
from mmlens.values.arguments import shown
from mmlens.values.written import accepts

Scorer = Callable[[Sequence[str], Sequence[Sample]], MetricResult]
Compare = Callable[[Sequence[str], Sequence[Sequence[str]]], MetricResult]
"""Texts and, for each, reference texts: `word_overlap_f1`, `bert_score` with a backbone, ..."""


def against_captions(
    metric: Callable[..., MetricResult] = word_overlap_f1, **options: Any
) -> Scorer:
    """Texts against everything that people said of the picture."""
    return partial(_scored, _metric(metric, options), "captions", options)


def against_pictures(metric: Callable[..., MetricResult], **options: Any) -> Scorer:
    """Texts against the picture itself: `clip_score` with a backbone."""
    return partial(_scored, _metric(metric, options), "image", options)


def against_things(metric: Callable[..., MetricResult] = world_score, **options: Any) -> Scorer:
    """Texts against the names of what the picture shows."""
    return partial(_scored, _metric(metric, options), "names", options)


def _metric(metric: Any, options: Mapping[str, Any]) -> Any:
    """A metric that can be called with texts, what each is compared with, and these options.

    Raises:
        ExperimentError: it cannot.
    """
    if not callable(metric) or not accepts(metric, 2, options):
        raise ExperimentError(
            f"The metric {shown(metric)} cannot be called with texts, references and the options"
            f" {', '.join(options) or 'none'}: give a function of (texts, references, ...)."
        )
    return metric


def _scored(
    metric: Callable[..., MetricResult],
    what: str,
    options: Mapping[str, Any],
    texts: Sequence[str],
    samples: Sequence[Sample],
) -> MetricResult:
    return metric(texts, [getattr(sample, what) for sample in samples], **options)


def default_scorers() -> dict[str, Scorer]:
    """Offline: the share of words with each caption, averaged over the captions."""
    return {"word overlap F1": against_captions(word_overlap_f1, over="mean")}


def values_of(
    pairs: pd.DataFrame, samples: Iterable[Sample], scorers: Mapping[str, Scorer]
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Every scorer's value of every pair, each different pair scored once.

    Args:
        pairs: columns sample, text.

    Returns:
        `pairs` in long form with metric and value, and the settings of the metrics.

    Raises:
        ExperimentError: a sample of the table is not among `samples`.
    """
    if not isinstance(scorers, Mapping) or not scorers:
        raise ExperimentError(f"scorers={shown(scorers)}: write scorers by name, {{...}}.")
    known = by_id(samples)
    once = pairs[["sample", "text"]].drop_duplicates()
    missing = [name for name in once["sample"] if name not in known]
    if missing:
        raise ExperimentError(
            f"The table is about the sample {missing[0]!r}, which is not among the {len(known)}"
            " given: give the samples that the question was asked about."
        )
    about, texts = [known[name] for name in once["sample"]], once["text"].tolist()
    settings: dict[str, Any] = {}
    parts = []
    for name, scorer in scorers.items():
        if not callable(scorer):
            raise ExperimentError(f"The scorer {name!r} is {shown(scorer)} and no function.")
        if not accepts(scorer, 2):
            raise ExperimentError(
                f"The scorer {name!r} cannot be called with 2 arguments: give a function of"
                " (texts, samples)."
            )
        result = scorer(texts, about)
        settings[name] = {"metric": result.name, **result.settings}
        values = once.assign(metric=name, value=list(result.items))
        parts.append(pairs.merge(values, on=["sample", "text"], how="left"))
    return pd.concat(parts, ignore_index=True), settings
