"""Better scores of nouns: what the trained map reads in the end.

A language model that reads 49 cells adds them up, so here the mean over the cells of a picture has
to tell its nouns: multinomial logistic regression on it, of all composites. One penalty, the mean
square of single cells' scores, keeps what a soft prompt holds beside its noun small; it is weight
decay in directions in which cells have unit variance. The scores are as long as those of
`noun_scores.py` and mean the same, so that the map which was trained on those reads these without
a step of training, and goes on from there.

    python training/smol/noun_regression.py --work DIR      # regression.pt, regression/NNN.npz
    python training/smol/train_projection.py --work DIR --scores regression --start projection.pt
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from noun_scores import apply, shards
from torch import Tensor

LENGTH = 0.333  # mean norm of a cell's scores of nouns, as that of `noun_scores.py`


class Seen:
    """One pass over the shards: mean and covariance of cells, means of pictures, their nouns."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        at = {noun: number for number, noun in enumerate(names)}
        gram = torch.zeros(1281, 1281, dtype=torch.float64)
        pictures, self.some = [], torch.zeros(0)
        nouns: list[list[int]] = []
        for _, grid, _, named in shards(folder):
            x = F.pad(grid.flatten(0, 1), (0, 1), value=1.0)[::2]  # every other cell is enough
            gram += (x.mT @ x).double()
            pictures.append(grid.mean(1).half())
            nouns += [[at[noun] for noun in two] for two in named]
            self.some = grid[::4]
        gram /= gram[-1, -1].clone()
        self.mean = gram[-1, :-1].float()
        self.covariance = gram[:-1, :-1] - torch.outer(gram[-1, :-1], gram[-1, :-1])
        self.pictures = torch.cat(pictures)
        self.nouns = torch.zeros(len(nouns), len(names))
        for row, of in zip(self.nouns, nouns, strict=True):
            row[of] = 1 / len(of)


def whitening(covariance: Tensor, shrink: float = 0.01) -> Tensor:
    """Directions [1280, 1280] in which cells have unit variance, weak ones less."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(0)
    return (vectors * (values + shrink * values.mean()).rsqrt()).float()


def regression(seen: Seen, penalty: float) -> tuple[Tensor, Tensor]:
    """Directions [1280, nouns] of scores, `LENGTH` long in a cell, summing to 0; and constants.

    The constants [nouns] tell how common a noun is; a read-out adds them, a soft prompt has none.
    """
    white = whitening(seen.covariance)
    x = (seen.pictures.float() - seen.mean) @ white
    coefficients = torch.zeros(x.shape[1], seen.nouns.shape[1], requires_grad=True)
    constant = torch.zeros(seen.nouns.shape[1], requires_grad=True)
    search = torch.optim.LBFGS(
        [coefficients, constant], max_iter=120, history_size=8, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        search.zero_grad()
        said = F.log_softmax(x @ coefficients + constant, 1)
        found = penalty * coefficients.square().sum() - (seen.nouns * said).sum(1).mean()
        found.backward()
        return found

    search.step(loss)
    out = white @ coefficients.detach()
    out = out - out.mean(1, keepdim=True)
    scale = LENGTH / ((seen.some - seen.mean) @ out).norm(dim=-1).mean()
    return out * scale, constant.detach() * scale


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    old = torch.load(args.work / "scores.pt", weights_only=True)
    file = args.work / "regression.pt"
    if not file.exists():
        names = torch.load(args.work / "vectors.pt", weights_only=True)["names"]
        seen = Seen(args.work / "features", names)
        ground = old["white"][:, -1:]
        directions, constant = regression(seen, args.penalty)
        white = torch.cat([directions, ground], 1)
        offset = torch.zeros(len(names) + 1)
        offset[-1] = old["offset"][-1] + ((seen.mean - old["mean"]) @ ground).item()
        torch.save(
            {"mean": seen.mean, "white": white, "offset": offset, "constant": constant}, file
        )
    apply(torch.load(file, weights_only=True), args.work, args.work / "regression")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--penalty", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=1)
    main(parser.parse_args())
