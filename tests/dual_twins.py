"""Tiny random twins of dual encoders, by library and architecture.

`DUALS` maps a name to a function that makes one: (model, preprocess, tokenizer). Each is drawn wide
awake (`encoders.shake`), so that every part matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from encoders import shake
from torch import nn

WORDS = [
    *("a", "photo", "of", "dog", "cat", "two", "cats", "red", "banana", "the", "picture"),
    *("drawing", "word", "is"),
]
TEXTS = ["a photo of a dog", "two cats"]
VIT = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 3, "head_width": 12}
TEXT = {"context_length": 12, "vocab_size": 32, "width": 24, "heads": 2, "layers": 3}


def words(pad: str = "[PAD]", eos: str = "[EOS]", bos: str | None = "[BOS]") -> Any:
    """A tokenizer of transformers that knows a few words, with the given special tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys([pad, "[UNK]", *([bos] if bos else []), *WORDS, eos]))
    vocabulary = {word: number for number, word in enumerate(special)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    start = f"{bos} " if bos else ""
    known = [(one, vocabulary[one]) for one in (bos, eos) if one]
    tokenizer.post_processor = processors.TemplateProcessing(f"{start}$A {eos}", None, known)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=eos, bos_token=bos or eos,
        unk_token="[UNK]",
    )  # fmt: skip


class OpenClipWords:
    """As open_clip's own tokenizer: begins with BOS, ends with EOS (the largest id), then zeros."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.names = ["[0]", *WORDS, *(f"[{n}]" for n in range(len(WORDS) + 1, 30)), "<s>", "</s>"]

    def __call__(self, texts: list[str]) -> torch.Tensor:
        out = torch.zeros(len(texts), self.length, dtype=torch.long)
        for row, text in zip(out, texts, strict=True):
            ids = [30, *(1 + WORDS.index(word) for word in text.split()), 31]
            row[: len(ids)] = torch.tensor(ids)
        return out

    def decode(self, ids: list[int]) -> str:
        return "".join(self.names[number] for number in ids)


def open_clip_twin(
    vision: dict[str, Any], text: dict[str, Any] | None = None, cls: str = "CLIP", **more: Any
) -> tuple[nn.Module, None, OpenClipWords]:
    import open_clip

    text = TEXT | (text or {})
    kind = {"CLIP": open_clip.CLIP, "CustomTextCLIP": open_clip.CustomTextCLIP,
            "CoCa": open_clip.CoCa}[cls]  # fmt: skip
    model = kind(embed_dim=16, vision_cfg=vision, text_cfg=text, **more)
    return shake(model), None, OpenClipWords(text["context_length"])


def siglip_like() -> tuple[nn.Module, None, OpenClipWords]:
    """A timm trunk with a map head, texts without a causal mask, a bias: SigLIP in open_clip."""
    vision = {
        "image_size": 32, "timm_model_name": "vit_tiny_patch16_224", "timm_pool": "map",
        "timm_proj": "none", "timm_model_pretrained": False,
    }  # fmt: skip
    text = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    import timm

    small = {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8}
    made = timm.create_model

    def tiny(name: str, **options: Any) -> Any:
        return made(name, **options, **small)

    timm.create_model = tiny
    try:
        return open_clip_twin(vision, text, "CustomTextCLIP", init_logit_bias=-1.0)
    finally:
        timm.create_model = made


RESNET = {"image_size": 64, "patch_size": None, "width": 8, "layers": [1, 1, 1, 1]}


def hf_clip() -> tuple[Any, None, Any]:
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
             "num_attention_heads": 2}  # fmt: skip
    tokenizer = words()
    text = {**tower, "vocab_size": 32, "max_position_embeddings": 12,
            "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id,
            "pad_token_id": 0}  # fmt: skip
    config = CLIPConfig(
        text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )  # fmt: skip
    return shake(CLIPModel(config)), None, tokenizer


def hf_siglip() -> tuple[Any, None, Any]:
    from transformers import SiglipConfig, SiglipModel

    tower = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3,
             "num_attention_heads": 2}  # fmt: skip
    tokenizer = words(pad="[EOS]", bos=None)
    text = {**tower, "vocab_size": 32, "max_position_embeddings": 12, "projection_size": 24}
    config = SiglipConfig(
        text_config=text, vision_config={**tower, "image_size": 32, "patch_size": 8}
    )
    return shake(SiglipModel(config)), None, tokenizer


TOWER = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 2
}  # fmt: skip
EYE = {**TOWER, "image_size": 32, "patch_size": 8}


def hf_metaclip() -> tuple[Any, None, Any]:
    from transformers import MetaClip2Config, MetaClip2Model

    tokenizer = words()
    text = {**TOWER, "vocab_size": 32, "max_position_embeddings": 12,
            "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    config = MetaClip2Config(text_config=text, vision_config=EYE, projection_dim=16)
    return shake(MetaClip2Model(config)), None, tokenizer


def hf_altclip() -> tuple[Any, None, Any]:
    """RoBERTa reads the texts: it normalises after adding, and counts positions after padding."""
    from transformers import AltCLIPConfig, AltCLIPModel

    text = {**TOWER, "vocab_size": 32, "max_position_embeddings": 14, "project_dim": 20,
            "pad_token_id": 0, "type_vocab_size": 1}  # fmt: skip
    config = AltCLIPConfig(text_config=text, vision_config=EYE, projection_dim=16)
    return shake(AltCLIPModel(config)), None, words()


def hf_chinese_clip() -> tuple[Any, None, Any]:
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    text = {**TOWER, "vocab_size": 32, "max_position_embeddings": 12, "pad_token_id": 0}
    config = ChineseCLIPConfig(text_config=text, vision_config=EYE, projection_dim=16)
    return shake(ChineseCLIPModel(config)), None, words()


def hf_flava(heads: bool = False) -> tuple[Any, None, Any]:
    """BERT's names, normalised before adding; a third encoder beside, which reads both.

    Args:
        heads: whether it is a FlavaForPreTraining.
    """
    from transformers import FlavaConfig, FlavaForPreTraining, FlavaModel

    rest = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    text = {**TOWER, **rest, "vocab_size": 32, "max_position_embeddings": 12, "pad_token_id": 0}
    config = FlavaConfig(
        text_config=text, image_config={**EYE, **rest}, hidden_size=24, projection_dim=16,
        multimodal_config={**TOWER, **rest, "num_hidden_layers": 2}, init_codebook=False,
    )  # fmt: skip
    tokenizer = words(bos="[CLS]", eos="[SEP]")
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    return shake((FlavaForPreTraining if heads else FlavaModel)(config)), None, tokenizer


def hf_siglip2() -> tuple[Any, None, Any]:
    """The variable-resolution class (NaFlex): pictures are cut into patches before it reads them.

    Checkpoints of SigLIP 2 with a fixed resolution are a SiglipModel.
    """
    from transformers import Siglip2Config, Siglip2Model

    tokenizer = words(pad="[EOS]", bos=None)
    text = {**TOWER, "vocab_size": 32, "max_position_embeddings": 12, "projection_size": 24}
    vision = {**TOWER, "num_patches": 16, "patch_size": 8}
    return (
        shake(Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))),
        None,
        tokenizer,
    )


def pe_core() -> tuple[nn.Module, None, OpenClipWords]:
    """PE-Core as open_clip has it: a timm trunk with rotations, a CLS token and a map head."""
    timm = pytest.importorskip("timm")
    if not timm.is_model("vit_pe_core_tiny_patch16_384"):
        pytest.skip("timm 1.0.17 has no PE-Core of this size")
    made = timm.create_model

    def tiny(name: str, **options: Any) -> Any:
        return made(
            name, **(options | {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2})
        )

    vision = {"image_size": 64, "timm_model_name": "vit_pe_core_tiny_patch16_384",
              "timm_pool": "map", "timm_proj": None, "timm_model_pretrained": False}  # fmt: skip
    timm.create_model = tiny
    try:
        return open_clip_twin(vision, None, "CustomTextCLIP")
    finally:
        timm.create_model = made


def timm_clip(name: str, size: int = 64, **more: Any) -> tuple[nn.Module, None, OpenClipWords]:
    """A tiny timm net as the image encoder of open_clip's CLIP, as pictos-clip's."""
    import timm

    made = timm.create_model

    def tiny(_: str, **options: Any) -> Any:
        return made(name, **(options | more))

    vision = {"image_size": size, "timm_model_name": name, "timm_pool": "avg",
              "timm_proj": "linear", "timm_model_pretrained": False}  # fmt: skip
    timm.create_model = tiny
    try:
        return open_clip_twin(vision)
    finally:
        timm.create_model = made


DUALS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "open_clip ViT": lambda: open_clip_twin(VIT),
    "open_clip ResNet": lambda: open_clip_twin(RESNET),
    "open_clip SigLIP": siglip_like,
    "open_clip CoCa": lambda: open_clip_twin(
        VIT | {"attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True},
        {"embed_cls": True, "output_tokens": True},
        "CoCa",
        multimodal_cfg={"context_length": 12, "vocab_size": 32, "width": 24, "heads": 2,
                        "layers": 1, "attn_pooler_heads": 2},
    ),
    "transformers CLIP": hf_clip,
    "transformers SigLIP": hf_siglip,
}  # fmt: skip
MORE: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "MetaCLIP 2": hf_metaclip,
    "AltCLIP": hf_altclip,
    "Chinese CLIP": hf_chinese_clip,
    "SigLIP 2 NaFlex": hf_siglip2,
    "FLAVA": hf_flava,
    "PE-Core": pe_core,
    "ConvNeXt": lambda: timm_clip("convnext_atto", dims=(8, 8, 16, 16), depths=(1, 1, 1, 1)),
    "EVA02": lambda: timm_clip("eva02_tiny_patch14_224", 56, img_size=56, embed_dim=24,
                               depth=2, num_heads=2),
    "MobileCLIP": lambda: timm_clip("fastvit_mci0", embed_dims=(8, 8, 16, 32),
                                    layers=(1, 1, 1, 1)),
    "EfficientNet": lambda: timm_clip("efficientnet_lite0"),
}  # fmt: skip
