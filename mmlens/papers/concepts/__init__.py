"""Concepts of words, and how they move: two papers, measured on one model (2024, 2025).

    from mmlens.papers import concepts

    concepts.reproduce("pictos", out="runs/concepts")

CoX-LMM (Parekh et al. 2024, arXiv 2406.08074) writes the streams where a word is predicted as sums
of few directions, and grounds each in words and in pictures. Khayatan et al. (2025, arXiv
2501.03012) ask how such concepts move when a model is changed, and steer along what moved.

The papers take one word (dog) and thousands of its pictures; here the streams are those of several
nouns, the most frequent first ones of the captions. CLIPScore and BERTScore are models' opinions of
words and pictures: here the things are known. The papers fine-tune; by default the changed model is
one whose W_out is rewritten so that half of the nouns are called by another's name
(`renamed.renamed_model`), or any that is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.concepts.concepts_report import reproduce as reproduce
    from mmlens.papers.concepts.questions import caption_nouns as caption_nouns
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
