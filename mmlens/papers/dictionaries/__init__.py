"""Are the units of a dictionary about one thing? Sparse autoencoders, judged by a known truth.

    from mmlens.papers import dictionaries

    dictionaries.reproduce("pictos", out="runs/dictionaries")

The usual figures of a sparse autoencoder (Gao et al. 2024, arXiv 2406.04093), the MonoScore of its
units (Pach et al. 2025, arXiv 2504.02821) with the truth in the place of an encoder's similarity,
and the best single unit of each thing, beside MLP neurons, coordinates and random directions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.dictionaries.dictionaries_report import reproduce as reproduce
    from mmlens.papers.dictionaries.questions.peaks import unit_peaks as unit_peaks
    from mmlens.papers.dictionaries.unit_truth import mono_scores as mono_scores
    from mmlens.papers.dictionaries.unit_truth import purity as purity
    from mmlens.papers.dictionaries.unit_truth import told_by_one as told_by_one
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
