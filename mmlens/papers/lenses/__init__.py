"""Do lenses name the thing that a patch shows? What papers claim of theirs, on one model.

    from mmlens.papers import lenses

    lenses.reproduce("pictos", out="runs/lenses")

The logit lens (nostalgebraist 2020), the tuned lens (Belrose et al. 2023), the Jacobian lens
(Gurnee et al. 2026), Patchscopes (Ghandeharioun et al. 2024), LatentLens (2026) and the attention
lens (Sakarvadia et al. 2023) are asked the same of pictures of one thing: at which share of the
thing's patches is its word among the five best, less the share at patches of other things?

Most of the papers measure how well a lens predicts the model's own next word in texts. What a patch
shows is another question, with a truth that is known; here that one is asked of all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.papers.lenses.lens_fits import FittedLenses as FittedLenses
    from mmlens.papers.lenses.lens_fits import fitted_lenses as fitted_lenses
    from mmlens.papers.lenses.lenses_report import reproduce as reproduce
    from mmlens.papers.lenses.questions import words_at_patches as words_at_patches
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
