"""The picture at the head of the README: a page of `mmlens look`, as a browser shows it.

    python scripts/hero.py                               # docs/look.png
    python scripts/hero.py PHOTO --model smol --out FILE

Nothing on the page is written here.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import sync_playwright

import mmlens as mm
from mmlens import view

ROOT = Path(__file__).parent.parent
DOCS, SCENE = ROOT / "docs", ROOT / "scenes/microscope-and-banana.png"


def photographed(file: Path, wide: int, high: int) -> Image.Image:
    """The upper part of a page, offline; an error on it is one of this script."""
    wrong: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"),
            args=["--no-sandbox", "--disable-gpu"],
        )
        tab = browser.new_context(offline=True, viewport={"width": wide, "height": high}).new_page()
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("request", lambda one: wrong.append(one.url) if one.url[:4] == "http" else None)
        tab.goto(file.as_uri())
        tab.wait_for_timeout(2500)
        picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
        browser.close()
    if wrong:
        raise SystemExit("\n".join(wrong))
    return picture


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
    with TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        view.explore(seen, title=asked.photo.name).save(page)
        picture = photographed(page, *asked.size)
    picture.quantize(255, dither=Image.Dither.NONE).save(asked.out, optimize=True)
    print(f"{asked.out}: {seen.caption!r}, {asked.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
