"""Vision-language classes of transformers that are not taken, each with its reason and the nearest.

With the families these are all classes that `AutoModelForImageTextToText` of transformers 5.24
loads; a test walks them, and looks at what a reason says wherever a configuration tells it.
"""

from __future__ import annotations

_WORDS_BOTH = "it has an encoder for words and a decoder beside it, and mmlens reads decoders alone"
_UNHOOKED = "TransformerLens has no hooks for its language model ({})"
_NO_EYES = "it has no encoder: patches of the picture enter its language model as they are"
_WINDOWS = "its encoder joins windows of patches between its layers, so that a layer has no grid"
_SAM = "its encoder is SAM's, whose windows and convolutions mmlens does not lay out as positions"
_TIMM = "its encoder (FastViT) is convolutions of timm's, which mmlens hooks only alone"
_FILMS = "it reads films and no pictures"

_REASONS: dict[str, tuple[str, str]] = {
    "florence2": (_WORDS_BOTH, "paligemma"),
    "pix2struct": (_WORDS_BOTH, "idefics3"),
    "pp_formulanet": (_WORDS_BOTH, "lighton_ocr"),
    "t5gemma2": (_WORDS_BOTH, "gemma3"),
    "udop": (_WORDS_BOTH, "lighton_ocr"),
    "vision-encoder-decoder": (_WORDS_BOTH, "mllama"),
    "fuyu": (_NO_EYES, "pixtral"),
    "gemma4_unified": (_NO_EYES, "gemma4"),
    "minicpm_ocr": (_WINDOWS, "lighton_ocr"),
    "minicpmv4_6": (_WINDOWS, "qwen3_5"),
    "minicpmv4_7": (_WINDOWS, "qwen3_5"),
    "got_ocr2": (_SAM, "lighton_ocr"),
    "pp_chart2table": (_SAM, "lighton_ocr"),
    "fast_vlm": (_TIMM, "perception_lm"),
    "instructblipvideo": (_FILMS, "instructblip"),
    "llama4": ("Llama 4's own forward pass raises in transformers 5.24", "mistral3"),
    "gemma3n": (
        "its layers hand on several streams side by side (AltUp), and none of them is the residual"
        " stream",
        "gemma4",
    ),
    "deepseek_vl_hybrid": ("it reads a picture with two encoders (SigLIP, SAM)", "deepseek_vl"),
    "video_llava": ("it has one encoder for pictures and one for films", "llava_next_video"),
    "kimi_k25": ("its encoder packs pictures and films in an order of its own", "qwen3_vl_moe"),
    "video_llama_3": ("its encoder makes patches smaller by a factor per picture", "qwen2_5_vl"),
    "nemotron_h_omni": ("its encoder (RADIO) is given the sizes of packed pictures", "internvl"),
    "shieldgemma2": ("it reads each picture once for every policy", "gemma3"),
    "glmga": ("no public checkpoint of it is known, to name its processor", "glm46v"),
    "mistral4": ("it is a language model without an encoder", "mistral3"),
    "evolla": ("it reads proteins and no pictures", "idefics"),
    "pi0": ("it answers with the moves of a robot", "paligemma"),
    "diffusion_gemma": ("it writes by diffusion, and not one word after the other", "gemma4"),
}
"""By model type: why it is not taken, and the nearest family."""

_LANGUAGE_MODELS: dict[str, tuple[str, str]] = {
    "apertus1p5": ("apertus1p5_text", "emu3"),
    "aria": ("aria_text", "idefics3"),
    "blip": ("blip_text_model", "blip-2"),
    "cohere_compass": ("cohere_compass_text", "cohere2_vision"),
    "cosmos3_edge": ("cosmos3_edge_text", "cosmos3_omni"),
    "deepseek_ocr2": ("deepseek_ocr2_text", "lighton_ocr"),
    "dots3_note": ("dots3_note_text", "qwen3_vl"),
    "ernie4_5_vl_moe": ("ernie4_5_vl_moe_text", "qwen3_vl_moe"),
    "git": ("git", "blip-2"),
    "glm5_next": ("glm5_next_text", "glm4v_moe"),
    "granite4_vision": ("granite4_vision_text", "llava_next"),
    "granite_docling": ("granite_docling_text", "idefics3"),
    "hunyuan_vl": ("hunyuan_vl_text", "qwen2_5_vl"),
    "hy_v4_vl": ("hy_v4_vl_text", "qwen3_vl"),
    "hyperclovax_vision_v2": ("hyperclovax", "qwen2_5_vl"),
    "inkling2": ("inkling2_text", "qwen3_vl_moe"),
    "inkling2_loop": ("inkling2_loop_text", "qwen3_vl_moe"),
    "inkling_mm_model": ("inkling_text", "qwen3_vl_moe"),
    "kosmos-2": ("kosmos_2_text_model", "blip-2"),
    "kosmos-2.5": ("kosmos_2_5_text_model", "lighton_ocr"),
    "lfm3_vl": ("lfm3", "lfm2_vl"),
    "minimax_m3_vl": ("minimax_m3_vl_text", "qwen3_vl_moe"),
    "mistral_large4": ("mistral_large4_text", "mistral3"),
    "molmo2": ("molmo2_text", "llava_onevision"),
    "muse_glimmer": ("muse_glimmer_text", "gemma4"),
    "muse_spark": ("muse_spark_text", "gemma4"),
    "paddleocr_vl": ("paddleocr_vl_text", "lighton_ocr"),
    "qwen2_5_omni_thinker": ("qwen2_5_omni_text", "qwen2_5_vl"),
    "qwen3_omni_moe_thinker": ("qwen3_omni_moe_text", "qwen3_vl_moe"),
    "qwen4_exp": ("qwen4_exp_text", "qwen3_5"),
    "step3p7": ("step3p5", "qwen3_vl"),
    "unlimited_ocr": ("unlimited_ocr_text", "lighton_ocr"),
}
"""By model type: the type of its language model, and the nearest family."""


def refused(model_type: str) -> str:
    """Why a class is not taken, and the nearest family; "" where nothing is known of it."""
    if model_type in _LANGUAGE_MODELS:
        words, near = _LANGUAGE_MODELS[model_type]
        return f"{_UNHOOKED.format(words)}; the nearest is {near!r}."
    if model_type in _REASONS:
        why, near = _REASONS[model_type]
        return f"{why}; the nearest is {near!r}."
    return ""
