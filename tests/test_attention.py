"""Opened attention: what passes its hook points is what the library computes, and can be changed.

Vision encoders, cross-attention of a text to a picture, and that nothing but our own copy is
touched. Each value is held against another route: the library's own eager attention, the output
matrix, or the same result by other means.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from encoders import ENCODERS, shake
from transformer_lens.hook_points import HookPoint

from mmlens.runtime.sharing import share_weights
from mmlens.towers.attention import ATTENTION_POINTS, measuring, open_attention, openings
from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.wrap import wrap_vision
from mmlens.values.errors import CapabilityError

NEAR = 2e-6
NEWLY_OPEN = [
    "hf:DINOv3ViTModel",
    "hf:Data2VecVisionModel",
    "hf:DPTModel",
    "hf:InternVLVisionModel",
    "hf:Blip2VisionModel",
    "hf:BlipVisionModel",
    "hf:FlavaImageModel",
    "hf:MLCDVisionModel",
    "open_clip:EVA02-L-14-336",
    "timm:vit_small_patch16_dinov3",
    "timm:vit_relpos_small_patch16_224",
    "timm:vit_pe_core_tiny_patch16_384",
]
"""Rotations, relative positions, norms per head, one matrix for q, k and v."""
OUT = ("o_proj", "out_proj", "projection_layer", "projection", "proj", "output.dense")


def wrapped(name: str) -> tuple[Any, HookedVision, torch.Tensor]:
    """A twin, its wrapped encoder and two pictures; skips where this release has no such class."""
    pytest.importorskip(name.split(":")[0] if "hf:" not in name else "transformers")
    try:
        module, prepared = ENCODERS[name]()
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this release has no such class: {error}")
    except RuntimeError as error:  # timm's
        if "Unknown model" not in str(error):
            raise
        pytest.skip(f"this release has no such model: {error}")
    vision = wrap_vision(module, prepared)
    draw = torch.Generator().manual_seed(3)
    return module, vision, torch.randn(2, 3, *vision.image_size, generator=draw)


def block_of(vision: HookedVision) -> Any:
    """The attention module of the first block, with its opening as its forward."""
    return openings(vision.module)[0]


def kept_by(points: dict[str, HookPoint], run: Callable[[], Any]) -> dict[str, torch.Tensor]:
    """What passes these points while `run()` runs."""
    kept: dict[str, torch.Tensor] = {}

    def keep(name: str, tensor: torch.Tensor, hook: Any) -> None:
        kept[name] = tensor

    for name, point in points.items():
        point.add_hook(partial(keep, name))
    try:
        run()
    finally:
        for point in points.values():
            point.remove_hooks()
    return kept


@contextmanager
def written(point: HookPoint, change: Callable[[torch.Tensor], torch.Tensor]):
    """Inside, what passes this point is changed."""
    point.add_hook(lambda tensor, hook: change(tensor))
    try:
        yield
    finally:
        point.remove_hooks()


def first(module: Any, run: Callable[[], Any]) -> torch.Tensor:
    """The output of a module while `run()` runs, or its first item."""
    out: list[torch.Tensor] = []
    handle = module.register_forward_hook(
        lambda m, args, o: out.append(o[0] if isinstance(o, tuple) else o)
    )
    try:
        run()
    finally:
        handle.remove()
    return out[0]


def output_matrix(module: Any) -> Any:
    """The layer behind z."""
    named = dict(module.named_modules())
    return next(named[name] for name in OUT if name in named)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("name", NEWLY_OPEN)
@torch.no_grad()
def test_opened_attention_adds_up_and_leaves_the_features_as_they_are(name):
    _, vision, x = wrapped(name)
    opening = block_of(vision)
    assert set(ATTENTION_POINTS) == set(opening.points)
    cold = vision(x)
    out = first(opening.module, lambda: vision(x))
    points = {k.rsplit(".", 1)[-1]: p for k, p in vision.hook_dict.items() if "s.0.attn." in k}
    at = kept_by(points, lambda: vision(x))
    q, k, v, pattern, z = (at[name] for name in ATTENTION_POINTS)
    assert pattern.shape == (2, q.shape[2], q.shape[1], k.shape[1])
    assert (pattern.sum(-1) - 1).abs().max() < NEAR
    assert apart(torch.einsum("bhqk,bkhd->bqhd", pattern, v), z) < NEAR
    projected = output_matrix(opening.module)(z.flatten(2))
    if hasattr(opening.module, "norm"):  # EVA scales between the heads and the output matrix
        projected = output_matrix(opening.module)(opening.module.norm(z.flatten(2)))
    assert apart(projected, out) < NEAR
    with written(points["hook_z"], lambda value: value):
        assert apart(vision(x), cold) < NEAR


@pytest.mark.parametrize("name", NEWLY_OPEN)
@torch.no_grad()
def test_a_written_pattern_is_the_pattern_that_acts(name):
    _, vision, x = wrapped(name)
    opening, point = block_of(vision), vision.hook_dict["blocks.0.attn.hook_pattern"]
    own = first(opening.module, lambda: vision(x))

    def to_the_first(pattern: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(pattern).index_fill(-1, torch.tensor([0]), 1.0)

    values = kept_by(opening.points, lambda: vision(x))["hook_v"]
    with written(point, to_the_first):
        out = first(opening.module, lambda: vision(x))
    assert apart(out, out[:, :1].expand_as(out)) < NEAR  # every query reads the same value
    assert apart(out, own) > 1e-2
    norm = getattr(opening.module, "norm", lambda z: z)
    read = output_matrix(opening.module)(norm(values[:, :1].flatten(2)))
    assert apart(out[:, :1], read) < NEAR
    with written(point, lambda pattern: pattern.clone()):
        assert apart(first(opening.module, lambda: vision(x)), own) < NEAR


@pytest.mark.parametrize("name", NEWLY_OPEN)
@torch.no_grad()
def test_written_queries_keys_values_and_z_act(name):
    _, vision, x = wrapped(name)
    opening = block_of(vision)
    points = opening.points

    def under(point: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        with written(points[point], change):
            return kept_by({n: points[n] for n in ("hook_pattern", "hook_z")}, lambda: vision(x))

    own = kept_by(points, lambda: vision(x))
    blind, unseen = (
        under(point, lambda v: v * 0)["hook_pattern"] for point in ("hook_q", "hook_k")
    )
    assert apart(blind, unseen) < NEAR  # biases and masks alone are left
    assert apart(blind, own["hook_pattern"]) > 1e-2
    assert apart(under("hook_v", lambda v: v * 2)["hook_z"], own["hook_z"] * 2) < NEAR
    with written(points["hook_z"], lambda z: z * 0):
        out = first(opening.module, lambda: vision(x))
    norm = getattr(opening.module, "norm", lambda z: z)
    nothing = output_matrix(opening.module)(norm(torch.zeros_like(own["hook_z"].flatten(2))))
    assert apart(out, nothing) < NEAR


EAGER = ["hf:DINOv3ViTModel", "hf:InternVLVisionModel", "hf:BlipVisionModel", "hf:FlavaImageModel"]


@pytest.mark.parametrize("name", EAGER)
@torch.no_grad()
def test_the_pattern_is_the_one_that_the_library_returns(name):
    module, vision, x = wrapped(name)
    module.set_attn_implementation("eager")
    own = module(pixel_values=x, output_attentions=True).attentions
    for layer in range(vision.n_layers):
        point = {"pattern": vision.hook_dict[f"blocks.{layer}.attn.hook_pattern"]}
        assert apart(kept_by(point, lambda: vision(x))["pattern"], own[layer]) < NEAR


@torch.no_grad()
def test_queries_and_keys_of_a_rotated_encoder_are_taken_behind_the_rotation():
    _, vision, x = wrapped("hf:DINOv3ViTModel")
    opening = block_of(vision)
    at = kept_by(opening.points, lambda: vision(x))
    scores = torch.einsum("bqhd,bkhd->bhqk", at["hook_q"], at["hook_k"])
    assert apart((scores * opening.module.scaling).softmax(-1), at["hook_pattern"]) < NEAR
    flat = first(opening.module.q_proj, lambda: vision(x)).unflatten(-1, at["hook_q"].shape[2:])
    prefix = vision.n_prefix
    assert apart(at["hook_q"][:, :prefix], flat[:, :prefix]) == 0.0  # prefix tokens stand nowhere
    assert apart(at["hook_q"][:, prefix:], flat[:, prefix:]) > 1e-2


@torch.no_grad()
def test_an_encoder_that_needs_more_than_pixels_is_opened_alike():
    module, _ = ENCODERS["hf:Siglip2VisionModel"]()
    copy: Any = share_weights(module)
    layers = [m for n, m in copy.named_modules() if n.endswith("self_attn")]
    points = {name: HookPoint() for name in ATTENTION_POINTS}
    patches = torch.randn(2, 16, 3 * 8 * 8, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[1, 12:] = 0  # the second picture has fewer patches
    given = {
        "pixel_values": patches,
        "pixel_attention_mask": mask,
        "spatial_shapes": torch.tensor([[4, 4], [3, 4]]),
    }
    with measuring([open_attention(layers[0], points)]):
        copy(**given)
    assert len(openings(copy)) == 1
    pattern = kept_by(points, lambda: copy(**given))["hook_pattern"]
    module.set_attn_implementation("eager")
    own = module(**given, output_attentions=True).attentions[0]
    assert apart(pattern, own) < NEAR
    assert pattern[1, ..., 12:].abs().max() == 0
    cold = copy(**given).last_hidden_state
    with written(points["hook_pattern"], lambda p: p.flip(-1)):
        assert apart(copy(**given).last_hidden_state, cold) > 1e-2


@torch.no_grad()
def test_windows_keep_their_own_axes_and_write():
    _, vision, x = wrapped("hf:SwinModel")
    pattern = {"pattern": vision.hook_dict["blocks.0.attn.hook_pattern"]}
    kept = kept_by(pattern, lambda: vision(x))["pattern"]
    assert kept.shape == (2 * 64, 2, 16, 16)  # 64 windows a picture
    cold = vision(x)
    with written(pattern["pattern"], lambda p: p.flip(-1)):
        assert apart(vision(x), cold) > 1e-2


def test_attention_between_channels_has_no_points():
    try:
        _, vision, _ = wrapped("timm:xcit_nano_12_p16_224")
    except CapabilityError as error:
        if "n_prefix=" not in str(error):
            raise
        pytest.skip("this release of timm does not say how many positions come first")
    assert not [name for name in vision.hook_dict if ".attn." in name]


@pytest.mark.parametrize("doubled", [False, True])
def test_an_encoder_with_a_layer_that_attends_twice_stays_closed(doubled):
    module = transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
            image_size=32, patch_size=8,
        )
    ).eval()  # fmt: skip

    own: Any = type(module.layers[1].attention)

    class Doubled(own):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            one, _ = super().forward(*args, **kwargs)
            other, _ = super().forward(*args, **kwargs)
            return one + other, None

    if doubled:
        module.layers[1].attention.__class__ = Doubled
    vision = wrap_vision(module)
    points = [name for name in vision.hook_dict if ".attn.hook_" in name]
    assert (len(points), len(openings(vision.module))) == ((0, 0) if doubled else (10, 2))


@pytest.mark.parametrize("name", ["hf:CLIPVisionModel", "timm:vit_small_patch16_dinov3"])
@torch.no_grad()
def test_fused_kernels_run_while_no_hook_is_set(name, monkeypatch):
    _, vision, x = wrapped(name)
    calls, kernel = [], F.scaled_dot_product_attention

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        return kernel(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    vision(x)
    assert len(calls) == vision.n_layers
    calls.clear()
    with written(vision.hook_dict["blocks.0.hook_resid_pre"], lambda value: value * 1.0):
        vision(x)  # a hook elsewhere opens nothing
    assert len(calls) == vision.n_layers
    monkeypatch.undo()
    own, layer = first(block_of(vision).module, lambda: vision(x)), openings(vision.module)[1]
    with written(layer.points["hook_z"], lambda z: z * 0):
        assert torch.equal(first(block_of(vision).module, lambda: vision(x)), own)


@torch.no_grad()
def test_only_our_own_copy_is_opened():
    module, vision, x = wrapped("hf:DINOv3ViTModel")
    other = transformers.ViTModel(transformers.ViTConfig(hidden_size=24, num_attention_heads=3,
        num_hidden_layers=1, intermediate_size=40, image_size=32, patch_size=8)).eval()  # fmt: skip
    own, others = module(pixel_values=x).last_hidden_state, other(pixel_values=x).last_hidden_state
    chosen = module.config._attn_implementation
    seen: list[Any] = []

    def look(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        sibling: Any = openings(vision.module)[1].module
        seen.append((sibling.config._attn_implementation, module.config._attn_implementation))
        seen.append(torch.equal(module(pixel_values=x).last_hidden_state, own))
        seen.append(torch.equal(other(pixel_values=x).last_hidden_state, others))
        return tensor * 0

    vision.hook_dict["blocks.0.attn.hook_z"].add_hook(look)
    vision(x)
    assert seen == [(chosen, chosen), True, True]
    assert torch.equal(module(pixel_values=x).last_hidden_state, own)
    assert vision.module.config._attn_implementation == chosen
    assert not openings(module)


@torch.no_grad()
def test_a_hook_that_fails_leaves_the_module_as_it_was():
    _, vision, x = wrapped("hf:DINOv3ViTModel")
    cold, config = vision(x), block_of(vision).module.config

    def fail(value: torch.Tensor) -> torch.Tensor:
        raise KeyError("a hook of a user")

    with written(vision.hook_dict["blocks.0.attn.hook_pattern"], fail), pytest.raises(KeyError):
        vision(x)
    assert block_of(vision).module.config is config
    assert torch.equal(vision(x), cold)
    with written(vision.hook_dict["blocks.0.attn.hook_pattern"], lambda p: p.flip(-1)):
        assert apart(vision(x), cold) > 1e-2


def test_what_a_hook_computes_is_no_attention_of_the_module():
    _, vision, x = wrapped("hf:DINOv3ViTModel")
    count: list[int] = []

    def sharper(pattern: torch.Tensor) -> torch.Tensor:
        count.append(1)
        few = pattern[..., :8]
        again = F.scaled_dot_product_attention(few, few, few)
        return (pattern.log() * 2).softmax(-1) + 0 * again.sum()

    with torch.no_grad(), written(vision.hook_dict["blocks.0.attn.hook_pattern"], sharper):
        vision(x)
    assert count == [1]


def test_gradients_of_opened_attention_are_those_of_the_closed_one():
    _, vision, x = wrapped("timm:vit_small_patch16_dinov3")
    draw = torch.randn(vision(x).shape, generator=torch.Generator().manual_seed(4))

    def gradient() -> torch.Tensor:
        pixels = x.clone().requires_grad_()
        return torch.autograd.grad((vision(pixels) * draw).sum(), pixels)[0]

    closed = gradient()
    with written(vision.hook_dict["blocks.1.attn.hook_q"], lambda q: q):
        assert apart(gradient(), closed) < 1e-5


# -- cross-attention: queries of a text, keys of a picture ----------------------------------------


def gpt2() -> tuple[Any, str, Callable[[Any, Any, Any], torch.Tensor]]:
    config = transformers.GPT2Config(
        n_embd=24, n_layer=1, n_head=3, vocab_size=50, n_positions=16, add_cross_attention=True
    )
    model = shake(transformers.GPT2LMHeadModel(config))
    return model, "transformer.h.0.crossattention", lambda m, ids, picture: m(
        input_ids=ids, encoder_hidden_states=picture, use_cache=False
    ).logits  # fmt: skip


def mllama() -> tuple[Any, str, Callable[[Any, Any, Any], torch.Tensor]]:
    from transformers.models.mllama.configuration_mllama import MllamaTextConfig
    from transformers.models.mllama.modeling_mllama import MllamaForCausalLM

    config = MllamaTextConfig(
        vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, cross_attention_layers=[1], pad_token_id=0,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
    )  # fmt: skip

    def run(model: Any, ids: Any, picture: Any) -> torch.Tensor:
        seen = torch.zeros(2, 1, ids.shape[1], picture.shape[1])
        rows = torch.ones(2, 1, ids.shape[1], 1)
        return model(
            input_ids=ids, cross_attention_states=picture, cross_attention_mask=seen,
            full_text_row_masked_out_mask=rows, use_cache=False,
        ).logits  # fmt: skip

    return shake(MllamaForCausalLM(config)), "model.layers.1.cross_attn", run


def qformer() -> tuple[Any, str, Callable[[Any, Any, Any], torch.Tensor]]:
    config = transformers.Blip2QFormerConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        encoder_hidden_size=24, cross_attention_frequency=2, vocab_size=50,
    )  # fmt: skip
    table = torch.randn(50, 24, generator=torch.Generator().manual_seed(7))
    return (
        shake(transformers.Blip2QFormerModel(config)),
        "encoder.layer.0.crossattention",
        (lambda m, ids, picture: m(query_embeds=table[ids], encoder_hidden_states=picture)[0]),
    )


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("make", [gpt2, mllama, qformer])
@torch.no_grad()
def test_a_text_attends_to_a_picture_in_patterns_that_are_read_and_written(make, kind):
    model, path, run = make()
    try:
        model.set_attn_implementation(kind)
    except ValueError as error:
        pytest.skip(f"this release computes it in one way only: {error}")
    copy: Any = share_weights(model)
    ids = torch.tensor([[3, 7, 11, 2, 9], [4, 8, 1, 6, 5]])
    picture = torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(5))
    module, points = copy.get_submodule(path), {name: HookPoint() for name in ATTENTION_POINTS}
    with measuring([open_attention(module, points)]):
        run(copy, ids, picture)
    assert openings(copy)
    cold, own = run(copy, ids, picture), run(model, ids, picture)
    assert torch.equal(cold, own)
    at = kept_by(points, lambda: run(copy, ids, picture))
    pattern, v, z = at["hook_pattern"], at["hook_v"], at["hook_z"]
    assert pattern.shape == (2, z.shape[2], 5, 7)
    assert (at["hook_q"].shape[1], at["hook_k"].shape[1]) == (5, 7)
    assert (pattern.sum(-1) - 1).abs().max() < NEAR
    shared = v.repeat_interleave(z.shape[2] // v.shape[2], 2)  # heads of Mllama share values
    assert apart(torch.einsum("bhqk,bkhd->bqhd", pattern, shared), z) < NEAR
    with written(points["hook_z"], lambda z: z):
        assert apart(run(copy, ids, picture), cold) < 1e-5

    def to_the_fourth(p: torch.Tensor) -> torch.Tensor:
        return F.one_hot(torch.full(p.shape[:-1], 4), 7).to(p.dtype)

    other = picture.clone()
    other[:, [0, 1, 2, 3, 5, 6]] *= -1  # the only layer that sees the picture reads none of them
    with written(points["hook_pattern"], to_the_fourth):
        one, same = run(copy, ids, picture), run(copy, ids, other)
    assert apart(one, same) < 1e-5
    assert apart(one, cold) > 1e-3
    assert apart(run(copy, ids, other), cold) > 1e-3
