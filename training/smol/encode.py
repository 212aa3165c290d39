"""Encode composites once: the encoder is frozen, so its features are the training set.

Shards `features/NNN.npz` with `grid` Float16[512, 49, 1280], `nouns`, `photo`, and `cover`
Float16[512, 49, 2], the share of each cell that each thing covers. Goes on where it
stopped.

    python training/smol/encode.py --work DIR --shards 60
"""

import argparse
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from compose import Composer, Composite
from PIL import Image

ENCODER = (
    "tf_efficientnet_lite0"  # SAME padding, as the weights were trained; not efficientnet_lite0
)


def encoder(work: Path) -> torch.nn.Module:
    """The real ImageNet encoder: its tensors come in timm's order, under other names."""
    model = timm.create_model(ENCODER, pretrained=False)
    file = next((work / "encoder").glob("*.pth"))
    old = torch.load(file, map_location="cpu", weights_only=True)
    new = model.state_dict()
    assert len(old) == len(new) and all(
        a.shape == b.shape for a, b in zip(old.values(), new.values(), strict=True)
    )
    model.load_state_dict(dict(zip(new, old.values(), strict=True)))
    return model.eval().requires_grad_(False)


def pixels(pictures: list[Image.Image]) -> torch.Tensor:
    """RGB in -1 .. 1, Float[picture, 3, 224, 224]."""
    stack = np.stack([np.asarray(p.convert("RGB")) for p in pictures])
    return (torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def frozen(model: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """Its features with batch norms folded into convolutions, in two thirds of the time."""
    model.forward = model.forward_features
    example = torch.zeros(2, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    return torch.jit.freeze(torch.jit.trace(model, example))


@torch.no_grad()
def grid(
    features: Callable[[torch.Tensor], torch.Tensor], pictures: list[Image.Image]
) -> torch.Tensor:
    """Features of the last layer in reading order, Float[picture, 49, 1280]."""
    parts = [
        features(pixels(pictures[i : i + 32]).contiguous(memory_format=torch.channels_last))
        for i in range(0, len(pictures), 32)
    ]
    return torch.cat(parts).flatten(2).transpose(1, 2)


def cover(made: Composite) -> np.ndarray:
    """The share of each cell that each thing covers, Float16[49, 2]."""
    out = np.zeros((49, 2), np.float16)
    for thing, mask in enumerate(made.masks):
        out[:, thing] = mask.reshape(7, 32, 7, 32).mean((1, 3)).reshape(49)
    return out


def write(file: Path, features: Callable, composites: list[Composite]) -> None:
    part = file.with_suffix(".part.npz")
    np.savez(
        part,
        grid=grid(features, [c.picture for c in composites]).half().numpy(),
        cover=np.stack([cover(c) for c in composites]),
        nouns=np.array(["|".join(c.nouns) for c in composites]),
        photo=np.array([c.photo for c in composites]),
    )
    os.replace(part, file)


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    model = frozen(encoder(args.work).to(memory_format=torch.channels_last))
    composer = Composer(args.work, "train")
    (args.work / "features").mkdir(exist_ok=True)
    for number in range(args.first, args.first + args.shards):
        file = args.work / "features" / f"{number:03d}.npz"
        if not file.exists():
            rng = random.Random(number)
            write(file, model, [composer.any(rng) for _ in range(512)])
            print(file.name, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    parser.add_argument("--shards", type=int, default=60)
    parser.add_argument("--first", type=int, default=0)
    main(parser.parse_args())
