"""Train the language model on text alone: GPT-J's class, 8 layers of 256, own vocabulary.

Loss: the mean next-token cross-entropy over packed documents, where the words of a list, which
nobody can guess, count little beside the sentence that follows. GPT-J's class keeps the paper's
architecture (parallel attention and MLP, rotary positions); embeddings are untied, so that what a
neuron writes and what a word reads are different matters. Units are rectified (ReLU), so that one
that does not fire writes nothing and has no gradient.

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
                        pad_token_id=0, activation_function="relu")  # fmt: skip
    lm = GPTJForCausalLM(config)
    for name, weight in lm.named_parameters():  # what writes to the stream starts small
        if name.endswith(("out_proj.weight", "fc_out.weight")):
            weight.data.mul_((2 * config.n_layer) ** -0.5)
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


def noisy(lm: GPTJForCausalLM, ids: Tensor, listed: Tensor, noise: float) -> Tensor:
    """Word vectors of ids [batch, position]; in three of four windows the words of lists are read
    under noise of up to `noise` times the spread of word vectors (after NEFTune, arXiv
    2310.05914), most of it the same wherever a word stands: a soft prompt only comes near the
    words it stands for, and a linear map is off in the same way wherever it sees the same thing.
    """
    words = lm.transformer.wte(ids)
    if not noise:
        return words
    much = noise * (1.33 * torch.rand(len(ids), 1, 1, device=ids.device) - 0.33).clamp(min=0)
    much = much * words.detach().std() * listed[:, :, None]
    same = torch.randn(lm.config.vocab_size, words.shape[-1], device=ids.device)[ids]
    return words + much * (0.9 * same + 0.44 * torch.randn_like(words))


def through_units(
    lm: GPTJForCausalLM, words: Tensor, listed: Tensor, which: Tensor, told: int
) -> tuple[Tensor, Tensor]:
    """The last stream [batch, position, d_model], and what the MLPs before layer `told` wrote.

    In the windows marked `which` [batch] a sentence sees of a list what the MLPs have written at
    its words, beside the words, and what attention made of them, of another window. What a list is
    about has to be worked out by units where it stands and fetched from there, as in language
    models of full size (Geva et al., arXiv 2304.14767); copying the words leads astray.
    """
    length = words.shape[1]
    position = torch.arange(length, device=words.device)[None]
    before = torch.full((length, length), float("-inf"), device=words.device).triu(1)[None, None]
    stream, written, early = words, torch.zeros_like(words), words
    lists, sentences = (which[:, None, None] & part[:, :, None] for part in (listed, ~listed))

    def attend(block: nn.Module, normed: Tensor) -> Tensor:
        return block.attn(normed, attention_mask=before, position_ids=position)[0]

    for layer, block in enumerate(lm.transformer.h):
        normed = block.ln_1(stream)
        astray = block.ln_1(written + (stream - written).roll(1, 0))
        seen = attend(block, torch.where(lists, astray, normed))
        seen = torch.where(sentences, seen, attend(block, normed))
        new = block.mlp(normed)
        stream, written = stream + seen + new, written + new
        if layer + 1 == told:
            early = written
    return lm.transformer.ln_f(stream), early


def mean_loss(lm: GPTJForCausalLM, hidden: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy of the head on a normed stream."""
    each = F.cross_entropy(lm.lm_head(hidden).flatten(0, 1), wanted.flatten(), reduction="none")
    return (each * weights.flatten()).sum() / weights.sum()


def losses_of(
    lm: GPTJForCausalLM, ids: Tensor, weights: Tensor, about: Tensor, noise: float,
    through: float, told: int, said: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Next-token cross-entropy; that of what a list's words are about (`about`, 0: nothing), as the
    head reads it in what the MLPs before layer `told` have written there; and what they wrote.

    What units wrote in the batch before (`said` [any, d_model]) comes in with a list's words, the
    same wherever a word stands, and is to be ignored: a soft prompt that brings its own answer
    would need no units. Words that come often, such as those for the ground, count less each.
    """
    listed = weights[:, :-1] < 1
    words = noisy(lm, ids[:, :-1], listed, noise)
    if said is not None and len(said):
        much = (1.6 * torch.rand(len(ids), 1, 1, device=ids.device) - 0.8).clamp(min=0)
        drawn = torch.randint(len(said), (lm.config.vocab_size,), device=ids.device)
        words = words + much * listed[:, :, None] * said[drawn[ids[:, :-1]]]
    which = torch.rand(len(ids), device=ids.device) < through
    last, written = through_units(lm, words, listed, which, told)
    about = about[:, :-1]
    weigh = (about > 0) / about.flatten().bincount()[about].sqrt() + 1e-9
    return (
        mean_loss(lm, last, ids[:, 1:], weights[:, 1:]),
        mean_loss(lm, lm.transformer.ln_f(written), about, weigh),
        written.detach()[listed],
    )


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
    parser.add_argument("--through", type=float, default=0.0, help="share of lists read by units")
    parser.add_argument("--about", type=float, default=0.0, help="weight of what words are about")
    parser.add_argument("--sparse", type=float, default=0.0, help="weight of the units' mean size")
    parser.add_argument("--skip", type=float, default=0.0, help="share of first MLPs left out")
    parser.add_argument("--head-decay", type=float, default=0.05, help="weight decay of the head")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.work / "tokenizer")
    corpus, listed, about = (torch.from_numpy(np.concatenate([np.load(args.work / f"{c}{end}.npy")
                      for c in args.corpus])) for end in ("", "-listed", "-about"))  # fmt: skip
    corpus, about = corpus.to(torch.int32), about.to(torch.int32)
    weights = torch.where(listed, args.listed, 1.0)
    lm = new_lm(len(tokenizer)).to(args.device)
    adam = optimiser(lm, args.lr, args.head_decay, args.muon)
    sizes = active(lm)
    skip_at_times(lm, args.skip)
    run = Run("lm", args, lm=lm, optimiser=adam)
    said: Tensor | None = None
    while run.goes_on():
        ids, weigh, of = (batch(part, run.step, args.batch, args.seed).to(args.device)
                          for part in (corpus, weights, about))  # fmt: skip
        sizes.clear()
        at = 3 + run.step % 4
        loss, told, said = losses_of(lm, ids, weigh, of, args.noise, args.through, at, said)
        size = torch.stack(sizes).mean()
        run.update(adam, loss + args.about * told + args.sparse * size)
        run.note(loss=loss.item(), about=told.item(), active=size.item())
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
