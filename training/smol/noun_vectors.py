"""A vector per noun and one of the ground, learned from captions: where the projection starts.

What would a soft prompt have to be for the frozen language model to say the noun? Pretend grids of
three to five cells, each a mixture of the vectors of what stands there, noise of other nouns
added, are captioned; the vectors begin random and learn by the captions' cross-entropy, as the
projection does afterwards. No embedding of any word enters. A noun is met alone here, not mixed
with everything else that an encoder tells, so this takes a tenth of the steps.

    python training/smol/noun_vectors.py --work DIR --minutes 14      # vectors.pt
"""

import argparse
import random
import time
from pathlib import Path

import torch
from captioning import captioned, language_model, losses, too_long
from compose import index
from torch import Tensor


def pretend(nouns: list[list[int]], few: int, noise: float, rng: random.Random) -> Tensor:
    """Mixtures of nouns and ground, Float[picture, cell, few + 1]."""
    two = len(nouns[0]) == 2
    cells = 5 if two else rng.choice([3, 4, 5])
    out = torch.zeros(len(nouns), cells, few + 1)
    for row, named in zip(out, nouns, strict=True):
        middle = rng.choice([2, 3])
        for noun, part in zip(named, (row[:middle], row[middle:]) if two else (row,), strict=True):
            part[:, noun] = 0.3 + 0.7 * torch.rand(len(part))
        if not two and rng.random() < 0.8:
            row[rng.randrange(cells)] = 0
        if two and rng.random() < 0.5:
            row[rng.choice([middle - 1, 4])] *= 0.1
    out[..., -1] = 1 - out[..., :-1].sum(-1)
    strength, dirt = torch.rand(2, len(nouns), 1, 1)
    return out * (0.3 + strength) + noise * dirt * torch.randn(out.shape)


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    lm, tok = language_model(args.work, torch.bfloat16)
    names = sorted({row["noun"] for row in index(args.work) if row["split"] == "train"})
    vectors = torch.randn(len(names) + 1, lm.config.hidden_size) / 8
    optimiser = torch.optim.Adam([vectors.requires_grad_()], args.lr, (0.9, 0.99))
    start, step, recent = time.time(), 0, []
    while (gone := (time.time() - start) / (60 * args.minutes)) < 1:
        step += 1
        for group in optimiser.param_groups:
            group["lr"] = args.lr * min(1, step / 30, 3 * (1 - gone))
        many = 2 if rng.random() < args.two else 1
        nouns = [rng.sample(range(len(names)), many) for _ in range(args.batch)]
        photo = [rng.random() < 0.3 for _ in nouns]
        ids, target = captioned(tok, [[names[n] for n in ns] for ns in nouns], photo, 0.5, rng)
        mixed = pretend(nouns, len(names), args.noise, rng)
        soft = (mixed @ vectors).detach().requires_grad_()
        per, each, right = losses(lm, soft, ids, target)
        (per.sum() + args.norm * len(soft) * too_long(soft, args.quiet)).backward()
        vectors.grad = torch.einsum("bpk,bpd->kd", mixed, soft.grad.float())
        optimiser.step()
        recent.append([each.mean(), right.float().mean(), soft.norm(dim=-1).mean()])
        if step % 20 == 0:
            print(step, f"{60 * args.minutes * gone:.0f} s", *torch.tensor(recent).mean(0).tolist())
            recent = []
    torch.save({"names": names, "vectors": vectors.detach()}, args.work / "vectors.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--minutes", type=float, default=14)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--two", type=float, default=0.2, help="share of batches of two things")
    parser.add_argument("--noise", type=float, default=0.03, help="of other nouns, at most")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--norm", type=float, default=0.002)
    parser.add_argument("--quiet", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
