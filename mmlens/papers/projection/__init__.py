"""Cross-Modal Projection Doesn't Really Project Visual Attributes (Verma et al. 2024), on a model.

    from mmlens.papers import projection

    projection.reproduce("pictos", out="runs/projection")

arXiv 2402.16832. What a picture shows is read off the encoder's mean features, and off the mean of
its positions in the soft prompt, by a probe of each (`mmlens.projection_probe`). The paper's claim
is that the projection, fine-tuned or not, adds nothing to what can be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.projection.projection_report import reproduce as reproduce
    from mmlens.papers.projection.questions.mean_places import mean_vectors as mean_vectors
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
