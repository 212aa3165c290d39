"""More tiny twins of whole vision-language models: classes that came after those of `native_twins`.

That one takes these up at its end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import native_twins as first
import pytest
import transformers as hf
from native_twins import (
    IDEFICS_CHAT,
    INTERN_CHAT,
    LLAVA_CHAT,
    MISTRAL_CHAT,
    PINPOINTS,
    QWEN_CHAT,
    VISION,
    language,
    token,
    tokenizer,
)
from packaging.version import Version


def _twin(make: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
    """As in `native_twins`; with an older transformers the twin skips its test."""

    @functools.wraps(make)
    def made() -> tuple[Any, Any]:
        if Version(hf.__version__) < Version("5.24"):
            pytest.skip("read with transformers 5.24 or later")
        return make()

    return first._twin(made)


SQUARE = {"height": 32, "width": 32}
COHERE = {"model_type": "cohere2", "head_dim": 8, "sliding_window": 8, "logit_scale": 1.0}


@_twin
def llava_next_video() -> tuple[Any, Any]:
    config = hf.LlavaNextVideoConfig(
        vision_config=hf.CLIPVisionConfig(**VISION), text_config=hf.LlamaConfig(**language()),
        image_token_index=token("<image>"), video_token_index=token("<video>"),
        image_grid_pinpoints=PINPOINTS, vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    square = {"size": {"shortest_edge": 32}, "crop_size": SQUARE}
    images = hf.LlavaNextImageProcessor(**square, image_grid_pinpoints=PINPOINTS)
    films = hf.LlavaNextVideoVideoProcessor(**square)
    processor = hf.LlavaNextVideoProcessor(films, images, tokenizer(), chat_template=LLAVA_CHAT)
    return hf.LlavaNextVideoForConditionalGeneration(config), processor


@_twin
def aya_vision() -> tuple[Any, Any]:
    config = hf.AyaVisionConfig(
        text_config={**language(), **COHERE}, vision_config={**VISION, "vision_use_head": False},
        image_token_index=token("<IMG_CONTEXT>"), downsample_factor=2, vision_feature_layer=-1,
        alignment_intermediate_size=40,
    )  # fmt: skip
    images = hf.GotOcr2ImageProcessor(size=SQUARE, min_patches=1, max_patches=4)
    processor = hf.AyaVisionProcessor(
        images, tokenizer(), patch_size=8, img_size=32, downsample_factor=2,
        img_patch_token="<IMG_CONTEXT>", start_of_img_token="<img>", end_of_img_token="</img>",
        tile_token="<loc0000>", tile_global_token="<loc0001>",
        chat_template=INTERN_CHAT.replace("<IMG_CONTEXT>", "<image>"),
    )  # fmt: skip
    return hf.AyaVisionForConditionalGeneration(config), processor


@_twin
def cohere2_vision() -> tuple[Any, Any]:
    config = hf.Cohere2VisionConfig(
        text_config={**language(), **COHERE}, vision_config={**VISION, "vision_use_head": False},
        image_token_id=token("<IMG_CONTEXT>"), downsample_factor=2, alignment_intermediate_size=40,
    )  # fmt: skip
    images = hf.Cohere2VisionImageProcessor(size=SQUARE, max_patches=4, patch_size=2)
    names = {"boi_token": "<img>", "eoi_token": "</img>", "image_token": "<IMG_CONTEXT>"}
    words = tokenizer(**names, img_line_break_token="<loc0002>")
    processor = hf.Cohere2VisionProcessor(images, words, chat_template=INTERN_CHAT)
    return hf.Cohere2VisionForConditionalGeneration(config), processor


@_twin
def deepseek_vl() -> tuple[Any, Any]:
    config = hf.DeepseekVLConfig(
        text_config={**language(), "model_type": "llama"},
        vision_config={**VISION, "vision_use_head": False, "model_type": "siglip_vision_model"},
        image_token_id=token("<image_placeholder>"), tie_word_embeddings=False,
    )  # fmt: skip
    processor = hf.DeepseekVLProcessor(
        hf.DeepseekVLImageProcessor(size=SQUARE), tokenizer(image_token="<image_placeholder>"),
        num_image_tokens=16,
    )  # fmt: skip
    return hf.DeepseekVLForConditionalGeneration(config), processor


@_twin
def lighton_ocr() -> tuple[Any, Any]:
    config = hf.LightOnOcrConfig(
        text_config={**language(), "head_dim": 8, "model_type": "qwen3"},
        vision_config={**VISION, "model_type": "pixtral"}, image_token_id=token("[IMG]"),
        spatial_merge_size=2, tie_word_embeddings=False,
    )  # fmt: skip
    names = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]"}
    processor = hf.LightOnOcrProcessor(
        hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size=8),
        tokenizer(**names, image_end_token="[IMG_END]"), patch_size=8, spatial_merge_size=2,
        chat_template=MISTRAL_CHAT,
    )  # fmt: skip
    return hf.LightOnOcrForConditionalGeneration(config), processor


def _qwen3_5(kind: str, **text: Any) -> tuple[Any, Any]:
    """Of four layers the last attends, and the others are linear, with a state."""
    sections = {
        "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2],
        "partial_rotary_factor": 1.0,
    }  # fmt: skip
    linear = {
        "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
        "linear_value_head_dim": 8, "head_dim": 8, "num_hidden_layers": 4,
    }  # fmt: skip
    eyes = {k: v for k, v in first.DEEP.items() if k != "deepstack_visual_indexes"}
    config = getattr(hf, f"{kind}Config")(
        text_config={**language(), "rope_parameters": sections, **linear, **text},
        vision_config=eyes,
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip
    images = hf.Qwen2VLImageProcessor(
        patch_size=8, merge_size=2, temporal_patch_size=2, min_pixels=32 * 32, max_pixels=64 * 64
    )
    videos = hf.Qwen3VLVideoProcessor(patch_size=8, merge_size=2)
    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    processor = hf.Qwen3VLProcessor(images, tokenizer(**names), videos, chat_template=QWEN_CHAT)
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor


@_twin
def qwen3_5() -> tuple[Any, Any]:
    return _qwen3_5("Qwen3_5")


@_twin
def qwen3_5_moe() -> tuple[Any, Any]:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    return _qwen3_5("Qwen3_5Moe", **experts, shared_expert_intermediate_size=16)


GLM_CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ content['text'] }}{% endif %}"
    "{% endfor %}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""What the template of zai-org/GLM-4.1V-9B-Thinking does with words and pictures."""


def _glm(kind: str, prefix: str, text: dict[str, Any], eyes: dict[str, Any]) -> tuple[Any, Any]:
    sections = {
        "rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2],
        "partial_rotary_factor": 0.5,
    }  # fmt: skip
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": sections}
    seen = {
        "depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 8, "image_size": 32,
        "spatial_merge_size": 2, "out_hidden_size": 32, "intermediate_size": 48,
    }  # fmt: skip
    ends = {
        f"{what}_{end}_token": f"<|{word}_of_{what}|>"
        for what in ("image", "video") for end, word in (("start", "begin"), ("end", "end"))
    }  # fmt: skip
    words = tokenizer(image_token="<|image|>", video_token="<video>", **ends)
    own = {f"{name}_id": words.convert_tokens_to_ids(one) for name, one in ends.items()}
    config = getattr(hf, f"{kind}Config")(
        text_config={**language(), **heads, "vocab_size": len(words) + 2, **text},
        vision_config=seen | eyes, image_token_id=token("<|image|>"),
        video_token_id=token("<video>"), **own,
    )  # fmt: skip
    size = {"size": {"shortest_edge": 32 * 32 * 2, "longest_edge": 64 * 64 * 2}}
    squares = {"patch_size": 8, "merge_size": 2}
    processor = getattr(hf, f"{prefix}Processor")(
        getattr(hf, f"{prefix}ImageProcessor")(**size, **squares), words,
        getattr(hf, f"{prefix}VideoProcessor")(**squares), chat_template=GLM_CHAT,
    )  # fmt: skip
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor


@_twin
def glm4v() -> tuple[Any, Any]:
    return _glm("Glm4v", "Glm4v", {}, {})


@_twin
def glm46v() -> tuple[Any, Any]:
    kinds = {"model_type": "glm4v_text"}, {"model_type": "glm4v_vision"}
    return _glm("Glm46V", "Glm46V", *kinds)


@_twin
def glm4v_moe() -> tuple[Any, Any]:
    """As zai-org/GLM-4.5V, whose first layer is no mixture."""
    experts = {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "n_shared_experts": 1, "first_k_dense_replace": 1, "head_dim": 16, "n_group": 1,
        "topk_group": 1,
    }  # fmt: skip
    return _glm("Glm4vMoe", "Glm4v", experts, {})


@_twin
def glm_ocr() -> tuple[Any, Any]:
    return _glm("GlmOcr", "Glm46V", {"head_dim": 16}, {})


@_twin
def vipllava() -> tuple[Any, Any]:
    config = hf.VipLlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION), text_config=hf.LlamaConfig(**language()),
        image_token_index=token("<image>"), vision_feature_layer=[-1, -2, 1],
        image_seq_length=16,
    )  # fmt: skip
    square = {"size": {"shortest_edge": 32}, "crop_size": SQUARE}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(**square), tokenizer(), chat_template=LLAVA_CHAT, patch_size=8,
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    return hf.VipLlavaForConditionalGeneration(config), processor


def _gemma4(**text: Any) -> tuple[Any, Any]:
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    own = {
        "head_dim": 8, "global_head_dim": 16, "num_hidden_layers": 4, "layer_types": kinds,
        "sliding_window": 12, "vocab_size_per_layer_input": language()["vocab_size"],
    }  # fmt: skip
    eyes = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 4, "pooling_kernel_size": 2,
        "patch_size": 4, "position_embedding_size": 64, "standardize": True,
    }  # fmt: skip
    config = hf.Gemma4Config(
        text_config={**language(), **own, **text}, vision_config=eyes, audio_config=None,
        boi_token_id=token("<start_of_image>"), eoi_token_id=token("<end_of_image>"),
        image_token_id=token("<image_soft_token>"), video_token_id=token("<video>"),
        audio_token_id=token("<loc0000>"), tie_word_embeddings=False,
    )  # fmt: skip
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    names |= {"boa_token": "<loc0001>", "eoa_token": "<loc0002>", "audio_token": "<loc0000>"}
    squares = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = hf.Gemma4Processor(
        hf.Gemma4AudioFeatureExtractor(), hf.Gemma4ImageProcessor(**squares),
        tokenizer(**names, image_token="<image_soft_token>"), hf.Gemma4VideoProcessor(**squares),
        chat_template=first.GEMMA_CHAT.replace("<start_of_image>", "<image_soft_token>"),
        image_seq_length=70,
    )  # fmt: skip
    model = hf.Gemma4ForConditionalGeneration(config)
    model.model.vision_tower.std_bias.uniform_(-0.5, 0.5)
    model.model.vision_tower.std_scale.uniform_(0.5, 1.5)
    for layer in model.model.language_model.layers:
        layer.layer_scalar.fill_(0.9)
    return model, processor


@_twin
def gemma4() -> tuple[Any, Any]:
    """As the large ones are: attention both ways in pictures, values that are the keys."""
    return _gemma4(
        hidden_size_per_layer_input=0, attention_k_eq_v=True, num_global_key_value_heads=2,
        use_bidirectional_attention="vision",
    )  # fmt: skip


def gemma4_small(**text: Any) -> tuple[Any, Any]:
    """As E2B and E4B are: vectors of each layer for each token, keys shared by the last layers.

    tests/test_gemma4_small.py asks it, in double precision.
    """
    return _gemma4(hidden_size_per_layer_input=8, num_kv_shared_layers=2, **text)


@_twin
def granite_vision() -> tuple[Any, Any]:
    """IBM's Granite Vision 3: LLaVA-NeXT over several layers of SigLIP, into a Granite."""
    scaled = {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22}
    config = hf.LlavaNextConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.GraniteConfig(**language(), **scaled, attention_multiplier=0.125),
        image_token_index=token("<image>"), image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=[-3, -2, -1], vision_feature_select_strategy="full",
    )  # fmt: skip
    images = hf.LlavaNextImageProcessor(
        size=SQUARE, crop_size=SQUARE, image_grid_pinpoints=PINPOINTS, do_center_crop=False
    )
    processor = hf.LlavaNextProcessor(images, tokenizer(), chat_template=LLAVA_CHAT)
    return hf.LlavaNextForConditionalGeneration(config), processor


@_twin
def lfm2_vl() -> tuple[Any, Any]:
    config = hf.Lfm2VlConfig(
        text_config={**language(), "layer_types": ["conv", "full_attention", "conv"],
                     "block_auto_adjust_ff_dim": False},
        vision_config={**{k: v for k, v in VISION.items() if k != "image_size"},
                       "num_patches": 16, "vision_use_head": False},
        image_token_id=token("<image>"), downsample_factor=2, projector_hidden_size=40,
        tie_word_embeddings=False,
    )  # fmt: skip
    images = hf.Lfm2VlImageProcessor(
        encoder_patch_size=8,
        tile_size=64,
        min_image_tokens=4,
        max_image_tokens=16,
    )
    processor = hf.Lfm2VlProcessor(
        images, tokenizer(image_token="<image>"), chat_template=IDEFICS_CHAT
    )
    return hf.Lfm2VlForConditionalGeneration(config), processor


@_twin
def cosmos3_omni() -> tuple[Any, Any]:
    return first._qwen("Cosmos3Omni", first.DEEP)


@_twin
def exaone4_5() -> tuple[Any, Any]:
    eyes = {
        "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 8,
        "spatial_merge_size": 2, "out_hidden_size": 32, "window_size": 32,
        "fullatt_block_indexes": [1], "num_key_value_heads": 2,
    }  # fmt: skip
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    text = {"model_type": "exaone4", "head_dim": 8, "sliding_window": 8, "layer_types": kinds}
    config = hf.Exaone4_5_Config(
        text_config={**language(), **text}, vision_config=eyes,
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
    )  # fmt: skip
    images = hf.Qwen2VLImageProcessor(
        patch_size=8, merge_size=2, temporal_patch_size=2, min_pixels=32 * 32, max_pixels=64 * 64
    )
    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    processor = hf.Exaone4_5_Processor(
        images, tokenizer(**names), hf.Qwen2VLVideoProcessor(patch_size=8, merge_size=2),
        chat_template=QWEN_CHAT,
    )  # fmt: skip
    return hf.Exaone4_5_ForConditionalGeneration(config), processor


@_twin
def qianfan_ocr() -> tuple[Any, Any]:
    config = hf.QianfanOCRConfig(
        text_config={**language(), "model_type": "qwen3", "head_dim": 8},
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [8, 8]},
        image_token_id=token("<IMG_CONTEXT>"), image_seq_length=4, downsample_ratio=0.5,
    )  # fmt: skip
    names = {"start_image_token": "<img>", "end_image_token": "</img>"}
    processor = hf.QianfanOCRProcessor(
        hf.GotOcr2ImageProcessor(size=SQUARE, min_patches=1, max_patches=4),
        tokenizer(**names, context_image_token="<IMG_CONTEXT>"), image_seq_length=4,
        chat_template=INTERN_CHAT.replace("<IMG_CONTEXT>", "<image>"),
    )  # fmt: skip
    return hf.QianfanOCRForConditionalGeneration(config), processor


@_twin
def perception_lm() -> tuple[Any, Any]:
    eyes = {
        "architecture": "vit_pe_core_large_patch14_336", "do_pooling": False, "global_pool": "",
        "model_args": {
            "embed_dim": 24, "depth": 3, "num_heads": 2, "img_size": [32, 32], "patch_size": 8,
            "global_pool": "", "use_post_transformer_norm": False, "init_values": 0.1,
            "ref_feat_shape": (4, 4),
        },
    }  # fmt: skip
    config = hf.PerceptionLMConfig(
        vision_config=hf.TimmWrapperConfig(**eyes),
        text_config={**language(), "model_type": "llama"},
        projector_pooling_ratio=2, image_token_id=token("<|image|>"),
        video_token_id=token("<video>"), tie_word_embeddings=False,
    )  # fmt: skip
    tiled = {"tile_size": 32, "max_num_tiles": 4}
    processor = hf.PerceptionLMProcessor(
        hf.PerceptionLMVideoProcessor(size=SQUARE), hf.PerceptionLMImageProcessor(**tiled),
        tokenizer(image_token="<|image|>", video_token="<video>"), patch_size=8, pooling_ratio=2,
        chat_template=LLAVA_CHAT.replace("<image>", "<|image|>"),
    )  # fmt: skip
    return hf.PerceptionLMForConditionalGeneration(config), processor


@_twin
def ovis2() -> tuple[Any, Any]:
    names = {f"{one}_token": f"<IMG_{one.upper()}>" for one in
             ("atom", "start", "grid", "col", "row", "end")}  # fmt: skip
    words = tokenizer(**names)
    atom, *beside = words.convert_tokens_to_ids(list(names.values()))
    eyes = {
        "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 40,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 8, "hidden_stride": 2,
    }  # fmt: skip
    config = hf.Ovis2Config(
        text_config={**language(), "model_type": "qwen2", "vocab_size": len(words)},
        vision_config=eyes, hidden_size=32, image_token_id=atom, vocab_size=len(words),
        visual_indicator_token_ids=beside, tie_word_embeddings=False,
    )  # fmt: skip
    images = hf.Ovis2ImageProcessor(size=SQUARE, crop_to_patches=True, max_patches=4)
    processor = hf.Ovis2Processor(images, words, chat_template=IDEFICS_CHAT, image_seq_length=4)
    return hf.Ovis2ForConditionalGeneration(config), processor
