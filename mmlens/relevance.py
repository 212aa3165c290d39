"""Maps of relevance: which patches (and words) of a prompt a word, class or similarity comes from.

Every method takes `(model, prompt, of)` and returns Scores(pos), which `view.on_image` draws; what
each leaves out, and how they compare where the truth is known, stands in docs/relevance.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.methods.chefer import chefer as chefer
    from mmlens.methods.grad_cam import grad_cam as grad_cam
    from mmlens.methods.grad_eclip import grad_eclip as grad_eclip
    from mmlens.methods.lrp import lrp as lrp
    from mmlens.methods.map_measures import covering_curves as covering_curves
    from mmlens.methods.map_measures import in_mask as in_mask
    from mmlens.methods.noise_map import noise_map as noise_map
    from mmlens.methods.occlusion import occlusion as occlusion
    from mmlens.methods.project_away import lens_map as lens_map
    from mmlens.methods.rise import rise as rise
    from mmlens.methods.rollout import rollout as rollout
    from mmlens.methods.token_activation_map import tam as tam
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
