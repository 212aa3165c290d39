"""The pictograms that scenes are made of, as they ship with the package: three banks, one list."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Sprites:
    """The three banks as premultiplied float tensors; `soft` ones are for small sizes."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    banks: dict[str, Tensor]  # style -> Float[concept, channel, height, width]
    soft: dict[str, Tensor]


@lru_cache(maxsize=4)
def sprites(device: str = "cpu") -> Sprites:
    """The sprite banks that ship with the package."""
    with np.load(Path(__file__).parent / "sprites.npz") as file:
        literal = torch.from_numpy(file["literal"]).float().permute(0, 3, 1, 2) / 255
        banks = {
            "literal": torch.cat([literal[:, :3] * literal[:, 3:], literal[:, 3:]], 1),
            "symbolic": torch.from_numpy(file["symbolic"]).float()[:, None] / 255,
            "written": torch.from_numpy(file["written"]).float()[:, None] / 255,
        }
        names, kinds = tuple(map(str, file["names"])), tuple(map(str, file["kinds"]))
    soft = {
        k: F.interpolate(F.avg_pool2d(v, 2), v.shape[-2:], mode="bilinear")
        for k, v in banks.items()
    }
    return Sprites(
        names,
        kinds,
        {k: v.contiguous().to(device) for k, v in banks.items()},
        {k: v.contiguous().to(device) for k, v in soft.items()},
    )
