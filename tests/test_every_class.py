"""Every vision-language class of transformers is taken, or refused with a reason that holds."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import torch
import transformers as hf
from native_rows import stored_rows
from native_twins import TWINS
from packaging.version import Version
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel
from transformers.models.kosmos2.configuration_kosmos2 import Kosmos2TextConfig
from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2TextForCausalLM

import mmlens as mm
from mmlens.families import refused
from mmlens.families.native import SINCE, family_of, known
from mmlens.towers.language.inside import _LIKE
from mmlens.values.errors import CapabilityError

CLASSES = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
TABLES = refused._REASONS | refused._LANGUAGE_MODELS
ELSEWHERE = {"mistral3", "pixtral"}
pytestmark = pytest.mark.skipif(
    Version(hf.__version__) < Version("5.24"), reason="the list is that of 5.24"
)


def test_no_class_is_left_without_an_answer():
    """A class that a newer transformers adds is answered with the nearest by name."""
    if hf.__version__.startswith("5.24."):
        assert set(CLASSES) <= set(known()) | set(TABLES)
    assert not set(known()) & set(TABLES)
    for model_type, cls in CLASSES.items():
        if model_type in known():
            assert family_of(model_type, cls).cls == cls
            continue
        with pytest.raises(CapabilityError) as told:
            family_of(model_type, cls)
        sentence = str(told.value)
        assert sentence.startswith(f"mmlens has no family for a {cls} ({model_type})")
        assert sentence.count(". ") <= 1 and sentence.endswith(".")


@pytest.mark.parametrize("model_type", sorted(TABLES))
def test_a_folder_and_an_object_of_a_refused_class_get_its_sentence(model_type, tmp_path):
    config = CONFIG_MAPPING[model_type]()
    (tmp_path / "config.json").write_text(json.dumps(config.to_diff_dict(), default=str), "utf-8")
    why = re.escape(refused.refused(model_type))
    with pytest.raises(CapabilityError, match=why) as told:
        mm.load(tmp_path)
    assert str(tmp_path) not in str(told.value)
    assert CLASSES.get(model_type, model_type) in str(told.value)
    held = torch.nn.Identity()
    held.config = config
    with pytest.raises(CapabilityError, match=why):
        mm.from_model(held, object())


@pytest.mark.parametrize("model_type", sorted(TABLES))
def test_the_nearest_of_a_refused_class_is_taken(model_type):
    found = re.search(r"the nearest is '([\w.-]+)'\.$", refused.refused(model_type))
    assert found and found[1] in {*known(), *ELSEWHERE}


@pytest.mark.parametrize("model_type", sorted(refused._LANGUAGE_MODELS))
def test_a_language_model_that_is_said_to_have_no_hooks_has_none(model_type):
    from transformer_lens.factories.architecture_adapter_factory import (
        ArchitectureAdapterFactory as Factory,
    )

    words = refused._LANGUAGE_MODELS[model_type][0]
    config = CONFIG_MAPPING[model_type]()
    assert config.get_text_config().model_type == words
    assert words not in _LIKE
    causal = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(words)
    assert causal not in Factory._adapters


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "vocab_size": 50}  # fmt: skip
ENDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
TINY: dict[str, Any] = {
    "molmo2": lambda: hf.Molmo2TextModel(hf.Molmo2TextConfig(
        **SMALL, num_key_value_heads=2, head_dim=8, additional_vocab_size=8)),
    "kosmos-2": lambda: Kosmos2TextForCausalLM(Kosmos2TextConfig(
        vocab_size=50, embed_dim=16, layers=2, ffn_dim=24, attention_heads=2, **ENDS)),
    "blip": lambda: BlipTextLMHeadModel(hf.BlipTextConfig(**SMALL, **ENDS)),
    "git": lambda: hf.GitForCausalLM(hf.GitConfig(**SMALL, **ENDS, vision_config={
        **{k: v for k, v in SMALL.items() if k != "vocab_size"}, "image_size": 16,
        "patch_size": 8})),
}  # fmt: skip


@pytest.mark.parametrize("model_type", TINY)
def test_transformer_lens_does_not_bridge_the_language_model_that_a_reason_names(model_type):
    from transformer_lens.model_bridge import TransformerBridge

    assert model_type in refused._LANGUAGE_MODELS
    with pytest.raises(ValueError, match="Could not determine supported architecture"):
        TransformerBridge.boot_transformers("x", hf_model=TINY[model_type]())


@pytest.mark.parametrize("model_type", sorted(refused._REASONS))
def test_what_a_reason_says_is_what_the_configuration_says(model_type):
    why, _ = refused._REASONS[model_type]
    config = CONFIG_MAPPING[model_type]()
    eyes = getattr(config, "vision_config", None)
    assert (why == refused._WORDS_BOTH) == bool(config.is_encoder_decoder)
    assert (why == refused._TIMM) == (getattr(eyes, "model_type", "") == "timm_wrapper")
    assert (why == refused._NO_EYES) <= (eyes is None)
    if model_type == "gemma3n":
        assert config.text_config.altup_num_inputs > 1
    if model_type == "deepseek_vl_hybrid":
        assert config.high_res_vision_config.model_type == "sam_vision_model"


def test_every_family_has_a_twin_and_a_row():
    classes = {row["class"] for row in stored_rows().values()}
    assert {one.cls for one in known().values()} <= classes
    assert set(TWINS) <= set(stored_rows())
    assert set(SINCE) <= {*known(), "pixtral", "coca"}  # an encoder; open_clip's
