"""Composites: one or two cut-out things on a varied ground, with exact masks, and their captions.

224 x 224 pixels. Grounds are crops of photographic wallpapers, plain colours, gradients and noise.
A thing is turned, mirrored, scaled and lit at random. `Composer` gives the same picture for the
same seed, so that evaluation pictures are the same everywhere.
"""

import csv
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

SIDE = 224


@dataclass
class Composite:
    """A picture and what it shows.

    Attributes:
        picture: RGB, 224 x 224.
        nouns: what it shows, from left to right.
        masks: where each thing is, Bool[224, 224].
        photo: whether all its things are photographs.
    """

    picture: Image.Image
    nouns: list[str]
    masks: list[np.ndarray]
    photo: bool


def index(work: Path) -> list[dict[str, str]]:
    """Rows of pictures.csv."""
    with (work / "pictures.csv").open() as file:
        return list(csv.DictReader(file))


class Composer:
    """Makes composites of the pictures of one split.

    Args:
        work: the folder of `gather.py`.
        split: "train", "stamp" or "set".
    """

    def __init__(self, work: Path, split: str) -> None:
        self.work = work
        self.by_noun: dict[str, list[dict[str, str]]] = {}
        for row in index(work):
            if row["split"] == split:
                self.by_noun.setdefault(row["noun"], []).append(row)
        wallpapers = [
            p
            for p in sorted((work / "unpacked").rglob("*.jp*g"))
            if "backg" in str(p) or "wallp" in str(p)
        ]
        self.grounds = [
            Image.open(p).convert("RGB") for p in wallpapers if min(Image.open(p).size) > 300
        ]
        for ground in self.grounds:
            ground.thumbnail((900, 900))

    def any(self, rng: random.Random, two: float = 0.35) -> Composite:
        """A composite of random nouns, each as likely, two of them with this probability."""
        many = 2 if rng.random() < two else 1
        chosen = rng.sample(sorted(self.by_noun), many)
        return self.of([self.pick(noun, rng) for noun in chosen], rng)

    def pick(self, noun: str, rng: random.Random) -> dict[str, str]:
        """A picture of it; half the time a photograph, where there is one."""
        photos = [row for row in self.by_noun[noun] if row["photo"] == "1"]
        return rng.choice(photos if photos and rng.random() < 0.5 else self.by_noun[noun])

    def of(self, rows: list[dict[str, str]], rng: random.Random) -> Composite:
        """A composite of these pictures, from left to right."""
        canvas = self.ground(rng)
        masks = []
        for at, row in enumerate(rows):
            thing = self.thing(row, rng)
            share = rng.uniform(0.45, 1.05) if len(rows) == 1 else rng.uniform(0.38, 0.6)
            scale = share * SIDE / max(thing.size)
            size = tuple(max(8, round(s * scale)) for s in thing.size)
            thing = thing.resize(size, Image.Resampling.BICUBIC)
            left, right = at * SIDE / len(rows), (at + 1) * SIDE / len(rows)
            x = self.place(left, right, size[0], rng)
            y = self.place(0, SIDE, size[1], rng)
            canvas.paste(thing, (x, y), thing)
            mask = Image.new("L", (SIDE, SIDE))
            mask.paste(thing.getchannel("A"), (x, y))
            solid = np.asarray(mask) > 127
            masks = [m & ~solid for m in masks] + [solid]
        if rng.random() < 0.25:
            canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.0)))
        photo = all(row["photo"] == "1" for row in rows)
        return Composite(canvas, [row["noun"] for row in rows], masks, photo)

    def thing(self, row: dict[str, str], rng: random.Random) -> Image.Image:
        """The cut-out, mirrored, turned, lit."""
        thing = Image.open(self.work / "pictures" / f"{row['id']}.png").convert("RGBA")
        if rng.random() < 0.5:
            thing = thing.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.5:
            turned = thing.rotate(rng.uniform(-15, 15), Image.Resampling.BICUBIC, expand=True)
            thing = turned.crop(turned.getchannel("A").getbbox() or (0, 0, *turned.size))
        alpha = thing.getchannel("A")
        lit = ImageEnhance.Brightness(thing.convert("RGB")).enhance(rng.uniform(0.75, 1.2))
        lit = ImageEnhance.Color(lit).enhance(rng.uniform(0.6, 1.3))
        lit.putalpha(alpha)
        return lit

    @staticmethod
    def place(start: float, end: float, size: int, rng: random.Random) -> int:
        """Where a thing of this size begins between two ends; what is larger sticks out on both."""
        room = end - start - size
        return round(start + (rng.uniform(0, room) if room > 0 else room * rng.uniform(0.2, 0.8)))

    def ground(self, rng: random.Random) -> Image.Image:
        """What the things stand on."""
        kind = rng.random()
        colour = tuple(rng.randrange(256) for _ in range(3))
        if kind < 0.5:
            paper = rng.choice(self.grounds)
            side = rng.randint(150, min(paper.size))
            x, y = (rng.randint(0, length - side) for length in paper.size)
            return paper.resize((SIDE, SIDE), Image.Resampling.BICUBIC, (x, y, x + side, y + side))
        if kind < 0.65:
            return Image.new("RGB", (SIDE, SIDE), "white")
        if kind < 0.8:
            return Image.new("RGB", (SIDE, SIDE), colour)
        few = rng.choice([2, 2, 3, 6, 14])
        noise = np.random.default_rng(rng.getrandbits(32)).integers(0, 256, (few, few, 3))
        return Image.fromarray(noise.astype("uint8")).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def article(noun: str) -> str:
    """The noun with its article, as one would say it: a dog, an apple, scissors."""
    plural = noun.endswith("s") and noun not in {"bus", "cross", "compass", "cactus", "octopus",
        "walrus", "dress", "glass", "mattress", "princess"}  # fmt: skip
    if plural or noun in MASS:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


MASS = {"bacon", "beer", "bread", "broccoli", "butter", "candy", "cheese", "chocolate", "coffee",
        "corn", "fire", "garlic", "honey", "juice", "lettuce", "milk", "money", "popcorn", "salad",
        "soap", "sushi", "tea"}  # fmt: skip


def captions(nouns: list[str], photo: bool, rng: random.Random) -> tuple[str, str]:
    """A prompt and what follows it, in one of the forms that the projection learns."""
    said = " and ".join(article(noun) for noun in nouns)
    form = rng.random()
    if form < 0.64:
        return "A picture of", f" {said}."
    if form < 0.76:
        return "This is", f" {said}."
    if form < 0.88:
        return "A", f" {'photo' if photo else 'drawing'} of {said}."
    return "In the picture there is", f" {said}."
