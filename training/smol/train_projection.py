"""Train the linear projection 1280 -> 576 by LiMBeR's recipe (arXiv 2209.15162), both ends frozen.

The sequence is [BOS][cells of the picture][prompt][caption][end of text]; the loss is the
cross-entropy of the caption and of the end, and only the projection learns. Without a BOS the first
cell would be SmolLM2's attention sink, and gradients range over three orders of magnitude; each
example's gradient is clipped by itself. Features are whitened here, and that is folded into the
exported map (`export.py`). `--pool 2` shows the means of 2 x 2 areas: a sixth of the
positions, each with less noise; `--cells 16` shows a random part of the 49 cells, in order.

    python training/smol/train_projection.py --work DIR --pool 2 --minutes 60 [--resume]
    python training/smol/train_projection.py --work DIR --cooldown 300
"""

import argparse
import csv
import functools
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from compose import captions
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, GgufConfig

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
KEPT = ("weight", "bias", "mean", "white")
LOGS = Path(__file__).parent / "logs"


def language_model(work: Path, dtype: torch.dtype) -> tuple[torch.nn.Module, AutoTokenizer]:
    """The real SmolLM2-135M-Instruct, dequantised, frozen."""
    plain = GgufConfig(dequantize=True)
    lm = AutoModelForCausalLM.from_pretrained(
        work / "lm", gguf_file=GGUF, dtype=dtype, quantization_config=plain,
        attn_implementation="eager",  # of so few positions it is faster than the fused one on a CPU
    )  # fmt: skip
    return lm.eval().requires_grad_(False), AutoTokenizer.from_pretrained(
        work / "lm", gguf_file=GGUF
    )


class Shards:
    """The encoded composites, all in memory as they appear."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.seen = folder, set()
        self.grids, self.nouns, self.photo = [], [], []
        self.look()

    def look(self) -> None:
        """Take up shards that were written since."""
        for file in sorted(self.folder.glob("[0-9]*.npz")):
            if file.name not in self.seen and ".part" not in file.name:
                with np.load(file) as shard:
                    self.grids.append(torch.from_numpy(shard["grid"]))
                    self.nouns.append([str(n).split("|") for n in shard["nouns"]])
                    self.photo.append(shard["photo"].tolist())
                self.seen.add(file.name)

    def batch(
        self, size: int, two: float, rng: random.Random
    ) -> tuple[Tensor, list[list[str]], list[bool]]:
        """All of one thing or (this share) all of two, so that captions are about as long."""
        many, at = 2 if rng.random() < two else 1, []
        while len(at) < size:
            shard = rng.randrange(len(self.grids))
            one = rng.randrange(len(self.nouns[shard]))
            if len(self.nouns[shard][one]) == many:
                at.append((shard, one))
        grid = torch.stack([self.grids[s][i] for s, i in at]).float()
        return grid, [self.nouns[s][i] for s, i in at], [self.photo[s][i] for s, i in at]


class Projection:
    """weight [576, k] and bias [576] on discriminant features, and how these are made.

    Adam moves every coordinate alike, and of the 1,280 features' directions most tell nothing of
    what is shown. So the map learns on Fisher's discriminant directions: features whitened by
    their covariance within nouns (of means of 3 x 3 areas), then the k directions in which the
    means of nouns lie apart. `white` [1280, k] is folded into the exported map.
    """

    def __init__(self, shards: Shards, d_model: int, most: int = 221, shrink: float = 0.1) -> None:
        within, by_noun = 0.0, {}
        for grid, nouns in zip(shards.grids, shards.nouns, strict=True):
            areas = pooled(grid.float(), 3)
            for noun in {n[0] for n in nouns if len(n) == 1}:
                some = areas[[at for at, n in enumerate(nouns) if n == [noun]]].flatten(0, 1)
                by_noun.setdefault(noun, []).append((len(some), some.mean(0)))
                within = within + (some - some.mean(0)).T @ (some - some.mean(0))
        counts = [torch.tensor([float(n) for n, _ in found]) for found in by_noun.values()]
        means = torch.stack(
            [
                (n[:, None] * torch.stack([m for _, m in found])).sum(0) / n.sum()
                for n, found in zip(counts, by_noun.values(), strict=True)
            ]
        )
        within = within / sum(n.sum() for n in counts)
        self.mean = means.mean(0)
        values, vectors = torch.linalg.eigh(within)
        values = values.clamp_min(0)
        white = vectors @ torch.diag((values + shrink * values.mean()).rsqrt())
        _, _, apart = torch.linalg.svd((means - self.mean) @ white, full_matrices=False)
        self.white = white @ apart[:most].T
        typical = self.whitened(pooled(shards.grids[0].float(), 3)).norm(dim=-1).mean()
        width = self.white.shape[1]
        self.weight = (torch.randn(d_model, width) * (3 / d_model**0.5 / typical)).requires_grad_()
        self.bias = torch.zeros(d_model, requires_grad=True)

    def whitened(self, grid: Tensor) -> Tensor:
        return (grid - self.mean) @ self.white


def pooled(grid: Tensor, side: int) -> Tensor:
    """Means of side x side areas of the 7 x 7 cells, Float[picture, side * side, feature]."""
    return F.adaptive_avg_pool2d(grid.mT.unflatten(-1, (7, 7)), side).flatten(2).mT


def texts(tok: AutoTokenizer, prompts: list[tuple[str, str]]) -> tuple[Tensor, Tensor]:
    """Ids and targets Long[batch, token]; a target is -100 inside prompt and padding."""
    rows = []
    for prompt, said in prompts:
        first = tok(prompt, add_special_tokens=False).input_ids
        then = [*tok(said, add_special_tokens=False).input_ids, tok.eos_token_id]
        rows.append((first + then, [-100] * len(first) + then))
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([i + [tok.eos_token_id] * (width - len(i)) for i, _ in rows])
    target = torch.tensor([t + [-100] * (width - len(t)) for _, t in rows])
    return ids, target


def shortened(ids: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Without the full stop and the end of text, which are learned soon and cost as much."""
    ends = (target != -100).sum(1) + (target == -100).int().argmin(1)
    keep = torch.arange(ids.shape[1]) < ends[:, None] - 2
    return ids[:, : keep.sum(1).max()], target.where(keep, -100)[:, : keep.sum(1).max()]


@functools.cache
def start_of_text(lm) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of the BOS, the same for every example."""
    with torch.no_grad():
        cache = lm.model(input_ids=torch.tensor([[lm.config.bos_token_id]])).past_key_values
    return [(layer.keys, layer.values) for layer in cache.layers]


def step(lm, soft: Tensor, ids: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss per example, and per target token: its cross-entropy and whether it comes first."""
    words = lm.get_input_embeddings()(ids[:, :-1])
    enter = torch.cat([soft.to(words.dtype), words], 1)
    bos = DynamicCache()
    for at, both in enumerate(start_of_text(lm)):
        bos.update(*(one.expand(len(ids), -1, -1, -1) for one in both), at)
    hidden = lm.model(inputs_embeds=enter, past_key_values=bos).last_hidden_state
    hidden = hidden[:, soft.shape[1] - 1 :]
    said = target != -100
    logits = lm.lm_head(hidden[said]).float()
    losses = F.cross_entropy(logits, target[said], reduction="none")
    per = torch.zeros(target.shape).masked_scatter(said, losses)
    return per.sum(1) / said.sum(1), losses.detach(), (logits.argmax(-1) == target[said]).detach()


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
    shards = Shards(args.work / "features")
    projection = Projection(shards, lm.config.hidden_size)
    learns = [projection.weight, projection.bias]
    optimiser = torch.optim.AdamW(learns, args.lr, (0.9, 0.95), weight_decay=args.decay)
    file, done, spent = args.work / f"{args.name}.pt", 0, 0.0
    if args.resume or args.cooldown:
        state = torch.load(file, weights_only=True)
        with torch.no_grad():
            for name in KEPT:
                getattr(projection, name).copy_(state[name])
        optimiser.load_state_dict(state["optimiser"])
        done, spent = state["step"], state["spent"]

    def save(to: Path) -> None:
        part = to.with_suffix(".part")
        state = {name: getattr(projection, name).detach() for name in KEPT}
        state |= {"step": done, "spent": spent, "optimiser": optimiser.state_dict()}
        torch.save(state, part)
        os.replace(part, to)

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    rng = random.Random(args.seed + 7919 * done)
    LOGS.mkdir(exist_ok=True)
    start, first, recent = time.time(), done, []
    last = done + args.cooldown if args.cooldown else args.steps
    while done < last and not stop and time.time() - start < 60 * args.minutes:
        began = time.time()
        rate = (
            min(1, (done - first + 1) / args.warmup)
            if not args.cooldown
            else (last - done) / args.cooldown
        )
        for group in optimiser.param_groups:
            group["lr"] = args.lr * rate
        grid, nouns, photo = shards.batch(args.batch, args.two, rng)
        if args.pool:
            grid = pooled(grid, args.pool)
        elif args.cells < grid.shape[1]:
            grid = grid[:, torch.randperm(grid.shape[1])[: args.cells].sort().values]
        form = rng.random()  # one for the whole batch
        prompts = [captions(n, p, random.Random(form)) for n, p in zip(nouns, photo, strict=True)]
        ids, target = texts(tok, prompts)
        if rng.random() < args.short:
            ids, target = shortened(ids, target)
        x = projection.whitened(grid)
        soft = F.linear(x, projection.weight, projection.bias).detach().requires_grad_()
        per, losses, right = step(lm, soft, ids, target)
        norm = soft.norm(dim=-1)
        aim = per.sum() + args.norm * len(x) * F.relu(norm - args.quiet).square().mean()
        aim.backward()
        projection.weight.grad, projection.bias.grad, norms = clipped(
            soft.grad.float(), x, args.clip
        )
        optimiser.step()
        done, spent = done + 1, spent + time.time() - began
        found = (per.mean(), losses.mean(), right.float().mean(), norm.mean(), norms.median())
        recent.append([one.item() for one in found])
        if done % 20 == 0:
            row = [round(float(v), 4) for v in np.mean(recent, 0)]
            with (LOGS / f"{args.name}.csv").open("a", newline="") as log:
                csv.writer(log).writerow(
                    [done, round(spent), args.pool**2 or args.cells, args.batch, *row]
                )
            print(done, f"{spent:.0f} s", *row, flush=True)
            recent = []
        if done % 100 == 0:
            shards.look()
            save(file)
    save(args.work / f"{args.name}-final.pt" if args.cooldown else file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--name", default="projection")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--cooldown", type=int, default=0, help="steps of a falling rate; exported")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--cells", type=int, default=16)
    parser.add_argument("--pool", type=int, default=0, help="rows and columns of means; 0: cells")
    parser.add_argument("--two", type=float, default=0.15, help="share of batches of two things")
    parser.add_argument("--short", type=float, default=0.0, help="share of steps without the end")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.0)
    parser.add_argument("--warmup", type=int, default=60)
    parser.add_argument(
        "--clip", type=float, default=3.0, help="largest norm of one example's gradient"
    )
    parser.add_argument(
        "--norm", type=float, default=0.0, help="weight of the penalty on norms above --quiet"
    )
    parser.add_argument("--quiet", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
