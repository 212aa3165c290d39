"""What stands at every hook point of an encoder: axes, grids, names of prefix tokens.

Twins of `tests/encoders.py`, and nets whose maps have as many channels as rows. The painted square
is laid into the picture in pixels, and looked for in the map by its axes' names.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from encoders import ENCODERS, settle, shake
from measured import check_sizes, check_squares, noise, passing
from torch import nn

from mmlens.towers.vision.painting import halves
from mmlens.towers.vision.point_axes import order_of
from mmlens.towers.vision.prefix_tokens import markers
from mmlens.towers.vision.wrap import wrap_vision
from mmlens.values.errors import AddressError

open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

CHANNELS_FIRST = {
    "open_clip:RN",
    "open_clip:convnext",
    "hf:ResNetModel",
    "hf:RegNetModel",
    "hf:ConvNextModel",
    "timm:resnet18",
    "timm:nf_resnet26",
    "timm:regnety_002",
    "timm:convnext_atto",
}
CHANNELS_LAST = {"timm:swin", "timm:swinv2", "timm:sam2_hiera_tiny", "hf:SamVisionModel"}
TOKENS = {
    "hf:ViTModel": ("CLS",),
    "hf:CLIPVisionModel": ("CLS",),
    "hf:SiglipVisionModel": (),
    "hf:DeiTModel": ("CLS", "distillation"),
    "hf:Dinov2WithRegistersModel": ("CLS", *(f"register {i}" for i in range(4))),
    "open_clip:ViT": ("CLS",),
    "timm:vit_tiny_patch16_224": ("CLS",),
    "timm:deit_tiny_distilled_patch16_224": ("CLS", "distillation"),
    "timm:vit_small_patch14_reg4_dinov2": ("CLS", *(f"register {i}" for i in range(4))),
    "timm:vit_wee_patch16_reg1_gap_256": ("register 0",),
}
NAMES = sorted(CHANNELS_FIRST | CHANNELS_LAST | set(TOKENS))


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    try:
        module, prepared = ENCODERS[request.param]()
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this release has no such class: {error}")
    return request.param, wrap_vision(module, prepared)


def test_every_axis_is_as_long_as_what_it_names(case):
    check_sizes(case[1])


def test_axes_of_tokens_are_positions_units_and_heads():
    for name in ("hf:ViTModel", "open_clip:ViT", "timm:vit_tiny_patch16_224"):
        axes = wrap_vision(*ENCODERS[name]()).axes
        assert axes["blocks.1.hook_resid_post"] == axes["hook_features"] == ("pos", "dim")
        assert axes["blocks.0.mlp.hook_pre"] == axes["blocks.0.mlp.hook_post"] == ("pos", "unit")
        for head in ("hook_q", "hook_k", "hook_v", "hook_z"):
            assert axes[f"blocks.0.attn.{head}"] == ("pos", "head", "dim")
        assert axes["blocks.0.attn.hook_pattern"] == ("head", "query", "key")


def test_maps_have_their_channels_where_the_library_stores_them(case):
    name, vision = case
    stream = {point for point in vision.grids if ".mlp." not in point}
    orders = {vision.axes[point] for point in stream}
    if name in CHANNELS_FIRST:
        assert orders == {("channel", "row", "col")}
    elif name in CHANNELS_LAST:
        assert orders == {("row", "col", "channel")}
    else:
        assert not orders
    if name == "hf:ResNetModel":  # strides of 4, 4, 8, 16 and 32 in pictures of 64 x 64
        sides = [vision.grids[f"blocks.{layer}.hook_resid_post"] for layer in range(4)]
        assert sides == [(16, 16), (8, 8), (4, 4), (2, 2)]


def test_a_painted_square_lights_its_row_and_column_in_every_map(case):
    check_squares(case[1])


def test_a_cell_that_is_written_by_its_axes_moves_the_features_there_most(case):
    name, vision = case
    last = [p for p in vision.grids if p.endswith("hook_resid_post")][-1:]
    if not last or min(vision.grid) < 2 or vision.grids[last[0]] != vision.grid:
        pytest.skip("no map as fine as the features")
    (point,) = last
    axes, (rows, cols) = vision.axes[point], vision.grid
    with torch.no_grad():
        before = vision(noise(vision))[0]
        for row, col in ((0, 0), (0, cols - 1), (rows - 1, 0)):
            at = tuple({"row": row, "col": col}.get(axis, slice(None)) for axis in axes)

            def write(value, hook, at=at):
                value = value.clone()
                value[(slice(None), *at)] *= -2.0
                return value

            vision.hook_dict[point].add_hook(write)
            moved = (vision(noise(vision))[0] - before).norm(dim=-1)
            vision.hook_dict[point].remove_hooks("both")
            at_row, at_col = divmod(int(moved.argmax()), cols)
            off = max(abs(at_row - row), abs(at_col - col))
            assert off <= (1 if name == "hf:SamVisionModel" else 0)  # its neck is a convolution


def cube(kind: str):
    """A net whose first map has 16 channels, 16 rows and 16 columns."""
    if kind == "first":
        config = transformers.ResNetConfig(
            embedding_size=16, hidden_sizes=[16, 24], depths=[1, 1], layer_type="basic"
        )
        module = shake(transformers.ResNetModel(config))
        settle(module, lambda x: module(pixel_values=x), 64)
        return wrap_vision(module, {"image_size": 64}), "hook_embed"
    sizes = {"embed_dim": 16, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    module = shake(timm.create_model("swin_tiny_patch4_window7_224", img_size=64, **sizes))
    return wrap_vision(module), "blocks.0.hook_resid_post"


@pytest.mark.parametrize("kind", ["first", "last"])
def test_as_many_channels_as_rows_are_told_apart_by_painting(kind):
    vision, point = cube(kind)
    assert passing(vision, noise(vision))[point].shape[1:] == (16, 16, 16)
    order = ("channel", "row", "col") if kind == "first" else ("row", "col", "channel")
    assert vision.axes[point] == order and vision.grids[point] == (16, 16)


def test_features_of_as_many_channels_as_rows_are_told_apart_by_painting():
    config = transformers.ResNetConfig(
        embedding_size=16,
        hidden_sizes=[16],
        depths=[1],
        layer_type="basic",
        out_features=["stage1"],
    )
    first = shake(transformers.ResNetModel(config))
    settle(first, lambda x: first(pixel_values=x), 64)
    sizes = {"embed_dim": 16, "depths": (1,), "num_heads": (1,), "window_size": 4}
    last = shake(timm.create_model("swin_tiny_patch4_window7_224", img_size=64, **sizes))
    last.output_fmt = "NCHW"  # which is not so
    for module, told in ((first, False), (last, True)):
        vision = wrap_vision(module, {"image_size": 64})
        assert vision.d_vision == 16 and vision.grid == (16, 16)
        assert vision.channels_last == told


def test_windows_and_unclear_maps_have_no_order():
    vision, _ = cube("last")
    pictures = halves(vision)
    cells = nn.functional.avg_pool2d(pictures, 8)  # [4, 3, 8, 8]
    many = cells.repeat(1, 4, 1, 1)[:, :8]
    assert order_of(vision, (8, 8, 8), many) == ("channel", "row", "col")
    assert order_of(vision, (8, 8, 8), many.permute(0, 2, 3, 1)) == ("row", "col", "channel")
    assert order_of(vision, (8, 8, 8), torch.zeros(4, 8, 8, 8)) is None
    windows = cells.unfold(2, 4, 4).unfold(3, 4, 4).flatten(4).flatten(2, 3).movedim(1, 3)
    assert windows.shape == (4, 4, 16, 3)
    assert order_of(vision, (4, 16, 3), windows) is None
    square = windows.repeat_interleave(4, 1)  # as many windows as positions in them
    assert order_of(vision, (16, 16, 3), square) is None


def test_a_box_can_be_of_any_grid():
    vision = wrap_vision(*ENCODERS["timm:resnet18"]())
    assert vision.grid == (2, 2)
    assert vision.box(1, 1, 64, 64) == pytest.approx((32, 32, 64, 64), abs=4)
    rows, cols = vision.grids["blocks.0.hook_resid_post"]
    whole = [vision.box(row, 0, 320, 160, (rows, cols)) for row in range(rows)]
    assert all(a[3] == pytest.approx(b[1]) for a, b in itertools.pairwise(whole))
    with pytest.raises(AddressError, match=f"grid of {rows} x {cols}"):
        vision.box(rows, 0, 64, 64, (rows, cols))


# --- prefix tokens ----------------------------------------------------------------------------


def test_markers_name_the_prefix_tokens(case):
    name, vision = case
    assert vision.markers == TOKENS.get(name, ())
    assert len(vision.markers) == vision.n_prefix


PARAMETERS = {"CLS": ("cls_token", "class_embedding"), "distillation": ("distillation", "dist_tok")}


@pytest.mark.parametrize("name", [name for name, tokens in TOKENS.items() if tokens])
def test_the_parameter_of_a_marker_moves_its_position(name):
    module, prepared = ENCODERS[name]()
    vision = wrap_vision(module, prepared)
    point = "hook_embed" if "hook_embed" in vision.hook_dict else "blocks.0.hook_resid_pre"
    before = passing(vision, noise(vision))[point][0]
    for at, marker in enumerate(vision.markers):
        words = PARAMETERS.get(marker, ("register_tokens", "reg_token"))
        ours = next(
            p for n, p in vision.module.named_parameters() if n.split(".")[-1].startswith(words)
        )
        kept = ours.clone()
        row = int(marker.split()[-1]) if marker.startswith("register") else 0
        with torch.no_grad():
            (ours if ours.dim() == 1 else ours.view(-1, ours.shape[-1])[row]).add_(5.0)
        moved = (passing(vision, noise(vision))[point][0] - before).norm(dim=-1)
        with torch.no_grad():
            ours.copy_(kept)
        assert int(moved.argmax()) == at, marker


def test_prefix_tokens_without_a_name_are_numbered():
    vision = wrap_vision(*ENCODERS["hf:ViTModel"]())
    assert markers(vision.module, 3) == ("prefix 0", "prefix 1", "prefix 2")
    assert markers(nn.Linear(2, 2), 1) == ("prefix 0",)


# --- before the ReLU --------------------------------------------------------------------------

RELUS = ["open_clip:RN", "hf:ResNetModel", "hf:RegNetModel", "timm:resnet18", "timm:regnety_002"]


@pytest.mark.parametrize("name", RELUS)
def test_the_residual_sum_is_what_the_last_relu_of_a_block_reads(name):
    vision = wrap_vision(*ENCODERS[name]())
    seen = passing(vision, noise(vision))
    x = noise(vision).requires_grad_()
    for layer in range(vision.n_layers):
        added = seen[f"blocks.{layer}.hook_resid_add"]
        assert (added < 0).any(), "what was kept is not overwritten by a ReLU in place"
        assert torch.equal(added.relu(), seen[f"blocks.{layer}.hook_resid_post"])
    inner = [p for p in vision.hook_dict if ".conv" in p]
    assert inner
    for pre in (p for p in inner if p.endswith("hook_pre")):
        assert torch.equal(seen[pre].relu(), seen[pre.replace("_pre", "_post")])
        assert (seen[pre] < 0).any()
    for point in ("blocks.0.hook_resid_add", *inner[:1]):
        kept = []
        vision.hook_dict[point].add_hook(lambda value, hook, kept=kept: kept.append(value))
        (grad,) = torch.autograd.grad(vision(x).square().sum(), kept)
        vision.hook_dict[point].remove_hooks("both")
        assert grad.abs().max() > 0
        vision.hook_dict[point].add_hook(lambda value, hook: value + 1.0)
        assert not torch.equal(vision(x), vision.at("last_hidden_state")(x))
        vision.hook_dict[point].remove_hooks("both")


def test_blocks_that_end_in_a_sum_have_no_point_before_a_relu():
    for name in ("timm:nf_resnet26", "timm:convnext_atto"):
        vision = wrap_vision(*ENCODERS[name]())
        assert not any(point.endswith("hook_resid_add") for point in vision.hook_dict)


def test_a_block_that_goes_on_after_its_relu_has_no_residual_sum():
    module, prepared = ENCODERS["timm:resnet18"]()

    class Later(type(module.layer2[0])):
        def forward(self, x):
            return super().forward(x) - 0.5

    module.layer2[0].__class__ = Later
    sums = [p for p in wrap_vision(module, prepared).hook_dict if p.endswith("hook_resid_add")]
    assert sums == [f"blocks.{layer}.hook_resid_add" for layer in (0, 2, 3)]
