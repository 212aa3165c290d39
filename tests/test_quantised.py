"""Quantised whole models: read as the numbers that their weights stand for, or refused."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from bridges import off
from native_twins import photo, twin
from torch import nn

import mmlens as mm
from mmlens.towers.language.dequantised import dequantised, is_quantised
from mmlens.values.errors import CapabilityError

WORDS = "What is this?"
PROMPT = (photo(), WORDS)


class Int8(nn.Module):
    """A linear map that keeps whole numbers and one scale per output (as GPTQ's and others do)."""

    def __init__(self, layer: nn.Linear, rounds: bool = False) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("qweight", (layer.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("scales", scale)
        self.bias = layer.bias
        self.rounds = rounds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rounds:  # activations, too, as dynamic int8 does
            step = x.abs().amax(-1, keepdim=True).clamp(min=1e-9) / 127
            x = (x / step).round() * step
        weight: Any = self.qweight
        return nn.functional.linear(x, weight.to(x.dtype) * self.scales.to(x.dtype), self.bias)


def packed(model: Any, rounds: bool = False) -> Any:
    """A copy whose linear maps but the last are `Int8`."""
    found = copy.deepcopy(model)
    for name, layer in list(found.named_modules()):
        if isinstance(layer, nn.Linear) and "lm_head" not in name:
            path, _, own = name.rpartition(".")
            setattr(found.get_submodule(path), own, Int8(layer, rounds))
    return found


def torchao(model: Any) -> Any:
    """A copy in torchao's int8, weights alone."""
    quantization = pytest.importorskip("torchao.quantization")
    found = copy.deepcopy(model)
    quantization.quantize_(found, quantization.Int8WeightOnlyConfig())
    return found


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    return twin("llava")


def read(model: Any, processor: Any) -> Any:
    with pytest.warns(UserWarning, match=r"layers of this LlavaFor.* are quantised"):
        return mm.from_model(model, processor, name="llava")


@pytest.mark.parametrize("way", [packed, torchao])
def test_logits_are_those_of_the_quantised_model_and_scores_are_its_gradients(parts, way):
    whole, processor = parts
    quantised = way(whole)
    before = {name: type(layer) for name, layer in quantised.named_modules()}
    model = read(quantised, processor)
    inputs = model.prompt_reader.inputs(mm.Prompt(*PROMPT))
    with torch.no_grad():
        theirs = quantised(**inputs).logits[0]
        ours = model(mm.Prompt(*PROMPT))[0]
        plain = whole(**inputs).logits[0]
    assert off(ours[-1], theirs[-1]) <= 1e-5
    assert off(plain[-1], theirs[-1]) > 1e-4  # the weights are others than before
    assert {name: type(layer) for name, layer in quantised.named_modules()} == before
    scores = mm.attribute(model, mm.Prompt(*PROMPT), of=5, after="")
    best = mm.top_neurons(scores, 1).neuron[0]
    silent = model.edit(_less(model, best))
    with torch.no_grad():
        moved = model(mm.Prompt(*PROMPT))[0, -1, 5] - silent(mm.Prompt(*PROMPT))[0, -1, 5]
    own = mm.attribute(model, mm.Prompt(*PROMPT), of=5, after="", point="post")
    wanted = float(own.sel(layer=best.layer, unit=best.unit).values.sum()) * SMALL
    assert float(moved) == pytest.approx(wanted, rel=0.05, abs=1e-6)


SMALL = 1e-2


def _less(model: Any, neuron: Any) -> Any:
    """An edit that makes a neuron a little weaker at every position."""
    now = mm.activations(model, mm.Prompt(*PROMPT), "neurons", layer=neuron.layer)
    values = now.values[..., neuron.unit].unsqueeze(-1) * -SMALL
    return mm.Edit("neurons", values, layer=neuron.layer, unit=neuron.unit, add=True)


@pytest.mark.parametrize("way", [packed, torchao])
def test_what_a_neuron_writes_is_read_off_the_rounded_weights(parts, way):
    whole, processor = parts
    quantised = way(whole)
    model = read(quantised, processor)
    layer = next(layer for name, layer in quantised.named_modules()
                 if name.endswith("language_model.layers.0.mlp.down_proj"))  # fmt: skip
    eye = torch.eye(layer.in_features)
    with torch.no_grad():
        rows = layer(eye)  # Float[unit, d_model]; it has no bias
    torch.testing.assert_close(model.lm.root.blocks[0].mlp.W_out, rows, atol=1e-6, rtol=1e-5)
    assert len(mm.decode(model, "L0.3")) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_rounds_its_activations_is_refused(parts, dtype):
    whole, processor = parts
    model = packed(copy.deepcopy(whole).to(dtype), rounds=True)
    with pytest.raises(CapabilityError, match="rounds more than its weights"):
        mm.from_model(model, processor)


def test_a_dynamic_int8_of_torchao_is_refused(parts):
    quantization = pytest.importorskip("torchao.quantization")
    model = copy.deepcopy(parts[0])
    quantization.quantize_(model, quantization.Int8DynamicActivationInt8WeightConfig())
    with pytest.raises(CapabilityError, match="rounds more than its weights"):
        mm.from_model(model, parts[1])


def test_a_layer_that_is_no_linear_map_is_refused():
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("qweight", torch.zeros(3, dtype=torch.int8))

    with pytest.raises(CapabilityError, match="cannot be read as weights"):
        dequantised(nn.Sequential(Table()))


def test_a_model_of_plain_weights_is_itself_and_half_precision_is_read(parts):
    whole, _ = parts
    assert dequantised(whole) is whole and not any(map(is_quantised, whole.modules()))
    half = packed(copy.deepcopy(whole).to(torch.bfloat16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = dequantised(half)
    assert not any(map(is_quantised, found.modules()))
    assert {one.dtype for one in found.parameters()} == {torch.bfloat16}
    assert found.get_input_embeddings().weight is half.get_input_embeddings().weight  # shared


def test_a_folder_in_torchaos_int8_is_loaded(parts, tmp_path):
    quantization = pytest.importorskip("torchao.quantization")
    from transformers import AutoModelForImageTextToText, TorchAoConfig

    _, processor = parts
    for part in parts:
        part.save_pretrained(tmp_path / "plain")
    config: Any = TorchAoConfig(quantization.Int8WeightOnlyConfig())
    auto: Any = AutoModelForImageTextToText
    quantised = auto.from_pretrained(tmp_path / "plain", quantization_config=config)
    quantised.save_pretrained(tmp_path / "int8")
    processor.save_pretrained(tmp_path / "int8")
    with pytest.warns(UserWarning, match="are quantised"):
        model = mm.load(tmp_path / "int8")
    inputs = model.prompt_reader.inputs(mm.Prompt(*PROMPT))
    with torch.no_grad():
        theirs = quantised(**inputs).logits[0, -1]
        ours = model(mm.Prompt(*PROMPT))[0, -1]
    assert off(ours, theirs) <= 1e-5
