"""Patched passes that reuse what a patch cannot have changed.

In a causal language model a patch at layer l and position p does not change the layers below l or
the positions before p. So the run that is patched is computed once and kept (residual stream
entering every layer, keys, values), and each patched pass

    starts at layer l   blocks below return their input; the kept residual enters at l
    starts at p         keys and values of the positions before p come from the kept run
    ends at one row     of logits: those of the last position

Everything between is the model's own code. Whether the result is exact on an architecture is
measured once for each length of prompts, against a plain pass (`measured`); where it is not,
patched passes run in full. The length matters: sliding windows and scaled rotary embeddings start
at some length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from mmlens.model.capture import capture
from mmlens.model.prompt_tokens import rows
from mmlens.model.targets import finite
from mmlens.runtime.run import current
from mmlens.towers.language.kv_cache import first_number, given, shortened
from mmlens.towers.language.measured import apart
from mmlens.values.errors import CapabilityError, MMLensError
from mmlens.values.labels import LM, Marker, Token
from mmlens.values.prompt import IMAGE_TOKEN, PictureKeys, SoftPrompt
from mmlens.values.sites import SITES

if TYPE_CHECKING:
    from mmlens.model.hooked_vlm import HookedVLM
    from mmlens.values.edit import Edit

BOTH, LAYERS, NOTHING = "layers and positions", "layers", "nothing"
Hooks = Sequence[tuple[str, Callable[..., Any]]]
_SHORTEST = 8
"""Positions of the shortest prompt that is measured."""
_exact: WeakKeyDictionary[Any, dict[int, str]] = WeakKeyDictionary()


@dataclass(eq=False)
class Kept:
    """A run that patched passes start from; `Kept(soft)` alone lets them reuse nothing.

    Attributes:
        soft: its prompt, one row, as the model reads it.
        logits: Float[d_vocab], of the last position; Float[at, d_vocab] where `at` is given. Of a
            model without a language model its output, such as Float[class].
        at: the positions whose logits are computed, or None for the last alone.
        resid: per layer, the residual stream entering it, Float[pos, d_model].
        cache: keys and values of all positions, or None.
        handed: how many values a block returns (0: the residual stream, not in a tuple).
        reuse: what is reused: layers and positions, layers, or nothing.
    """

    soft: Any
    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    at: torch.Tensor | None = None
    resid: dict[int, torch.Tensor] = field(default_factory=dict)
    cache: Any = None
    handed: int = 0
    reuse: str = NOTHING

    @property
    def width(self) -> int:
        """How many positions the prompt has."""
        return self.soft.ids.shape[1]


def keep(model: Any, prompt: Any, reuse: str | None = None, at: torch.Tensor | None = None) -> Kept:
    """Run a prompt once and keep what patched passes need.

    Args:
        reuse: what they may reuse; by default what is exact here (`allowed`).
        at: Int[k], positions whose logits are computed in place of the last; no position is skipped
            then.
    """
    soft = model.one(prompt)
    if LM not in model.towers:  # encoders compute every position
        with torch.no_grad():
            output = model.side_by_side(soft, 1)[0]
        return Kept(soft, finite(output, f"the output of {model.name!r}"))
    kept = Kept(soft, at=at)
    kept.reuse = allowed(model, kept.width) if reuse is None else reuse
    if at is not None and kept.reuse == BOTH:
        kept.reuse = LAYERS
    options: dict[str, Any] = {}
    layers = range(0 if kept.reuse == NOTHING else model.cfg.n_layers)
    names = {layer: SITES["resid_pre"].at(layer) for layer in layers}
    if kept.reuse == BOTH:
        from transformers import DynamicCache

        kept.cache = DynamicCache()
        options = given(model.lm, kept.cache)
    seen: list[Any] = []
    first = model.root.blocks[0]
    handle = first.register_forward_hook(lambda module, args, out: seen.append(out))
    try:
        with (
            torch.no_grad(),
            capture(model, names.values(), lambda x: x[0].detach().clone()) as resid,
        ):
            if at is None:
                logits = model.run(soft, **_few(model), **options)[0, -1]
            else:
                logits = model.run(soft, at=at)[0]
    finally:
        handle.remove()
    kept.resid = {layer: resid[name] for layer, name in names.items()}
    kept.handed = len(seen[0]) if isinstance(seen[0], tuple) else 0
    kept.logits = finite(logits, f"the logits of {model.name!r}")
    return kept


@torch.no_grad()
def go_on(
    model: HookedVLM, kept: Kept, n: int, hooks: Hooks, layer: int | None = None, first: int = 0
) -> Float[Tensor, "row ..."]:
    """Logits of the last position (or of `kept.at`) of `n` rows of the run, changed by hooks.

    Args:
        hooks: they get `n` rows and the positions from `begins(kept, first)` on.
        layer: the hooks change nothing before this layer; None: they may change the embedding.
        first: they change no position before this one.
    """
    first = begins(kept, first)
    lm, many = model.lm, rows(kept.soft, [0] * n)
    options = _few(model)
    enter: list[Any] = []
    skipped = 0
    if layer is not None and kept.reuse != NOTHING:
        skipped, old = layer, kept.resid[layer][first:]

        def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            return old.to(tensor).expand_as(tensor).clone()

        enter = [(SITES["resid_pre"].at(layer), put)]
    if first:
        same = first_number(model.root.blocks[skipped:], skipped)
        options |= given(model.lm, shortened(kept.cache, first, n, same))
    with ExitStack() as stack:
        stack.enter_context(model.hooks([*enter, *hooks]))
        soft = stack.enter_context(model.running(many, grad=False))
        run = current()
        assert run is not None  # `running` has just begun it
        run.enters = first
        stack.enter_context(_handed_through(model.root.blocks[:skipped], kept.handed))
        ids = soft.ids.clamp(min=0)
        if kept.at is None:
            logits = lm.forward(ids[:, first:], soft.mask, **options)[:, -1]
        else:
            logits = lm.logits_at(ids, soft.mask, kept.at)
    return finite(logits, f"the patched logits of {model.name!r}")


def _few(model: HookedVLM) -> dict[str, Any]:
    """The option that leaves out the logits of all positions but the last."""
    return {"logits_to_keep": 1} if model.lm.keeps_logits else {}


def begins(kept: Kept, first: int) -> int:
    """The position at which a patched pass begins if it changes nothing before `first`."""
    return min(first, kept.width - 1) if kept.reuse == BOTH else 0


@contextmanager
def _handed_through(blocks: Any, handed: int) -> Iterator[None]:
    """Within this context these blocks return their input."""

    def through(hidden_states: torch.Tensor, *args: Any, **options: Any) -> Any:
        return (hidden_states, *[None] * (handed - 1)) if handed else hidden_states

    blocks = list(blocks)
    for block in blocks:
        vars(block)["forward"] = through  # setattr would set it on the wrapped block
    try:
        yield
    finally:
        for block in blocks:
            vars(block).pop("forward", None)


def allowed(model: HookedVLM, width: int = _SHORTEST) -> str:
    """What patched passes of this model, with its edits and hooks, may reuse.

    Args:
        width: how many positions the prompt has.

    With hooks nothing is reused, since a hook can do anything. An edit by a function may read
    several positions, and a tensor may be sized for several, so with these all positions are
    computed.
    """
    if model._hooks_now():
        return NOTHING
    exact = measured(model, width)
    return LAYERS if exact == BOTH and any(_needs_all(edit) for edit in model.edits) else exact


def edited(model: HookedVLM, *edits: Edit) -> HookedVLM:
    """The model with edits and its current hooks (which a copy would not have)."""
    out = model.edit(*edits)
    out._added = model._hooks_now()
    return out


def _needs_all(edit: Edit) -> bool:
    many = isinstance(edit.value, torch.Tensor) and edit.value.ndim > 1
    return edit.site.in_lm and (callable(edit.value) or many)


def measured(model: HookedVLM, width: int = _SHORTEST) -> str:
    """What can be reused exactly on this architecture, measured once against full patched passes.

    Args:
        width: how many positions the prompt has (shorter ones than 8 are measured as 8).
    """
    width = max(width, _SHORTEST)
    known = _exact.setdefault(model.root, {})
    if width not in known:
        if model.lm.is_bridge:
            exact = model.lm.caching.exact  # measured, and repaired where the cache was renamed
            exact = exact and not (model.lm.telling is not None and model.lm.telling.both_ways)
            kinds = (BOTH, LAYERS) if exact else (LAYERS,)
        else:
            kinds = ()
        known[width] = next((reuse for reuse in kinds if _agrees(model, reuse, width)), NOTHING)
    return known[width]


def _agrees(model: HookedVLM, reuse: str, width: int) -> bool:
    from mmlens.model.hooked_vlm import HookedVLM

    bare = HookedVLM(None, None, model.lm, name=model.name)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(1, width, model.lm.d_embed, generator=generator)
    scale = model.lm.embed(torch.zeros(1, 1, dtype=torch.long)).float().std().cpu()
    vectors = (vectors * scale).to(model.lm.device, model.lm.dtype)
    ids = torch.full((1, width), IMAGE_TOKEN, device=vectors.device)
    labels = (tuple(Token("", i) for i in range(width)),)
    soft = SoftPrompt(vectors, ids, torch.ones_like(ids, dtype=torch.bool), labels)
    if model.lm.crossing is not None:
        soft = replace(soft, picture_keys=_keys(model, generator))
    layer, pos = model.cfg.n_layers // 2, width - 4
    new = vectors[0, 0] * 3

    def at(place: int) -> Callable[..., Any]:
        def change(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            tensor = tensor.clone()
            tensor[:, place] += new.to(tensor)
            return tensor

        return change

    name = SITES["resid_pre"].at(layer)
    try:
        kept = keep(bare, soft, reuse)
        hook = (name, at(pos - begins(kept, pos - 1)))
        short = go_on(bare, kept, 2, [hook], layer, pos - 1)
        full = bare.run_with_hooks(soft, [(name, at(pos))])[:, -1]
    except CapabilityError:
        return False
    except MMLensError:
        raise  # a mistake of ours and not of the architecture
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError, IndexError):
        return False  # an unsupported architecture: patched passes run in full there
    tolerance = 1e-4 if model.lm.dtype in (torch.float32, torch.float64) else 3e-2
    return apart(short, full) <= tolerance


def _keys(model: HookedVLM, generator: torch.Generator) -> PictureKeys:
    """A few random keys of cross-attention for the measurement."""
    labels = (tuple(Marker("key", i) for i in range(4)),)
    vectors = torch.randn(1, len(labels[0]), model.lm.crossing.d_key, generator=generator)  # type: ignore[union-attr]
    vectors = vectors.to(model.lm.device, model.lm.dtype)
    there = torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
    return PictureKeys(vectors, there, labels)
