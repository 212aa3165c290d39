"""Tiny random twins of whole vision-language models, each with a real processor.

`twin(name)` gives (model, processor): a model of transformers with random weights that matter, and
the processor class of its checkpoints around a tokenizer of a few words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from mmlens.families import toy

SPECIAL = (
    *("<image>", "<video>", "<pad>", "<unk>", "<s>", "<eos>", "<|im_start|>", "<|im_end|>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<start_of_turn>"),
    *("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<img>", "</img>"),
    *(f"<row_{row}_col_{col}>" for row in range(1, 7) for col in range(1, 7)),
    *("<IMG_CONTEXT>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"),
    *("<image_placeholder>", "<begin_of_image>", "<|image start|>", "<|image end|>"),
    *("<|image token|>", "<|extra_200|>", "<|extra_201|>", "<racm3:break>", "<eoss>"),
    *(f"<|visual token {code:06d}|>" for code in range(16)),
    *("<end_of_turn>", "<loc0000>", "<loc0001>", "<loc0002>", "<seg000>", "<seg001>", "<seg002>"),
    *("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image|>", "<|python_tag|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
LLAVA_CHAT = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""The template of llava-hf/llava-1.5-7b-hf."""

QWEN_CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}"
    "{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What the template of Qwen/Qwen2-VL-7B-Instruct does, without its default system text."""

GEMMA_CHAT = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'][0]['text'] + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}"
    "{% set role = 'model' if message['role'] == 'assistant' else 'user' %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""The template of google/gemma-3-4b-it, for contents that are lists."""

IDEFICS_CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""The template of HuggingFaceTB/SmolVLM-Instruct."""
INTERN_CHAT = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The template of OpenGVLab/InternVL3-1B-hf."""

MISTRAL_CHAT = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    "[SYSTEM_PROMPT]{{ message['content'][0]['text'] }}[/SYSTEM_PROMPT]"
    "{% elif message['role'] == 'user' %}[INST]{% for block in message['content'] %}"
    "{% if block['type'] == 'text' %}{{ block['text'] }}{% else %}{{ '[IMG]' }}{% endif %}"
    "{% endfor %}[/INST]{% else %}{{ message['content'][0]['text'] + eos_token }}{% endif %}"
    "{% endfor %}"
)
"""The template of Mistral-Small-3.1, for contents that are lists, without its default text."""


MLLAMA_CHAT = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<|image|>' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}"
    "{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""The template of meta-llama/Llama-3.2-11B-Vision-Instruct, without tools and dates."""


@cache
def words() -> Any:
    """The toys' tokenizer, with the special tokens of every processor here."""
    tokenizer = toy.tokenizer.__wrapped__()
    tokenizer.add_tokens(list(SPECIAL), special_tokens=True)
    return tokenizer


def tokenizer(**extra: str) -> Any:
    """A tokenizer that names its special tokens as a processor asks for them."""
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=words().backend_tokenizer, eos_token="<eos>", bos_token="<s>",
        pad_token="<pad>", unk_token="<unk>", padding_side="left", extra_special_tokens=extra,
    )  # fmt: skip


def token(name: str) -> int:
    return words().convert_tokens_to_ids(name)


def language() -> dict[str, Any]:
    """The config of a small Llama, and of its relatives."""
    return {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "vocab_size": len(words()) + 2, "bos_token_id": token("<s>"),
        "eos_token_id": token("<eos>"), "pad_token_id": token("<pad>"),
        "tie_word_embeddings": False,
    }  # fmt: skip


VISION = {
    "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
}  # fmt: skip

TWINS: dict[str, Callable[[], tuple[Any, Any]]] = {}
CROSSING = ("mllama", "idefics")
"""Twins whose pictures are keys of cross-attention: tests/test_gated_crossing.py and
tests/test_interleaved.py ask these."""


MILD = {"gemma4": 0.06}
"""Twins with smaller weights. In Gemma 4 attention divides by nothing, and with larger ones the
class itself loses more to rounding than what is compared here."""
HALVED = ("qwen3_5", "qwen3_5_moe")
"""Twins whose language models have halved matrices: Qwen 3.5 sums its state in pieces that padding
shifts, with the same effect."""


def twin(name: str, std: float = 0.15) -> tuple[Any, Any]:
    """A model and its processor."""
    torch.manual_seed(0)
    model, processor = TWINS[name]()
    model = awake(model, MILD.get(name, std))
    with torch.no_grad():
        for weight in model.model.language_model.parameters() if name in HALVED else ():
            weight.mul_(0.5 if weight.dim() >= 2 else 1.0)
    return model, processor


@torch.no_grad()
def awake(model: Any, std: float) -> Any:
    """Every weight drawn so that it matters: also what its class begins with at 0 or 1."""
    draw = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        noise = torch.randn(weight.shape, generator=draw)
        weight.copy_(noise * std if weight.dim() >= 2 else weight + noise * 0.05)
    model.generation_config.pad_token_id = token("<pad>")
    return model.eval()


def photo(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """A smooth random picture."""
    noise = np.random.default_rng(seed).random((max(height // 4, 2), max(width // 4, 2), 3)) * 255
    small = Image.fromarray(noise.astype("uint8"))
    return small.resize((width, height), Image.Resampling.BILINEAR)


def _twin(make: Callable[[], tuple[Any, Any]]) -> Callable[[], tuple[Any, Any]]:
    TWINS[make.__name__] = make
    return make


@_twin
def llava() -> tuple[Any, Any]:
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**VISION), text_config=hf.LlamaConfig(**language()),
        image_token_index=token("<image>"), vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    square = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(**square), tokenizer(), chat_template=LLAVA_CHAT
    )  # no patch_size: older checkpoints have none
    return hf.LlavaForConditionalGeneration(config), processor


PINPOINTS = [[32, 64], [64, 32], [64, 64], [32, 96], [96, 32]]


@_twin
def llava_next() -> tuple[Any, Any]:
    config = hf.LlavaNextConfig(
        vision_config=hf.CLIPVisionConfig(**VISION), text_config=hf.LlamaConfig(**language()),
        image_token_index=token("<image>"), image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip
    square = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    images = hf.LlavaNextImageProcessor(**square, image_grid_pinpoints=PINPOINTS)
    processor = hf.LlavaNextProcessor(images, tokenizer(), chat_template=LLAVA_CHAT)
    return hf.LlavaNextForConditionalGeneration(config), processor


@_twin
def llava_onevision() -> tuple[Any, Any]:
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=hf.Qwen2Config(**language()),
        image_token_index=token("<image>"), video_token_index=token("<video>"),
        image_grid_pinpoints=PINPOINTS, vision_feature_layer=-1,
        vision_feature_select_strategy="full", vision_aspect_ratio="anyres_max_2",
    )  # fmt: skip
    square = {"height": 32, "width": 32}
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=PINPOINTS), tokenizer(),
        hf.LlavaOnevisionVideoProcessor(size=square), num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=LLAVA_CHAT,
    )  # fmt: skip
    return hf.LlavaOnevisionForConditionalGeneration(config), processor


def _qwen(kind: str, eyes: dict[str, Any], **text: Any) -> tuple[Any, Any]:
    sections = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = getattr(hf, f"{kind}Config")(
        text_config={**language(), "rope_parameters": sections, **text}, vision_config=eyes,
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )  # fmt: skip
    images = hf.Qwen2VLImageProcessor(
        patch_size=8, merge_size=2, temporal_patch_size=2, min_pixels=32 * 32, max_pixels=64 * 64
    )
    film = hf.Qwen2VLVideoProcessor if kind.startswith("Qwen2") else hf.Qwen3VLVideoProcessor
    videos = film(patch_size=8, merge_size=2)
    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    own = "Qwen3VL" if kind == "Cosmos3Omni" else kind.removesuffix("Moe")
    processor = getattr(hf, f"{own}Processor")(
        images, tokenizer(**names), videos, chat_template=QWEN_CHAT
    )
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor


@_twin
def qwen2_vl() -> tuple[Any, Any]:
    eyes = {
        "depth": 3, "embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 4,
        "patch_size": 8, "spatial_merge_size": 2,
    }  # fmt: skip
    return _qwen("Qwen2VL", eyes)


@_twin
def qwen2_5_vl() -> tuple[Any, Any]:
    eyes = {
        "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 8,
        "spatial_merge_size": 2, "out_hidden_size": 32, "window_size": 32,
        "fullatt_block_indexes": [1],
    }  # fmt: skip
    return _qwen("Qwen2_5_VL", eyes)


DEEP = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 8,
    "spatial_merge_size": 2, "out_hidden_size": 32, "deepstack_visual_indexes": [0, 1],
    "num_position_embeddings": 16,
}  # fmt: skip


@_twin
def qwen3_vl() -> tuple[Any, Any]:
    return _qwen("Qwen3VL", DEEP)


@_twin
def qwen3_vl_moe() -> tuple[Any, Any]:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    return _qwen("Qwen3VLMoe", DEEP, head_dim=8, **experts)


@_twin
def gemma3() -> tuple[Any, Any]:
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    text = {"head_dim": 8, "sliding_window": 4, "layer_types": kinds, "query_pre_attn_scalar": 8}
    config = hf.Gemma3Config(
        text_config={**language(), **text}, vision_config={**VISION, "vision_use_head": False},
        mm_tokens_per_image=4, boi_token_index=token("<start_of_image>"),
        eoi_token_index=token("<end_of_image>"), image_token_index=token("<image_soft_token>"),
    )  # fmt: skip
    names = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    words = tokenizer(**names, image_token="<image_soft_token>")
    images = hf.Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = hf.Gemma3Processor(images, words, chat_template=GEMMA_CHAT, image_seq_length=4)
    return hf.Gemma3ForConditionalGeneration(config), processor


@_twin
def paligemma() -> tuple[Any, Any]:
    eyes = {**VISION, "vision_use_head": False, "model_type": "siglip_vision_model"}
    config = hf.PaliGemmaConfig(
        text_config={**language(), "head_dim": 8, "model_type": "gemma"}, vision_config=eyes,
        image_token_index=token("<image>"), projection_dim=32, hidden_size=32,
    )  # fmt: skip
    images = hf.SiglipImageProcessor(size={"height": 32, "width": 32})
    images.image_seq_length = 16
    processor = hf.PaliGemmaProcessor(images, tokenizer(image_token="<image>"))
    return hf.PaliGemmaForConditionalGeneration(config), processor


def _tiled(kind: str, **more: Any) -> tuple[Any, Any]:
    config = getattr(hf, f"{kind}Config")(
        text_config={**language(), "model_type": "llama"}, vision_config=dict(VISION),
        scale_factor=2, image_token_id=token("<image>"),
    )  # fmt: skip
    images = getattr(hf, f"{kind}ImageProcessor")(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
    )
    processor = getattr(hf, f"{kind}Processor")(
        images, tokenizer(), image_seq_len=4, chat_template=IDEFICS_CHAT, **more
    )
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor


@_twin
def idefics3() -> tuple[Any, Any]:
    return _tiled("Idefics3")


@_twin
def idefics2() -> tuple[Any, Any]:
    perceiver = {
        "hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1,
        "resampler_n_heads": 4, "resampler_head_dim": 8, "num_key_value_heads": 2,
    }  # fmt: skip
    config = hf.Idefics2Config(
        text_config={**language(), "head_dim": 8, "model_type": "mistral"},
        vision_config=dict(VISION), perceiver_config=perceiver, image_token_id=token("<image>"),
    )  # fmt: skip
    images = hf.Idefics2ImageProcessor(
        size={"shortest_edge": 24, "longest_edge": 32}, do_image_splitting=False
    )
    processor = hf.Idefics2Processor(
        images, tokenizer(), image_seq_len=4, chat_template=IDEFICS_CHAT
    )
    return hf.Idefics2ForConditionalGeneration(config), processor


@_twin
def smolvlm() -> tuple[Any, Any]:
    pytest.importorskip("num2words")
    return _tiled("SmolVLM", video_processor=hf.SmolVLMVideoProcessor(size={"longest_edge": 32}))


@_twin
def internvl() -> tuple[Any, Any]:
    config = hf.InternVLConfig(
        text_config={**language(), "model_type": "qwen2"},
        vision_config={**VISION, "image_size": [32, 32], "patch_size": [8, 8]},
        image_token_id=token("<IMG_CONTEXT>"), image_seq_length=4, downsample_ratio=0.5,
    )  # fmt: skip
    names = {"start_image_token": "<img>", "end_image_token": "</img>"}
    names |= {"context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    square = {"height": 32, "width": 32}
    processor = hf.InternVLProcessor(
        hf.GotOcr2ImageProcessor(size=square, min_patches=1, max_patches=4), tokenizer(**names),
        hf.InternVLVideoProcessor(size=square), image_seq_length=4, chat_template=INTERN_CHAT,
    )  # fmt: skip
    return hf.InternVLForConditionalGeneration(config), processor


def _pixtral(merge: int) -> Any:
    marks = ("image_token", "[IMG]"), ("image_break_token", "[IMG_BREAK]")
    return hf.PixtralProcessor(
        hf.PixtralImageProcessor(size={"longest_edge": 64}, patch_size=8), tokenizer(),
        patch_size=8, spatial_merge_size=merge, chat_template=MISTRAL_CHAT, **dict(marks),
    )  # fmt: skip


@_twin
def mistral3() -> tuple[Any, Any]:
    config = hf.Mistral3Config(
        text_config={**language(), "head_dim": 8, "model_type": "mistral"},
        vision_config={**VISION, "model_type": "pixtral"}, image_token_index=token("[IMG]"),
        spatial_merge_size=2, vision_feature_layer=-1,
    )  # fmt: skip
    return hf.Mistral3ForConditionalGeneration(config), _pixtral(2)


@_twin
def pixtral() -> tuple[Any, Any]:
    config = hf.LlavaConfig(
        text_config={**language(), "head_dim": 8, "model_type": "mistral"},
        vision_config={**VISION, "model_type": "pixtral"}, image_token_index=token("[IMG]"),
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    return hf.LlavaForConditionalGeneration(config), _pixtral(1)


@_twin
def mllama() -> tuple[Any, Any]:
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    ratios = [[rows, cols] for rows in range(1, 5) for cols in range(1, 5) if rows * cols <= 4]
    config = hf.MllamaConfig(
        text_config={**language(), "cross_attention_layers": [1], "rope_parameters": rope},
        vision_config={
            "hidden_size": 32, "num_hidden_layers": 2, "num_global_layers": 1,
            "attention_heads": 4, "intermediate_size": 48, "vision_output_dim": 64,
            "image_size": 32, "patch_size": 8, "intermediate_layers_indices": [0],
            "supported_aspect_ratios": ratios, "max_num_tiles": 4,
        },
        image_token_index=token("<|image|>"),
    )  # fmt: skip
    images = hf.MllamaImageProcessor(size={"height": 32, "width": 32}, max_image_tiles=4)
    processor = hf.MllamaProcessor(images, tokenizer(), chat_template=MLLAMA_CHAT)
    return hf.MllamaForConditionalGeneration(config), processor


@_twin
def idefics() -> tuple[Any, Any]:
    text = {k: v for k, v in language().items() if k != "num_key_value_heads"}
    eyes = {
        "embed_dim": 24, "image_size": 32, "patch_size": 8, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2,
    }  # fmt: skip
    perceiver = {
        "use_resampler": True, "resampler_n_latents": 4, "resampler_depth": 1,
        "resampler_n_heads": 2, "resampler_head_dim": 8, "qk_layer_norms_perceiver": True,
    }  # fmt: skip
    config = hf.IdeficsConfig(
        **{**text, "vocab_size": len(words()) - 2, "num_hidden_layers": 4}, additional_vocab_size=4,
        cross_layer_interval=2, qk_layer_norms=True, use_resampler=True, alpha_initializer="ones",
        vision_config=eyes, perceiver_config=perceiver,
    )  # fmt: skip
    images = hf.IdeficsImageProcessor(image_size=32)
    processor = hf.IdeficsProcessor(images, tokenizer(), chat_template=IDEFICS_CHAT)
    return hf.IdeficsForVisionText2Text(config), processor


@_twin
def janus() -> tuple[Any, Any]:
    eyes = {k: VISION[k] for k in ("num_hidden_layers", "num_attention_heads", "hidden_size")}
    eyes |= {"image_size": 32, "patch_size": 8, "mlp_ratio": 2.0, "projection_dim": 32, "depth": 2}
    codes = {
        "embed_dim": 8, "num_embeddings": 8, "latent_channels": 8, "num_patches": 4,
        "base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1,
        "projection_dim": 32, "image_token_embed_dim": 32, "num_hidden_layers": 1,
    }  # fmt: skip
    config = hf.JanusConfig(
        text_config={**language(), "model_type": "llama"}, vq_config=codes,
        vision_config={**eyes, "num_image_tokens": 16}, image_token_id=token("<image_placeholder>"),
    )  # fmt: skip
    names = {"boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    processor = hf.JanusProcessor(
        hf.JanusImageProcessor(size={"height": 32, "width": 32}),
        tokenizer(**names, image_token="<image_placeholder>"), num_image_tokens=16,
    )  # fmt: skip
    return hf.JanusForConditionalGeneration(config), processor


@_twin
def emu3() -> tuple[Any, Any]:
    codes = [f"<|visual token {code:06d}|>" for code in range(16)]
    known = {name: token(name) for name in (*codes, "<|extra_200|>", "<image>")}
    vq = {
        "codebook_size": 16, "embed_dim": 4, "latent_channels": 4, "base_channels": 32,
        "channel_multiplier": [1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": [],
        "hidden_size": 32, "num_attention_heads": 1, "double_latent": False,
        "temporal_downsample_factor": 2,
    }  # fmt: skip
    config = hf.Emu3Config(text_config=language(), vq_config=vq, vocabulary_map=known)
    names = {"boi_token": "<|image start|>", "eoi_token": "<|image end|>"}
    names |= {"image_wrapper_token": "<|image token|>", "eof_token": "<|extra_201|>"}
    images = hf.Emu3ImageProcessor(min_pixels=32 * 32, max_pixels=48 * 48, spatial_factor=8)
    processor = hf.Emu3Processor(images, tokenizer(**names, image_token="<image>"))
    return hf.Emu3ForConditionalGeneration(config), processor


@_twin
def chameleon() -> tuple[Any, Any]:
    codes = {
        f"IMGIMG{letter}Z": token(f"<|visual token {code:06d}|>")
        for code, letter in enumerate("ABCDEFGH")
    }
    vq = {
        "embed_dim": 8, "num_embeddings": 8, "latent_channels": 8, "resolution": 32,
        "base_channels": 32, "channel_multiplier": [1, 1, 1, 1], "num_res_blocks": 1,
    }  # fmt: skip
    known = {**codes, "<image>": token("<image>")}
    config = hf.ChameleonConfig(**language(), vq_config=vq, vocabulary_map=known)
    images = hf.ChameleonImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    text = tokenizer(image_token="<image>", boi_token="<racm3:break>", eoi_token="<eoss>")
    text.add_special_tokens({"sep_token": "<|extra_201|>"})
    return hf.ChameleonForConditionalGeneration(config), hf.ChameleonProcessor(images, text)


def _queries(kind: str, text: dict[str, Any], *tokenizers: Any) -> tuple[Any, Any]:
    former = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "encoder_hidden_size": 24, "cross_attention_frequency": 1,
        "vocab_size": len(words()) + 2,
    }  # fmt: skip
    config = getattr(hf, f"{kind}Config")(
        vision_config=dict(VISION), qformer_config=former, text_config=text, num_query_tokens=4,
        image_token_index=token("<image>"),
    )  # fmt: skip
    images = hf.BlipImageProcessor(size={"height": 32, "width": 32})
    processor = getattr(hf, f"{kind}Processor")(
        images, tokenizer(), *tokenizers, num_query_tokens=4
    )
    return getattr(hf, f"{kind}ForConditionalGeneration")(config), processor


@_twin
def blip2() -> tuple[Any, Any]:
    text = {**language(), "model_type": "opt", "ffn_dim": 64, "word_embed_proj_dim": 32}
    return _queries("Blip2", text)


@_twin
def instructblip() -> tuple[Any, Any]:
    return _queries("InstructBlip", {**language(), "model_type": "llama"}, tokenizer())


import newer_twins  # noqa: E402, F401  (it adds its own to TWINS)
