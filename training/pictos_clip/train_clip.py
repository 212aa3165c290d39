"""Train pictos-clip: an open_clip.CLIP, from nothing, by the contrastive loss alone.

    python training/pictos_clip/train_clip.py --work DIR --minutes 60
    python training/pictos_clip/train_clip.py --work DIR --resume --minutes 10
    python training/pictos_clip/train_clip.py --work DIR --cooldown 300

The loss is the symmetric cross-entropy over a batch of pairs (Radford et al. 2021); pairs whose
captions are the same words are no negatives of each other. `DIR/NAME.pt` is the checkpoint,
`logs/NAME.csv` the curve; a cool-down writes `DIR/NAME-final.pt`.
"""

import sys
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from pictures import Banks, Painter
from tell import vocabulary, write_merges
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "pictos"))
from common import Run, arguments

from mmlens.pictos.sprites import sprites

HERE = Path(__file__).parent
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
CONTEXT = 16
SIDE = 64


def tokenizer(work: Path) -> open_clip.SimpleTokenizer:
    """One token for each word of the captions; other words fall into letters."""
    file = work / "merges.txt.gz"
    names, kinds = sprites().names, sprites().kinds
    write_merges(vocabulary(names, kinds), file)
    return open_clip.SimpleTokenizer(bpe_path=str(file), context_length=CONTEXT)


def config(vocab: int, width: int = 24, layers: tuple[int, ...] = (1, 2, 2, 1)) -> dict:
    """The model, as open_clip writes it down."""
    return {
        "embed_dim": 192,
        "vision_cfg": {"image_size": SIDE, "layers": list(layers), "width": width,
                       "patch_size": None},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": vocab, "width": 128, "heads": 4,
                     "layers": 2},
    }  # fmt: skip


def contrast(pictures: Tensor, texts: Tensor, scale: Tensor, tokens: Tensor) -> Tensor:
    """Symmetric cross-entropy of unit embeddings; equal captions aren't negatives."""
    logits = scale * pictures @ texts.T
    same = (tokens[:, None] == tokens[None]).all(-1)
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, -torch.inf)
    right = torch.arange(len(logits))
    return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


def normalised(images: Tensor) -> Tensor:
    out = (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    return out.contiguous(memory_format=torch.channels_last)


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], lr=2e-3, batch=128)
    parser.set_defaults(work=Path("runs/pictos-clip"), logs=HERE / "logs")
    parser.add_argument("--name", default="clip")
    parser.add_argument("--width", type=int, default=24)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    words = tokenizer(args.work)
    model = open_clip.CLIP(**config(words.vocab_size, args.width))
    model.visual = model.visual.to(memory_format=torch.channels_last)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)  # fmt: skip
    run = Run(args.name, args, model=model, optimiser=optimiser)
    banks = Banks.load(args.work / "banks.npz")
    painter = Painter(banks, seed=1000 * args.seed + run.step + 1)
    judge = [Painter(banks, seed=7, held=True).make([(f, i, None) for i in range(223)])
             for f in ("colour", "outline", "symbol")]  # fmt: skip
    judge += [Painter(banks, seed=7, held=True).make([("word", None, i) for i in range(223)])]
    names = words([*banks.names])
    model.train()
    while run.goes_on():
        made = painter.batch(args.batch)
        tokens = words(made.captions)
        with torch.autocast("cpu", torch.bfloat16):
            seen = model.encode_image(normalised(made.images), normalize=True).float()
        told = model.encode_text(tokens, normalize=True)
        loss = contrast(seen, told, model.logit_scale.exp(), tokens)
        run.update(optimiser, loss)
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        hits = (seen @ told.T).argmax(1) == torch.arange(len(seen))
        at = run.step + 1
        run.note(loss=loss.item(), found=hits.float().mean().item(),
                 scale=model.logit_scale.exp().item())  # fmt: skip
        if at % 100 == 0:
            model.eval()
            with torch.no_grad():
                texts = model.encode_text(names, normalize=True)
                right = [(model.encode_image(normalised(j.images)) @ texts.T).argmax(1)
                         == torch.arange(223) for j in judge]  # fmt: skip
            model.train()
            print("held out, of 223:", *(f"{f} {r.float().mean():.3f}" for f, r in zip(
                ("colour", "outline", "symbol", "word"), right, strict=True)), flush=True)  # fmt: skip
    if args.cooldown:
        torch.save(model.state_dict(), args.work / f"{args.name}-final.pt")
    else:
        run.save()


if __name__ == "__main__":
    main()
