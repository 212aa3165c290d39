"""Finding a language model and its tokenizer: an object in memory, a folder, a file, or a hub id.

A folder's or the hub's model is loaded completely or not at all. transformers initializes weights
that a checkpoint lacks randomly and makes an empty tokenizer where there is none; both are refused
here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints.gguf import gguf_file, gguf_tokenizer, load_gguf
from mmlens.checkpoints.weights import expanded, loaded_whole, quietly
from mmlens.runtime.casting import cast, device_of, dtype_of
from mmlens.runtime.sharing import share_weights
from mmlens.towers.language.kinds import check_lm
from mmlens.towers.language.language_model import LanguageModel, wrap_lm
from mmlens.values.errors import CheckpointError, ModelError
from mmlens.values.hub_errors import unfound


def find_lm(
    source: Any,
    tokenizer: Any = None,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    fold_ln: bool = False,
) -> LanguageModel:
    """A LanguageModel from a causal LM, a folder, a GGUF file or a hub id, with its tokenizer."""
    kind, place = dtype_of(dtype), device_of(device)
    if isinstance(source, LanguageModel):
        return source
    if isinstance(source, (str, Path)):
        tokenizer = tokenizer if tokenizer is not None else source
        source = load_lm(source, dtype=kind or torch.float32, revision=revision)
    check_lm(source)
    if tokenizer is None and getattr(source, "tokenizer", None) is None:
        raise ModelError(
            f"A {type(source).__name__} in memory comes without words: give tokenizer=, an object, "
            "a folder or a hub id such as 'gpt2'."
        )
    if kind is not None or place is not None:
        source = cast(share_weights(source), place, kind)  # the caller's is not changed
    return wrap_lm(source, load_tokenizer(tokenizer, revision), fold_ln=fold_ln)


def load_lm(source: str | Path, *, dtype: torch.dtype, revision: str | None = None) -> Any:
    """A Hugging Face causal LM from a folder, a GGUF file (see `checkpoints.gguf`) or a hub id."""
    from transformers import AutoModelForCausalLM

    if (file := gguf_file(source, revision)) is not None:
        return load_gguf(file, dtype)
    source = _unprefixed(source)
    auto: Any = AutoModelForCausalLM
    place = expanded(source)
    local = place.is_dir()
    options: dict[str, Any] = {"dtype": dtype, "revision": revision, "local_files_only": local}
    options |= {"trust_remote_code": False, "output_loading_info": True}
    try:
        with quietly():
            model, told = auto.from_pretrained(str(place if local else source), **options)
    except Exception as error:  # transformers and the hub raise many exception types
        from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES

        raise unfound("language model", str(source), error, OFFICIAL_MODEL_NAMES) from error
    loaded_whole(told, repr(str(source)))
    over = [key for key in sorted(told["unexpected_keys"]) if re.search(r"\.\d+\.", key)]
    if over:
        raise CheckpointError(
            f"{str(source)!r} holds blocks that its config.json has not, such as {over[0]}: it is"
            " another model's."
        )
    return model.eval()


def load_tokenizer(source: Any, revision: str | None = None) -> Any:
    """A tokenizer from a folder, a GGUF file or a hub id; an object is returned as it is."""
    if not isinstance(source, (str, Path)):
        return source
    from transformers import AutoTokenizer

    if not _has_tokenizer(source) and (file := gguf_file(source, revision)) is not None:
        return gguf_tokenizer(file)
    source = _unprefixed(source)
    place = expanded(source)
    local = place.is_dir()
    options: dict[str, Any] = {"revision": revision, "local_files_only": local}
    try:
        words = AutoTokenizer.from_pretrained(
            str(place if local else source), trust_remote_code=False, **options
        )
    except Exception as error:  # these libraries raise many exception types
        raise unfound("tokenizer", str(source), error, ["gpt2", "EleutherAI/gpt-j-6B"]) from error
    names = {*words.vocab_files_names.values(), "tokenizer.json"}
    if len(words) <= len(words.all_special_ids) or (
        local and not any((place / name).is_file() for name in names)
    ):
        raise CheckpointError(
            f"{str(source)!r} holds no tokenizer with words: there is no"
            f" {' or '.join(sorted(names))}."
        )
    return words


def _has_tokenizer(source: str | Path) -> bool:
    """Whether a folder has a tokenizer file, which is more complete than a GGUF file's."""
    return (expanded(source) / "tokenizer.json").is_file()


def _unprefixed(source: str | Path) -> str | Path:
    """A hub id without the "hf:" that may stand before it."""
    return source.removeprefix("hf:") if isinstance(source, str) else source
