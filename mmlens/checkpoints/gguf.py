"""Language models in GGUF files, llama.cpp's format: transformers reads and dequantises them.

    from_parts(vision=..., lm="SmolLM2-135M-Instruct.Q4_1.gguf")       # a file
    from_parts(vision=..., lm="my-models")                             # a folder that holds one
    from_parts(vision=..., lm="hf:OWNER/REPO/FILE.gguf")               # one on the hub

The weights are plain numbers afterwards, in the requested dtype; the quantisation error remains.
transformers leaves out tensors that its table of an architecture does not name (biases, scaled
rotary frequencies), so the numbers in the file are counted and compared with the model's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from mmlens.checkpoints.gguf_header import GgufHeader, read_header
from mmlens.checkpoints.weights import expanded, loaded_whole, quietly
from mmlens.towers.language.copies import unquantised
from mmlens.values.errors import CheckpointError, ModelError, reason
from mmlens.values.hub_errors import why
from mmlens.values.optional_packages import package

_BLOCK = re.compile(r"blk\.(\d+)\.")


def gguf_file(source: str | Path, revision: str | None = None) -> Path | None:
    """The GGUF file that a language model's source names, or None where it names something else.

    Raises:
        CheckpointError: there is no such file, or a folder holds several.
        ModelError: the hub does not provide it.
    """
    name = str(source)
    if name.startswith("hf:"):
        return _from_hub(name, revision) if _is_gguf(name) else None
    place = expanded(source)
    if place.is_dir():
        return _only_one(place)
    if not _is_gguf(place):
        return None
    if not place.is_file():
        raise CheckpointError(
            f"There is no file {name!r}: give the path of a GGUF file, or 'hf:OWNER/REPO/FILE.gguf'"
            " for one on the hub."
        )
    return place


def load_gguf(file: Path, dtype: torch.dtype) -> Any:
    """A causal LM of transformers with the weights of a GGUF file, dequantised.

    Raises:
        CheckpointError: the file is not whole, of an architecture that transformers' loader does
            not know, or holds more than the loader takes from it.
        CapabilityError: a package for it is not installed.
    """
    import transformers

    header = read_header(file)
    package("accelerate", "gguf", "A GGUF file")  # transformers needs it
    _check_architecture(header, file.name)
    auto: Any = transformers.AutoModelForCausalLM
    options: dict[str, Any] = {"gguf_file": file.name, "dtype": dtype, "local_files_only": True}
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    if hasattr(transformers, "GgufConfig"):  # it may keep weights packed where it has kernels
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        with quietly():
            model, told = auto.from_pretrained(str(file.parent), **options)
    except Exception as error:  # a missing table entry can raise anything
        raise CheckpointError(
            f"transformers' GGUF loader cannot make a causal language model of the"
            f" {header.architecture!r} in {file.name!r}: {reason(error)}"
        ) from error
    loaded_whole(told, repr(file.name))
    _check_all_taken(header, model, file.name)
    return unquantised(model).eval()


def gguf_tokenizer(file: Path) -> Any:
    """The tokenizer that a GGUF file holds.

    Raises:
        CheckpointError: it holds none, or one that transformers cannot read.
    """
    from transformers import AutoTokenizer

    header = read_header(file)
    if not header.pairs.get("tokenizer.ggml.tokens"):
        raise CheckpointError(f"{file.name!r} holds no tokenizer: give tokenizer=.")
    try:
        words = AutoTokenizer.from_pretrained(
            str(file.parent), gguf_file=file.name, local_files_only=True
        )
        words = _no_more_than(words, int(header.pairs["tokenizer.ggml.tokens"]))
    except Exception as error:  # tokenizers raise bare Exceptions
        raise CheckpointError(
            f"The tokenizer in {file.name!r} cannot be read, give tokenizer=: {reason(error)}"
        ) from error
    if _leaves_marks(words):
        raise CheckpointError(
            f"The tokenizer in {file.name!r} is read as one of another kind by the installed"
            " transformers (its words keep their marks of spaces): give tokenizer=, or install a"
            " newer transformers."
        )
    return words


def _leaves_marks(words: Any, most: int = 400) -> bool:
    """Whether words of the vocabulary are decoded with the marks that stand for spaces in them.

    An older transformers makes a tokenizer of the architecture's usual kind, whatever kind the file
    holds, and its ids of a text are others then.
    """
    texts = [words.decode([at]) for at in range(0, len(words), max(1, len(words) // most))]
    return sum(text[:1] in ("Ġ", "▁") for text in texts if len(text) > 1) > 0.05 * len(texts)


def _no_more_than(words: Any, n_words: int) -> Any:
    """The tokenizer without tokens that the file lacks: transformers adds "<|endoftext|>"."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    if len(words) <= n_words:
        return words
    told = json.loads(words.backend_tokenizer.to_str())
    told["added_tokens"] = [one for one in told["added_tokens"] if one["id"] < n_words]
    special = words.special_tokens_map
    kept = {
        name: one for name, one in special.items() if words.convert_tokens_to_ids(one) < n_words
    }
    raw = Tokenizer.from_str(json.dumps(told))
    template = getattr(words, "chat_template", None)
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=template, **kept)


def gguf_provenance(file: Path) -> dict[str, Any]:
    """The provenance of the file: its name, its hash, and how its tensors are quantised."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return {"file": file.name, "sha256": digest, "types": read_header(file).types}


def readable() -> list[str]:
    """The architectures that the installed transformers reads from GGUF files."""
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES as TABLE

    try:
        from transformers.integrations.gguf.gguf_config_mapping import GGUF_CONFIG_ARCHS

        newer: Iterable[str] = GGUF_CONFIG_ARCHS
    except ImportError:  # transformers before it read files itself
        newer = ()
    return sorted({*TABLE, *newer} - {"general", "tokenizer"})  # keys of every file


def _is_gguf(name: str | Path) -> bool:
    return str(name).lower().endswith(".gguf")


def _only_one(folder: Path) -> Path | None:
    """The GGUF file of a folder that holds no other weights."""
    found = sorted(path for path in folder.iterdir() if _is_gguf(path) and path.is_file())
    others = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if not found or others:
        return None
    split = all(re.search(r"-\d{5}-of-\d{5}\.gguf$", path.name) for path in found)
    if len(found) > 1 and not split:  # a split model is recognized by its first part
        names = ", ".join(repr(path.name) for path in found)
        raise CheckpointError(
            f"The folder {folder.name!r} holds {len(found)} GGUF files ({names}): name one, as in"
            f" lm='{folder.name}/{found[0].name}'."
        )
    return found[0]


def _from_hub(name: str, revision: str | None) -> Path:
    """A file of a hub repository, fetched into the hub's cache or found there."""
    from huggingface_hub import hf_hub_download

    owner, _, rest = name.removeprefix("hf:").partition("/")
    repo, _, file = rest.partition("/")
    if not file:
        raise ModelError(
            f"{name!r} names no file of a repository: write 'hf:OWNER/REPO/FILE.gguf'."
        )
    try:
        return Path(hf_hub_download(f"{owner}/{repo}", file, revision=revision))
    except Exception as error:  # the hub raises many exception types
        raise ModelError(
            f"The language model {name!r} could not be fetched ({why(error)}): load it once where"
            " there is a network, or give the file."
        ) from error


def _check_architecture(header: GgufHeader, name: str) -> None:
    """Refuse an architecture that is not in transformers' table."""
    known = readable()
    if _spelled(header.architecture) not in {_spelled(one) for one in known}:
        raise CheckpointError(
            f"{name!r} holds a {header.architecture!r}, which transformers' GGUF loader does not"
            f" know (it knows {', '.join(known)}): give the model as a folder or hub id with"
            " safetensors."
        )


def _spelled(architecture: str) -> str:
    """llama.cpp writes "qwen2moe" and "gpt-oss", transformers "qwen2_moe" and "gpt_oss"."""
    return re.sub(r"[-_]", "", architecture)


def _check_all_taken(header: GgufHeader, model: Any, name: str) -> None:
    """Refuse a file of which transformers silently left something out.

    Blocks after the model's last (for predicting several tokens) are no part of its forward pass,
    and an unembedding beside a tied embedding repeats its numbers.
    """
    config, made = model.config, type(model).__name__
    scaled = [one.name for one in header.tensors if one.name.startswith("rope_")]
    kind = str(header.pairs.get(f"{header.architecture}.rope.scaling.type", "none"))
    scaled += [] if kind == "none" else [f"rope.scaling.type = {kind}"]
    if scaled and not _scales_rotary(config):
        raise CheckpointError(
            f"{name!r} scales its rotary frequencies ({scaled[0]}), and transformers' GGUF loader"
            f" makes a {made} of it that does not: give the model as a folder or hub id with"
            " safetensors."
        )
    layers, tied = int(config.num_hidden_layers), bool(config.tie_word_embeddings)
    held = sum(
        one.numel
        for one in header.tensors
        if not one.name.startswith("rope_")
        and not (tied and one.name == "output.weight")
        and not ((at := _BLOCK.match(one.name)) and int(at[1]) >= layers)
    )
    taken = sum(parameter.numel() for parameter in model.parameters())  # tied ones once
    if held > taken:
        raise CheckpointError(
            f"{name!r} holds {held:,} numbers, and the {made} that transformers' GGUF loader makes"
            f" of it has {taken:,}: it leaves some out, so it would be another model; give the"
            " model as a folder or hub id with safetensors."
        )


def _scales_rotary(config: Any) -> bool:
    """Whether a configuration asks for anything but plain rotary frequencies."""
    told = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [told, *(value for value in told.values() if isinstance(value, dict))]
    return any(one.get("rope_type", "default") != "default" for one in kinds)
