"""Maps of relevance, judged against each other: which patches does a word come from?

    from mmlens.papers import maps

    maps.reproduce("pictos", out="runs/maps")

Each method of `mmlens.relevance` (and `attribute_picture`) maps the first thing that a caption
names, and each map is judged twice: by the thing's mask, and by the model itself, whose word is
watched while patches are covered or shown in the map's order (`map_scores.judged_maps`). A map of
random numbers is judged beside them. What the methods' papers say of each other is asked of the
same pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.maps.maps_report import reproduce as reproduce
    from mmlens.papers.maps.questions import map_scores as map_scores
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
