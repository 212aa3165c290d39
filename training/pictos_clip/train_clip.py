"""Train pictos-clip: an open_clip.CLIP, from nothing, by the contrastive loss alone.

    python training/pictos_clip/train_clip.py --work DIR --minutes 60
    python training/pictos_clip/train_clip.py --work DIR --resume --minutes 10
    python training/pictos_clip/train_clip.py --work DIR --cooldown 300

The loss is the symmetric cross-entropy over a batch of pairs (Radford et al. 2021); pairs whose
captions are the same words are no negatives of each other. `DIR/NAME.pt` is the checkpoint,
`logs/NAME.csv` the curve; a cool-down writes `DIR/NAME-final.pt`.
"""

import math
import sys
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from pictures import Banks, Made, Painter
from tell import vocabulary, write_merges
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "pictos"))
from common import Run, arguments

from mmlens.families.smol_parts import ENCODER_NAME, under_timms_names
from mmlens.pictos.sprites import sprites

HERE = Path(__file__).parent
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
CONTEXT = 16
SIDE = 64


def tokenizer(work: Path) -> open_clip.SimpleTokenizer:
    """One token for each word of the captions; other words fall into letters."""
    file = work / "merges.txt.gz"
    names, kinds = sprites().names, sprites().kinds
    write_merges(vocabulary(names, kinds), file)
    return open_clip.SimpleTokenizer(bpe_path=str(file), context_length=CONTEXT)


def config(vocab: int) -> dict:
    """The model, as open_clip writes it down."""
    return {
        "embed_dim": 192,
        "init_logit_scale": math.log(25),
        "vision_cfg": {"timm_model_name": ENCODER_NAME, "timm_model_pretrained": False,
                       "timm_pool": "avg", "timm_proj": "linear", "image_size": SIDE},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": vocab, "width": 128, "heads": 4,
                     "layers": 2},
    }  # fmt: skip


def begun(file: Path, vocab: int) -> open_clip.CLIP:
    """The model before the first step: ImageNet's trunk, the rest at random."""
    model = open_clip.CLIP(**config(vocab))
    state = under_timms_names(torch.load(file, map_location="cpu", weights_only=True))
    trunk = {k: v for k, v in state.items() if not k.startswith("classifier")}
    model.visual.trunk.load_state_dict(trunk)
    model.visual = model.visual.to(memory_format=torch.channels_last)
    return model


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


def unseen(banks: Banks) -> dict[str, Made]:
    """A picture of each thing and of each word, by hands and in fonts that training never sees."""
    asked = {form: [(form, c, None) for c in range(223)] for form in ("colour", "outline")}
    asked["word"] = [("word", None, c) for c in range(223)]
    return {form: Painter(banks, seed=7, held=True).make(a) for form, a in asked.items()}


@torch.no_grad()
def judged(model: open_clip.CLIP, pictures: dict[str, Made], names: Tensor) -> dict[str, float]:
    """The share of each form whose name is the nearest of all names."""
    model.eval()
    texts = model.encode_text(names, normalize=True)
    out = {"text cos": (texts @ texts.T).mean().item()}
    for form, made in pictures.items():
        said = (model.encode_image(normalised(made.images), normalize=True) @ texts.T).argmax(1)
        out[form] = (said == torch.arange(len(names))).float().mean().item()
    model.train()
    return out


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], lr=1e-3, batch=128)
    parser.set_defaults(work=Path("runs/pictos-clip"), logs=HERE / "logs")
    parser.add_argument("--name", default="clip")
    parser.add_argument("--encoder", type=Path, required=True, help="EfficientNet-Lite0's weights")
    parser.add_argument("--frozen", type=int, default=120, help="steps with the text tower frozen")
    parser.add_argument("--first", type=int, default=320, help="steps with the name as caption")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    words = tokenizer(args.work)
    model = begun(args.encoder, words.vocab_size)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=args.lr, betas=(0.9, 0.98), eps=1e-6, fused=True)  # fmt: skip
    text_weights = [w for n, w in model.named_parameters()
                    if not n.startswith(("visual", "logit"))]  # fmt: skip
    run = Run(args.name, args, model=model, optimiser=optimiser)
    banks = Banks.load(args.work / "banks.npz")
    painter = Painter(banks, seed=1000 * args.seed + run.step + 1)
    judge = unseen(banks)
    names = words([*banks.names])
    model.train()
    while run.goes_on():
        made = painter.batch(args.batch, run.step < args.first)
        for weight in text_weights:
            weight.requires_grad_(run.step >= args.frozen)
        tokens = words(made.captions)
        seen = model.encode_image(normalised(made.images), normalize=True)
        told = model.encode_text(tokens, normalize=True)
        loss = contrast(seen, told, model.logit_scale.exp(), tokens)
        run.update(optimiser, loss)
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.6052)
        hits = (seen @ told.T).argmax(1) == torch.arange(len(seen))
        run.note(loss=loss.item(), found=hits.float().mean().item(),
                 scale=model.logit_scale.exp().item())  # fmt: skip
        if run.step % 100 == 0:
            rates = (f"{form} {rate:.3f}" for form, rate in judged(model, judge, names).items())
            print("held out, of 223:", *rates, flush=True)
    if args.cooldown:
        torch.save(model.state_dict(), args.work / f"{args.name}-final.pt")
    else:
        run.save()


if __name__ == "__main__":
    main()
