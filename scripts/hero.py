"""The picture at the head of the README: a page of `mmlens look`, as a browser shows it.

    python scripts/hero.py                               # docs/look.png
    python scripts/hero.py PHOTO --model smol --out FILE

Nothing on the page is written here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from chromium import opened, screenshot  # pyright: ignore[reportMissingImports]
from PIL import Image

import mmlens as mm
from mmlens import view

ROOT = Path(__file__).parent.parent
DOCS, SCENE = ROOT / "docs", ROOT / "scenes/microscope-and-banana.png"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path, nargs="?", default=SCENE)
    parser.add_argument("--model", default="pictos")
    parser.add_argument("--of", help="the word to explain; else the first thing of the caption")
    parser.add_argument("--out", type=Path, default=DOCS / "look.png")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 860))
    asked = parser.parse_args()
    of = asked.of or ("banana" if asked.photo == SCENE else None)
    seen = mm.look(mm.load(asked.model), asked.photo, of=of, full=True)
    with opened(view.explore(seen, title=asked.photo.name).html, *asked.size) as tab:
        picture = screenshot(tab)
    picture.quantize(255, dither=Image.Dither.NONE).save(asked.out, optimize=True)
    print(f"{asked.out}: {seen.caption!r}, {asked.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
