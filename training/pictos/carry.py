"""Carry a projection over to another encoder: where the old features can be read off the new ones.

Least squares from new features to old ones, folded into the old map and taken into the whitened
coordinates of the new features; `train_projection.py --resume` then goes on from there. No caption
is looked at.

    python training/pictos/carry.py --work DIR --old OLD/encoder --projection OLD/projection.pt
"""

import argparse
from pathlib import Path

import torch
from bridge import Bridge
from common import Muon, weight_groups
from torch import Tensor
from train_projection import Whitened

from mmlens.pictos.world import World


def least_squares(x: Tensor, y: Tensor, ridge: float = 1e-3) -> Tensor:
    """Matrix Float[d_x, d_y] from centred rows of x to centred rows of y."""
    x, y = x.double(), y.double()
    size = (x.T @ x).trace() / x.shape[1]
    return torch.linalg.solve(
        x.T @ x + ridge * size * torch.eye(x.shape[1], dtype=torch.double), x.T @ y
    ).float()


@torch.no_grad()
def carried(old: Whitened, x: Tensor, y: Tensor) -> Whitened:
    """The old map of features y as a map of the new features x of the same patches."""
    turn = least_squares(x - x.mean(0), y - y.mean(0))
    flat = {k: v.float() for k, v in old.folded().items()}
    weight = flat["weight"] @ turn.T
    new = Whitened(x.shape[1], len(weight), 1.0)
    new.measure(x)
    new.inner.weight.copy_(weight @ torch.linalg.inv(new.whiten))
    middle = flat["weight"] @ y.mean(0) + flat["bias"]
    new.inner.bias.copy_(middle + weight @ (new.mean - x.mean(0)))
    return new


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="with encoder/ and lm/")
    parser.add_argument("--old", type=Path, required=True, help="the encoder until now")
    parser.add_argument("--projection", type=Path, required=True, help="its checkpoint")
    parser.add_argument("--scenes", type=int, default=1000)
    args = parser.parse_args()
    new, old = (Bridge.of(e, args.work / "lm", None) for e in (args.work / "encoder", args.old))
    features = [[], []]
    for start in range(0, args.scenes, 50):
        images = World("train", 77).batch(range(start, start + 50)).images
        for kept, bridge in zip(features, (new, old), strict=True):
            kept.append(bridge.features(images).flatten(0, 1))
    x, y = map(torch.cat, features)
    before = Whitened(y.shape[1], new.projection.out_features, 1.0)
    before.load_state_dict(torch.load(args.projection, weights_only=True)["projection"])
    after = carried(before, x, y)
    left = (after(x) - before(y)).square().sum() / (before(y) - before(y).mean(0)).square().sum()
    print(f"the soft prompt is carried over to {1 - left.item():.1%} of its variance")
    muon = Muon(weight_groups([after], 0.0, [after.inner]), 1e-3, betas=(0.9, 0.95))
    state = {"projection": after.state_dict(), "optimiser": muon.state_dict()}
    torch.save(state | {"step": 1, "spent": 0.0}, args.work / "projection.pt")


if __name__ == "__main__":
    main()
