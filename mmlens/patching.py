"""The patching bench: causal experiments with pictures, from one line to your own.

Everything here is Edits and Scores underneath; "Which experiment do I want" stands in
docs/patching.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.causal import measures as metrics  # noqa: F401  published under another name
    from mmlens.causal.corrupters import another as another
    from mmlens.causal.corrupters import blur as blur
    from mmlens.causal.corrupters import erased as erased
    from mmlens.causal.corrupters import grey as grey
    from mmlens.causal.corrupters import mean_picture as mean_picture
    from mmlens.causal.corrupters import only_at as only_at
    from mmlens.causal.corrupters import pixel_noise as pixel_noise
    from mmlens.causal.corrupters import shuffled as shuffled
    from mmlens.causal.masked_patches import other_patches as other_patches
    from mmlens.causal.masked_patches import patches_under as patches_under
    from mmlens.causal.pair_means import effects as effects
    from mmlens.causal.pair_means import means as means
    from mmlens.causal.pairs import Pair as Pair
    from mmlens.causal.pairs import soft_noise as soft_noise
    from mmlens.causal.thing_pairs import thing_pairs as thing_pairs
    from mmlens.methods.ablate import ablate as ablate
    from mmlens.methods.ablate import ablation_curve as ablation_curve
    from mmlens.methods.ablate import mean_over as mean_over
    from mmlens.methods.attribution_patching import attribution_patching as attribution_patching
    from mmlens.methods.captions import captions as captions
    from mmlens.methods.direct_logits import direct_logits as direct_logits
    from mmlens.methods.knockout import attention as attention
    from mmlens.methods.knockout import knockout as knockout
    from mmlens.methods.knockout import knockouts as knockouts
    from mmlens.methods.patch import patch as patch
    from mmlens.methods.patch import recovered as recovered
    from mmlens.methods.path_patching import edge_attribution as edge_attribution
    from mmlens.methods.path_patching import path_patching as path_patching
    from mmlens.methods.project_away import project_away as project_away
    from mmlens.methods.project_away import word_state as word_state
    from mmlens.methods.rewrite import rewrite as rewrite
    from mmlens.methods.rewrite_in_sequence import rewrite_in_sequence as rewrite_in_sequence
    from mmlens.methods.steer import mean_difference as mean_difference
    from mmlens.methods.steer import remove as remove
    from mmlens.methods.steer import steer as steer
    from mmlens.methods.steer import word as word
    from mmlens.methods.steer import written_by as written_by
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
