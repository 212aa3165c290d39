"""Is the encoder good enough? A linear probe of patch features for the object under the patch.

Patches of which a thing covers at least 40 % are labelled with its name; a softmax regression on
features of `train` scenes is scored on `held_out` ones, by style. Chance is below half a percent.

    python training/pictos/probe.py --encoder DIR/encoder
"""

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from bridge import units_of
from torch import Tensor
from transformers import BeitModel

from mmlens.pictos.world import STYLES, World


@torch.no_grad()
def labelled(vit: BeitModel, world: World, scenes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features Float[n, width], concepts Long[n] and styles Long[n] of covered patches."""
    features, concepts, styles = [], [], []
    for start in range(0, scenes, 100):
        many = world.batch(range(start, start + 100))
        out = units_of(vit, many.images)
        covers = F.avg_pool2d(many.masks.float(), 8).flatten(2)  # batch, thing, patch
        style = torch.tensor([STYLES.index(s) for s in many.styles], device=out.device)
        low = torch.where(style == 2, 0.15, 0.4)[:, None, None].to(out.device)
        b, k, p = (covers > low).nonzero(as_tuple=True)
        features.append(out[b, p])
        concepts.append(many.concepts[b, k])
        styles.append(style[b])
    return torch.cat(features), torch.cat(concepts), torch.cat(styles)


def fit(
    x: Tensor, y: Tensor, classes: int, steps: int = 1500, batch: int = 1024
) -> torch.nn.Linear:
    """Softmax regression by Adam with a falling rate."""
    probe = torch.nn.Linear(x.shape[1], classes).to(x.device)
    adam = torch.optim.Adam(probe.parameters(), 1e-2, weight_decay=1e-6)
    fall = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, steps)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (batch,), device=x.device)
        adam.zero_grad()
        F.cross_entropy(probe(x[rows]), y[rows]).backward()
        adam.step()
        fall.step()
    return probe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    vit = BeitModel.from_pretrained(args.encoder, add_pooling_layer=False, dtype=torch.float32)
    vit = vit.to(args.device).eval()
    x, y, _ = labelled(vit, World("train", 2, device=args.device), args.scenes)
    centre, spread = x.mean(0), x.std(0)
    probe = fit((x - centre) / spread, y, len(World().names))
    x, y, style = labelled(vit, World("held_out", 2, device=args.device), args.scenes // 3)
    right = (probe((x - centre) / spread).argmax(1) == y).float()
    line = ", ".join(f"{s} {right[style == k].mean():.1%}" for k, s in enumerate(STYLES))
    print(f"object under the patch: {right.mean():.1%} of {len(x)} patches ({line})")


if __name__ == "__main__":
    main()
