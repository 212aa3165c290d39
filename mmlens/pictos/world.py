"""The pictos world: seeded scenes of pictograms, each with its captions and exact masks.

A scene shows one to three things on a coloured ground. One concept appears in three styles:
*literal* (colour emoji), *symbolic* (outline glyph) and *written* (the printed word); sprites are
placed by an affine map (position, size, rotation, flip) and composited back to front:

    image = ground * prod_k (1 - a_k) + sum_k colour_k * v_k,     v_k = a_k * prod_{j > k} (1 - a_j)

The visible alphas v_k of a pixel sum to at most one, so the masks `v_k > 1/2` are exact after
occlusion and disjoint. Every random number is a hash of (split, seed, scene, draw): scene `i` is
the same alone and in any batch, on every device, today and tomorrow.

Splits: `train` and `held_out` have different seeds and the same pairs of things; one pair in ten
occurs in neither and is all that `unseen_pairs` shows, so that naming it is composition. Two things
stand left and right (printed words: top and bottom), and captions name them in that order.
"""

from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmlens.pictos.scene_captions import GROUNDS
from mmlens.pictos.scenes import Scene, SceneObject, Scenes
from mmlens.pictos.sprites import sprites

SPLITS = ("train", "held_out", "unseen_pairs")
STYLES = ("literal", "symbolic", "written")
STYLE_SHARES = (0.50, 0.82)  # cumulative: literal, then symbolic, then written
KINDS = ((1, False), (2, False), (3, False), (2, True), (3, True))  # (how many, all alike)
KIND_SHARES = (0.50, 0.80, 0.88, 0.96)
DRAWS = 256  # random numbers that a scene may use
MOST = 3  # things in a scene

# fmt: off
GROUND_RGB = ((0.85, 0.22, 0.20), (0.95, 0.58, 0.18), (0.93, 0.86, 0.30), (0.33, 0.68, 0.32),
              (0.28, 0.48, 0.86), (0.55, 0.32, 0.72), (0.95, 0.62, 0.76), (0.50, 0.34, 0.22),
              (0.52, 0.52, 0.52), (0.95, 0.95, 0.94))
# columns, rows (fractions of the side), smallest and largest size, by number of things
LAYOUT = {1: ((0.5,), 0.42, 0.80), 2: ((0.26, 0.74), 0.34, 0.52),
          3: ((0.18, 0.5, 0.82), 0.26, 0.36)}
WORD_ROWS = {1: (0.5,), 2: (0.3, 0.7), 3: (0.2, 0.5, 0.8)}
# fmt: on


def pair_is_unseen(one: str, other: str) -> bool:
    """Whether this pair of things is kept out of `train` and `held_out` (one pair in ten)."""
    return one != other and crc32("+".join(sorted((one, other))).encode()) % 10 == 0


@lru_cache(maxsize=1)
def unseen_pairs() -> Tensor:
    """Bool[concept, concept], symmetric: the pairs that only the split `unseen_pairs` shows."""
    names = sprites().names
    return torch.tensor([[pair_is_unseen(a, b) for b in names] for a in names])


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on wrapping int64: Long -> Long."""

    def shift(v: Tensor, by: int) -> Tensor:
        return (v >> by) & ((1 << (64 - by)) - 1)

    x = (x ^ shift(x, 30)) * -0x40A7B892E31B1A47
    x = (x ^ shift(x, 27)) * -0x6B2FB644ECCEEE15
    return x ^ shift(x, 31)


class World:
    """An endless, seeded supply of scenes.

    Args:
        split: "train", "held_out" or "unseen_pairs".
        seed: another seed, another sequence of scenes of the same split.
        side: image side in pixels.
        things: show always this many different things (1 to 3); None draws 1 to 3, also alike.
        style: "literal", "symbolic" or "written"; None draws one for each scene.
    """

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        side: int = 80,
        *,
        things: int | None = None,
        style: str | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"World({split!r}): there is no such split; use one of {SPLITS}.")
        if style is not None and style not in STYLES:
            raise ValueError(
                f"World(style={style!r}): there is no such style; use one of {STYLES}."
            )
        if things not in (None, 1, 2, 3) or (split == "unseen_pairs" and things not in (None, 2)):
            raise ValueError(f"World({split!r}, things={things}): a scene shows 1, 2 or 3 things,"
                             " of unseen_pairs 2.")  # fmt: skip
        self.split, self.seed, self.side, self.style = split, seed, side, style
        self.things = 2 if split == "unseen_pairs" else things
        self.device = torch.device(device)
        self.names = sprites().names

    def scene(self, i: int) -> Scene:
        """Scene number `i` with its labels."""
        many = self.batch([i])
        names, style, centres = many.names[0], many.styles[0], many.centres[0].tolist()
        things = tuple(
            SceneObject(n, style, centres[k][0], centres[k][1], k) for k, n in enumerate(names)
        )
        pixels = (many.images[0] * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        return Scene(Image.fromarray(pixels), many.captions[0], many.paraphrases(0), things,
                     many.masks[0, : len(names)], style, many.grounds[0], i)  # fmt: skip

    def batch(self, indices: Sequence[int] | Tensor) -> Scenes:
        """The scenes of these numbers, rendered together."""
        index = torch.as_tensor(indices, dtype=torch.long, device=self.device)
        u = self._uniform(index)
        style, count, concept = self._cast(u)
        ground = (u[:, 3] * len(GROUNDS)).long()
        pixels = self._ground(u, ground)
        luminance = pixels.mean((1, 2, 3))
        dark = (luminance > 0.42).float()[:, None]
        ink = (1 - dark) * (0.9 + 0.1 * u[:, 4:7]) + dark * 0.15 * u[:, 4:7]
        theta, centre, size = self._places(u, style, count)
        alphas = torch.zeros(len(index), MOST, self.side, self.side, device=self.device)
        for k in range(MOST):
            for s, name in enumerate(STYLES):
                rows = ((style == s) & (count > k)).nonzero()[:, 0]
                if len(rows):
                    cut = self._cut(name, concept[rows, k], theta[rows, k], size[rows, k])
                    alpha = cut[:, -1:]
                    colour = cut[:, :3] if name == "literal" else alpha * ink[rows, :, None, None]
                    pixels[rows] = pixels[rows] * (1 - alpha) + colour
                    alphas[rows] *= 1 - alpha
                    alphas[rows, k] = alpha[:, 0]
        names = [tuple(self.names[c] for c in row if c >= 0) for row in concept.tolist()]
        images = (pixels.clamp(0, 1) * 255).round() / 255
        return Scenes(images, alphas > 0.5, concept, centre, names,
                      [STYLES[s] for s in style.tolist()], [GROUNDS[g] for g in ground.tolist()],
                      index.tolist())  # fmt: skip

    def cast(self, indices: Sequence[int] | Tensor) -> tuple[list[str], list[int], Tensor]:
        """Styles, numbers of things and concepts Long[batch, 3] (-1: none), without rendering."""
        index = torch.as_tensor(indices, dtype=torch.long, device=self.device)
        style, count, concept = self._cast(self._uniform(index, 10))
        return [STYLES[s] for s in style.tolist()], count.tolist(), concept

    def _uniform(self, index: Tensor, draws: int = DRAWS) -> Tensor:
        """Float[batch, draws] in [0, 1): the first random numbers of each scene."""
        key = torch.tensor(self.seed * len(SPLITS) + SPLITS.index(self.split) + 1)
        stream = _mix(_mix(key * 0x632BE59BD9B4E019).to(index.device) + index)
        draw = torch.arange(1, draws + 1, device=index.device) * -0x61C8864680B583EB
        return (_mix(stream[:, None] + draw) >> 40 & 0xFFFFFF).float() / (1 << 24)

    def _cast(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Style and number of things Long[batch], concepts Long[batch, 3] (-1: none)."""
        style = torch.bucketize(
            u[:, 0].contiguous(), torch.tensor(STYLE_SHARES, device=u.device), right=True
        )
        kind = torch.bucketize(
            u[:, 1].contiguous(), torch.tensor(KIND_SHARES, device=u.device), right=True
        )
        if self.style is not None:
            style = torch.full_like(style, STYLES.index(self.style))
        if self.things is not None:
            kind = torch.full_like(kind, self.things - 1)
        table = torch.tensor(KINDS, device=u.device)
        count, alike = table[kind, 0], table[kind, 1].bool()
        unseen = unseen_pairs().to(u.device)
        n = len(unseen)
        other = ~torch.eye(n, dtype=torch.bool, device=u.device)
        may = unseen if self.split == "unseen_pairs" else other & ~unseen
        first = (u[:, 7] * n).long().clamp(max=n - 1)
        second = _pick(may[first], u[:, 8])
        third = _pick(may[first] & may[second], u[:, 9])
        concept = torch.stack([first, second, third], 1)
        concept = torch.where(alike[:, None], first[:, None], concept)
        absent = torch.arange(MOST, device=u.device) >= count[:, None]
        return style, count, concept.masked_fill(absent, -1)

    def _ground(self, u: Tensor, ground: Tensor) -> Tensor:
        """Float[batch, 3, side, side]: flat, gradient or soft noise around one named colour."""
        base = torch.tensor(GROUND_RGB, device=u.device)[ground] + (u[:, 10:13] - 0.5) * 0.12
        shade = torch.linspace(-1, 1, self.side, device=u.device)
        angle = u[:, 13] * 2 * torch.pi
        ramp = angle.cos()[:, None, None] * shade + angle.sin()[:, None, None] * shade[:, None]
        noise = u[:, 40 : 40 + 147].reshape(-1, 3, 7, 7) - 0.5
        noise = F.interpolate(noise, (self.side, self.side), mode="bilinear", align_corners=True)
        kind = (u[:, 14] * 3).long()[:, None, None, None]
        change = torch.where(kind == 1, 0.14 * ramp[:, None], 0.26 * noise) * (kind > 0)
        return (base[:, :, None, None] + change).clamp(0, 1)

    def _places(self, u: Tensor, style: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Affine maps [batch, 3, 2, 3], centres (row, col) in pixels, widths as side fractions."""
        layout = torch.zeros(MOST + 1, 2, MOST, device=u.device)
        spans = torch.zeros(MOST + 1, 2, device=u.device)
        for n, (cols, low, high) in LAYOUT.items():
            layout[n, 0, :n] = torch.tensor(cols)
            layout[n, 1, :n] = torch.tensor(WORD_ROWS[n])
            spans[n] = torch.tensor((low, high - low))
        spots, span = layout[count], spans[count]
        r = u[:, 16:34].reshape(-1, 6, MOST) * 2 - 1  # in [-1, 1): x, y, size, angle, flip, spare
        written = (style == 2)[:, None]
        size = span[:, :1] + span[:, 1:] * (r[:, 2] + 1) / 2
        wide = torch.where(count == 3, 0.68, 0.83)[:, None]
        size = torch.where(written, wide + 0.13 * r[:, 2], size)
        room = (0.5 - 0.5 * size).clamp(min=0)
        one = (count == 1)[:, None]
        x = spots[:, 0] + r[:, 0] * torch.where(one, room, 0.04)
        y = 0.5 + r[:, 1] * torch.where(one, room, (0.5 - 0.55 * size).clamp(0, 0.26))
        x = torch.where(written, 0.5 + r[:, 0] * room, x)
        tight = torch.tensor([0.0, 0.32, 0.06, 0.02], device=u.device)[count][:, None]
        y = torch.where(written, spots[:, 1] + r[:, 1] * tight, y)
        angle = r[:, 3] * torch.where(written, 0.10, 0.35)
        flip = torch.where(written | (r[:, 4] < 0), 1.0, -1.0)
        tall = torch.where(written, 1 / 3, 1.0) * size
        cx, cy = 2 * x - 1, 2 * y - 1
        c, s = angle.cos(), angle.sin()
        rows = [flip * c / size, flip * s / size, -flip * (c * cx + s * cy) / size,
                -s / tall, c / tall, (s * cx - c * cy) / tall]  # fmt: skip
        theta = torch.stack(rows, -1).reshape(*x.shape, 2, 3)
        return theta, torch.stack([y, x], -1) * self.side, size

    def _cut(self, style: str, concept: Tensor, theta: Tensor, size: Tensor) -> Tensor:
        """Float[batch, 4 | 1, side, side]: each sprite where its affine map puts it."""
        bank = sprites(str(self.device))
        small = (size * self.side < (40 if style != "written" else 52))[:, None, None, None]
        cut = torch.where(small, bank.soft[style][concept], bank.banks[style][concept])
        grid = F.affine_grid(theta, [len(theta), 1, self.side, self.side], align_corners=False)
        return F.grid_sample(cut, grid, align_corners=False)


def _pick(allowed: Tensor, u: Tensor) -> Tensor:
    """Long[batch]: of each row's True places the one that u in [0, 1) falls on."""
    rank = (u * allowed.sum(1)).long()
    return ((allowed.long().cumsum(1) > rank[:, None]) & allowed).long().argmax(1)
