"""Units of convolutions are channels: what is attributed to by default, against silencing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from dual_twins import RESNET, open_clip_twin
from encoders import settle, shake
from PIL import Image

import mmlens as mm
from mmlens import Edit, Neuron
from mmlens.towers.vision.wrap import wrap_vision

timm = pytest.importorskip("timm")
pytest.importorskip("open_clip")
DRAW = np.random.default_rng(0)
PHOTO = Image.fromarray((DRAW.random((40, 56, 3)) * 255).astype("uint8"))
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
SIDE = {"input_size": (3, 64, 64), "test_input_size": (3, 64, 64)}


def of_timm(name: str, **small: Any) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        net = timm.create_model(name, num_classes=4, pretrained_cfg_overlay=SIDE, **small)
        settle(shake(net), net, 64)
        return mm.from_parts(vision=net.double()), 2

    return make


def of_transformers(kind: str, **small: Any) -> Callable[[], tuple[Any, Any]]:
    def make() -> tuple[Any, Any]:
        import transformers

        config = getattr(transformers, f"{kind}Config")(num_labels=4, **small)
        found = getattr(transformers, f"{kind}ForImageClassification")(config)
        settle(shake(found), lambda x: found(pixel_values=x), 64)
        return mm.from_parts(vision=wrap_vision(found.double(), {"image_size": 64})), 2

    return make


def of_open_clip() -> tuple[Any, Any]:
    module, preprocess, tokenizer = open_clip_twin(RESNET)
    settle(module, module.encode_image, 64)
    return mm.from_model(module, preprocess, tokenizer, dtype="float64"), "a photo of a dog"


NETS: dict[str, tuple[Callable[[], tuple[Any, Any]], str]] = {
    "timm ResNet": (
        of_timm("resnet10t", channels=(8, 8, 16, 16), stem_width=8), "vision.resid_add"
    ),
    "timm ConvNeXt": (
        of_timm("convnext_atto", dims=(8, 8, 16, 16), depths=(1, 1, 1, 1)), "vision.neurons_pre"
    ),
    "timm EfficientNet": (of_timm("efficientnet_lite0"), "vision.resid_post"),
    "transformers ResNet": (
        of_transformers("ResNet", **STAGES, layer_type="basic"), "vision.resid_add"
    ),
    "open_clip ResNet": (of_open_clip, "vision.resid_add"),
}  # fmt: skip
"""Per net what is attributed to at "pre", the default point."""


@pytest.mark.parametrize("name", NETS)
def test_the_channels_of_a_block_are_its_units_and_their_scores_are_what_silencing_takes(name):
    make, site = NETS[name]
    model, of = make()
    layer = model.vision.n_layers - 2
    before = mm.attribute(model, PHOTO, of=of, layer=layer)
    assert before.about["silencing"] == f"Edit({site!r}, 0.0, ...)"
    scores = mm.attribute(model, PHOTO, of=of, layer=layer, point="post")
    unit = "unit" if site.endswith("neurons_pre") else "channel"
    assert set(scores.axes) == {"layer", unit, "row", "col"}
    totals = scores.sel(layer=layer).sum("row", "col")
    assert totals.axes == (unit,)
    shown = [PHOTO, of] if isinstance(of, str) else PHOTO
    plain, predicted, measured = model.run(shown), [], []
    for channel in range(0, totals.shape[0], max(1, totals.shape[0] // 12)):
        neuron = Neuron(layer, channel, "vision")
        edited = model.edit(
            Edit(scores.about["silencing"].split("'")[1], lambda x: 0.99 * x, neuron)
        )
        change = plain - edited.run(shown)
        predicted.append(0.01 * float(totals.values[channel]))
        measured.append(float(change.flatten()[0 if isinstance(of, str) else of]))
    assert np.std(predicted) > 0
    assert np.corrcoef(predicted, measured)[0, 1] >= 0.999
    np.testing.assert_allclose(predicted, measured, rtol=0.1, atol=1e-2 * np.abs(measured).max())
    assert torch.isfinite(before.values).all()
