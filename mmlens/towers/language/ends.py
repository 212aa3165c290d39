"""Both ends of the residual stream, where architectures differ: embedding and unembedding.

A soft prompt is what Hugging Face's `inputs_embeds` receives, on every architecture. Some models
multiply it by a factor (Granite by 12), some before and some after the hook on the embedding, so
the factor is measured:

    embed.hook_out = embed_scale * (what inputs_embeds receives)

After the last block there may be no norm (OPT with post-norm blocks), and a projection before the
unembedding (OPT with `word_embed_proj_dim`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmlens.values.errors import CapabilityError

if TYPE_CHECKING:
    from mmlens.towers.language.language_model import LanguageModel


@dataclass(frozen=True)
class Entrance:
    """How vectors enter the residual stream.

    Attributes:
        scale: the value at the hook on the embedding, divided by what `inputs_embeds` receives.
        table: what `inputs_embeds` would receive for a token, divided by its row of the embedding.
    """

    scale: float = 1.0
    table: float = 1.0


def embedding_of(root: Any, is_bridge: bool) -> Any:
    """The embedding module, below the hooks of the bridge."""
    table = root.original_model.get_input_embeddings() if is_bridge else root.embed
    return getattr(table, "original_component", table)


def entrance(lm: LanguageModel) -> Entrance:
    """Compare the hook on the embedding with `inputs_embeds`, up to the first block.

    Raises:
        CapabilityError: replacing the embedding at the hook is not equivalent to `inputs_embeds`.
    """
    if not lm.is_bridge:
        return Entrance()
    hf = lm.root.original_model
    if "inputs_embeds" not in inspect.signature(hf.forward).parameters:
        return Entrance()  # there is nothing to compare with
    size = lm.d_embed
    ids = (1 + torch.arange(3, device=lm.device)).remainder(max(1, lm.n_words))[None]
    table = embedding_of(lm.root, True)(ids)
    noise = torch.randn(1, 3, size, generator=torch.Generator().manual_seed(0))
    vectors = noise.to(table) * table.float().std().clamp(min=1e-3).to(table)
    shown: list[torch.Tensor] = []

    def replaced(value: torch.Tensor) -> torch.Tensor:
        def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
            shown.append(tensor.detach())
            return value.to(tensor)

        with lm.root.hooks(fwd_hooks=[("embed.hook_out", put)]):
            return _entering(lm, lambda: lm.forward(ids, torch.ones_like(ids)))

    with torch.no_grad():
        asked = _entering(lm, lambda: hf(inputs_embeds=vectors, use_cache=False)).double()
        nothing, given = replaced(torch.zeros_like(vectors)), replaced(vectors)
    nothing, given = nothing.double(), given.double()
    half = lm.dtype in (torch.float16, torch.bfloat16)
    tolerance = 2e-2 if half else 1e-4
    scale = 1.0
    if not _close(given, asked, tolerance):  # an embedding norm keeps its place: no scale to find
        scale = _ratio(asked - nothing, given - nothing)
        scale = _told(scale, hf.config, tolerance)
        if not _close(nothing + scale * (given - nothing), asked, tolerance):
            raise CapabilityError(
                f"What takes the place of the embeddings of {type(hf).__name__} is not what its"
                " inputs_embeds are, so a picture would enter wrongly."
            )
    hook = _told(_ratio(shown[0], table), hf.config, tolerance)
    ratio = hook / scale
    return Entrance(scale, 1.0 if abs(ratio - 1) < 1e-9 else ratio)


class _Entered(Exception):
    """The first block was reached."""


def _entering(lm: LanguageModel, run: Callable[[], Any]) -> torch.Tensor:
    """The input of the first block while `run()` runs; the rest of the pass is skipped."""
    kept: list[torch.Tensor] = []

    def stop(module: nn.Module, args: Any, options: Any) -> None:
        kept.append((args[0] if args else options["hidden_states"]).detach())
        raise _Entered

    handle = lm.root.blocks[0].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        run()
    except _Entered:
        pass
    finally:
        handle.remove()
    return kept[0]


def _close(a: torch.Tensor, b: torch.Tensor, tolerance: float) -> bool:
    return bool((a - b).abs().max() <= tolerance * (1e-6 + b.abs().max()))


def _ratio(a: torch.Tensor, b: torch.Tensor) -> float:
    """The least-squares factor c of a = c b."""
    a, b = a.double().flatten(), b.double().flatten()
    return float((a @ b) / (b @ b)) if bool(b.any()) else 1.0


def _told(measured: float, config: Any, tolerance: float) -> float:
    """The number in the configuration that is nearest to the measured one, without rounding."""
    numbers = [v for v in vars(config).values() if isinstance(v, (int, float)) and v]
    told = [1.0, *map(float, numbers), *(1 / float(v) for v in numbers)]
    near = min(told, key=lambda number: abs(measured - number))
    return near if abs(measured - near) <= tolerance * abs(near) else measured


def complete(hf: nn.Module) -> None:
    """Give OPT with post-norm blocks an identity as the final norm that TransformerLens expects."""
    decoder = getattr(getattr(hf, "model", None), "decoder", None)
    if decoder is not None and getattr(decoder, "final_layer_norm", decoder) is None:
        decoder.final_layer_norm = nn.Identity()


def final_norm(root: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The norm between the last block and the unembedding, or None where there is none."""
    norm = getattr(root, "ln_final", None)
    if norm is None:  # OPT with project_out keeps one that TransformerLens does not name
        decoder = getattr(getattr(root.original_model, "model", None), "decoder", None)
        norm = getattr(decoder, "final_layer_norm", None)
    inner = getattr(norm, "original_component", norm)
    return None if inner is None or isinstance(inner, nn.Identity) else norm


def project_out(root: Any) -> nn.Module | None:
    """The linear map between the final norm and the unembedding, where there is one."""
    return getattr(root, "project_out", None)
