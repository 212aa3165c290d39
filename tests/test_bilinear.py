"""Second-order attribution: mixed differences of the cosine, token by token and part by part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dual_twins import DUALS, MORE
from PIL import Image

import mmlens as mm
from mmlens import view
from mmlens.values.errors import AddressError, CapabilityError

pytest.importorskip("open_clip")
DRAW = np.random.default_rng(0)
PHOTO = Image.fromarray((DRAW.random((40, 56, 3)) * 255).astype("uint8"))
SAID = "a photo of a dog"


def made(name: str) -> mm.HookedDualEncoder:
    return mm.from_model(*(DUALS | MORE)[name](), name=name, dtype="float64")


def mixed(model, names: tuple[str, str], parts, h: float = 1e-3) -> float:
    """The mixed second difference of the cosine when both parts are scaled by 1 +- h."""

    def cosine(one: float, other: float) -> float:
        hooks = []
        for name, part, by in zip(names, parts, (one, other), strict=True):

            def scaled(tensor, hook, part=part, by=by):
                out = tensor.clone()
                out[(slice(None), *part)] *= 1 + by
                return out

            hooks.append((name, scaled))
        with model.hooks(hooks):
            scores = mm.zero_shot(model, PHOTO, [SAID])
        return float(scores.sel(quantity="cosine").values)

    return (cosine(h, h) - cosine(h, -h) - cosine(-h, h) + cosine(-h, -h)) / (4 * h * h)


@pytest.mark.parametrize("name", ["open_clip ViT", "transformers SigLIP"])
def test_a_position_and_a_token_interact_as_their_mixed_difference_says(name):
    model = made(name)
    found = mm.bilinear_attribution(model, PHOTO, SAID)
    names = ("vision.blocks.0.hook_resid_pre", "text.blocks.0.hook_resid_pre")
    assert found.axes == ("pos", "token")
    for i, j in ((0, 1), (5, 3), (11, len(found.of("token")) - 1)):
        true = mixed(model, names, ((i,), (j,)))
        assert float(found.values[i, j]) == pytest.approx(true, rel=1e-3, abs=1e-8)
    assert found.values.abs().max() > 1e-4


def test_a_unit_and_a_token_interact_as_their_mixed_difference_says():
    model = made("open_clip ViT")
    how = {"site": "vision.neurons", "layer": 1, "by": "unit", "text_layer": 1, "batch": 5}
    found = mm.bilinear_attribution(model, PHOTO, SAID, **how)
    names = ("vision.blocks.1.mlp.hook_post", "text.blocks.1.hook_resid_pre")
    assert found.axes == ("unit", "token")
    for i, j in ((0, 1), (7, 3)):
        true = mixed(model, names, ((slice(None), i), (j,)))
        assert float(found.values[i, j]) == pytest.approx(true, rel=1e-3, abs=1e-8)


def test_a_map_of_a_convolution_is_read_by_its_cells():
    model = made("EfficientNet")
    found = mm.bilinear_attribution(model, PHOTO, SAID, site="features")
    assert found.shape[0] == 4 and type(found.of("pos")[0]) is mm.Patch
    assert type(view.show(found, PHOTO)).__name__ in ("Figure", "Html")
    deep = mm.bilinear_attribution(model, PHOTO, SAID, site="vision.resid_post", layer=6)
    assert deep.shape[0] == 4 and torch.isfinite(deep.values).all()


def test_what_has_no_second_order_is_refused_in_a_sentence():
    model = made("open_clip ViT")
    with pytest.raises(AddressError, match="site of 'text'"):
        mm.bilinear_attribution(model, PHOTO, SAID, site="text.neurons")
    with pytest.raises(AddressError, match="name a site of positions"):
        mm.bilinear_attribution(model, PHOTO, SAID, site="vision.pattern")
    with pytest.raises(AddressError, match="layer"):
        mm.bilinear_attribution(model, PHOTO, SAID, layer=9)
    with pytest.raises(CapabilityError, match="compares pictures"):
        mm.bilinear_attribution(mm.load("toy-gptj"), PHOTO, SAID)
