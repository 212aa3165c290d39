"""Draw the sprite banks of the pictos world into `mmlens/pictos/sprites.npz`.

Three banks show one concept in three styles, as CLIP's multimodal neurons are tested on:

- `literal`  uint8 [concept, 64, 64, 4]   the colour emoji (Noto Color Emoji), RGBA
- `symbolic` uint8 [concept, 64, 64]      the outline glyph of the same code point (Symbola), alpha
- `written`  uint8 [concept, 32, 96]      the name in plain type (DejaVu Sans Bold), alpha

Glyphs are cropped to their alpha box and fitted into the square; words keep one letter height
unless they are too long for the bank's width. Users of mmlens need no fonts, only this file.

    apt-get install fonts-noto-color-emoji fonts-symbola
    python training/pictos/draw_sprites.py
"""

import argparse
from pathlib import Path

import numpy as np
from concepts import concepts
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

NOTO = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
SYMBOLA = "/usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf"
SIDE, WORD_HEIGHT, WORD_WIDTH = 64, 32, 96
BANKS = Path(__file__).parents[2] / "mmlens" / "pictos" / "sprites.npz"


def draw(text: str, font: ImageFont.FreeTypeFont, colour: bool) -> Image.Image:
    """The glyph on a transparent ground, cropped to what is visible."""
    canvas = Image.new("RGBA", (font.size * (len(text) + 2), font.size * 2), (0, 0, 0, 0))
    ink = ImageDraw.Draw(canvas)
    ink.text((font.size // 2, font.size // 3), text, font=font, fill="black", embedded_color=colour)
    box = canvas.getchannel("A").getbbox()
    if box is None:
        raise ValueError(f"{font.path} draws nothing for {text!r}")
    return canvas.crop(box)


def fit(glyph: Image.Image, width: int, height: int) -> Image.Image:
    """The glyph as large as the frame allows, centred."""
    scale = min(width / glyph.width, height / glyph.height)
    size = (max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale)))
    frame = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    frame.paste(
        glyph.resize(size, Image.Resampling.LANCZOS),
        ((width - size[0]) // 2, (height - size[1]) // 2),
    )
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--noto", default=NOTO)
    parser.add_argument("--symbola", default=SYMBOLA)
    parser.add_argument("--out", type=Path, default=BANKS)
    args = parser.parse_args()
    things = concepts()
    emoji = ImageFont.truetype(args.noto, size=109)
    outline = ImageFont.truetype(args.symbola, size=200)
    plain = ImageFont.truetype(font_manager.findfont("DejaVu Sans:bold"), size=64)
    literal = np.stack([np.asarray(fit(draw(t.char, emoji, True), SIDE, SIDE)) for t in things])
    symbolic = np.stack(
        [np.asarray(fit(draw(t.char, outline, False), SIDE, SIDE))[..., 3] for t in things]
    )
    written = np.stack([word(t.name, plain) for t in things])
    literal = literal * (literal[..., 3:] > 0)
    np.savez_compressed(
        args.out,
        names=np.array([t.name for t in things]),
        kinds=np.array([t.kind for t in things]),
        literal=literal.astype(np.uint8),
        symbolic=symbolic,
        written=written,
    )
    print(f"{len(things)} concepts, {args.out.stat().st_size / 1e6:.2f} MB in {args.out}")


def word(name: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """uint8 [32, 96]: the printed word; all words share one letter height if they fit."""
    width = int(font.getlength(name))
    line = Image.new("L", (width + 4, 78), 0)
    ImageDraw.Draw(line).text((2, 2), name, font=font, fill=255)
    frame = fit(Image.merge("RGBA", [line] * 4), WORD_WIDTH, WORD_HEIGHT)
    return np.asarray(frame)[..., 3]


if __name__ == "__main__":
    main()
