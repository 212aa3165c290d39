"""What hooks can do on this architecture, measured once when a model is wrapped.

Some hook points never fire, and in a plain TransformerLens bridge the attention pattern of GPT-J,
OPT and GPT-Neo can be read but not written. Methods check these capabilities before they run;
`mmlens.audit(model)` measures every point.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel


@dataclass(frozen=True)
class Capabilities:
    """What was measured.

    Attributes:
        fires: names of the hook points that fire in a plain forward pass.
        pattern_writable: whether replacing an attention pattern changes the output.
        lens_error: largest |difference| between the logits and `logits_of` the last residual.
    """

    fires: frozenset[str]
    pattern_writable: bool
    lens_error: float


def firing(points: Mapping[str, Any], forward: Any) -> frozenset[str]:
    """The names in `points` whose hook point fires while `forward()` runs.

    Counted by TransformerLens' own hooks: some points (Granite's scaled contributions) are skipped
    when they have none.
    """
    by_id = {id(p): p for p in points.values()}
    counts: dict[int, int] = dict.fromkeys(by_id, 0)
    handles = []
    for key, point in by_id.items():

        def count(tensor: Any, hook: Any, key: int = key) -> None:
            counts[key] += 1

        point.add_hook(count)
        handles.append((point, point.fwd_hooks[-1]))
    try:
        forward()
    finally:
        for point, handle in handles:
            handle.hook.remove()
            point.fwd_hooks[:] = [other for other in point.fwd_hooks if other is not handle]
    return frozenset(name for name, point in points.items() if counts[id(point)])


def probe(lm: LanguageModel) -> Capabilities:
    """Three short forward passes over five tokens."""
    ids = torch.arange(5, device=lm.device).unsqueeze(0) % max(1, lm.n_words)
    mask = torch.ones_like(ids)
    fires = firing(lm.every_point, lambda: lm.forward(ids, mask, **lm.beside(ids)))
    last = f"blocks.{lm.cfg.n_layers - 1}.hook_resid_post"
    kept: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        kept["resid"] = tensor

    with lm.root.hooks(fwd_hooks=[(last, keep)]):
        logits = lm.forward(ids, mask)
    lens = (lm.logits_of(kept["resid"]) - logits).abs().max().item()
    every = (f"blocks.{at}.attn.hook_pattern" for at in range(int(lm.cfg.n_layers)))
    pattern = next((name for name in every if name in fires), None)
    writable = False
    if pattern is not None:  # some layers read pictures instead
        other = (pattern, lambda x, hook: x.flip(-1) * 0.5 + 0.1)
        with lm.root.hooks(fwd_hooks=[other]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TransformerLens warns of edits it discards
            writable = bool((lm.forward(ids, mask) - logits).abs().max() > 1e-6)
    return Capabilities(fires, writable, lens)
