"""Every class of encoder that three libraries have: right, or refused in one sentence.

One twin of each (`tests/encoders.py`), with weights that are all awake. What wraps is compared with
the library's own forward pass, and its labels with the picture itself.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from encoder_rows import (
    encoder_row,
    in_reading_order,
    noise,
    own_features,
    stored_rows,
)
from encoders import ENCODERS
from measured import check_sizes, check_squares
from packaging.version import Version
from PIL import Image

import mmlens as mm
from mmlens.families import toy
from mmlens.families.parts import find_lm, from_parts
from mmlens.towers.vision.encoder import HookedVision
from mmlens.towers.vision.wrap import wrap_vision
from mmlens.values.errors import CapabilityError, MMLensError
from mmlens.values.maps import is_map
from mmlens.values.sites import SITES

open_clip = pytest.importorskip("open_clip")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")

RECENT = Version(timm.__version__) >= Version("1.0.20") and hasattr(
    open_clip.transformer.VisionTransformer, "_embeds"
)
ROWS = stored_rows()
NEWEST = all(
    Version(package.__version__) >= Version(tested)
    for package, tested in ((timm, "1.0.31"), (open_clip, "3.3.0"), (transformers, "5.24.0"))
)
"""Older releases lack some points; the table in the documentation is that of these."""
REFUSED = {  # the sentence each is refused with
    "hf:YolosModel": "other positions changed",
    "hf:Qwen2_5_VisionTransformer": "asks for hidden_states and grid_thw",
    "hf:Qwen3VLVisionModel": "asks for hidden_states and grid_thw",
    "hf:MllamaVisionModel": "asks for aspect_ratio_ids and aspect_ratio_mask",
    "hf:GroupViTVisionModel": "2 positions",
    "hf:GroupViTVisionModel 4 groups": "other positions changed",
    "hf:PvtModel": "other positions changed",  # random: its features say nothing of places
    "timm:levit_128s": "other positions changed",  # the same
}
OVERLAPPING = {"hf:Swinv2Model", "timm:xcit_nano_12_p16_224"}  # a stem, or merged patches
MIXERS = {"timm:mixer_s32_224", "timm:gmlp_s16_224"}  # every position sees every other at once
NAMES = [
    *("resid_pre", "attn_out", "mlp_out", "resid_post", "neurons_pre", "neurons"),
    *("q", "k", "v", "z", "pattern", "conv1_pre", "conv1", "resid_add"),
]


@pytest.fixture(scope="module")
def words():
    """A language model with room for the patches of the largest twin."""
    tokenizer = toy.tokenizer()
    config = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, n_positions=1024, vocab_size=len(tokenizer) + 2
    )
    return find_lm(transformers.GPT2LMHeadModel(config), tokenizer)


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_right_or_refused_in_a_sentence(name, words):
    if not RECENT and not name.startswith("hf:"):
        pytest.skip("the twins are made for the encoders that timm 1.0.20 and open_clip 3 have")
    try:
        module, prepared = ENCODERS[name]()
    except (ImportError, AttributeError) as error:
        pytest.skip(f"this release has no such class: {error}")
    if name in REFUSED:
        with pytest.raises(MMLensError, match=REFUSED[name]) as refusal:
            wrap_vision(module, prepared)
        check_row(name, str(refusal.value))
        return
    vision = wrap_vision(module, prepared)
    if check_features(name, module, vision) == 3:
        check_painting(name, vision)
    check_pushes(vision)
    check_sites(vision, words)
    check_sizes(vision)
    check_squares(vision)
    check_row(name, vision)


def check_features(name: str, module: torch.nn.Module, vision: HookedVision) -> int:
    """Returns how many axes the library's own features have."""
    x = noise(vision).requires_grad_()
    own = own_features(name, module, x)
    ours, theirs = vision(x), in_reading_order(own, vision)
    assert ours.shape == theirs.shape == (1, vision.grid[0] * vision.grid[1], vision.d_vision)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    draw = torch.Generator().manual_seed(2)
    (grad,) = torch.autograd.grad((ours * torch.randn(ours.shape, generator=draw)).sum(), x)
    assert torch.isfinite(grad).all() and grad.abs().max() > 0
    return own.dim()


def check_pushes(vision: HookedVision) -> None:
    """What a hook writes at a point moves the features, and what it keeps is not overwritten."""
    pushes: dict[str, torch.Tensor] = {}
    kept: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def push(value, hook):
        pushes[hook.name] = torch.zeros_like(value).requires_grad_()
        kept[hook.name] = (value, value.detach().clone())
        return value + pushes[hook.name]

    for point in vision.hook_dict.values():
        point.add_hook(push)
    draw = torch.Generator().manual_seed(3)
    features = vision(torch.randn(1, 3, *vision.image_size, generator=draw))
    weight = torch.randn(features.shape, generator=draw)
    for point in vision.hook_dict.values():
        point.remove_hooks()
    assert list(pushes) and set(pushes) == set(vision.hook_dict)
    grads = torch.autograd.grad((features * weight).sum(), list(pushes.values()))
    for point, grad in zip(pushes, grads, strict=True):
        assert torch.isfinite(grad).all() and grad.abs().max() > 0, point
        assert torch.equal(*kept[point]), f"{point} was overwritten"


def check_row(name: str, found: HookedVision | str) -> None:
    """The row of the documentation, which `python scripts/encoders.py` writes, is still true."""
    if NEWEST:
        row = dict(ROWS.get(name) or {})
        differs = row.pop("parity", 0.0)  # its last digits are the machine's
        assert row == encoder_row(name, found), "run python scripts/encoders.py"
        assert 0.0 <= differs <= 1e-5


def check_painting(name: str, vision: HookedVision) -> None:
    """Where a picture is repainted in the box of a patch, that patch changes the most.

    A map of convolutions needs no such proof, and gives none: its rows and columns are its own, and
    in one of a few cells everything sees everything.
    """
    (high, wide), (rows, cols) = vision.image_size, vision.grid
    noise = np.random.default_rng(0).integers(60, 190, (high, wide, 3)).astype("uint8")
    cells = sorted({(0, 0), (0, cols - 1), (rows - 1, 0), (rows // 2, cols // 3)})
    pictures = [noise]
    for row, col in cells:
        x0, y0, x1, y1 = (round(v) for v in vision.box(row, col, wide, high))
        pictures.append(noise.copy())
        pictures[-1][y0:y1, x0:x1] = 255 - noise[y0:y1, x0:x1] // 4
    kept = []
    place = "blocks.0.hook_resid_pre" if name in MIXERS else "hook_features"
    vision.hook_dict[place].add_hook(lambda value, hook: kept.append(value))
    with torch.no_grad():
        vision(torch.stack([vision.preprocess(Image.fromarray(p)) for p in pictures]))
    vision.hook_dict[place].remove_hooks()
    change = (kept[0][1:] - kept[0][0]).norm(dim=-1)
    for place, (row, col) in zip(change.argmax(-1).tolist(), cells, strict=True):
        off = max(abs(place // cols - row), abs(place % cols - col))
        assert off <= (1 if name in OVERLAPPING else 0)


def labelled(vision: HookedVision) -> set[str]:
    """The hook points inside that have one place for each of the encoder's positions, measured."""
    rows, cols = vision.grid
    n, seen = vision.n_prefix + rows * cols, {}
    for point in vision.hook_dict.values():
        point.add_hook(lambda value, hook: seen.__setitem__(hook.name, value.shape))
    with torch.no_grad():
        vision(torch.zeros(2, 3, *vision.image_size))
    for point in vision.hook_dict.values():
        point.remove_hooks()
    return {
        name
        for name, shape in seen.items()
        if (shape[0], *shape[2:]) == (2, n, n)
        or (shape[:2] == (2, n) and len(shape) == (4 if ".attn." in name else 3))
    }


def check_map(model: mm.HookedVLM, prompt: mm.Prompt, site: str) -> None:
    """An edit at a patch changes that cell of a map, all its channels and no other cell."""
    first = mm.Patch(0, 0)
    changed = model.edit(mm.Edit(site, 7.0, layer=0, pos=first))
    before, after = (mm.activations(m, prompt, site, layer=0) for m in (model, changed))
    rows, cols = before.axes.index("row"), before.axes.index("col")
    moved = (after.values - before.values).movedim((rows, cols), (0, 1)).flatten(2).abs().amax(2)
    assert moved.nonzero().tolist() == [[0, 0]], site
    assert (after.sel(row=0, col=0).values == 7.0).all()


def check_sites(vision: HookedVision, words) -> None:
    """An edit at a patch changes that position of its site, and no other; or it is refused."""
    model = from_parts(vision, None, words)
    prompt = mm.Prompt(toy.picture((0, 0)), "A")
    first = mm.Patch(0, 0)
    for site in NAMES:
        point = SITES[f"vision.{site}"].at(0)
        if point.removeprefix("vision.") not in vision.hook_dict:
            continue
        if is_map(vision.axes.get(point.removeprefix("vision."), ())):
            check_map(model, prompt, f"vision.{site}")
            continue
        where = {"query" if site == "pattern" else "pos": first}
        edit = mm.Edit(f"vision.{site}", 7.0, layer=0, **where)
        if point.removeprefix("vision.") not in labelled(vision) | set(vision.grids):
            with pytest.raises(CapabilityError, match="can't be addressed"):
                model.edit(edit)
            with pytest.raises(CapabilityError, match="can't be addressed"):
                mm.activations(model, prompt, f"vision.{site}", layer=0)
            continue
        changed = model.edit(edit)
        before, after = (
            mm.activations(m, prompt, f"vision.{site}", layer=0) for m in (model, changed)
        )
        axis = before.axes.index(next(iter(where)))
        moved = (after.values - before.values).movedim(axis, 0).flatten(1).abs().amax(1) > 0
        labels = before.of(before.axes[axis])
        assert [label for label, hit in zip(labels, moved, strict=True) if hit] == [first], site
        assert (after.values.movedim(axis, 0)[labels.index(first)] == 7.0).all()
