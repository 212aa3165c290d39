"""A byte-level BPE of a few thousand tokens in which every thing's name is one token.

GPT-2's pre-tokeniser, so that " dog" (with its space) is a token; the merges are learnt from the
corpus and from the names, repeated until they are frequent enough to be merged whole.
"""

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
REPEATS = 4000


def train_tokenizer(texts: list[str], names: list[str], size: int) -> PreTrainedTokenizerFast:
    """The tokenizer, with the end-of-text token as id 0."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_lines(texts, names), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, bos_token=END, unk_token=END, pad_token=END
    )


def _lines(texts: list[str], names: list[str]) -> Iterator[str]:
    yield from texts
    for name in names:
        yield f" {name}" * REPEATS
