"""Linear scores of nouns for every cell of every composite: what the projection reads.

Two closed forms, over all cells that `encode.py` wrote. First Fisher's discriminant directions: of
the encoder's 1,280, those in which the means of nouns lie apart, each of unit variance within
nouns. In them, least squares fits for every noun the share of a cell that it covers, nouns weighing
alike; a last score, of all 1,280, is of the ground. Least squares is the linear map with the most
signal for its noise, and signal counts: what a soft prompt holds beside its noun is noise to the
language model. A map that has learned to read them reads better ones at once
(`noun_regression.py`).

    python training/smol/noun_scores.py --work DIR      # scores.pt, and scores/NNN.npz of shards
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from compose import index
from torch import Tensor

SCALE = 2.0  # a noun then scores about 0.3 in cells that it covers, and soft prompts stay short
GROUND = 20  # the ground weighs as so many nouns


def pooled(grid: Tensor, side: int) -> Tensor:
    """Means of side x side areas of the 7 x 7 cells, Float[picture, side * side, feature]."""
    return F.adaptive_avg_pool2d(grid.mT.unflatten(-1, (7, 7)), side).flatten(2).mT


def shards(folder: Path) -> Iterator[tuple[Path, Tensor, Tensor, list[list[str]]]]:
    """File, features, cover Float[picture, cell, thing] and nouns of each shard."""
    for file in sorted(folder.glob("[0-9][0-9][0-9].npz")):
        with np.load(file) as shard:
            grid, cover = (torch.from_numpy(shard[name]).float() for name in ("grid", "cover"))
            yield file, grid, cover, [str(nouns).split("|") for nouns in shard["nouns"]]


def shares(cover: Tensor, nouns: list[list[str]], at: dict[str, int]) -> Tensor:
    """The share of each cell that each noun covers, and last the ground's."""
    out = torch.zeros(*cover.shape[:2], len(at) + 1)
    for picture, named in enumerate(nouns):
        for thing, noun in enumerate(named):
            out[picture, :, at[noun]] += cover[picture, :, thing]
    out[..., -1] = 1 - out[..., :-1].sum(-1)
    return out


class Sums:
    """What both closed forms need, in one pass over the shards."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        at = {noun: number for number, noun in enumerate(names)}
        few = len(names)
        mass = torch.zeros(few + 1)
        for _, _, cover, nouns in shards(folder):
            mass += shares(cover, nouns, at).sum((0, 1))
        weight = 1 / mass.clamp_min(1)
        weight[-1] *= GROUND
        self.gram = torch.zeros(1281, 1281, dtype=torch.float64)
        self.moment = torch.zeros(1281, few + 1, dtype=torch.float64)
        self.areas = torch.zeros(1280, 1280, dtype=torch.float64)
        self.count, self.sum = torch.zeros(few), torch.zeros(few, 1280)
        for _, grid, cover, nouns in shards(folder):
            y = shares(cover, nouns, at).flatten(0, 1)
            x = F.pad(grid.flatten(0, 1), (0, 1), value=1.0)
            heavy = (y @ weight).sqrt()[:, None]
            self.gram += ((x * heavy).mT @ (x * heavy)).double()
            self.moment += ((x * heavy).mT @ (y * heavy)).double()
            alone = [picture for picture, named in enumerate(nouns) if len(named) == 1]
            which = torch.tensor([at[nouns[picture][0]] for picture in alone])
            parts = pooled(grid[alone], 3)
            self.areas += (parts.flatten(0, 1).mT @ parts.flatten(0, 1)).double()
            self.count.index_add_(0, which, torch.full((len(which),), float(parts.shape[1])))
            self.sum.index_add_(0, which, parts.sum(1))


def discriminants(sums: Sums, shrink: float = 0.1) -> tuple[Tensor, Tensor]:
    """Mean [1280] and Fisher's directions [1280, nouns - 1]."""
    means = sums.sum / sums.count[:, None].clamp_min(1)
    between = (means.mT * sums.count).double() @ means.double()
    values, vectors = torch.linalg.eigh(((sums.areas - between) / sums.count.sum()).float())
    values = values.clamp_min(0)
    white = vectors * (values + shrink * values.mean()).rsqrt()
    mean = means.mean(0)
    _, _, apart = torch.linalg.svd((means - mean) @ white, full_matrices=False)
    return mean, white @ apart[: len(means) - 1].T


def least_squares(gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """Coefficients; the last row, of the constant, is not shrunk."""
    shrunk = ridge * gram.diagonal()[:-1].mean() * torch.ones(len(gram))
    shrunk[-1] = 0
    return torch.linalg.solve(gram + torch.diag(shrunk).double(), moment).float()


def scores(sums: Sums) -> dict[str, Tensor]:
    """`mean` [1280], `white` [1280, nouns + 1], `offset`; scores are (x - mean) @ white + offset.

    Scores of nouns sum to 0 in every cell; the ground's is the share of the cell that it has.
    """
    mean, fisher = discriminants(sums)
    into = torch.zeros(1281, fisher.shape[1] + 1)
    into[:-1, :-1], into[-1, :-1], into[-1, -1] = fisher, -(mean @ fisher), 1
    into = into.double()
    noun = least_squares(into.mT @ sums.gram @ into, into.mT @ sums.moment[:, :-1], 0.1)
    noun = (noun - noun.mean(1, keepdim=True)) * SCALE
    ground = least_squares(sums.gram, sums.moment[:, -1:], 1e-3)
    white = torch.cat([fisher @ noun[:-1], ground[:-1]], 1)
    offset = torch.cat([noun[-1], ground[-1] + mean @ ground[:-1]])
    return {"mean": mean, "white": white, "offset": offset}


def apply(found: dict[str, Tensor], work: Path, out: Path) -> None:
    """Write the scores of every shard, without their offset, which the projection's bias takes."""
    out.mkdir(exist_ok=True)
    for shard, grid, cover, _ in shards(work / "features"):
        file = out / shard.name
        if not file.exists():
            part = file.with_suffix(".part.npz")
            with np.load(shard) as old:
                z = ((grid - found["mean"]) @ found["white"]).half().numpy()
                kept = {"nouns": old["nouns"], "photo": old["photo"], "cover": cover.sum(-1).half()}
                np.savez(part, z=z, **kept)
            os.replace(part, file)
            print(file.name, flush=True)


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    names = sorted({row["noun"] for row in index(args.work) if row["split"] == "train"})
    file = args.work / "scores.pt"
    if not file.exists():
        torch.save(scores(Sums(args.work / "features", names)), file)
    apply(torch.load(file, weights_only=True), args.work, args.work / "scores")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
