"""Draw what pictos-clip learns from into one file: pictures of the things by many hands, and words.

Writes `banks.npz`. Per picture (a drawing of one hand, or a photograph): `colour` uint8
[n, 64, 64, 4] RGBA, `outline` uint8 [n, 64, 64] (its edges as ink), `concept`, `hand`, `photo`,
`held`. Words: `words` uint8 [font, case, word, 24, 128], `wide` (the width of each in it), `fonts`,
`font_held`, `word_names`. The glyphs of Symbola are in mmlens already (`sprites`, "symbolic").
Hands and fonts of `HELD_HANDS` and `HELD_FONTS` are for measurement only.

    python training/pictos_clip/draw_banks.py --work DIR --pictures SMOL
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

sys.path.append(str(Path(__file__).parents[1] / "pictos"))
from concepts import concepts

from mmlens.pictos.scene_captions import GROUNDS
from mmlens.pictos.sprites import sprites

SIDE, DRAWN = 64, 128  # pictures are kept at the first side and drawn at the second
HIGH, WIDE = 24, 128  # the frame of a word
ICONIFY = ("noto-v1", "emojione", "emojione-v1", "fluent-emoji-flat", "fxemoji",
           "streamline-emojis")  # fmt: skip
HELD_HANDS = ("openmoji", "fxemoji", "gcompris")
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono-Bold",
    "LiberationSans-Regular", "LiberationSans-Bold", "LiberationSerif-Bold",
    "LiberationSerif-Italic", "LiberationMono-Bold", "LiberationSansNarrow-Bold", "Lato-Regular",
    "Lato-Black", "FreeSerifBold", "Caladea-Bold", "Cantarell-Bold", "Inconsolata",
    "Dosis-SemiBold", "DancingScript-Bold", "lobster", "BebasNeue-Bold",
)  # fmt: skip
HELD_FONTS = ("ComicNeue-Bold", "Courier Prime Bold", "EBGaramond12-Bold", "LeagueSpartan-Bold")
SPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
CASES = (str.lower, str.capitalize, str.upper)
Found = tuple[int, str, Image.Image, bool, bool]  # concept, hand, picture, photograph, held out


def svg(text: str) -> Image.Image:
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=text, width=DRAWN))))


def named(slug: str, name: str, pack: dict) -> str | None:
    """What a set calls an emoji: its own spelling of the Unicode name, an alias, or the thing's."""
    for word in (slug, slug.replace("-", ""), slug.removesuffix("-face"), f"{slug}-face", name):
        word = pack.get("aliases", {}).get(word, {}).get("parent", word)
        if word in pack["icons"]:
            return word
    return None


def emoji(root: Path) -> Iterator[Found]:
    """Every hand's picture of each code point."""
    packs = {h: root / f"iconify-json-{h}/package" for h in ICONIFY}
    icons = {h: json.loads((p / "icons.json").read_text()) for h, p in packs.items()}
    slugs = json.loads((packs["fluent-emoji-flat"] / "chars.json").read_text())
    for k, thing in enumerate(concepts()):
        code = f"{ord(thing.char):x}"
        for hand, file in (
            ("openmoji", root / f"openmoji/package/color/svg/{code.upper()}.svg"),
            ("twemoji", root / f"twemoji-svg/package/{code}.svg"),
        ):
            if file.exists():
                yield k, hand, svg(file.read_text()), False, hand in HELD_HANDS
        for stem in (code, f"{code}-fe0f"):
            file = root / f"lobehub-fluent-emoji-3d/package/assets/{stem}.webp"
            if file.exists():
                yield k, "fluent-3d", Image.open(file), False, False
        for hand, pack in icons.items():
            slug = slugs.get(code) or slugs.get(f"{code}-fe0f") or thing.name
            name = named(slug, thing.name, pack)
            if name is not None:
                icon = pack["icons"][name]
                wide, high = (icon.get(x, pack.get(x, 16)) for x in ("width", "height"))
                drawn = f'<svg {SPACES} viewBox="0 0 {wide} {high}">{icon["body"]}</svg>'
                yield k, hand, svg(drawn), False, hand in HELD_HANDS


def world() -> Iterator[Found]:
    """The bundled world's own colour sprites (Noto Color Emoji)."""
    bank = sprites().banks["literal"]
    for k, sprite in enumerate(bank):
        alpha = sprite[3:]
        straight = np.asarray((sprite[:3] / alpha.clamp(min=1e-3)).clamp(0, 1))
        pixels = np.concatenate([straight, alpha.numpy()]).transpose(1, 2, 0)
        yield k, "noto", Image.fromarray((pixels * 255).round().astype(np.uint8)), False, False


def stamps(folder: Path, names: list[str]) -> Iterator[Found]:
    """Stamps, clip art and photographs that `training/smol/gather.py` has gathered and named."""
    with (folder / "pictures.csv").open() as file:
        for row in csv.DictReader(file):
            hand = row["source"].split("/")[0]
            if row["noun"] in names and hand in ("stamps", "clipart", "gcompris"):
                picture = Image.open(folder / "pictures" / f"{row['id']}.png")
                held = row["split"] != "train"
                yield names.index(row["noun"]), hand, picture, row["photo"] == "1", held


def framed(picture: Image.Image) -> Image.Image:
    """Trimmed to what is opaque, centred in a square of `DRAWN`."""
    picture = picture.convert("RGBA")
    picture = picture.crop(picture.getchannel("A").point(lambda a: 255 * (a > 24)).getbbox())
    scale = DRAWN / max(picture.size)
    size = [max(1, round(s * scale)) for s in picture.size]
    frame = Image.new("RGBA", (DRAWN, DRAWN))
    frame.paste(picture.resize(size, Image.Resampling.LANCZOS),
                tuple((DRAWN - s) // 2 for s in size))  # fmt: skip
    return frame


def outline(picture: Image.Image) -> np.ndarray:
    """Edges as ink, uint8 [SIDE, SIDE]: the gradient of the picture on grey and of its alpha."""
    pixels = np.asarray(picture, np.float32) / 255
    alpha = pixels[..., 3:]
    shown = np.concatenate([pixels[..., :3] * alpha + 0.5 * (1 - alpha), alpha], -1)
    shown = ndimage.gaussian_filter(shown, (1.3, 1.3, 0))
    slope = np.hypot(ndimage.sobel(shown, 0), ndimage.sobel(shown, 1)).max(-1)
    ink = np.clip((slope - 0.35) / 0.5, 0, 1)
    small = Image.fromarray((ink * 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.clip(np.asarray(small, np.float32) * 1.4, 0, 255).astype(np.uint8)


def font_file(name: str, work: Path) -> Path:
    """Of the Debian packages unpacked in `work`."""
    return next(p for e in ("ttf", "otf") for p in (work / "unpacked").rglob(f"{name}.{e}"))


def word(text: str, font: ImageFont.FreeTypeFont) -> tuple[np.ndarray, int]:
    """The word's alpha in its frame, on a common base line, and how wide it is there."""
    _, low, _, high = font.getbbox("bdfhklTXgjpqy")
    canvas = Image.new("L", (font.size * (len(text) + 2), high - low))
    ImageDraw.Draw(canvas).text((font.size, -low), text, font=font, fill=255)
    box = canvas.getbbox()
    canvas = canvas.crop((box[0], 0, box[2], canvas.height))
    scale = min(HIGH / canvas.height, WIDE / canvas.width)
    size = (max(1, round(canvas.width * scale)), max(1, round(canvas.height * scale)))
    frame = Image.new("L", (WIDE, HIGH))
    frame.paste(canvas.resize(size, Image.Resampling.LANCZOS),
                ((WIDE - size[0]) // 2, (HIGH - size[1]) // 2))  # fmt: skip
    return np.asarray(frame), size[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/pictos-clip"))
    parser.add_argument("--pictures", type=Path, default=Path("runs/smol"))
    args = parser.parse_args()
    names = list(sprites().names)
    assert names == [c.name for c in concepts()]
    rows = [*world(), *emoji(args.pictures / "unpacked"), *stamps(args.pictures, names)]
    colour, lines = [], []
    for _, _, picture, _, _ in rows:
        frame = framed(picture)
        colour.append(np.asarray(frame.resize((SIDE, SIDE), Image.Resampling.BOX)))
        lines.append(outline(frame))
    word_names = [*names, *(g for g in (*GROUNDS, "black") if g not in names)]
    fonts = [ImageFont.truetype(str(font_file(f, args.work)), 64) for f in (*FONTS, *HELD_FONTS)]
    drawn = [[[word(case(w), font) for w in word_names] for case in CASES] for font in fonts]
    np.savez_compressed(
        args.work / "banks.npz",
        colour=np.stack(colour),
        outline=np.stack(lines),
        concept=[r[0] for r in rows],
        hand=[r[1] for r in rows],
        photo=[r[3] for r in rows],
        held=[r[4] for r in rows],
        words=np.array([[[w for w, _ in c] for c in f] for f in drawn]),
        wide=np.array([[[n for _, n in c] for c in f] for f in drawn]),
        fonts=[*FONTS, *HELD_FONTS],
        font_held=[f in HELD_FONTS for f in (*FONTS, *HELD_FONTS)],
        word_names=word_names,
    )
    hands = sorted({r[1] for r in rows})
    for hand in hands:
        some = [r for r in rows if r[1] == hand]
        print(
            hand, len(some), "photographs", sum(r[3] for r in some), "held", sum(r[4] for r in some)
        )


if __name__ == "__main__":
    main()
