"""Drop the tokens that the text hardly ever uses, from the tokenizer and from a trained model.

A token that is never right is only ever pushed down, and all such tokens in one direction: many
neurons' decodes are then lists of rare pieces. What is dropped is spelt with the pieces it was
merged from; everything that is kept keeps its vectors.

    python training/pictos/fewer_words.py --old OLD --work DIR   # DIR/tokenizer, DIR/lm.pt
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from concepts import concepts
from tokenizers import Tokenizer
from train_lm import new_lm, optimiser
from transformers import GPTJForCausalLM, PreTrainedTokenizerFast

from mmlens.pictos.scene_captions import plural


def kept_tokens(bpe: dict, counts: np.ndarray, least: int, always: set[int]) -> list[int]:
    """Ids that stay, in order: frequent ones, bytes, and the pieces that these are made of."""
    vocab, parts = bpe["model"]["vocab"], {}
    for left, right in bpe["model"]["merges"]:
        parts[vocab[left + right]] = (vocab[left], vocab[right])
    stays = {i for i in vocab.values() if i not in parts or counts[i] >= least} | always
    for i in sorted(stays, reverse=True):
        waiting = [i]
        while waiting:
            more = [p for p in parts.get(waiting.pop(), ()) if p not in stays]
            stays.update(more)
            waiting += more
    return sorted(stays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path, required=True, help="with lm/ and corpus.npy")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--least", type=int, default=60, help="mentions a token must have")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    old = PreTrainedTokenizerFast.from_pretrained(args.old / "lm")
    names = [n for t in concepts() for n in (t.name, plural(t.name))]
    spelt = [old.encode(f" {n}") for n in names]
    always = {ids[0] for ids in spelt if len(ids) == 1}
    bpe = json.loads(old.backend_tokenizer.to_str())
    counts = np.bincount(np.load(args.old / "corpus.npy"), minlength=len(old))
    stays = kept_tokens(bpe, counts, args.least, always)
    new_id = {i: k for k, i in enumerate(stays)}
    vocab = bpe["model"]["vocab"]
    bpe["model"]["merges"] = [m for m in bpe["model"]["merges"] if vocab["".join(m)] in new_id]
    bpe["model"]["vocab"] = {token: new_id[i] for token, i in vocab.items() if i in new_id}
    end = old.eos_token
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(bpe)),
        eos_token=end, bos_token=end, unk_token=end, pad_token=end,
    )  # fmt: skip
    tokenizer.save_pretrained(args.work / "tokenizer")
    before = GPTJForCausalLM.from_pretrained(args.old / "lm", dtype=torch.float32).state_dict()
    state = {k: v[stays] if k.startswith("lm_head") or "wte" in k else v for k, v in before.items()}
    lm = new_lm(len(stays))
    lm.load_state_dict(state)
    adam = optimiser(lm, 1e-3, 0.05)
    state = {"lm": lm.state_dict(), "optimiser": adam.state_dict()}
    torch.save(state | {"step": 0, "spent": 0.0}, args.work / "lm.pt")
    text = counts[stays].sum() / counts.sum()
    print(f"{len(stays)} of {len(old)} tokens stay; {text:.1%} of the text")


if __name__ == "__main__":
    main()
