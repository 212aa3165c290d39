"""Gather single pictures of nouns from the unpacked sets: cut out, named, split.

Writes `pictures/ID.png` (RGBA, trimmed, at most 288 px) and `pictures.csv`: id, noun, source,
name, photo (a photograph or a drawing), split. Splits: "train"; "stamp", single pictures that
training never sees, of nouns it does; "set", the whole of GCompris, photographs and drawings, a
source that training never sees. A hash of a picture's name decides whether it is held out, so that
the splits never change.

    python training/smol/gather.py --work DIR
"""

import argparse
import collections
import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import resvg_py
from names import nouns, shown
from PIL import Image, ImageDraw, ImageFont
from qt_resources import read

SIDE = 288
HELD = {"drawing": 0.14, "photo": 0.24}  # share of single pictures that are held out
LEAST = 9  # pictures of a noun that training has; nouns with fewer are left out
Found = tuple[str, str, Image.Image, bool]  # source, name, picture, cut out

CLIPART = ("animals", "food", "tools", "transportation", "plants", "buildings", "electronics",
           "recreation", "office", "education", "containers", "people", "unsorted")  # fmt: skip


def svg(text: str) -> Image.Image:
    """An SVG at the size that is kept."""
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=text, width=SIDE))))


def stamps(root: Path) -> Iterator[Found]:
    base = root / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps"
    for text in sorted(base.rglob("*.txt")):
        name = text.read_text(errors="ignore").split("\n")[0]
        where = text.relative_to(base).with_suffix("").as_posix()
        if where.startswith(("symbols/alphabets", "symbols/math", "town/flags", "town/roadsigns")):
            continue
        if (file := text.with_suffix(".png")).exists():
            yield f"stamps/{where}", name, Image.open(file), True
        elif (file := text.with_suffix(".svg")).exists():
            try:
                yield f"stamps/{where}", name, svg(file.read_text()), True
            except (ValueError, UnicodeDecodeError):
                continue


def clip_art(root: Path) -> Iterator[Found]:
    base = root / "openclipart-png/usr/share/openclipart/png"
    for file in sorted(base.rglob("*.png")):
        where = file.relative_to(base).with_suffix("").as_posix()
        if where.split("/")[0] not in CLIPART or "/duplicates/" in where or "/cards/" in where:
            continue
        words = [w for w in file.stem.lower().replace("-", "_").split("_") if w.isalpha()]
        for last in range(len(words), 0, -1):  # artists' names stand behind the thing
            if shown(" ".join(words[:last]), NOUNS):
                yield f"clipart/{where}", " ".join(words[:last]), Image.open(file), True
                break


def emoji(root: Path) -> Iterator[Found]:
    table = json.loads((root / "emoji-datasource/package/emoji.json").read_text())
    font = next((root / "fonts-noto-color-emoji").rglob("*.ttf"))
    noto = ImageFont.truetype(str(font), 109)
    for entry in table:
        if entry["category"] in ("Symbols", "Flags", "Component"):
            continue
        code, name = entry["unified"], entry["name"] or entry["short_name"]
        name = entry["short_name"].replace("_", " ") if " OR " in name else name
        plain = code.replace("-FE0F", "")
        if shown(name, NOUNS) is None:
            continue
        for hand, file in (
            ("openmoji", root / "openmoji/package/color/svg" / f"{plain}.svg"),
            ("twemoji", root / "twemoji-svg/package" / f"{plain.lower()}.svg"),
        ):
            if file.exists():
                yield f"{hand}/{plain}", name, svg(file.read_text()), True
        for stem in {code.lower(), plain.lower()}:
            file = root / "lobehub-fluent-emoji-3d/package/assets" / f"{stem}.webp"
            if file.exists():
                yield f"fluent/{plain}", name, Image.open(file), True
        picture = Image.new("RGBA", (136, 128))
        glyph = "".join(chr(int(c, 16)) for c in code.split("-"))
        ImageDraw.Draw(picture).text((0, 0), glyph, font=noto, embedded_color=True)
        yield f"noto/{plain}", name, picture, True


def icons(root: Path) -> Iterator[Found]:
    """Further hands of emoji, as Iconify's JSON has them; skin tones of one picture only once."""
    for hand in ("noto-v1", "emojione", "emojione-v1", "fluent-emoji-flat", "fxemoji",
                 "streamline-emojis"):  # fmt: skip
        pack = json.loads((root / f"iconify-json-{hand}/package/icons.json").read_text())
        for name, icon in sorted(pack["icons"].items()):
            words = name.replace("-", " ")
            if "skin tone" in words or shown(words, NOUNS) is None:
                continue
            wide, high = (icon.get(k, pack.get(k, 16)) for k in ("width", "height"))
            drawn = (
                f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
                f' viewBox="0 0 {wide} {high}">{icon["body"]}</svg>'
            )
            yield f"{hand}/{name}", words, svg(drawn), True


def gcompris(root: Path) -> Iterator[Found]:
    base = root / "gcompris-qt-data/usr/share/gcompris-qt/rcc"
    for pack in (
        "erase",
        "explore_world_animals",
        "explore_farm_animals",
        "categorization",
        "lang",
    ):
        for path, data in sorted(read(base / f"{pack}.rcc").items()):
            if path.endswith((".webp", ".png", ".jpg")) and "_background" not in path:
                stem = "".join(f" {c.lower()}" if c.isupper() else c for c in Path(path).stem)
                name = " ".join(stem.replace("_", " ").rstrip("0123456789 ").split())
                yield (
                    f"gcompris/{pack}/{Path(path).stem}",
                    name,
                    Image.open(io.BytesIO(data)),
                    False,
                )


def trimmed(picture: Image.Image, cut: bool) -> Image.Image | None:
    """RGBA on the box of what is opaque, at most `SIDE` wide and high; None if it is no cut-out."""
    picture = picture.convert("RGBA")
    if cut:
        alpha = np.asarray(picture)[..., 3]
        box = picture.getchannel("A").point(lambda a: 255 * (a > 32)).getbbox()
        if box is None or (alpha > 200).mean() > 0.97:
            return None
        picture = picture.crop(box)
        if min(picture.size) < 24:
            return None
    picture.thumbnail((SIDE, SIDE))
    return picture


def photographic(picture: Image.Image) -> bool:
    """Many colours among its opaque pixels, as photographs have and drawings mostly don't."""
    pixels = np.asarray(picture.resize((96, 96)))
    pixels = pixels[pixels[..., 3] > 200][:, :3]
    if len(pixels) < 100:
        return False
    coarse = len(np.unique(pixels // 4, axis=0)) / len(pixels)
    return coarse > 0.15


def held(source: str, share: float) -> bool:
    return int(hashlib.sha256(source.encode()).hexdigest(), 16) % 10_000 < share * 10_000


NOUNS = nouns()


def main(work: Path) -> None:
    root, out = work / "unpacked", work / "pictures"
    out.mkdir(exist_ok=True)
    rows = []
    for found in (stamps, clip_art, emoji, icons, gcompris):
        for source, name, picture, cut in found(root):
            noun = shown(name, NOUNS)
            if noun is None or (kept := trimmed(picture, cut)) is None:
                continue
            photo = source.startswith("stamps") and "cartoon" not in source and photographic(kept)
            photo = photo or (source.startswith("gcompris") and "/lang/" not in source)
            split = "stamp" if held(source, HELD["photo" if photo else "drawing"]) else "train"
            split = "set" if source.startswith("gcompris") else split
            number = f"{len(rows):05d}"
            kept.save(out / f"{number}.png")
            rows.append({"id": number, "noun": noun, "source": source, "name": name.strip(),
                         "photo": int(photo), "split": split})  # fmt: skip
    trained = collections.Counter(r["noun"] for r in rows if r["split"] == "train")
    rows = [r for r in rows if trained[r["noun"]] >= LEAST]
    with (work / "pictures.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print(len(rows), "pictures of", len({r["noun"] for r in rows}), "nouns")
    for split in ("train", "stamp", "set"):
        some = [r for r in rows if r["split"] == split]
        print(f"{split}: {len(some)}, of them photographs {sum(r['photo'] for r in some)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    main(parser.parse_args().work)
