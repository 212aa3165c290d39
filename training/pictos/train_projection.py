"""Train the linear projection by LiMBeR's recipe (arXiv 2209.15162), both ends frozen.

The sequence is [100 projected patches][text][end]; the loss is the cross-entropy of the text's
tokens up to and including the first end-of-text, so that captions learn to stop; only the
projection's weight and bias learn. Text: mostly "A picture of" and the canonical caption, else a
paraphrase (places, ground colour). `--patches 40` shows a random part of the patches, in order,
for a cheaper early phase, as strong a dropout as it is.

    python training/pictos/train_projection.py --work DIR --minutes 30 [--resume]
    python training/pictos/train_projection.py --work DIR --cooldown 200   # exports
"""

import dataclasses
import random

import torch
import torch.nn.functional as F
from bridge import Bridge, names_in
from common import Muon, Run, arguments, weight_groups
from safetensors.torch import save_file
from torch import Tensor, nn

from mmlens.pictos.scenes import Scenes
from mmlens.pictos.world import STYLES, World


def texts(many: list[Scenes], rng: random.Random, canonical: float) -> list[str]:
    """One text for each scene: the canonical picture sentence or another paraphrase."""
    chosen = []
    for scenes in many:
        for b in range(len(scenes)):
            picture, *others = scenes.paraphrases(b)
            chosen.append(picture if rng.random() < canonical else rng.choice(others))
    return chosen


def padded(bridge: Bridge, words: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and targets Long[batch, token]: end-of-text is a target once, padding never."""
    end = bridge.tokenizer.eos_token_id
    rows = [[*bridge.tokenizer.encode(w), end] for w in words]
    width = max(map(len, rows))
    ids = torch.tensor([r + [end] * (width - len(r)) for r in rows])
    target = torch.tensor([r + [-100] * (width - len(r)) for r in rows])
    device = bridge.projection.weight.device
    return ids.to(device), target.to(device)


def loss_of(bridge: Bridge, features: Tensor, ids: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of the text after the picture; its first token is the picture's to say."""
    enter = bridge.soft(features, ids[:, :-1])
    hidden = bridge.lm.transformer(inputs_embeds=enter, use_cache=False).last_hidden_state
    logits = bridge.lm.lm_head(hidden[:, features.shape[1] - 1 :])
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100)


def part_of(features: Tensor, patches: int) -> Tensor:
    """A random part of the patches, the same places for the batch, in reading order."""
    if patches >= features.shape[1]:
        return features
    return features[:, torch.randperm(features.shape[1])[:patches].sort().values]


def naming(bridge: Bridge, things: int, scenes: int = 24) -> str:
    """Shares of held-out scenes in which everything is named: literal, symbolic, written."""
    device, shares = bridge.projection.weight.device, []
    for style in STYLES:
        many = World("held_out", things=things, style=style, device=device).batch(range(scenes))
        said = bridge.say(many.images)
        right = [set(n) <= names_in(s, n) for n, s in zip(many.names, said, strict=True)]
        shares.append(f"{sum(right) / scenes:.2f}")
    return " ".join(shares)


class Whitened(nn.Module):
    """A linear map learnt in whitened coordinates, where every direction of the features is as
    easy to learn; `folded` is the same map on the features as they are.

        P x = W A (x - m) + b,    A = cov(x)^(-1/2)
    """

    mean: Tensor
    whiten: Tensor

    def __init__(self, d_in: int, d_out: int, scale: float) -> None:
        super().__init__()
        self.inner = nn.Linear(d_in, d_out)
        self.inner.weight.data.mul_(scale)  # patches begin about as long as word vectors
        self.inner.bias.data.mul_(scale)
        self.register_buffer("mean", torch.zeros(d_in))
        self.register_buffer("whiten", torch.eye(d_in))

    @property
    def weight(self) -> Tensor:
        """Of the map in whitened coordinates."""
        return self.inner.weight

    def measure(self, features: Tensor, floor: float = 1e-3) -> None:
        """Take mean and covariance from features Float[..., d_in]."""
        x = features.flatten(0, -2).double()
        self.mean = x.mean(0).to(self.mean)
        values, vectors = torch.linalg.eigh(x.T.cov())
        root = vectors / (values + floor * values.mean()).sqrt()
        self.whiten = (root @ vectors.T).to(self.whiten)

    def forward(self, features: Tensor) -> Tensor:
        return self.inner((features - self.mean) @ self.whiten)

    def folded(self) -> dict[str, Tensor]:
        """Weight and bias of the plain linear map."""
        weight = (self.inner.weight @ self.whiten).detach()
        bias = (self.inner.bias - weight @ self.mean).detach()
        return {"weight": weight.cpu().contiguous(), "bias": bias.cpu().contiguous()}


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], lr=3e-4, batch=32)
    parser.add_argument("--patches", type=int, default=100)
    parser.add_argument("--things", type=int, nargs="+", default=[0],
                        help="things in a scene, in turn from step to step; 0: any")  # fmt: skip
    parser.add_argument("--shares", type=int, nargs=3, default=(3, 3, 2), help="of the styles")
    parser.add_argument("--canonical", type=float, default=0.75, help="share of canonical captions")
    parser.add_argument("--scale", type=float, default=0.1, help="of the first weights")
    parser.add_argument("--muon", action="store_true", help="orthogonal steps")
    parser.add_argument("--check", type=int, default=250, help="steps between two looks at naming")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    bridge = Bridge.of(args.work / "encoder", args.work / "lm", None, args.device)
    plain = bridge.projection
    projection = Whitened(plain.in_features, plain.out_features, args.scale).to(args.device)
    bridge = dataclasses.replace(bridge, projection=projection)
    groups = weight_groups([projection], 0.0, [projection.inner] if args.muon else None)
    adam = Muon(groups, args.lr, betas=(0.9, 0.95))
    run = Run("projection", args, projection=projection, optimiser=adam)
    sizes = [args.batch * share // sum(args.shares) for share in args.shares]
    turns = [[World("train", args.seed + 1, things=n or None, style=s, device=args.device)
              for s in STYLES] for n in args.things]  # fmt: skip
    if run.step == 0:
        scenes = [w.batch(range(4 * n)) for w, n in zip(turns[0], sizes, strict=True)]
        projection.measure(bridge.features(torch.cat([s.images for s in scenes])))
    while run.goes_on():
        torch.manual_seed(args.seed + run.step)
        scenes = [w.batch(range(run.step * n, (run.step + 1) * n))
                  for w, n in zip(turns[run.step % len(turns)], sizes, strict=True)]  # fmt: skip
        features = bridge.features(torch.cat([s.images for s in scenes]))
        ids, target = padded(bridge, texts(scenes, random.Random(run.step), args.canonical))
        loss = loss_of(bridge, part_of(features, args.patches), ids, target)
        run.update(adam, loss)
        run.note(loss=loss.item())
        if run.step % args.check == 0:
            print(f"  held out: one {naming(bridge, 1)}, two {naming(bridge, 2)}", flush=True)
    if args.cooldown:
        save_file(projection.folded(), args.work / "projection.safetensors")
        print(f"  held out: one {naming(bridge, 1)}, two {naming(bridge, 2)}", flush=True)
    else:
        run.save()


if __name__ == "__main__":
    main()
