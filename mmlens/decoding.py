"""Decoding against hallucination: logits processors and Edits for `model.generate`.

They work with and without the cache of keys and values; what they come to on the bundled world
stands in docs/hallucination.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmlens.values.lazy import on_first_use

if TYPE_CHECKING:
    from mmlens.causal.corrupters import covered as covered
    from mmlens.causal.corrupters import diffusion_noise as diffusion_noise
    from mmlens.methods.amplified_attention import amplify as amplify
    from mmlens.methods.contrastive_decoding import contrast as contrast
    from mmlens.methods.shift_steering import shift_directions as shift_directions
    from mmlens.methods.shift_steering import steer_along as steer_along
    from mmlens.methods.trust_penalty import trust_penalty as trust_penalty
else:
    __getattr__, __dir__, __all__ = on_first_use(__name__)
