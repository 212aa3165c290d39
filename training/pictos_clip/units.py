"""Which units of the last block answer to one thing as picture, as drawing and as written word.

Responses are read as Goh et al. (2021) read them: what the last block puts out before its ReLU,
averaged over positions. For a unit u, a thing c and a format f

    z(u, c, f) = (mean response to c in f - mean response to the other things in f) / SD of those,

and the cross-format index is the least z of the three formats. A unit's thing is chosen on one
half of the pictures and its index measured on the other half. Two yardsticks: the index of the same
units for things that are mixed up between formats (the picture of one, the drawing of another, the
word of a third), chosen and measured alike; and a bootstrap over the pictures of the thing (its 5th
percentile).
"""

from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from pictures import Banks, Painter
from torch import Tensor, nn

PICTOS = Path(__file__).parents[2] / "mmlens" / "pictos" / "weights" / "vision"
FORMATS = ("colour", "drawing", "word")


class Eye:
    """Responses of the last block's units, Float[picture, unit]."""

    def __init__(self, model: open_clip.CLIP) -> None:
        self.visual = model.visual.eval()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        from train_clip import normalised

        kept: list[Tensor] = []
        hook = self.visual.trunk.bn2.act.register_forward_pre_hook(
            lambda _, args: kept.append(args[0].float().mean((2, 3)).clone())
        )
        for part in images.split(128):
            self.visual(normalised(part))
        hook.remove()
        return torch.cat(kept)


class SelfSupervised:
    """The same of the units of the last MLP of `pictos`, whose encoder never saw a caption."""

    def __init__(self) -> None:
        from transformers import BeitModel

        self.model = BeitModel.from_pretrained(
            PICTOS, dtype=torch.float32, add_pooling_layer=False
        ).eval()

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        kept: list[Tensor] = []
        readers = [m for m in self.model.modules() if isinstance(m, nn.Linear)]
        last = [m for m in readers if m.in_features == self.model.config.intermediate_size][-1]
        hook = last.register_forward_pre_hook(lambda _, args: kept.append(args[0][:, 1:].mean(1)))
        for part in images.split(128):
            large = F.interpolate(part, (80, 80), mode="bilinear")
            self.model(pixel_values=large * 2 - 1)
        hook.remove()
        return torch.cat(kept)


def responses(
    eye: Callable[[Tensor], Tensor], banks: Banks, times: int, held: bool = True
) -> dict[str, Tensor]:
    """Float[thing, picture, unit] per format; hands and fonts that training never saw."""
    painter = Painter(banks, seed=31, held=held)
    out = {}
    for name in FORMATS:
        form = "outline" if name == "drawing" else name
        asked = [
            (form, None if name == "word" else c, c if name == "word" else None)
            for c in range(223) for _ in range(times)
        ]  # fmt: skip
        found = torch.cat([eye(painter.make(asked[i : i + 256]).images)
                           for i in range(0, len(asked), 256)])  # fmt: skip
        out[name] = found.view(223, times, -1)
    return out


def z_scores(found: Tensor) -> Tensor:
    """Float[thing, unit]: each thing against all pictures of the others in the same format."""
    n = found[0].numel() // found.shape[-1] * (len(found) - 1)
    total, squares = found.sum((0, 1)), found.square().sum((0, 1))
    own, own_squares = found.sum(1), found.square().sum(1)
    mean = (total - own) / n
    spread = ((squares - own_squares) / n - mean.square()).clamp(min=1e-12).sqrt()
    return (found.mean(1) - mean) / spread


def indices(found: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(things Long[unit], index Float[unit]): chosen on odd pictures, measured on even ones."""
    choose = torch.stack([z_scores(f[:, 0::2]) for f in found.values()]).amin(0)
    judge = torch.stack([z_scores(f[:, 1::2]) for f in found.values()]).amin(0)
    thing = choose.argmax(0)
    return thing, judge.gather(0, thing[None])[0]


def mixed(found: dict[str, Tensor], draw: torch.Generator) -> dict[str, Tensor]:
    """The same responses with the things of each format renamed at random."""
    return {k: f[torch.randperm(len(f), generator=draw)] for k, f in found.items()}


def table(eye: Callable[[Tensor], Tensor], banks: Banks, times: int = 8, rounds: int = 20) -> dict:
    """What is found: how many units, how far above mixed-up things, the best of them."""
    found = responses(eye, banks, times)
    thing, index = indices(found)
    draw = torch.Generator().manual_seed(0)
    chance = torch.stack([indices(mixed(found, draw))[1] for _ in range(rounds)])
    bar = chance.amax(1).quantile(0.95).item()  # the best of all units, once in twenty
    low = lower(found, thing, draw)
    names = banks.names
    best = index.argsort(descending=True)
    rows = []
    for u in best[:20].tolist():
        c = int(thing[u])
        per = {k: z_scores(f[:, 1::2])[c, u].item() for k, f in found.items()}
        rows.append({"unit": u, "thing": names[c], "index": index[u].item(),
                     "lower": low[u].item(), **per})  # fmt: skip
    return {
        "units": len(index),
        "index of mixed-up things, best unit, 95th percentile of draws": bar,
        "units above it": int((index > bar).sum()),
        "units whose lower bound is above it": int((low > bar).sum()),
        "mixed-up units above it, mean": (chance > bar).float().sum(1).mean().item(),
        "units with index > 1": int((index > 1).sum()),
        "mixed-up units with index > 1, mean": (chance > 1).float().sum(1).mean().item(),
        "median index": index.median().item(),
        "best": rows,
    }


def lower(
    found: dict[str, Tensor], thing: Tensor, draw: torch.Generator, rounds: int = 200
) -> Tensor:
    """Float[unit]: 5th percentile of the index when the thing's judged pictures are redrawn."""
    units = torch.arange(len(thing))
    parts = []
    for f in found.values():
        judged = f[:, 1::2]
        own = judged[thing, :, units]  # [unit, picture]
        z = z_scores(judged)[thing, units]
        mean = own.mean(1)
        rest = (judged.sum((0, 1)) - own.sum(1)) / (judged[..., 0].numel() - own.shape[1])
        spread = (mean - rest) / z
        pick = torch.randint(own.shape[1], (rounds, own.shape[1]), generator=draw)
        parts.append((own[:, pick].mean(-1) - rest[:, None]) / spread[:, None])
    return torch.stack(parts).amin(0).quantile(0.05, dim=1)
