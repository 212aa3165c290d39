"""A whole vision-language model handed in as a part is read by its configuration, or refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from bridges import off
from torch import nn

from mmlens import from_parts
from mmlens.families import load
from mmlens.families.parts import find_vision
from mmlens.families.toy import picture, tokenizer
from mmlens.towers.language.language_model import wrap_lm
from mmlens.values.errors import ArgumentError, CapabilityError, CheckpointError
from mmlens.values.prompt import Prompt

PROMPT = Prompt(picture(), "A picture of")
_EYE: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
_EYE |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
_LM: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
_LM |= {"num_attention_heads": 4, "num_key_value_heads": 4}


def llava(eye: str = "CLIP", strategy: Any = "default", layer: Any = -2) -> Any:
    """A tiny LLaVA whose features differ from layer to layer."""
    words = len(tokenizer())
    text = transformers.LlamaConfig(vocab_size=words + 3, **_LM)
    config = transformers.LlavaConfig(
        vision_config=getattr(transformers, f"{eye}VisionConfig")(**_EYE),
        text_config=text,
        image_token_index=words + 1,
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
    )
    model = transformers.LlavaForConditionalGeneration(config).eval()
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.3)
    return model


def theirs(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Hugging Face's own forward pass, with image tokens in the ids."""
    ids = [model.config.image_token_index] * 16 + tokenizer()("A picture of")["input_ids"]
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits


@pytest.mark.parametrize(
    "eye, strategy, layer",
    [
        ("CLIP", "default", -2),
        ("CLIP", "default", -1),
        ("CLIP", "default", 1),
        ("Siglip", "full", -2),
        ("Siglip", "full", -1),
    ],
)
def test_a_llava_from_parts_has_its_own_logits(eye, strategy, layer):
    model = llava(eye, strategy, layer)
    bridge = from_parts(model, None, model, tokenizer())
    pixels = bridge.vision.preprocess(picture())[None]
    with torch.no_grad():
        assert off(bridge(PROMPT), theirs(model, pixels)) < 2e-5
    assert bridge.provenance["projection"] == "LlavaMultiModalProjector"


def test_its_parts_one_by_one_ask_for_the_layer_and_take_the_config():
    model = llava()
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    with pytest.raises(CheckpointError, match=r"trained on the layer.*feature_layer=model.config"):
        from_parts(tower, projector, model, tokenizer())
    for given in (
        {"projection": projector, "feature_layer": model.config},
        {"projection": projector, "feature_layer": "blocks.1.hook_resid_post"},
        {"projection": model},
    ):
        bridge = from_parts(vision=tower, lm=model, tokenizer=tokenizer(), **given)
        with torch.no_grad():
            pixels = bridge.vision.preprocess(picture())[None]
            assert off(bridge(PROMPT), theirs(model, pixels)) < 2e-5


@pytest.mark.parametrize(
    "eye, strategy, layer, sentence",
    [
        ("CLIP", "full", -2, "17 positions.*4 x 4 patches without a class token"),
        ("Siglip", "default", -2, "15 positions"),
        ("CLIP", "default", [-2, -1], "several layers of its encoder side by side"),
        ("CLIP", "default", -9, "no such layer"),
    ],
)
def test_what_a_bridge_cannot_project_is_refused(eye, strategy, layer, sentence):
    model = llava(eye, strategy, layer)
    with pytest.raises(CapabilityError, match=sentence):
        from_parts(model, None, model, tokenizer())


def test_other_whole_models_are_refused_wherever_they_are_handed_in(tmp_path):
    toy, whole = load("toy-gptj"), llava()
    text = transformers.GemmaConfig(vocab_size=99, head_dim=8, **_LM)
    eye = transformers.SiglipVisionConfig(**_EYE)
    other = transformers.PaliGemmaForConditionalGeneration(
        transformers.PaliGemmaConfig(vision_config=eye, text_config=text, projection_dim=32)
    )
    for parts in ({"vision": other}, {"projection": other}, {"lm": other}):
        with pytest.raises(CapabilityError, match="PaliGemma.*whole model.*feature_layer="):
            from_parts(**{"vision": toy.vision, "lm": toy.lm, "tokenizer": tokenizer(), **parts})
    for model in (other, whole):
        with pytest.raises(CapabilityError, match="whole vision-language model, not the language"):
            wrap_lm(model, tokenizer())
        with pytest.raises(CapabilityError, match="whole vision-language model and no encoder"):
            find_vision(model)
    whole.save_pretrained(tmp_path)
    with pytest.raises(CapabilityError, match="whole vision-language model and no encoder"):
        from_parts(vision=tmp_path, lm=toy.lm)


# --- connectors ---------------------------------------------------------------------------------


class Pool(nn.Module):
    """A map of all patches to `positions` of them."""

    def __init__(self, positions: int) -> None:
        super().__init__()
        self.linear, self.positions = nn.Linear(16, 32), positions

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mean = self.linear(features).mean(1, keepdim=True)
        return mean.expand(-1, self.positions, -1)


@pytest.mark.parametrize("positions", [1, 5])
def test_a_projection_that_changes_the_number_of_positions_is_named_as_such(positions):
    toy = load("toy-gptj")
    with pytest.raises(CapabilityError, match=f"makes {positions} positions of 16 patches"):
        from_parts(toy.vision, Pool(positions), toy.lm)
    by_hand = type(toy)(toy.vision, Pool(positions), toy.lm, name="by hand")
    with pytest.raises(CapabilityError, match=f"makes {positions} positions of 16 patches"):
        by_hand(PROMPT)
    with torch.no_grad():
        assert from_parts(toy.vision, Pool(16), toy.lm)(PROMPT).isfinite().all()


# --- language models that are none --------------------------------------------------------------


def _tiny(name: str, **options: Any) -> Any:
    stem = name.split("For")[0].removesuffix("LMHeadModel").removesuffix("Model")
    small = {"GPT2": {"n_embd": 32, "n_layer": 1, "n_head": 4}, "T5": {"d_model": 32, "d_kv": 8}}
    plain = _LM | {"num_hidden_layers": 1}
    if stem in ("T5", "Bart"):
        plain = small["T5"] | {"d_ff": 32, "num_layers": 1, "num_heads": 4, "encoder_layers": 1}
        plain |= {"decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    config = getattr(transformers, f"{stem}Config")(
        vocab_size=99, **(small[stem] if stem == "GPT2" else plain), **options
    )
    return getattr(transformers, name)(config)


def _offloaded() -> Any:
    model = _tiny("GPT2LMHeadModel")
    model.lm_head = nn.Linear(32, 99, bias=False, device="meta")
    return model


def _eight_bits() -> Any:
    model = _tiny("LlamaForCausalLM")
    linear = model.model.layers[0].mlp.up_proj
    linear.weight = nn.Parameter(linear.weight.to(torch.int8), requires_grad=False)
    return model


def _packed() -> Any:
    model = _tiny("LlamaForCausalLM")
    linear = model.model.layers[0].mlp.up_proj
    del linear.weight
    linear.register_buffer("qweight", torch.zeros(4, 4, dtype=torch.int32))
    return model


def _dynamic() -> Any:
    kinds = {nn.Linear}
    return torch.ao.quantization.quantize_dynamic(_tiny("LlamaForCausalLM"), kinds, torch.qint8)


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: torch.compile(_tiny("GPT2LMHeadModel")), "is compiled.*_orig_mod"),
        (lambda: nn.DataParallel(_tiny("GPT2LMHeadModel")), "DataParallel.*model.module"),
        (_offloaded, "not all in memory.*offloaded"),
        (_eight_bits, "up_proj.*is quantised and does not run on cpu"),
        (_packed, "up_proj.*is quantised and does not run on cpu"),
        (_dynamic, "is quantised and rounds more than its weights"),
        (lambda: _tiny("GPT2Model"), "no head.*GPT2LMHeadModel"),
        (lambda: _tiny("LlamaModel"), "no head.*LlamaForCausalLM"),
        (lambda: _tiny("BertModel"), "no head"),
        (lambda: _tiny("BertForMaskedLM"), "both directions"),
        (lambda: _tiny("BertLMHeadModel"), "both directions"),
        (lambda: _tiny("T5ForConditionalGeneration"), "an encoder for words and a decoder"),
        (lambda: _tiny("BartForConditionalGeneration"), "an encoder for words and a decoder"),
        (lambda: nn.Linear(2, 2), "no language model of transformers"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_what_is_no_plain_causal_language_model_is_refused_at_the_door(make, sentence):
    toy, model = load("toy-gptj"), make()
    with pytest.raises(CapabilityError, match=sentence):
        wrap_lm(model, tokenizer())
    with pytest.raises(CapabilityError, match=sentence):
        from_parts(toy.vision, toy.projection, model, tokenizer())


@pytest.mark.parametrize("thing", [None, 3, {"weights": 1}])
def test_what_is_no_model_at_all_is_refused_at_the_door(thing):
    with pytest.raises(ArgumentError, match="is no language model: give a causal"):
        wrap_lm(thing)


def test_an_offload_hook_of_accelerate_is_seen_although_weights_are_there():
    model = _tiny("GPT2LMHeadModel")
    hooks = pytest.importorskip("accelerate.hooks")
    hooks.add_hook_to_module(model.transformer.h[0], hooks.AlignDevicesHook("cpu", offload=True))
    with pytest.raises(CapabilityError, match="not all in memory"):
        wrap_lm(model, tokenizer())
