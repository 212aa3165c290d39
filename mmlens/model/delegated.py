"""Which functions of a HookedTransformer a model defines, delegates or refuses.

The language model inside is TransformerLens' own, and a direct call would bypass the pictures,
edits and hooks of the model around it. So each public function of TransformerBridge and
HookedTransformer is in one group:

    ours         defined on `HookedVLM`: it reads prompts, or it concerns its hooks
    DELEGATED    the language model's own: weights, labels, configuration
    REFUSED      it would change shared weights, or read without the picture: the error says what to
                 write instead

A function that a later version of TransformerLens adds is in no group and is refused, too;
`model.root` is the language model itself. Other attributes (weights, modules, hook points) are
passed through.
"""

from __future__ import annotations

from typing import Any

from mmlens.values.errors import CapabilityError

DELEGATED = frozenset(
    [
        "OV",
        "QK",
        "OV_for_attn_layers",
        "QK_for_attn_layers",
        "all_composition_scores",
        "all_head_labels",
        "block_hooks",
        "block_submodules",
        "blocks_with",
        "check_hooks_to_add",
        "check_model_support",
        "composition_layer_indices",
        "get_params",
        "layer_types",
        "list_supported_models",
        "set_use_attn_in",
        "set_use_attn_result",
        "set_use_hook_mlp_in",
        "set_use_split_qkv_input",
        "stack_params_for",
        "tl_named_parameters",
        "tl_parameters",
    ]
)
"""Functions of the language model that concern its weights and its layout."""

_LOAD = (
    "models are loaded by mm.load(name), or put together by mm.from_parts(vision, projection, lm)"
)
_FOLD = "it rewrites weights that other models share: wrap_lm(hf_model, fold_ln=True) folds a copy"
_READ = (
    "it would read without the pictures, edits and hooks of this model: write model.generate(...)"
)
_FORMS = "it would read without pictures, edits and hooks: write model(...)"
_DATA = "mmlens.dataset(...) reads data sets"
_HOOKS = "add_hook and hooks(...) give a model hooks, add_caching_hooks a cache"
_START = "model(prompt, stop_at_layer=0) gives the residual stream entering layer 0"
REFUSED = {
    name: why
    for why, names in (
        (_LOAD, "boot_native boot_tl_legacy boot_transformers from_pretrained"),
        (_LOAD, "from_pretrained_no_processing setup"),
        (_FOLD, "center_unembed center_writing_weights enable_compatibility_mode"),
        (_FOLD, "fill_missing_keys fold_layer_norm fold_value_biases init_weights"),
        (_FOLD, "load_and_process_state_dict process_weights process_weights_"),
        (_FOLD, "refactor_factored_attn_matrices set_ungroup_grouped_query_attention"),
        (_READ, "diffusion_generate generate_stream hf_generate"),
        (_FORMS, "encoder_output predict_next_sentence prepare_multimodal_inputs"),
        (_FORMS, "to_sentence_pair_tokens"),
        (_DATA, "load_sample_training_dataset sample_datapoint"),
        (_HOOKS, "check_and_add_hook clear_hook_registry cache_all cache_some"),
        (_START, "get_pos_offset get_residual input_to_embed"),
        ("move a model by model.to(device)", "move_model_modules_to_device"),
        ("give the tokenizer to wrap_lm", "set_tokenizer"),
        ("other models may still need what it releases", "close"),
    )
    for name in names.split()
}


def refusal(name: str, why: str) -> Any:
    """A function that raises the reason, where an AttributeError would give none."""

    def refuse(*args: Any, **options: Any) -> Any:
        raise CapabilityError(
            f"TransformerLens' {name}() is not offered here: {why}. `model.root` is the language"
            " model itself."
        )

    refuse.__name__ = name
    return refuse
