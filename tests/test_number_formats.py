"""A cast leaves in float32 what Hugging Face leaves there, and a saved bridge keeps its format."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
import torch
import transformers
from bridges import off

from mmlens import from_parts
from mmlens.checkpoints.folder import load, save
from mmlens.checkpoints.language import find_lm
from mmlens.families import load as load_model
from mmlens.families.toy import picture, tokenizer
from mmlens.runtime.casting import cast, device_of, dtype_of
from mmlens.values.errors import ArgumentError, CapabilityError, CheckpointError
from mmlens.values.prompt import Prompt

PROMPT = Prompt(picture(), "A picture of")
LONG = torch.arange(96)[None] % 60
ROTARY = ["llama", "gptj", "gpt-neox", "gemma"]


@pytest.fixture(scope="module", params=ROTARY)
def half(request, tmp_path_factory) -> tuple[Any, torch.Tensor]:
    """A toy, and the logits of its language model as transformers loads it in bfloat16."""
    toy = load_model(f"toy-{request.param}")
    folder = tmp_path_factory.mktemp("hf")
    toy.lm.hf.save_pretrained(folder)
    kind = type(toy.lm.hf)
    hf = kind.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager")
    with torch.no_grad():
        return toy, hf(LONG).logits


@pytest.mark.parametrize("way", ["from_parts", "find_lm", "to", "bfloat16", "part"])
def test_rotary_frequencies_stay_float32_as_hugging_face_keeps_them(half, way):
    toy, theirs = half
    if way == "from_parts":
        parts = (toy.vision, toy.projection, toy.lm.hf, tokenizer())
        model = from_parts(*parts, dtype=torch.bfloat16)
    elif way == "find_lm":
        lm = find_lm(toy.lm.hf, tokenizer(), dtype="bfloat16")
        model = from_parts(toy.vision, toy.projection, lm)
    else:
        model = from_parts(toy.vision.at("last_hidden_state"), None, toy.lm.hf, tokenizer())
        how = {"to": lambda: model.to(torch.bfloat16), "bfloat16": model.bfloat16}
        how |= {"part": lambda: cast(model.root, dtype=torch.bfloat16)}
        how[way]()
    assert {p.dtype for p in model.root.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert torch.equal(model(LONG), theirs)
    assert {p.dtype for p in toy.parameters()} == {torch.float32}


def test_what_a_class_of_transformers_keeps_in_float32_stays_there():
    class Gate(torch.nn.Module):
        _keep_in_fp32_modules_strict = ("gate.weight",)

        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)

    module = cast(Gate(), dtype=torch.bfloat16)
    assert module.gate.weight.dtype == torch.float32
    assert {module.gate.bias.dtype, module.up.weight.dtype} == {torch.bfloat16}
    assert {p.dtype for p in cast(module, dtype=torch.float64).parameters()} == {torch.float64}


@pytest.mark.parametrize("kind", ["llama", "gptj"])
@pytest.mark.parametrize("folded", [False, True])
def test_a_bridge_in_bfloat16_comes_back_in_bfloat16_with_its_logits(kind, folded, tmp_path):
    if folded and kind == "llama" and version("transformer-lens").startswith("3."):
        pytest.skip("TransformerLens 3 keeps folded gated MLPs where no cast reaches them")
    model = load_model(f"toy-{kind}", fold_ln=folded).to(torch.bfloat16)
    again = load(save(model, tmp_path / "bridge"))
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        assert torch.equal(again(PROMPT), model(PROMPT))
        wide = load(tmp_path / "bridge", dtype="float32")
        assert 0 < off(wide(PROMPT), model(PROMPT).float()) < 0.5
    assert wide.lm.dtype == torch.float32


def test_parts_in_different_formats_keep_each_its_own(tmp_path):
    toy = load_model("toy-gptj")
    cast(toy.root, dtype=torch.bfloat16)
    again = load(save(toy, tmp_path / "bridge"))
    kinds = [again.vision.dtype, again.projection.weight.dtype, again.lm.dtype]
    assert kinds == [torch.float32, torch.float32, torch.bfloat16]
    with torch.no_grad():
        assert torch.equal(again(PROMPT), toy(PROMPT))


def test_save_writes_the_weights_that_the_model_computes_with(tmp_path):
    model = load_model("toy-gpt2")
    mine = model.lm.hf
    model.to(torch.float64)  # weights of its own from here on
    with torch.no_grad():
        model.root.original_model.get_input_embeddings().weight.mul_(1.5)
        changed = model(PROMPT)
        assert off(changed, load_model("toy-gpt2")(PROMPT).double()) > 0.1
        again = load(save(model, tmp_path / "bridge"))
        assert off(again(PROMPT), changed) < 1e-12
    assert {p.dtype for p in mine.parameters()} == {torch.float32}


def test_weights_changed_where_the_checkpoint_has_none_are_refused(tmp_path):
    model = load_model("toy-gpt2")  # GPT-2 keeps queries, keys and values in one matrix,
    with torch.no_grad():
        model.blocks[0].attn.q.weight.mul_(2)  # of which this is a part
        again = load(save(model, tmp_path / "seen"))
        assert torch.equal(again(PROMPT), model(PROMPT))
        model.to(torch.float64)  # and no longer is one
        model.blocks[0].attn.q.weight.mul_(2)
    with pytest.raises(CapabilityError, match=r"attn\.q.*changed in the bridge"):
        save(model, tmp_path / "bridge")
    half = load_model("toy-gpt2")
    half.lm.parts["transformer.ln_f"].to(torch.float16)
    with pytest.raises(CheckpointError, match="in float16 and float32; cast it to one"):
        save(half, tmp_path / "bridge")
    assert not (tmp_path / "bridge").exists()


def test_a_quantization_config_is_not_written_beside_float_weights(tmp_path):
    toy = load_model("toy-llama")
    config = transformers.GPTQConfig(bits=4)
    toy.lm.hf.config.quantization_config = config  # as a GGUF file leaves it, dequantised
    again = load(save(toy, tmp_path / "bridge"))
    with torch.no_grad():
        assert torch.equal(again(PROMPT), toy(PROMPT))
    assert "quantization" not in (tmp_path / "bridge/lm/config.json").read_text()
    assert toy.lm.hf.config.quantization_config is config


def test_an_encoder_handed_in_stays_in_its_format():
    toy = load_model("toy-gptj")
    other = from_parts(toy.vision, None, toy.lm.hf, tokenizer(), dtype=torch.bfloat16)
    assert (toy.vision.dtype, other.vision.dtype) == (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("device", ["cuda:7", "tpu", "meta:x"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device, tmp_path):
    toy = load_model("toy-gptj")
    for call in (
        lambda: device_of(device),
        lambda: from_parts(toy.vision, None, toy.lm.hf, tokenizer(), device=device),
        lambda: load_model("pictos", device=device),
        lambda: load_model("limber-beit", twin=True, device=device),
    ):
        with pytest.raises(CapabilityError, match=r"^device=.*cannot be used here.*'cpu'"):
            call()


@pytest.mark.parametrize("dtype", ["float33", torch.int8, "int8"])
def test_a_number_format_that_weights_cannot_have_is_refused(dtype):
    toy = load_model("toy-gptj")
    for call in (
        lambda: dtype_of(dtype),
        lambda: from_parts(toy.vision, None, toy.lm.hf, tokenizer(), dtype=dtype),
        lambda: load_model("pictos", dtype=dtype),
    ):
        with pytest.raises(ArgumentError, match=r"^dtype=.*no number format of weights.*float"):
            call()
    assert dtype_of("bfloat16") is torch.bfloat16


def test_a_bridge_is_saved_whatever_generation_settings_came_with_its_model(tmp_path):
    """Sampling values without do_sample, as Vicuna ships them, are no settings to transformers."""
    model = load_model("toy-llama")
    model.lm.hf.generation_config.temperature = 0.9
    model.lm.hf.generation_config.suppress_tokens = [1, 2]
    model.lm.hf.generation_config.eos_token_id = [0, 7]
    model.save(tmp_path / "bridge")
    again = load(tmp_path / "bridge")
    assert again.root.original_model.generation_config.eos_token_id == [0, 7]
    assert torch.equal(again(Prompt(picture(), "A")), model(Prompt(picture(), "A")))


@pytest.mark.parametrize("place", ["gpu", "cuda:99", torch.device("cuda", 99)])
def test_a_bridge_is_moved_to_no_device_that_is_not_there(place):
    with pytest.raises(CapabilityError, match="cannot be used here"):
        load_model("toy-gptj").to(place)
