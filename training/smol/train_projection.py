"""Train the linear projection 1280 -> 576 by LiMBeR's recipe (arXiv 2209.15162), both ends frozen.

The loss is the cross-entropy of captions (`captioning.py`), and only the projection learns. It
learns on scores of nouns (`noun_scores.py`), which are linear in the features and folded into the
exported map (`export.py`), and begins at the vectors that `noun_vectors.py` learned for each noun
and for the ground. Gradients range over three orders of magnitude; each example's is clipped
by itself. `--cells 12` shows some of the 49 cells, in order, more of them from what is named.

    python training/smol/train_projection.py --work DIR --cells 12 --minutes 60 [--resume]
    python training/smol/train_projection.py --work DIR --cooldown 300
    python training/smol/train_projection.py --work DIR --scores regression --start projection.pt
"""

import argparse
import csv
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from captioning import captioned, language_model, losses, too_long
from torch import Tensor

KEPT = ("weight", "bias", "mean", "white")
LOGS = Path(__file__).parent / "logs"


class Shards:
    """The composites' scores, all in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, set()
        self.scores, self.cover, self.nouns, self.photo = [], [], [], []
        self.look()

    def look(self) -> None:
        """Take up shards that were written since."""
        for file in sorted(self.folder.glob("[0-9][0-9][0-9].npz")):
            if file.name not in self.seen:
                with np.load(file) as shard:
                    self.scores.append(torch.from_numpy(shard["z"]))
                    self.cover.append(torch.from_numpy(shard["cover"]).float())
                    self.nouns.append([str(n).split("|") for n in shard["nouns"]])
                    self.photo.append(shard["photo"].tolist())
                self.seen.add(file.name)

    def batch(
        self, size: int, two: float, cells: int, rng: random.Random
    ) -> tuple[Tensor, list[list[str]], list[bool]]:
        """All of one thing or (this share) all of two, so that captions are about as long."""
        many, at = 2 if rng.random() < two else 1, []
        while len(at) < size:
            shard = rng.randrange(len(self.scores))
            one = rng.randrange(len(self.nouns[shard]))
            if len(self.nouns[shard][one]) == many:
                at.append((shard, one))
        x = torch.stack([self.scores[s][i] for s, i in at]).float()
        if cells < x.shape[1]:
            cover = torch.stack([self.cover[s][i] for s, i in at])
            likely = 0.15 + cover / cover.mean(1, keepdim=True).clamp_min(0.02)
            some = torch.multinomial(likely, cells).sort(1).values
            x = x.gather(1, some[:, :, None].expand(-1, -1, x.shape[2]))
        return x, [self.nouns[s][i] for s, i in at], [self.photo[s][i] for s, i in at]


class Projection:
    """weight [576, nouns + 1] and bias [576] on scores, from the vectors of nouns and ground.

    The scores' offset goes into the bias, so that features need only `mean` and `white`. With
    `start`, from a map that was trained on `scores.pt`: a score means the same in both.
    """

    def __init__(self, work: Path, kind: str, start: str | None) -> None:
        scores = torch.load(work / f"{kind}.pt", weights_only=True)
        self.mean, self.white = scores["mean"], scores["white"]
        if start:
            old = torch.load(work / start, weights_only=True)
            offset = scores["offset"] - torch.load(work / "scores.pt", weights_only=True)["offset"]
            self.weight = old["weight"].clone().requires_grad_()
            self.bias = (old["bias"] + old["weight"] @ offset).requires_grad_()
            return
        vectors = torch.load(work / "vectors.pt", weights_only=True)["vectors"]
        middle = vectors[:-1].mean(0)
        self.weight = (vectors - middle).T.clone().requires_grad_()
        self.bias = (middle + (vectors - middle).T @ scores["offset"]).requires_grad_()


def clipped(soft_grad: Tensor, x: Tensor, most: float) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of weight and bias, each example's clipped to `most` in norm; and the norms.

    The norm of sum_p g_p x_p^T needs no matrix per example: it is sum_pq (g_p.g_q)(x_p.x_q).
    """
    norms = ((soft_grad @ soft_grad.mT) * (x @ x.mT)).sum((1, 2)).clamp_min(0).sqrt()
    g = soft_grad * (most / norms).clamp_max(1)[:, None, None] / len(x)
    return torch.einsum("bpd,bpf->df", g, x), g.sum((0, 1)), norms


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    lm, tok = language_model(args.work, torch.bfloat16)
    shards = Shards(args.work / args.scores)
    projection = Projection(args.work, args.scores, args.start)
    learns = [projection.weight, projection.bias]
    optimiser = torch.optim.Adam(learns, args.lr, (0.9, 0.98))
    file, done, spent, last = args.work / f"{args.name}.pt", 0, 0.0, args.steps
    source = args.work / args.start if args.start else file
    file = args.work / f"{args.name}-cooling.pt" if args.cooldown else file
    if args.start or args.resume or args.cooldown:
        state = torch.load(file if args.resume else source, weights_only=True)
        done, spent = state["step"], state["spent"]
        last = state.get("last", done + args.cooldown if args.cooldown else last)
        if args.resume or not args.start:
            with torch.no_grad():
                for name in KEPT:
                    getattr(projection, name).copy_(state[name])
            optimiser.load_state_dict(state["optimiser"])

    def save(to: Path) -> None:
        part = to.with_suffix(".part")
        state = {name: getattr(projection, name).detach() for name in KEPT}
        state |= {"step": done, "spent": spent, "optimiser": optimiser.state_dict()}
        state |= {"last": last} if args.cooldown else {}
        torch.save(state, part)
        os.replace(part, to)

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    rng = random.Random(args.seed + 7919 * done)
    LOGS.mkdir(exist_ok=True)
    start, first, recent = time.time(), done, []
    while done < last and not stop and time.time() - start < 60 * args.minutes:
        began = time.time()
        warm = min(1, (done - first + 1) / args.warmup)
        rate = warm * ((last - done) / args.cooldown if args.cooldown else 1)
        for group in optimiser.param_groups:
            group["lr"] = args.lr * rate
        x, nouns, photo = shards.batch(args.batch, args.two, args.cells, rng)
        ids, target = captioned(tok, nouns, photo, args.short, rng)
        soft = F.linear(x, projection.weight, projection.bias).detach().requires_grad_()
        per, each, right = losses(lm, soft, ids, target)
        (per.sum() + args.norm * len(x) * too_long(soft, args.quiet)).backward()
        projection.weight.grad, projection.bias.grad, norms = clipped(
            soft.grad.float(), x, args.clip
        )
        optimiser.step()
        done, spent = done + 1, spent + time.time() - began
        norm = soft.norm(dim=-1)
        found = (per.mean(), each.mean(), right.float().mean(), norm.mean(), norms.median())
        recent.append([one.item() for one in found])
        if done % 20 == 0:
            row = [round(float(v), 4) for v in np.mean(recent, 0)]
            with (LOGS / f"{args.name}.csv").open("a", newline="") as log:
                csv.writer(log).writerow([done, round(spent), args.cells, args.batch, *row])
            print(done, f"{spent:.0f} s", *row, flush=True)
            recent = []
        if done % 100 == 0:
            shards.look()
            save(file)
    save(args.work / f"{args.name}-final.pt" if args.cooldown and done >= last else file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--name", default="projection")
    parser.add_argument("--scores", default="scores", help="or regression (noun_regression.py)")
    parser.add_argument("--start", help="a map on scores.pt to go on from")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--cooldown", type=int, default=0, help="steps of a falling rate; exported")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--cells", type=int, default=49)
    parser.add_argument("--two", type=float, default=0.15, help="share of batches of two things")
    parser.add_argument("--short", type=float, default=0.5, help="share of steps without the end")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument(
        "--clip", type=float, default=12.0, help="largest norm of one example's gradient"
    )
    parser.add_argument(
        "--norm", type=float, default=0.002, help="weight of the penalty on norms above --quiet"
    )
    parser.add_argument("--quiet", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
