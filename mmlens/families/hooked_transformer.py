"""A real `HookedTransformer` from a Hugging Face model in memory: TransformerLens 3.x only.

TransformerLens 4.0 removed the class; there, `TransformerBridge` takes its place with the same hook
names and numbers (tests/test_hooked_transformer.py, run on 3.9).
"""

from __future__ import annotations

import tempfile
from typing import Any

from mmlens.values.errors import CapabilityError


def hooked_transformer(hf: Any, *, fold_ln: bool = False) -> Any:
    """A HookedTransformer with the weights of `hf` (GPT-2, GPT-Neo, GPT-J, NeoX, OPT, Llama, Qwen).

    Raises:
        CapabilityError: the installed TransformerLens has no such class.
    """
    try:
        import transformer_lens.loading_from_pretrained as loading  # type: ignore[import-not-found]
        from transformer_lens import HookedTransformer  # type: ignore[attr-defined]
    except ImportError:
        raise CapabilityError(
            "The installed TransformerLens has no HookedTransformer (4.0 removed it): use the"
            " default backend='bridge', which gives the same numbers, or install"
            " transformer-lens 3.9."
        ) from None
    config = hf.config
    config.architectures = [type(hf).__name__]
    if not hasattr(config, "n_ctx"):
        config.n_ctx = config.max_position_embeddings
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        cfg = loading.get_pretrained_model_config(
            folder, hf_cfg=config.to_dict(), fold_ln=fold_ln, device="cpu"
        )
        cfg.tokenizer_name = None
        model: Any = HookedTransformer(cfg, None, move_to_device=False)  # type: ignore[call-arg]
        state = loading.get_pretrained_state_dict(folder, cfg, hf)
    model.load_and_process_state_dict(
        state,
        fold_ln=fold_ln,
        center_writing_weights=False,
        center_unembed=False,
        fold_value_biases=False,
    )
    return model
