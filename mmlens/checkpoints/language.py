"""Finding a language model and its tokenizer: an object in memory, a folder, or a hub id.

What a folder or the hub holds is loaded whole or not at all. transformers fills what is missing
from a checkpoint with random numbers and makes a tokenizer of no words where there is none; here
both are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints.weights import expanded, loaded_whole, quietly, reason
from mmlens.runtime.casting import cast, device_of, dtype_of
from mmlens.runtime.sharing import share_weights
from mmlens.towers.language.kinds import check_lm
from mmlens.towers.language.language_model import LanguageModel, wrap_lm
from mmlens.values.errors import CheckpointError, ModelError, nearest


def find_lm(
    source: Any,
    tokenizer: Any = None,
    *,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    fold_ln: bool = False,
) -> LanguageModel:
    """A LanguageModel from a causal LM, a folder or a hub id, with its tokenizer."""
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
        source = cast(share_weights(source), place, kind)  # the caller's stays put
    return wrap_lm(source, load_tokenizer(tokenizer, revision), fold_ln=fold_ln)


def load_lm(source: str | Path, *, dtype: torch.dtype, revision: str | None = None) -> Any:
    """A Hugging Face causal LM from a folder or a hub id."""
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    place = expanded(source)
    local = place.is_dir()
    options: dict[str, Any] = {"dtype": dtype, "revision": revision, "local_files_only": local}
    options |= {"trust_remote_code": False, "output_loading_info": True}
    try:
        with quietly():
            model, told = auto.from_pretrained(str(place if local else source), **options)
    except Exception as error:  # transformers and the hub raise two dozen kinds
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
    """A tokenizer from a folder or a hub id; an object is returned as it is."""
    if not isinstance(source, (str, Path)):
        return source
    from transformers import AutoTokenizer

    place = expanded(source)
    local = place.is_dir()
    options: dict[str, Any] = {"revision": revision, "local_files_only": local}
    try:
        words = AutoTokenizer.from_pretrained(
            str(place if local else source), trust_remote_code=False, **options
        )
    except Exception as error:  # transformers, tokenizers and the hub raise two dozen kinds
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


def unfound(what: str, source: str, error: Exception, known: Iterable[str]) -> Exception:
    """The sentence for a part that could not be loaded, from a folder or from the hub."""
    place = expanded(source)
    if place.is_dir():
        files = " (tokenizer.json, tokenizer_config.json)" if what == "tokenizer" else ""
        return CheckpointError(f"The folder {source!r} holds no {what}{files}: {reason(error)}")
    if place.is_file():
        return CheckpointError(f"{source!r} is a file: give the folder that holds the {what}.")
    names = list(known)
    why = _why(error)
    if source in names:
        return ModelError(
            f"The {what} {source!r} could not be fetched ({why}): load it once where there is a"
            " network, or give a folder that holds it."
        )
    return ModelError(
        f"There is no {what} {source!r}, neither a folder here nor a model that the Hugging Face "
        f"Hub gave us ({why}): {nearest(source, names)}"
    )


def _why(error: BaseException) -> str:
    """Why the hub gave nothing: its last reason in one short phrase."""
    from huggingface_hub import constants

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    if constants.HF_HUB_OFFLINE or "OfflineModeIsEnabled" in kinds:
        return "offline: HF_HUB_OFFLINE is set, and it is not among the files kept here"
    if "GatedRepoError" in kinds:
        return "the hub asks for a login with access to it"
    if kinds & {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"}:
        return "the hub has none of that name"
    if kinds & {"LocalEntryNotFoundError", "ConnectionError", "ConnectError", "TransportError"}:
        return "the hub cannot be reached from here"
    return reason(error)
