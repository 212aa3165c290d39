"""Tiny diffusion models of diffusers with random weights and real schedulers."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

PROMPT = "a dog and a cat"
WORDS = ["<start>", "<end>", *["a", "an", "and", "dog", "cat", "ball", "red", "blue", "on", "the"]]


def words(length: int = 8, kind: str = "clip") -> Any:
    """A tokenizer of whole words that pads with its end token, as CLIP's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<end>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<start>", eos_token="<end>", pad_token="<end>",
        unk_token="<end>", model_max_length=length,
    )  # fmt: skip


def wake(module: Any, seed: int = 0, std: float = 0.2) -> Any:
    """Weights large enough that words and units matter."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            parameter.data = noise * (std if "embed" in name else parameter[0].numel() ** -0.5)
        elif "bias" in name:
            parameter.data = noise * 0.05
    return module.eval()


def _text(projection: int = 0) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=8, projection_dim=projection or 16,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return wake((CLIPTextModelWithProjection if projection else CLIPTextModel)(config), 1)


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return wake(
        AutoencoderKL(
            block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, sample_size=16,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        2,
    )  # fmt: skip


def _unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return wake(
        UNet2DConditionModel(
            **{
                "sample_size": 8, "block_out_channels": (16, 32), "layers_per_block": 1,
                "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
                "cross_attention_dim": 16, "attention_head_dim": 2, "norm_num_groups": 8, **more,
            }
        )
    )  # fmt: skip


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(clip_sample=False, beta_schedule="scaled_linear", steps_offset=1)


@cache
def stable_diffusion() -> Any:
    """StableDiffusionPipeline: latents 8 x 8, four blocks on grids of 8 x 8 and 4 x 4."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=_vae(), text_encoder=_text(), tokenizer=words(), unet=_unet(), scheduler=_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


@cache
def stable_diffusion_xl() -> Any:
    """StableDiffusionXLPipeline: two text encoders, pooled words and sizes beside them."""
    from diffusers import StableDiffusionXLPipeline

    unet = _unet(
        cross_attention_dim=32, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 16, use_linear_projection=True,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=_vae(), text_encoder=_text(), text_encoder_2=_text(16), tokenizer=words(),
        tokenizer_2=words(), unet=unet, scheduler=_scheduler(), add_watermarker=False,
    )  # fmt: skip


@cache
def pixart() -> Any:
    """PixArtAlphaPipeline: squares of 2 x 2 latents, gates behind attention and MLP, a mask."""
    from diffusers import PixArtAlphaPipeline, PixArtTransformer2DModel
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        pad_token_id=1,
    )  # fmt: skip
    transformer = PixArtTransformer2DModel(
        sample_size=8, in_channels=4, out_channels=8, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, cross_attention_dim=16, caption_channels=16, norm_num_groups=4,
    )  # fmt: skip
    return PixArtAlphaPipeline(
        vae=_vae(), text_encoder=wake(T5EncoderModel(config), 1), tokenizer=words(120),
        transformer=wake(transformer), scheduler=_scheduler(),
    )  # fmt: skip


@cache
def stable_audio() -> Any:
    """StableAudioPipeline: latents of 16 moments, two blocks with a gated MLP (SwiGLU)."""
    from diffusers import (
        AutoencoderOobleck,
        EDMDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
    )
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel
    from transformers import T5Config, T5EncoderModel

    vae = AutoencoderOobleck(
        encoder_hidden_size=8, downsampling_ratios=[2, 2], channel_multiples=[1, 2],
        decoder_channels=8, decoder_input_channels=4, audio_channels=2, sampling_rate=16,
    )  # fmt: skip
    config = T5Config(
        vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        pad_token_id=1,
    )  # fmt: skip
    transformer = StableAudioDiTModel(
        sample_size=16, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=4, num_key_value_attention_heads=2, cross_attention_dim=16,
        time_proj_dim=16, global_states_input_dim=32, cross_attention_input_dim=16,
    )  # fmt: skip
    scheduler = EDMDPMSolverMultistepScheduler(
        sigma_min=0.3, sigma_max=500, sigma_data=1.0, prediction_type="v_prediction"
    )
    return StableAudioPipeline(
        vae=wake(vae, 2), text_encoder=wake(T5EncoderModel(config), 1), tokenizer=words(),
        projection_model=wake(StableAudioProjectionModel(16, 16, 0, 8), 3),
        transformer=wake(transformer), scheduler=scheduler,
    )  # fmt: skip


def stable_diffusion_3() -> Any:
    """The transformer of Stable Diffusion 3: joint attention in both blocks."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
        attention_head_dim=8, num_attention_heads=2, caption_projection_dim=16,
        joint_attention_dim=16, pooled_projection_dim=16, pos_embed_max_size=8,
    )  # fmt: skip


def flux() -> Any:
    """The transformer of FLUX: one block with two streams, and one with a single one."""
    from diffusers import FluxTransformer2DModel

    return FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=16, pooled_projection_dim=16,
        axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
