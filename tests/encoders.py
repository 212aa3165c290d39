"""A tiny random twin of every class of vision encoder that `wrap_vision` may meet, by library.

`ENCODERS` maps a name to a function that makes one: a module and what is handed over as its
preprocessing. Weights are drawn wide awake (`shake`): layer scales, biases and tables that start
at zero are not zero, so that a part that is left out shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def shake(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights large enough that every part matters (zero inits and 1e-5 layer scales included)."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            scale = 0.3 if p.dim() < 2 else 1.0 / max(1, p[0].numel()) ** 0.5
            noise = torch.randn(p.shape, generator=draw) * scale
            one = p.dim() == 1 and name.endswith(
                ("weight", "gamma", "lambda1", "gamma_1", "gamma_2", "scale", "gain")
            )
            p.copy_(noise + 1.0 if one or "lambda_" in name else noise)
        for name, b in module.named_buffers():
            if name.endswith("running_mean"):
                b.copy_(torch.randn(b.shape, generator=draw) * 0.1)
    return module.eval()


Twin = Callable[[], tuple[Any, Any]]
TINY = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
}
"""The names that most configs of transformers share."""
STAGES = {"image_size": 32, "num_channels": 3}


@contextmanager
def undrawn() -> Iterator[None]:
    """Inside, modules are made without drawing weights that `shake` draws anyway."""
    names = ("normal_", "uniform_", "erfinv_", "trunc_normal_")
    kept = {name: vars(torch.Tensor).get(name) for name in names}
    for name in names:
        setattr(torch.Tensor, name, lambda self, *args, **kwargs: self.zero_())
    try:
        yield
    finally:
        for name, method in kept.items():
            delattr(torch.Tensor, name) if method is None else setattr(torch.Tensor, name, method)


def settle(module: nn.Module, run: Callable[[torch.Tensor], Any], size: Any) -> nn.Module:
    """Batch norms that have seen pictures, as trained ones have: else all signal drowns."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    high, wide = (size, size) if isinstance(size, int) else size
    if norms:
        for norm in norms:
            norm.train().momentum = 1.0
        with torch.no_grad():
            run(torch.randn(8, 3, high, wide, generator=torch.Generator().manual_seed(5)))
    return module.eval()


def _hf(cls: str, prepared: Any = None, **config: Any) -> Twin:
    def make() -> tuple[Any, Any]:
        import transformers

        found = getattr(transformers, cls)
        module: Any = shake(found(found.config_class(**config)))
        size = (prepared or config).get("image_size", 32)
        return settle(module, lambda x: module(pixel_values=x), size), prepared

    return make


def _inside(path: str, config: str, cls: str, prepared: Any = None, **settings: Any) -> Twin:
    """A class that transformers does not export: the vision part of a larger model."""

    def make() -> tuple[Any, Any]:
        import importlib

        home = importlib.import_module(f"transformers.models.{path}")
        found = importlib.import_module(
            f"transformers.models.{path.split('.')[0]}.configuration_{path.split('.')[0]}"
        )
        return shake(getattr(home, cls)(getattr(found, config)(**settings))), prepared

    return make


def _wrapper(architecture: str, size: int, **arguments: Any) -> Twin:
    """A timm model inside of transformers."""

    def make() -> tuple[Any, Any]:
        import transformers

        arguments["img_size"] = size
        config = transformers.TimmWrapperConfig(architecture=architecture, model_args=arguments)
        try:
            with undrawn():
                made = transformers.TimmWrapperModel(config)
        except TypeError as error:
            raise ImportError(f"none with arguments of its own: {error}") from error
        return shake(made), {"input_size": (3, size, size)}

    return make


def _like(cls: str, *without: str, **more: Any) -> Twin:
    settings = {key: value for key, value in TINY.items() if key not in without}
    return _hf(cls, **{**settings, **more})


def _whole(cls: str) -> Twin:
    """A model of pictures and words: its vision part is what is wrapped."""
    words = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1}
    words |= {"num_attention_heads": 3, "vocab_size": 99, "max_position_embeddings": 8}
    return _hf(cls, vision_config=TINY, text_config=words)


def _timm(name: str, size: int | None = None, **kwargs: Any) -> Twin:
    def make() -> tuple[Any, Any]:
        import timm

        with undrawn():
            made = timm.create_model(name, num_classes=0, **kwargs)
        module: Any = shake(made)
        prepared = {"image_size": size} if size else None
        settle(module, module.forward_features, size or kwargs.get("img_size"))
        return module, prepared

    return make


def _trunk(name: str, size: int, **kwargs: Any) -> Twin:
    """open_clip's tower around a timm model; its picture size is the tower's `image_size`."""

    def make() -> tuple[Any, Any]:
        from open_clip.timm_model import TimmModel

        with undrawn():
            made = TimmModel(name, 16, image_size=size, pool="", proj="linear", pretrained=False)
        tower: Any = shake(made)
        return settle(tower, tower.trunk.forward_features, size), None

    def small() -> tuple[Any, Any]:
        import timm

        create = timm.create_model
        timm.create_model = lambda *a, **k: create(*a, **{**k, **kwargs})
        try:
            return make()
        finally:
            timm.create_model = create

    return small


def _clip(cls: str = "CLIP", quick: bool = False, **vision: Any) -> Twin:
    def make() -> tuple[Any, Any]:
        import open_clip

        cfg: dict[str, Any] = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2}
        cfg |= {"head_width": 8} | vision
        text = {"context_length": 8, "vocab_size": 49, "width": 16, "heads": 2, "layers": 1}
        if cls == "CoCa":
            mixed = {"width": 16, "heads": 2, "layers": 1, "mlp_ratio": 2}
            module: Any = open_clip.coca_model.CoCa(16, mixed, text, cfg)
        else:
            module = open_clip.model.CLIP(16, cfg, text, quick_gelu=quick)
        return settle(shake(module), module.encode_image, cfg["image_size"]), None

    return make


VIT = {"depth": 2, "embed_dim": 24, "num_heads": 3}
QWEN = {"depth": 1, "hidden_size": 32, "intermediate_size": 40, "num_heads": 2, "patch_size": 8}
QWEN |= {"out_hidden_size": 32}
PYRAMID = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
HEADS = {"num_attention_heads": [1, 2, 3, 4]}
ENCODERS: dict[str, Twin] = {
    # --- transformers: one width, patches and a prefix --------------------------------------------
    "hf:CLIPVisionModel": _like("CLIPVisionModel"),
    "hf:CLIPModel": _whole("CLIPModel"),
    "hf:SiglipVisionModel": _like("SiglipVisionModel"),
    "hf:SiglipModel": _whole("SiglipModel"),
    "hf:Siglip2VisionModel": _like("Siglip2VisionModel", "image_size", num_patches=16),
    "hf:Dinov2Model": _like("Dinov2Model", "intermediate_size"),
    "hf:Dinov2Model swiglu": _like("Dinov2Model", "intermediate_size", use_swiglu_ffn=True),
    "hf:Dinov2WithRegistersModel": _like("Dinov2WithRegistersModel", "intermediate_size"),
    "hf:DINOv3ViTModel": _like("DINOv3ViTModel", hidden_size=32, num_attention_heads=4),
    "hf:DINOv3ViTModel gated": _like(
        "DINOv3ViTModel", hidden_size=32, num_attention_heads=4, use_gated_mlp=True
    ),
    "hf:DINOv3ConvNextModel": _hf("DINOv3ConvNextModel", **PYRAMID, image_size=64),
    "hf:ViTModel": _like("ViTModel"),
    "hf:ViTForImageClassification": _like("ViTForImageClassification"),
    "hf:ViTModel 32x48": _like("ViTModel", image_size=(32, 48)),
    "hf:ViTMAEModel": _like("ViTMAEModel"),
    "hf:ViTMAEModel mask_ratio=0": _like("ViTMAEModel", mask_ratio=0.0),
    "hf:ViTMAEForPreTraining": _like("ViTMAEForPreTraining"),
    "hf:ViTMSNModel": _like("ViTMSNModel"),
    "hf:BeitModel": _like("BeitModel"),
    "hf:BeitModel rel-pos": _like("BeitModel", use_relative_position_bias=True),
    "hf:Data2VecVisionModel": _like("Data2VecVisionModel", use_relative_position_bias=True),
    "hf:DeiTModel": _like("DeiTModel"),
    "hf:DPTModel": _like("DPTModel", is_hybrid=False, backbone_out_indices=[0, 1, 1, 1]),
    "hf:IJepaModel": _like("IJepaModel"),
    "hf:AltCLIPVisionModel": _like("AltCLIPVisionModel"),
    "hf:ChineseCLIPVisionModel": _like("ChineseCLIPVisionModel"),
    "hf:MetaClip2VisionModel": _like("MetaClip2VisionModel"),
    "hf:CLIPSegVisionModel": _like("CLIPSegVisionModel"),
    "hf:OwlViTVisionModel": _like("OwlViTVisionModel"),
    "hf:Aimv2VisionModel": _like("Aimv2VisionModel"),
    "hf:MLCDVisionModel": _like("MLCDVisionModel", num_key_value_groups=1),
    "hf:InternVLVisionModel": _like("InternVLVisionModel", image_size=(32, 32), patch_size=(8, 8)),
    "hf:Blip2VisionModel": _like("Blip2VisionModel"),
    "hf:BlipVisionModel": _like("BlipVisionModel"),
    "hf:InstructBlipVisionModel": _like("InstructBlipVisionModel"),
    "hf:FlavaImageModel": _like("FlavaImageModel"),
    "hf:Idefics2VisionTransformer": _inside(
        "idefics2.modeling_idefics2", "Idefics2VisionConfig", "Idefics2VisionTransformer", **TINY
    ),
    "hf:Idefics3VisionTransformer": _inside(
        "idefics3.modeling_idefics3", "Idefics3VisionConfig", "Idefics3VisionTransformer", **TINY
    ),
    "hf:SmolVLMVisionTransformer": _inside(
        "smolvlm.modeling_smolvlm", "SmolVLMVisionConfig", "SmolVLMVisionTransformer", **TINY
    ),
    "hf:IdeficsVisionTransformer": _inside(
        "idefics.vision",
        "IdeficsVisionConfig",
        "IdeficsVisionTransformer",
        **{**TINY, "embed_dim": 24},
    ),
    "hf:PixtralVisionModel": _like("PixtralVisionModel", hidden_size=24, head_dim=8),
    "hf:Llama4VisionModel": _like(
        "Llama4VisionModel",
        intermediate_size=96,
        hidden_size=24,
        vision_output_dim=24,
        projector_input_dim=24,
        projector_output_dim=24,
    ),
    "hf:VitDetModel": _like(
        "VitDetModel",
        "intermediate_size",
        use_relative_position_embeddings=True,
        window_size=2,
        window_block_indices=[0],
        pretrain_image_size=32,
    ),
    "hf:YolosModel": _like("YolosModel", image_size=[32, 32], num_detection_tokens=5),
    # --- transformers: more than pixels is asked for ----------------------------------------------
    "hf:Qwen2_5_VisionTransformer": _inside(
        "qwen2_5_vl.modeling_qwen2_5_vl",
        "Qwen2_5_VLVisionConfig",
        "Qwen2_5_VisionTransformerPretrainedModel",
        **QWEN,
        fullatt_block_indexes=[0],
    ),
    "hf:Qwen3VLVisionModel": _inside(
        "qwen3_vl.modeling_qwen3_vl",
        "Qwen3VLVisionConfig",
        "Qwen3VLVisionModel",
        **QWEN,
        deepstack_visual_indexes=[0],
    ),
    "hf:MllamaVisionModel": _like(
        "MllamaVisionModel",
        "num_attention_heads",
        attention_heads=3,
        num_global_layers=1,
        intermediate_layers_indices=[0],
        vision_output_dim=48,
    ),
    "hf:Florence2 vision": _inside(
        "florence2.modeling_florence2",
        "Florence2VisionConfig",
        "Florence2VisionBackbone",
        embed_dim=(8, 16, 24, 32),
        depths=(1, 1, 1, 1),
        num_heads=(1, 2, 3, 4),
        num_groups=(1, 2, 3, 4),
        window_size=4,
        projection_dim=16,
    ),
    # --- transformers: maps and stages ------------------------------------------------------------
    "hf:SamVisionModel": _like(
        "SamVisionModel",
        "intermediate_size",
        image_size=64,
        output_channels=16,
        mlp_dim=48,
        window_size=4,
        global_attn_indexes=[1],
        num_pos_feats=8,
    ),
    "hf:SamModel": _hf(
        "SamModel",
        vision_config={
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 8,
            "output_channels": 32,
            "mlp_dim": 48,
            "window_size": 4,
            "global_attn_indexes": [1],
        },
    ),
    "hf:Sam2VisionModel": _hf(
        "Sam2VisionModel",
        {"image_size": 64},
        backbone_config={
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "num_attention_heads": 1,
            "image_size": [64, 64],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 2, 4, 8],
            "window_size_per_stage": [4, 4, 4, 2],
            "global_attention_blocks": [3],
            "window_positional_embedding_background_size": [4, 4],
        },
        backbone_channel_list=[64, 32, 16, 8],
        fpn_hidden_size=16,
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
    ),
    "hf:SwinModel": _hf(
        "SwinModel",
        image_size=64,
        patch_size=2,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    "hf:Swinv2Model": _hf(
        "Swinv2Model",
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    "hf:ConvNextModel": _hf("ConvNextModel", {"image_size": 64}, **PYRAMID),
    "hf:ConvNextV2Model": _hf("ConvNextV2Model", {"image_size": 64}, **PYRAMID),
    "hf:ResNetModel": _hf(
        "ResNetModel",
        {"image_size": 64},
        embedding_size=8,
        **PYRAMID,
    ),
    "hf:RegNetModel": _hf(
        "RegNetModel",
        {"image_size": 64},
        embedding_size=8,
        **PYRAMID,
        groups_width=4,
    ),
    "hf:BitModel": _hf(
        "BitModel",
        {"image_size": 64},
        embedding_size=32,
        hidden_sizes=[32, 32, 64, 64],
        depths=[1, 1, 1, 1],
        num_groups=8,
    ),
    "hf:HieraModel": _hf(
        "HieraModel",
        image_size=[64, 64],
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 4, 8],
        patch_kernel=[7, 7],
        patch_stride=[4, 4],
    ),
    "hf:GroupViTVisionModel": _like(
        "GroupViTVisionModel", depths=[1, 1], num_group_tokens=[4, 0], num_output_groups=[2, 0]
    ),
    "hf:GroupViTVisionModel 4 groups": _like(
        "GroupViTVisionModel", depths=[1, 1], num_group_tokens=[6, 0], num_output_groups=[4, 0]
    ),
    "hf:SegformerModel": _hf(
        "SegformerModel",
        {"image_size": 64},
        **PYRAMID,
        **HEADS,
    ),
    "hf:PvtModel": _hf(
        "PvtModel",
        image_size=64,
        **PYRAMID,
        **HEADS,
    ),
    "hf:PvtV2Model": _hf(
        "PvtV2Model",
        image_size=64,
        **PYRAMID,
        **HEADS,
    ),
    "hf:MobileViTModel": _hf(
        "MobileViTModel",
        image_size=64,
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
        num_attention_heads=2,
    ),
    "hf:LevitModel": _hf(
        "LevitModel",
        image_size=64,
        hidden_sizes=[16, 24, 32],
        num_attention_heads=[2, 3, 4],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
    ),
    "hf:CvtModel": _hf(
        "CvtModel",
        {"image_size": 64},
        embed_dim=[8, 16, 24],
        num_heads=[1, 2, 4],
        depth=[1, 2, 3],
    ),
    "hf:FocalNetModel": _hf(
        "FocalNetModel",
        image_size=64,
        patch_size=4,
        embed_dim=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        focal_levels=[2, 2],
        focal_windows=[3, 3],
    ),
    "hf:EfficientNetModel": _hf(
        "EfficientNetModel",
        hidden_dim=320,  # 1280 by the width
        image_size=64,
        width_coefficient=0.25,
        depth_coefficient=1.0,
        kernel_sizes=[3, 5],
        in_channels=[32, 32],
        out_channels=[32, 64],
        strides=[1, 2],
        num_block_repeats=[1, 2],
        expand_ratios=[1, 4],
    ),
    "hf:TimmWrapperModel": _wrapper("vit_tiny_patch16_224", 32, **VIT),
    # --- open_clip --------------------------------------------------------------------------------
    "open_clip:ViT": _clip(),
    "open_clip:ViT quickgelu": _clip(quick=True),
    "open_clip:ViT layer scale": _clip(ls_init_value=0.1),
    "open_clip:ViT-CLIPA": _clip(no_ln_pre=True, pool_type="avg", final_ln_after_pool=True),
    "open_clip:CoCa": _clip("CoCa", output_tokens=True),
    "open_clip:CoCa pooler": _clip(
        "CoCa", output_tokens=True, attentional_pool=True, attn_pooler_heads=2
    ),
    "open_clip:RN": _clip(layers=[1, 1, 1, 2], width=8, image_size=64),
    "open_clip:EVA02-L-14-336": _trunk("eva02_large_patch14_clip_336", 336, **VIT),
    "open_clip:EVA01-g-14": _trunk("eva_giant_patch14_224", 224, **VIT),
    "open_clip:PE-Core-T-16-384": _trunk("vit_pe_core_tiny_patch16_384", 384, **VIT),
    "open_clip:gap-256": _trunk("vit_medium_patch16_gap_256", 256, **VIT),
    "open_clip:relpos": _trunk("vit_relpos_medium_patch16_cls_224", 224, **VIT),
    "open_clip:SigLIP": _trunk("vit_base_patch16_siglip_224", 224, **VIT),
    "open_clip:MobileCLIP-B": _trunk("vit_base_mci_224", 64, img_size=64, depth=1),
    "open_clip:convnext": _trunk("convnext_atto", 64, depths=(1, 1, 1, 1)),
    "open_clip:swin": _trunk(
        "swin_tiny_patch4_window7_224", 224, embed_dim=12, depths=(1, 1, 2, 1)
    ),
    "open_clip:fastvit": _trunk(
        "fastvit_mci0", 128, layers=(1, 1, 1, 1), embed_dims=(32, 32, 64, 64)
    ),
    "open_clip:ViTamin": _trunk("vitamin_small_224", 64, img_size=64),
    # --- timm -------------------------------------------------------------------------------------
    **{
        f"timm:{name}": _timm(name, img_size=56 if "14" in name else 64, **VIT)
        for name in (
            "vit_tiny_patch16_224",
            "deit_tiny_distilled_patch16_224",
            "deit3_small_patch16_224",
            "beit_base_patch16_224",
            "beitv2_base_patch16_224",
            "eva02_tiny_patch14_224",
            "vit_so400m_patch14_siglip_224",
            "vit_small_patch14_reg4_dinov2",
            "vit_small_patch16_dinov3",
            "vit_small_plus_patch16_dinov3",
            "vit_base_patch16_clip_quickgelu_224",
            "vit_pe_core_tiny_patch16_384",
            "aimv2_large_patch14_224",
            "vit_wee_patch16_reg1_gap_256",
            "vit_relpos_small_patch16_224",
            "samvit_base_patch16_224",
            "cait_xxs24_224",
        )
    },
    "timm:xcit_nano_12_p16_224": _timm(
        "xcit_nano_12_p16_224", 64, img_size=64, depth=1, embed_dim=24, num_heads=3
    ),
    "timm:vit_tiny_r_s16_p8_224": _timm("vit_tiny_r_s16_p8_224", 64, img_size=64, **VIT),
    "timm:naflexvit_base_patch16_gap": _timm("naflexvit_base_patch16_gap", 64, **VIT),
    "timm:convit_tiny": _timm(
        "convit_tiny", img_size=64, depth=3, local_up_to_layer=2, embed_dim=12
    ),
    "timm:mixer_s32_224": _timm("mixer_s32_224", 64, img_size=64),
    "timm:gmlp_s16_224": _timm("gmlp_s16_224", 64, img_size=64),
    "timm:volo_d1_224": _timm("volo_d1_224", 64, img_size=64),
    "timm:swin": _timm(
        "swin_tiny_patch4_window7_224",
        img_size=64,
        window_size=4,
        embed_dim=12,
        depths=(2, 1, 1, 1),
        num_heads=(1, 2, 4, 8),
    ),
    "timm:swinv2": _timm(
        "swinv2_tiny_window8_256",
        img_size=64,
        window_size=4,
        embed_dim=12,
        depths=(2, 1, 1, 1),
        num_heads=(1, 2, 4, 8),
    ),
    "timm:hiera_tiny_224": _timm(
        "hiera_tiny_224", 64, img_size=(64, 64), embed_dim=12, stages=(1, 1, 1, 1)
    ),
    "timm:sam2_hiera_tiny": _timm(
        "sam2_hiera_tiny",
        128,
        embed_dim=12,
        stages=(1, 1, 2, 1),
        global_att_blocks=(3,),
        window_spec=(8, 8, 4, 4),
    ),
    "timm:davit_tiny": _timm(
        "davit_tiny", 64, depths=(1, 1, 1, 1), embed_dims=(8, 16, 24, 32), num_heads=(1, 2, 3, 4)
    ),
    "timm:twins_pcpvt_small": _timm("twins_pcpvt_small", 64, img_size=64, depths=(1, 1, 1, 1)),
    "timm:pvt_v2_b0": _timm("pvt_v2_b0", 64, depths=(1, 1, 1, 1)),
    "timm:levit_128s": _timm("levit_128s", 224, depth=(1, 1, 1)),
    "timm:tiny_vit_5m_224": _timm("tiny_vit_5m_224", 64, depths=(1, 1, 1, 1)),
    "timm:maxvit_rmlp_pico_rw_256": _timm("maxvit_rmlp_pico_rw_256", 64, img_size=64),
    "timm:coatnet_pico_rw_224": _timm("coatnet_pico_rw_224", 64, img_size=64),
    "timm:convnext_atto": _timm("convnext_atto", 64, depths=(1, 1, 1, 1)),
    "timm:convnextv2_atto": _timm("convnextv2_atto", 64, depths=(1, 1, 1, 1)),
    "timm:nf_resnet26": _timm("nf_resnet26", 64, width_factor=0.125),
    "timm:nfnet_l0": _timm("nf_regnet_b0", 64),
    "timm:resnet18": _timm("resnet10t", 64),
    "timm:resnetv2_50": _timm("resnetv2_50", 64, layers=[1, 1, 1, 1], channels=[32, 64, 64, 64]),
    "timm:efficientnet_b0": _timm("efficientnet_b0", 64),
    "timm:efficientnet_lite0": _timm("efficientnet_lite0", 64),
    "timm:mobilenetv3_small_050": _timm("mobilenetv3_small_050", 64),
    "timm:mobilenetv4_conv_small": _timm("mobilenetv4_conv_small", 64),
    "timm:mobilenetv4_hybrid_medium": _timm("mobilenetv4_hybrid_medium", 64),
    "timm:regnety_002": _timm("regnety_002", 64),
    "timm:fastvit_t8": _timm("fastvit_t8", 64, layers=(1, 1, 1, 1)),
    "timm:mobilevit_xxs": _timm("mobilevit_xxs", 64),
    "timm:poolformer_s12": _timm("poolformer_s12", 64),
    "timm:caformer_s18": _timm("caformer_s18", 64),
    "timm:repvit_m0_9": _timm("repvit_m0_9", 64),
    "timm:efficientvit_b0": _timm("efficientvit_b0", 64),
    "timm:densenet121": _timm("densenet121", 64, block_config=(1, 1, 1, 1)),
    "timm:vgg11": _timm("vgg11", 64, mlp_ratio=0.01),
    "timm:inception_v3": _timm("inception_v3", 96),
    "timm:edgenext_xx_small": _timm("edgenext_xx_small", 64),
    "timm:nextvit_small": _timm("nextvit_small", 64),
    "timm:focalnet_tiny_srf": _timm("focalnet_tiny_srf", 64),
}
