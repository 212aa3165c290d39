"""The patching bench: causal experiments with pictures, from one line to your own.

Everything here is Edits and Scores underneath; "Which experiment do I want" stands in
docs/patching.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.lazy import on_first_use

_HOME = {
    "Pair": "pairs",
    "soft_noise": "pairs",
    "captions": "captioning",
    "another": "corrupters",
    "blur": "corrupters",
    "erased": "corrupters",
    "grey": "corrupters",
    "mean_picture": "corrupters",
    "only_at": "corrupters",
    "pixel_noise": "corrupters",
    "shuffled": "corrupters",
    "patch": "grid",
    "recovered": "grid",
    "attribution_patching": "gradients",
    "direct_logits": "direct",
    "knockout": "routes",
    "knockouts": "routes",
    "attention": "routes",
    "ablate": "ablation",
    "ablation_curve": "ablation",
    "mean_over": "ablation",
    "mean_difference": "steering",
    "remove": "steering",
    "steer": "steering",
    "word": "steering",
    "written_by": "steering",
    "path_patching": "paths",
    "edge_attribution": "paths",
    "other_patches": "places",
    "patches_under": "places",
}
__all__ = [
    "Pair",
    "ablate",
    "ablation_curve",
    "another",
    "attention",
    "attribution_patching",
    "blur",
    "captions",
    "direct_logits",
    "edge_attribution",
    "erased",
    "grey",
    "knockout",
    "knockouts",
    "mean_difference",
    "mean_over",
    "mean_picture",
    "metrics",
    "only_at",
    "other_patches",
    "patch",
    "patches_under",
    "path_patching",
    "pixel_noise",
    "recovered",
    "remove",
    "shuffled",
    "soft_noise",
    "steer",
    "word",
    "written_by",
]

if TYPE_CHECKING:
    from mmlens.patching import metrics as metrics
    from mmlens.patching.ablation import ablate as ablate
    from mmlens.patching.ablation import ablation_curve as ablation_curve
    from mmlens.patching.ablation import mean_over as mean_over
    from mmlens.patching.captioning import captions as captions
    from mmlens.patching.corrupters import another as another
    from mmlens.patching.corrupters import blur as blur
    from mmlens.patching.corrupters import erased as erased
    from mmlens.patching.corrupters import grey as grey
    from mmlens.patching.corrupters import mean_picture as mean_picture
    from mmlens.patching.corrupters import only_at as only_at
    from mmlens.patching.corrupters import pixel_noise as pixel_noise
    from mmlens.patching.corrupters import shuffled as shuffled
    from mmlens.patching.direct import direct_logits as direct_logits
    from mmlens.patching.gradients import attribution_patching as attribution_patching
    from mmlens.patching.grid import patch as patch
    from mmlens.patching.grid import recovered as recovered
    from mmlens.patching.pairs import Pair as Pair
    from mmlens.patching.pairs import soft_noise as soft_noise
    from mmlens.patching.paths import edge_attribution as edge_attribution
    from mmlens.patching.paths import path_patching as path_patching
    from mmlens.patching.places import other_patches as other_patches
    from mmlens.patching.places import patches_under as patches_under
    from mmlens.patching.routes import attention as attention
    from mmlens.patching.routes import knockout as knockout
    from mmlens.patching.routes import knockouts as knockouts
    from mmlens.patching.steering import mean_difference as mean_difference
    from mmlens.patching.steering import remove as remove
    from mmlens.patching.steering import steer as steer
    from mmlens.patching.steering import word as word
    from mmlens.patching.steering import written_by as written_by

__getattr__, __dir__ = on_first_use(__name__, _HOME, ("metrics",))
