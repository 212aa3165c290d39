"""Measure every advertised hook point: whether it fires, is differentiable, and has an effect.

Some points of an architecture are read-only or never fire, without a warning (TransformerLens
issues 1317, 1527, 1688). The audit runs each point once and records the result; the model refuses
names that do not fire, and edits that would be ignored.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from mmlens.model import hooking
from mmlens.model.capabilities import needs
from mmlens.runtime.autograd import ordinary
from mmlens.towers.language.measured import said
from mmlens.values.arguments import function
from mmlens.values.labels import LM, TEXT
from mmlens.values.prompt import Prompt

if TYPE_CHECKING:
    import pandas as pd

    from mmlens.model.hooked_model import HookedModel


@needs()
@ordinary()
def audit(
    model: HookedModel, prompt: Any = None, progress: Callable[[int, int], None] | None = None
) -> pd.DataFrame:
    """Every hook point of a model, measured: one forward and one backward pass each.

    Args:
        prompt: the input; by default a small picture with a few tokens.
        progress: called with (done, of) after every point.

    Returns:
        Columns name (every alias has its row), fires, differentiable (the last position's largest
        logit has a finite gradient there that is not all zero), acts (replacing the value changes
        the logits).
    """
    import pandas as pd

    if progress is not None:
        function(progress, "progress", "a function of (done, of)", takes=2)
    read = prompt if prompt is not None else _something(model)
    known = hooking.points(model)
    with torch.no_grad():
        plain = model(read)
    by_point: dict[int, list[str]] = {}
    for name, point in known.items():
        by_point.setdefault(id(point), []).append(name)
    rows = []
    for done, same in enumerate(by_point.values()):
        result = _measure(model, read, same[0], plain)
        rows += [{"name": name, **result} for name in same]
        if progress is not None:
            progress(done + 1, len(by_point))
    table = pd.DataFrame(rows, columns=["name", "fires", "differentiable", "acts"])
    order = {name: i for i, name in enumerate(known)}
    return table.sort_values("name", key=lambda column: column.map(order)).reset_index(drop=True)


def _measure(model: HookedModel, read: Any, name: str, plain: torch.Tensor) -> dict[str, bool]:
    kept: list[torch.Tensor] = []
    fired = False

    def tap(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        nonlocal fired
        fired = True
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            return tensor  # Jamba's state space layers hand on a tuple
        live = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        live = live * 1.0
        kept.append(live)
        return live

    def replace(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            return tensor  # Jamba's state space layers hand on a tuple
        noise = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)).to(tensor)
        return tensor * (0.5 + noise) + 0.1 * noise

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TransformerLens warns of edits it discards: measured here
        with torch.enable_grad():
            logits = model.run_with_hooks(read, fwd_hooks=[(name, tap)])
            number = _number(model, logits)
            grad = None
            if kept and number.requires_grad:
                grad = torch.autograd.grad(number, kept[-1], allow_unused=True)[0]
        with torch.no_grad():
            changed = model.run_with_hooks(read, fwd_hooks=[(name, replace)])
    changed, plain = said(changed), said(plain)
    moves = (changed - plain).abs().max() > 1e-6 * (1 + plain.abs().max())
    return {
        "fires": fired,
        "differentiable": grad is not None
        and bool(torch.isfinite(grad).all())
        and bool((grad != 0).any()),
        "acts": bool(moves),
    }


def _number(model: HookedModel, answer: torch.Tensor) -> torch.Tensor:
    """The largest logit, at the last position where there are positions."""
    return (answer[0, -1] if model.can("logits") else answer[0]).max()


def _something(model: HookedModel) -> Any:
    if model.can("denoise"):
        return "a"
    picture = Image.linear_gradient("L").convert("RGB")
    if TEXT in model.towers:
        both: Any = model
        return Prompt(picture, both.sample_text)
    if not model.can("text"):
        return Prompt(picture)
    lm: Any = model.towers[LM]
    if not model.can("pictures"):
        return (torch.arange(4) % max(1, lm.n_words))[None]
    return Prompt(picture, "A picture of" if lm.tokenizer is not None else "")
