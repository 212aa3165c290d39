"""Train the language model on text alone: GPT-J's class, 8 layers of 256, own vocabulary.

Loss: the mean next-token cross-entropy over packed documents, where the words of a list, which
nobody can guess, count little beside the sentence that follows. GPT-J's class keeps the paper's
architecture (parallel attention and MLP, rotary positions); embeddings are untied, so that what a
neuron writes and what a word reads are different matters.

    python training/pictos/train_lm.py --work DIR --minutes 60 [--resume]
    python training/pictos/train_lm.py --work DIR --cooldown 400       # writes DIR/lm/
"""

import numpy as np
import torch
import torch.nn.functional as F
from common import Muon, Run, arguments, weight_groups
from torch import Tensor, nn
from transformers import GPTJConfig, GPTJForCausalLM, PreTrainedTokenizerFast

LENGTH = 144


def new_lm(vocabulary: int) -> GPTJForCausalLM:
    """8 layers of 256, 8 heads, 1,024 units a layer: 6.3 M parameters and two tables of words."""
    config = GPTJConfig(vocab_size=vocabulary, n_positions=256, n_embd=256, n_layer=8, n_head=8,
                        rotary_dim=16, n_inner=1024, tie_word_embeddings=False, resid_pdrop=0.0,
                        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
                        pad_token_id=0)  # fmt: skip
    lm = GPTJForCausalLM(config)
    for name, weight in lm.named_parameters():  # what writes to the stream starts small
        if name.endswith(("out_proj.weight", "fc_out.weight")):
            weight.data.mul_((2 * config.n_layer) ** -0.5)
    return lm


def fused(lm: GPTJForCausalLM) -> GPTJForCausalLM:
    """The same function with the activation in one kernel."""
    for block in lm.transformer.h:
        block.mlp.act = nn.GELU(approximate="tanh")
    return lm


def batch(corpus: Tensor, step: int, size: int, seed: int) -> Tensor:
    """[size, LENGTH + 1]: windows of the corpus, each corpus pass in another order."""
    windows = (len(corpus) - 1) // LENGTH
    index = torch.arange(step * size, (step + 1) * size)
    passes = index // windows
    order = torch.empty(size, dtype=torch.long)
    for p in passes.unique().tolist():
        mixed = torch.randperm(windows, generator=torch.Generator().manual_seed(seed + p))
        order[passes == p] = mixed[index[passes == p] % windows]
    rows = torch.stack([corpus[i * LENGTH : (i + 1) * LENGTH + 1] for i in order.tolist()])
    return rows.long() if rows.dtype == torch.int32 else rows


def loss_of(
    lm: GPTJForCausalLM, ids: Tensor, weights: Tensor, noise: float = 0.0, leave: int = 0
) -> tuple[Tensor, Tensor]:
    """Weighted mean next-token cross-entropy of ids and weights [batch, LENGTH + 1].

    Once for the last layer and once for the stream that leaves layer `leave` (counted from 1),
    read by the same norm and head (early exits, as LayerSkip, arXiv 2404.16710).

    In three of four windows the words of lists (weight below 1) are read under noise of up to
    `noise` times the spread of word vectors (after NEFTune, arXiv 2310.05914), most of it the same
    wherever a word stands: a soft prompt only comes near the words it stands for, and a linear map
    is off in the same way wherever it sees the same thing.
    """
    words = lm.transformer.wte(ids[:, :-1])
    if noise:
        much = noise * (1.33 * torch.rand(len(ids), 1, 1, device=ids.device) - 0.33).clamp(min=0)
        much = much * words.detach().std() * (weights[:, :-1, None] < 1)
        same = torch.randn(lm.config.vocab_size, words.shape[-1], device=ids.device)[ids[:, :-1]]
        words = words + much * (0.9 * same + 0.44 * torch.randn_like(words))
    stream = lm.transformer(inputs_embeds=words, use_cache=False, output_hidden_states=bool(leave))
    weights = weights[:, 1:].flatten()

    def off(hidden: Tensor) -> Tensor:
        logits = lm.lm_head(hidden).flatten(0, 1)
        each = F.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
        return (each * weights).sum() / weights.sum()

    last = off(stream.last_hidden_state)
    if not leave:
        return last, torch.zeros_like(last)
    return last, off(lm.transformer.ln_f(stream.hidden_states[leave]))


def early(layer: int) -> float:
    """1 for the first layer, falling to 0 for the fifth and all after it."""
    return max(0.0, 1 - layer / 4)


def active(lm: GPTJForCausalLM) -> list[Tensor]:
    """The list into which every MLP puts, at each forward, its units' mean size; early ones count
    up to five times, so that the work moves to the middle layers.
    """
    sizes: list[Tensor] = []

    def note(size: Tensor, layer: int) -> None:
        sizes.append(size.abs().mean() * (1 + 4 * early(layer)))

    for layer, block in enumerate(lm.transformer.h):
        block.mlp.fc_out.register_forward_pre_hook(lambda _, x, at=layer: note(x[0], at))
    return sizes


def skip_at_times(lm: GPTJForCausalLM, most: float) -> None:
    """Leave out an early MLP in a share of the windows (stochastic depth, arXiv 1603.09382): what
    one layer knows others learn too.
    """

    def left_out(out: Tensor, share: float) -> Tensor:
        if not lm.training:
            return out
        stays = torch.rand(len(out), 1, 1, device=out.device) >= share
        return out * stays / (1 - share)

    for layer, block in enumerate(lm.transformer.h):
        if share := most * early(layer):
            block.mlp.register_forward_hook(lambda _, x, out, share=share: left_out(out, share))


def optimiser(lm: GPTJForCausalLM, lr: float, head_decay: float, muon: bool = False) -> Muon:
    """AdamW; the head's rows decay by a rate of their own, so that rare tokens stay short."""
    head = lm.lm_head.weight.requires_grad_(False)
    groups = weight_groups([lm], 0.05, [lm.transformer.h] if muon else None)
    groups.append({"params": [head.requires_grad_(True)], "weight_decay": head_decay})
    return Muon(groups, lr, betas=(0.9, 0.97))


PROBES = ("dog, bicycle. A picture of a", " dog bicycle bicycle dog. A picture of a",
          " eucalyptus ears sleepy grey marsupial. A picture of a",
          " strings grey rock grey strum music strings. A picture of a")  # fmt: skip


@torch.no_grad()
def show(lm: GPTJForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """What the model says after a few prompts: the leading tokens."""
    for text in PROBES:
        last = (
            lm(torch.tensor([tokenizer.encode(text)], device=lm.device)).logits[0, -1].softmax(-1)
        )
        top = [f"{tokenizer.decode([i])}:{last[i]:.2f}" for i in last.topk(4).indices.tolist()]
        print(f"  {text!r} ->{' '.join(top)}", flush=True)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], lr=1.5e-3, batch=8)
    parser.add_argument("--corpus", nargs="+", default=["corpus"], help="reads DIR/NAME.npy")
    parser.add_argument("--show", type=int, default=200, help="steps between two samples")
    parser.add_argument("--noise", type=float, default=1.0, help="on the words of lists")
    parser.add_argument("--listed", type=float, default=0.15, help="weight of a list's words")
    parser.add_argument("--muon", action="store_true", help="orthogonal steps")
    parser.add_argument("--exits", type=float, default=0.0, help="weight of early exits")
    parser.add_argument("--sparse", type=float, default=0.0, help="weight of the units' mean size")
    parser.add_argument("--skip", type=float, default=0.0, help="share of first MLPs left out")
    parser.add_argument("--head-decay", type=float, default=0.05, help="weight decay of the head")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.work / "tokenizer")
    corpus, listed = (torch.from_numpy(np.concatenate([np.load(args.work / f"{c}{end}.npy")
                      for c in args.corpus])) for end in ("", "-listed"))  # fmt: skip
    corpus = corpus.to(torch.int32)
    weights = torch.where(listed, args.listed, 1.0)
    lm = fused(new_lm(len(tokenizer)))
    lm = lm.to(args.device)
    adam = optimiser(lm, args.lr, args.head_decay, args.muon)
    sizes = active(lm)
    skip_at_times(lm, args.skip)
    run = Run("lm", args, lm=lm, optimiser=adam)
    while run.goes_on():
        ids, weigh = (batch(part, run.step, args.batch, args.seed).to(args.device)
                      for part in (corpus, weights))  # fmt: skip
        sizes.clear()
        leave = 4 + run.step % (len(lm.transformer.h) - 4) if args.exits else 0
        loss, exits = loss_of(lm, ids, weigh, args.noise, leave)
        size = torch.stack(sizes).mean()
        run.update(adam, loss + args.exits * exits + args.sparse * size)
        run.note(loss=loss.item(), exits=exits.item(), active=size.item())
        if run.step % args.show == 0:
            lm.eval(), show(lm, tokenizer), lm.train()
    if args.cooldown:
        lm.save_pretrained(args.work / "lm")
        tokenizer.save_pretrained(args.work / "lm")
        lm.eval(), show(lm, tokenizer)
    else:
        run.save()


if __name__ == "__main__":
    main()
