"""What a vision-language model will need of memory, before anything of it is loaded.

    plan("llava-hf/llava-1.5-7b-hf", dtype="bfloat16")

Its class is made from its config.json without weights (transformers' and accelerate's meta device),
its language model is run there on as many positions as a prompt has, and the bytes of all tensors
that are alive at once are counted: as it predicts, and as it predicts and goes back to every
activation for an attribution. So each number is that of the class's own operations, with attention
patterns as mmlens keeps them (eager).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints.dual_models import KINDS
from mmlens.checkpoints.whole_models import class_of, config_of
from mmlens.doctor.live_bytes import LiveBytes
from mmlens.families import native
from mmlens.runtime.casting import dtype_of
from mmlens.values.arguments import count
from mmlens.values.errors import CapabilityError, reason

WORDS = 64
"""Positions of words that a prompt is taken to have."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device; all but `weights` come on top of the weights.

    Attributes:
        name, cls: the model and its class.
        dtype: of its weights.
        n_pos: positions of the prompt, words and picture.
        parameters: how many numbers its weights are.
        weights: of all of it, encoder included.
        forward: at most, while it predicts at every position.
        attribution: at most, while the scores of one token are computed: the graph, and the scores
            of all units in float32.
        cache: what `run_with_cache` keeps of the language model.
    """

    name: str
    cls: str
    dtype: str
    n_pos: int
    parameters: int
    weights: int
    forward: int
    attribution: int
    cache: int

    @property
    def most(self) -> int:
        """The bytes of the weights and the dearest of the three."""
        return self.weights + max(self.forward, self.attribution, self.cache)

    def __str__(self) -> str:
        rows = {
            "weights": self.weights, "+ a forward pass": self.forward,
            "+ attribution of a token": self.attribution, "+ a cache of all": self.cache,
        }  # fmt: skip
        told = f"{self.name} ({self.cls}), {self.parameters / 1e9:.2f} billion weights in"
        lines = [f"{told} {self.dtype}, {self.n_pos} positions"]
        return "\n".join([*lines, *(f"  {size / 2**30:8.2f} GiB  {n}" for n, size in rows.items())])


def plan(
    name: str | Path, *, dtype: torch.dtype | str | None = None, n_pos: int | None = None
) -> MemoryPlan:
    """What a whole vision-language model will need of memory; nothing of it is loaded.

    Args:
        name: a hub id (its config.json is fetched), or a folder.
        dtype: of the weights; None: float32, as `load` has it.
        n_pos: positions of the prompt; None: 64 words and what the config says of one picture.
            Tiles are counted where the config lists them; elsewhere a picture is taken to be one
            crop.

    Raises:
        ModelError: a name that does not exist or cannot be fetched.
        CapabilityError: a class without a family, or whose operations need its weights.
    """
    config = config_of(str(name), None, [one.example for one in native.known().values()])
    cls = class_of(config)
    if config.model_type in KINDS:
        raise CapabilityError(f"{str(name)!r} is a dual encoder ({cls}): plan() takes models that"
                              " predict words.")  # fmt: skip
    cls = native.family_of(config.model_type, cls).cls
    kind = dtype_of(dtype) or torch.float32
    n = count(n_pos, "n_pos") if n_pos is not None else WORDS + per_picture(config)
    try:
        model, decoder = _empty(config, kind)
        found = _measured(model, decoder, n, kind)
    except (NotImplementedError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise CapabilityError(
            f"A {cls} cannot be counted without its weights: {reason(error)}"
        ) from error
    weights = {id(one): one for one in (*model.parameters(), *model.buffers())}.values()
    numbers = sum(one.numel() for one in model.parameters())
    size = sum(one.numel() * one.element_size() for one in weights)
    return MemoryPlan(str(name), cls, str(kind).removeprefix("torch."), n, numbers, size, **found)


def per_picture(config: Any) -> int:
    """Positions of one picture by the config; the most that tiles make where it lists them."""
    if config.model_type == "idefics":
        return 0  # its pictures are keys
    if hasattr(config, "vq_config"):
        codes = config.vq_config
        side = getattr(codes, "resolution", None) or 512  # Emu3 reads any size
        return (side >> len(codes.channel_multiplier) - 1) ** 2
    eyes = config.vision_config
    told = (getattr(config, name, None) for name in ("mm_tokens_per_image", "num_query_tokens"))
    each = next((n for n in told if isinstance(n, int)), None) or _grid(config, eyes)
    pinpoints = getattr(config, "image_grid_pinpoints", None)
    if not pinpoints:
        return each
    side = eyes.image_size
    return each * (1 + max(high * wide for high, wide in pinpoints) // side**2)


def _grid(config: Any, eyes: Any) -> int:
    """The patches of one crop, after squares of them are merged."""
    side, patch = getattr(eyes, "image_size", None) or 448, eyes.patch_size  # 448: any size is read
    side, patch = (one[0] if isinstance(one, (list, tuple)) else one for one in (side, patch))
    named = (config, "spatial_merge_size"), (eyes, "spatial_merge_size"), (config, "scale_factor")
    merge = max(getattr(where, name, None) or 1 for where, name in named)
    merge = max(merge, round(1 / (getattr(config, "downsample_ratio", None) or 1)))
    return (side // patch // merge) ** 2


def _empty(config: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """The class without its weights, and its language model."""
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        auto: Any = AutoModelForImageTextToText
        model = auto.from_config(config, dtype=dtype, attn_implementation="eager")
    model.eval().requires_grad_(False)
    inner = getattr(model, "model", model)
    places = (getattr(inner, name, None) for name in ("language_model", "text_model"))
    return model, next((one for one in places if one is not None), inner)


def _beside(config: Any, n: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What IDEFICS reads beside its words: the latents of one picture."""
    if config.model_type != "idefics":
        return {}
    latents = (1, config.perceiver_config.resampler_n_latents, config.vision_config.embed_dim)
    return {
        "perceiver_embeddings": torch.empty(*latents, dtype=dtype, device="meta"),
        "image_attention_mask": torch.empty(1, n, 1, dtype=torch.long, device="meta"),
        "position_ids": torch.empty(1, n, dtype=torch.long, device="meta"),
    }


def _measured(model: Any, decoder: Any, n: int, dtype: torch.dtype) -> dict[str, int]:
    """The bytes of a forward pass, of an attribution, and of a cache, at n positions."""
    head, text = model.get_output_embeddings(), model.config.get_text_config()
    held = [*model.parameters(), *model.buffers()]
    embeds = torch.empty(1, n, text.hidden_size, dtype=dtype, device="meta")
    beside = _beside(model.config, n, dtype)

    def run(last: bool) -> torch.Tensor:
        mask = embeds.new_zeros(1, 1, n, n)  # four axes are taken as they are, values unseen
        hidden = decoder(inputs_embeds=embeds, attention_mask=mask, use_cache=False, **beside)
        hidden = hidden.last_hidden_state
        return head(hidden[:, -1:] if last else hidden)

    with torch.no_grad(), LiveBytes(*held, embeds) as predicting:
        run(False)
    embeds.requires_grad_(True)
    with LiveBytes(*held, embeds) as explaining:
        run(True)[0, -1, 0].backward()
    embeds.requires_grad_(False)
    layers, heads = text.num_hidden_layers, text.num_attention_heads
    scores = 4 * layers * n * text.intermediate_size
    patterns = 2 * layers * heads * n * n * dtype.itemsize
    return {
        "forward": predicting.peak,
        "attribution": explaining.peak + scores,
        "cache": _outputs(decoder, run) + patterns,
    }


def _outputs(decoder: Any, run: Any) -> int:
    """The bytes of what all modules give out, each tensor once."""
    kept: dict[int, torch.Tensor] = {}

    def keep(module: Any, args: Any, out: Any) -> None:
        for one in (*args, *(out if isinstance(out, tuple) else (out,))):
            if isinstance(one, torch.Tensor):
                kept[one.untyped_storage()._cdata] = one

    hooks = [module.register_forward_hook(keep) for module in decoder.modules()]
    try:
        with torch.no_grad():
            run(True)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(one.untyped_storage().nbytes() for one in kept.values())


def as_data(found: MemoryPlan) -> dict[str, Any]:
    """The numbers, as JSON takes them."""
    return asdict(found) | {"most": found.most}
