"""Implicit Multimodal Alignment (Shukor and Cord 2024): two of its claims, on one model.

    from mmlens.papers import alignment

    alignment.reproduce("pictos", out="runs/alignment")

arXiv 2405.16700. `cosines` asks how near the picture's positions are to those of words, layer by
layer; `skips` what is lost where the MLPs pass the picture's positions by. The paper's third claim,
that models whose alignment is higher hallucinate less, compares models: one model cannot show it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.alignment.alignment_report import reproduce as reproduce
    from mmlens.papers.alignment.questions import cosines as cosines
    from mmlens.papers.alignment.questions import skips as skips
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
