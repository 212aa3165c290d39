"""Small tokenizers of the kinds that language models come with, trained in the tests."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from mmlens.families import toy

WORDS = (  # noqa: SIM905
    "a an the of in on with two three picture pictures dog dogs cat bird A The Both show it is was"
).split()
PREFIXED = ("llama-2", "llama-legacy", "llama", "metaspace-always", "metaspace-first", "t5")
"""Those that put a space before a text."""
KINDS = (*PREFIXED, "metaspace-never", "gpt2")


@lru_cache
def spelling(kind: str) -> Any:
    """A tokenizer of this kind."""
    from transformers import LlamaTokenizer, PreTrainedTokenizerFast

    if kind == "gpt2":
        return toy.tokenizer()
    vocab, merges = _pieces()
    if kind in ("llama", "llama-legacy"):
        return LlamaTokenizer(vocab=vocab, merges=merges, legacy=kind == "llama-legacy")
    raw = _unigram() if kind == "t5" else _bpe(kind, vocab, merges)
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **special)


@lru_cache
def _pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces and merges as SentencePiece has them, "▁" for the space and a token per byte."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    every = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=every, show_progress=False)
    raw.train_from_iterator([word for word in WORDS for _ in range(4)], trainer)
    model = json.loads(raw.to_str())["model"]
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    return model["vocab"], merges


def _bpe(kind: str, vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    raw: Any = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    if kind == "llama-2":
        raw.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme=kind.removeprefix("metaspace-"), split=False
        )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = [] if kind == "metaspace-never" else [decoders.Strip(" ", 1, 0)]
    raw.decoder = decoders.Sequence([*steps, *strip])
    return raw


def _unigram() -> Any:
    """T5's way: runs of spaces are one, and a space stands before every text."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    words = [(f"▁{word}", -2.0) for word in WORDS] + [(word, -4.0) for word in WORDS]
    letters = sorted({letter for word in WORDS for letter in word} - {"a", "A"})
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -3.0), *words]
    pieces += [(letter, -8.0) for letter in [*letters, ".", ":", "\n"]]
    raw: Any = Tokenizer(models.Unigram(pieces, unk_id=0))
    raw.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    return raw
