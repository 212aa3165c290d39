"""The encoders and the language model of LiMBeR as bare architectures: full size or tiny, random.

The tiny ones are of the same classes as the released parts, so that a test goes through the very
code that loads 24 GB: BeitModel, ModifiedResNet, timm's nf_resnet50, GPTJForCausalLM with more
embedding rows than words.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mmlens.runtime.seeding import seeded as drawing
from mmlens.towers.vision.wrap import HookedVision
from mmlens.values.optional_packages import package


def seeded(kind: str, seed: int) -> nn.Module:
    """The paper's architecture with random weights, without touching torch's global generator."""
    with drawing(seed):
        return _architecture(kind, tiny=False)


def _architecture(kind: str, tiny: bool) -> nn.Module:
    """BEiT-L, RN50x16 or NF-ResNet50; `tiny` keeps the class and shrinks the numbers."""
    if kind.startswith("beit"):
        from transformers import BeitConfig, BeitModel

        large: dict[str, Any] = {"hidden_size": 1024, "num_hidden_layers": 24}
        large |= {"num_attention_heads": 16, "intermediate_size": 4096}
        small: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "image_size": 32}
        small |= {"num_attention_heads": 3, "intermediate_size": 40, "patch_size": 8}
        bias = (
            "use_relative_position_bias"
            if kind == "beit-ft"
            else "use_shared_relative_position_bias"
        )
        size: dict[str, Any] = {**(small if tiny else large), bias: True}
        config = BeitConfig(**size)  # use_mean_pooling stays True: no norm after the last block
        return BeitModel(config, add_pooling_layer=False)
    if kind == "clip":
        resnet = package("open_clip", "vision").modified_resnet.ModifiedResNet
        if tiny:
            return resnet([1, 1, 1, 1], output_dim=16, heads=4, image_size=96, width=8)
        return resnet([6, 8, 18, 8], output_dim=768, heads=48, image_size=384, width=96)
    kwargs = {"width_factor": 0.125} if tiny else {}
    module: Any = package("timm", "vision").create_model("nf_resnet50", pretrained=False, **kwargs)
    module.mmlens_kwargs, module.mmlens_size = kwargs, 64 if tiny else 384
    return module


def tiny_encoder(kind: str, seed: int = 0) -> nn.Module:
    """A tiny encoder of the paper's class whose features depend on the picture.

    Zero initialisations and small layer scales, as released models are born with, are redrawn.
    """
    draw = torch.Generator().manual_seed(seed)
    module = _architecture(kind, tiny=True)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.dim() >= 2:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif parameter.dim() == 1 and key.endswith(("weight", "gain", "lambda_1", "lambda_2")):
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(0.1 * noise)
    return module.eval()


def tiny_gptj(seed: int = 0) -> Any:
    """A tiny GPT-J with spare embedding rows, as the released one has (50400 for 50257 words)."""
    from transformers import GPTJConfig, GPTJForCausalLM

    eos = words_of_twins().eos_token_id
    config = GPTJConfig(
        vocab_size=len(words_of_twins()) + 142,
        n_embd=32,
        n_layer=3,
        n_head=4,
        rotary_dim=4,
        n_positions=256,
        bos_token_id=eos,
        eos_token_id=eos,
        tie_word_embeddings=False,
    )
    draw = torch.Generator().manual_seed(seed + 1)
    model = GPTJForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.15)
    return model.eval()


def tiny_projection(encoder: Any, lm: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """A random `proj.ckpt`, names and all, in the bf16 that LiMBeR was trained in."""
    vision = encoder if isinstance(encoder, HookedVision) else None
    width = vision.d_vision if vision is not None else _width(encoder)
    draw = torch.Generator().manual_seed(seed + 2)
    weight = torch.randn(lm.config.hidden_size, width, generator=draw) * width**-0.5
    bias = torch.randn(lm.config.hidden_size, generator=draw) * 0.1
    return {"proj.weight": weight.bfloat16(), "proj.bias": bias.bfloat16()}


def _width(encoder: Any) -> int:
    if hasattr(encoder, "config"):
        return int(encoder.config.hidden_size)
    if hasattr(encoder, "layer4"):
        return encoder.layer4[-1].conv3.out_channels
    return int(encoder.num_features)


def words_of_twins() -> Any:
    """The toys' tokenizer: a few dozen words, EOS as padding."""
    from mmlens.families.toy import tokenizer

    return tokenizer()
