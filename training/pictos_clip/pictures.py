"""Pictures for pictos-clip, rendered in batches: a thing, an outline, a word, a word on a thing.

Every draw comes from one seeded generator. `Held` chooses between what training sees and what it
never does: whole hands of drawings, single photographs, whole fonts, and one pair of thing and word
in ten (`pair_is_unseen`).
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tell import INKS, caption
from torch import Tensor

from mmlens.pictos.scene_captions import GROUNDS
from mmlens.pictos.sprites import sprites
from mmlens.pictos.world import GROUND_RGB, World, unseen_pairs

RGB = torch.tensor((*GROUND_RGB, (0.06, 0.06, 0.06)))
SHARES = {"colour": 0.17, "photo": 0.04, "outline": 0.09, "silhouette": 0.02, "symbol": 0.05,
          "word": 0.44, "both": 0.14, "world": 0.05}  # fmt: skip


@dataclass
class Banks:
    """What `draw_banks.py` wrote, as tensors, with the lists that sampling needs."""

    colour: Tensor  # uint8 [n, 64, 64, 4]
    outline: Tensor
    words: Tensor  # uint8 [font, case, word, 24, 128]
    wide: Tensor
    word_names: list[str]
    by: dict[tuple[bool, bool], dict[int, list[int]]]  # (photo, held) -> concept -> pictures
    fonts: dict[bool, list[int]]
    hand: np.ndarray
    font_names: list[str]
    names: tuple[str, ...] = field(default_factory=lambda: sprites().names)
    kinds: tuple[str, ...] = field(default_factory=lambda: sprites().kinds)

    @classmethod
    def load(cls, file: Path) -> "Banks":
        with np.load(file) as z:
            by: dict[tuple[bool, bool], dict[int, list[int]]] = {}
            for i, (c, p, h) in enumerate(zip(z["concept"], z["photo"], z["held"], strict=True)):
                by.setdefault((bool(p), bool(h)), {}).setdefault(int(c), []).append(i)
            fonts = {h: np.flatnonzero(z["font_held"] == h).tolist() for h in (False, True)}
            t = {k: torch.from_numpy(z[k]) for k in ("colour", "outline", "words", "wide")}
            return cls(**t, word_names=list(map(str, z["word_names"])), by=by, fonts=fonts,
                       hand=z["hand"], font_names=list(map(str, z["fonts"])))  # fmt: skip


@dataclass
class Made:
    """A batch: images Float[batch, 3, side, side] in [0, 1], captions and what is shown."""

    images: Tensor
    captions: list[str]
    forms: list[str]
    things: list[int]  # -1 where there is none
    words: list[int]


FIRST = {"colour": 0.2, "photo": 0.03, "outline": 0.1, "silhouette": 0.02, "symbol": 0.05,
         "word": 0.6}  # fmt: skip
"""What the first stretch shows, with the name alone as caption."""


class Painter:
    """Makes batches.

    Args:
        banks: the pictures and words.
        seed: of all draws.
        held: pictures by held-out hands, held-out photographs and fonts, pairs never trained on.
        hands: of what is held out all but this: whether the pictures are by held-out hands.
        side: of the images, in pixels.
    """

    def __init__(self, banks: Banks, seed: int, held: bool = False, side: int = 64,
                 hands: bool | None = None) -> None:  # fmt: skip
        self.banks, self.held, self.side = banks, held, side
        self.hands = held if hands is None else hands
        self.dice, self.torch = random.Random(seed), torch.Generator().manual_seed(seed)
        self.world = World("held_out" if held else "train", seed=seed, side=side)
        self.scene = 0
        self.unseen = unseen_pairs()

    def batch(self, n: int, first: bool = False) -> Made:
        """`n` pictures, their forms drawn by `SHARES`; or of the first stretch."""
        shares = FIRST if first else SHARES
        forms = self.dice.choices(list(shares), list(shares.values()), k=n)
        made = self.make([(f, None, None) for f in sorted(forms)])
        if first:
            words, names = self.banks.word_names, self.banks.names
            made.captions = [words[w] if w >= 0 else names[t]
                             for t, w in zip(made.things, made.words, strict=True)]  # fmt: skip
        return made

    def make(self, asked: list[tuple[str, int | None, int | None]]) -> Made:
        """Pictures of (form, thing, word); None draws one. The form "world" comes last."""
        own = [x for x in asked if x[0] != "world"]
        images, captions, forms, things, words = self._own(own)
        if rest := len(asked) - len(own):
            scenes = self.world.batch(range(self.scene, self.scene + rest))
            self.scene += rest
            images = torch.cat([images, scenes.images])
            captions += [self.dice.choice(scenes.paraphrases(b)).lower().rstrip(".")
                         for b in range(rest)]  # fmt: skip
            forms, things = forms + ["world"] * rest, things + [-1] * rest
            words += [-1] * rest
        return Made(images, captions, forms, things, words)

    def _own(self, asked: list[tuple[str, int | None, int | None]]):
        n, dice, banks = len(asked), self.dice, self.banks
        ground = torch.randint(len(GROUNDS), (n,), generator=self.torch)
        images = self._grounds(ground)
        ink = self._inks(ground)
        forms, captions, things, words = [], [], [], []
        pictured, written = [], []
        for i, (form, thing, word) in enumerate(asked):
            picture = None
            if form != "word":
                form, thing, picture = self._picture(form, thing)
                pictured.append((i, form, thing, picture))
            if form in ("word", "both"):
                if word is None:
                    word = self._word(thing)
                written.append((i, form, word))
            forms.append(form)
            things.append(-1 if thing is None or form == "word" else thing)
            words.append(-1 if word is None else word)
            captions.append(caption(
                form, dice, ground=GROUNDS[ground[i]], ink=INKS[ink[i]],
                n="" if thing is None else banks.names[thing],
                w="" if word is None else banks.word_names[word],
                kind="" if thing is None else banks.kinds[thing]))  # fmt: skip
        if pictured:
            self._paste_pictures(images, pictured, RGB[ink])
        if written:
            self._paste_words(images, written, RGB[ink])
        return images.clamp(0, 1), captions, forms, things, words

    def _picture(self, form: str, thing: int | None) -> tuple[str, int, int]:
        """The form it becomes, the thing, and the number of a picture of it."""
        photos = self.banks.by[True, self.hands]
        drawings = self.banks.by[False, self.hands]
        if form == "photo":
            thing = self.dice.choice(sorted(photos)) if thing is None else thing
            return form, thing, self.dice.choice(photos[thing])
        thing = self.dice.randrange(len(self.banks.names)) if thing is None else thing
        if form == "symbol":
            return form, thing, thing
        pool = drawings.get(thing) or self.banks.by[False, False][thing]
        return form, thing, self.dice.choice(pool)

    def _word(self, thing: int | None) -> int:
        """A word; on a picture three in ten are its own, the others make a pair of this split."""
        every = len(self.banks.word_names)
        if thing is None:
            return self.dice.randrange(every)
        if self.dice.random() < 0.3:
            return thing
        while True:
            word = self.dice.randrange(every)
            unseen = word < len(self.unseen) and bool(self.unseen[thing, word])
            if word != thing and unseen == self.held:
                return word

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.torch)

    def _grounds(self, ground: Tensor) -> Tensor:
        """Flat, gradient or soft noise around one named colour, as in the bundled world."""
        n, side = len(ground), self.side
        base = RGB[ground] + (self._uniform(n, 3) - 0.5) * 0.12
        line = torch.linspace(-1, 1, side)
        angle = self._uniform(n, 1, 1) * 2 * torch.pi
        ramp = 0.14 * (angle.cos() * line + angle.sin() * line[:, None])[:, None]
        noise = F.interpolate(self._uniform(n, 3, 6, 6) - 0.5, (side, side), mode="bilinear",
                              align_corners=True)  # fmt: skip
        kind = torch.randint(3, (n, 1, 1, 1), generator=self.torch)
        return base[:, :, None, None] + torch.where(kind == 1, ramp, 0.3 * noise) * (kind > 0)

    def _inks(self, ground: Tensor) -> Tensor:
        """A named colour that stands out from the ground."""
        far = (RGB[ground][:, None] - RGB[None]).abs().sum(-1)
        far = far.masked_fill(far < 0.55, 0).clamp(max=1)
        far[:, -1] *= 2.0
        return torch.multinomial(far, 1, generator=self.torch)[:, 0]

    def _paste_pictures(self, images: Tensor, rows: list, ink: Tensor) -> None:
        at = torch.tensor([r[0] for r in rows])
        n = len(rows)
        cut = torch.zeros(n, 4, 64, 64)
        symbols = sprites().banks["symbolic"]
        for k, (i, form, _, picture) in enumerate(rows):
            if form == "symbol":
                alpha = symbols[picture, 0]
            elif form == "outline":
                alpha = self.banks.outline[picture].float() / 255
            else:
                rgba = self.banks.colour[picture].permute(2, 0, 1).float() / 255
                alpha = rgba[3]
            if form in ("symbol", "outline", "silhouette"):
                cut[k, :3] = ink[i][:, None, None] * alpha
            else:
                cut[k, :3] = rgba[:3] * alpha
            cut[k, 3] = alpha
        size = 0.5 + 0.5 * self._uniform(n)
        size = torch.where(torch.tensor([r[1] == "both" for r in rows]), 0.7 + 0.3 * size, size)
        turn = (self._uniform(n) - 0.5) * 0.6
        flip = torch.where(self._uniform(n) < 0.5, 1.0, -1.0)
        shift = (self._uniform(n, 2) * 2 - 1) * (1.05 - size)[:, None]
        bright = 0.8 + 0.4 * self._uniform(n, 1, 1, 1)
        plain = torch.tensor([r[1] in ("colour", "photo", "both") for r in rows])
        cut[plain, :3] = (cut[plain, :3] * bright[plain]).clamp(max=1)
        images[at] = over(images[at], place(cut, size, size, turn, shift, flip, self.side))

    def _paste_words(self, images: Tensor, rows: list, ink: Tensor) -> None:
        at = torch.tensor([r[0] for r in rows])
        n, banks = len(rows), self.banks
        font = torch.tensor(self.dice.choices(banks.fonts[self.held], k=n))
        case = torch.tensor(self.dice.choices((0, 1, 2), (0.6, 0.15, 0.25), k=n))
        word = torch.tensor([r[2] for r in rows])
        alpha = banks.words[font, case, word][:, None].float() / 255
        visible = banks.wide[font, case, word] / 128  # of the frame's width
        want = 0.7 + 0.3 * self._uniform(n)  # of the picture's width
        wide = torch.minimum(want / visible, 0.55 * 128 / 24 * (0.75 + 0.25 * self._uniform(n)))
        high = wide * 24 / 128
        both = torch.tensor([r[1] == "both" for r in rows])
        turn = (self._uniform(n) - 0.5) * 0.2
        room = torch.stack([(1 - visible * wide).clamp(min=0), (1 - high * 1.05).clamp(min=0)], 1)
        shift = (self._uniform(n, 2) * 2 - 1) * room
        label = both & (self._uniform(n) < 0.5)  # half of the words on pictures stand on a label
        back = torch.where(ink[at].mean(1) > 0.45, 0.05, 0.97)[:, None, None, None]
        plate = place(torch.ones(n, 1, 24, 128), wide * visible * 1.06, high, turn, shift, None,
                      self.side) * label[:, None, None, None] * 0.95  # fmt: skip
        under = images[at] * (1 - plate) + plate * back
        cut = torch.cat([ink[at][:, :, None, None] * alpha, alpha], 1)
        cut = torch.cat([cut[:, :3], cut[:, 3:]], 1)
        images[at] = over(under, place(cut, wide, high, turn, shift, None, self.side))


def place(cut: Tensor, wide: Tensor, high: Tensor, turn: Tensor, shift: Tensor,
          flip: Tensor | None, side: int) -> Tensor:  # fmt: skip
    """Each sprite scaled to these fractions of the side, turned and shifted (x, y in -1 to 1)."""
    c, s = turn.cos(), turn.sin()
    flip = torch.ones_like(c) if flip is None else flip
    x, y = shift[:, 0], shift[:, 1]
    rows = [flip * c / wide, flip * s / wide, -flip * (c * x + s * y) / wide,
            -s / high, c / high, (s * x - c * y) / high]  # fmt: skip
    theta = torch.stack(rows, -1).reshape(-1, 2, 3)
    fine = F.affine_grid(theta, [len(cut), 1, 2 * side, 2 * side], align_corners=False)
    return F.avg_pool2d(F.grid_sample(cut, fine, align_corners=False), 2)


def over(images: Tensor, cut: Tensor) -> Tensor:
    """Premultiplied colour on a ground."""
    return images * (1 - cut[:, 3:]) + cut[:, :3]
