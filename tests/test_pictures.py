"""Every odd picture is either read as a person would see it, or refused in one clear sentence."""

from __future__ import annotations

import inspect
import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mmlens import Prompt
from mmlens.values.errors import PictureError, PromptError
from mmlens.values.picture_files import pictures, readable
from mmlens.values.pictures import MAX_BYTES, MAX_PIXELS, open_picture


def encoded(picture: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header claims a size; its pixels would be all zero."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 100)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


PHOTO = noise(6, 9, 3)


# What is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "PIL", "array"])
def test_a_picture_is_the_same_from_wherever_it_comes(tmp_path, kind):
    path = tmp_path / "scene.png"
    Image.fromarray(PHOTO).save(path)
    sources = {
        "str": str(path),
        "path": path,
        "bytes": path.read_bytes(),
        "PIL": Image.open(path),
        "array": PHOTO,
    }
    picture = open_picture(sources[kind])
    assert (picture.mode, picture.size) == ("RGB", (9, 6))
    np.testing.assert_array_equal(np.asarray(picture), PHOTO)


def test_the_users_own_image_is_left_untouched():
    own = Image.fromarray(PHOTO)
    picture = open_picture(own)
    picture.putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(np.asarray(own), PHOTO)


def test_a_single_pixel_is_a_picture():
    assert open_picture(Image.new("RGB", (1, 1), "red")).getpixel((0, 0)) == (255, 0, 0)


def test_a_photo_lying_on_its_side_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    data = encoded(Image.fromarray(PHOTO), exif=exif)
    picture = open_picture(data)
    assert picture.size == (6, 9)
    np.testing.assert_array_equal(np.asarray(picture), np.rot90(PHOTO, -1))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    deep = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for source in (encoded(Image.fromarray(deep)), encoded(Image.fromarray(deep), "TIFF"), deep):
        np.testing.assert_array_equal(np.asarray(open_picture(source))[0, :, 0], [0, 1, 128, 255])


def test_grey_of_32_bits_is_read_as_8_or_16_by_its_range():
    for white in (255, 65535):
        grey = Image.fromarray(np.array([[0, white]], dtype=np.int32))
        assert grey.mode == "I"
        expected = [0, 255]
        np.testing.assert_array_equal(np.asarray(open_picture(grey))[0, :, 0], expected)


def test_cmyk_is_read_as_its_colours():
    picture = open_picture(Image.new("CMYK", (2, 2), (0, 255, 255, 0)))
    assert picture.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr", "HSV", "LAB"])
def test_every_other_mode_becomes_rgb(mode):
    assert open_picture(Image.fromarray(PHOTO).convert("RGB").convert(mode)).mode == "RGB"


def test_transparent_pixels_lie_on_white():
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 255))
    grey = Image.new("LA", (2, 1), (9, 0))
    grey.putpixel((1, 0), (9, 255))
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.putpixel((1, 0), 1)
    for source, colour in (
        (clear, (255, 0, 0)),
        (encoded(clear), (255, 0, 0)),
        (grey, (9, 9, 9)),
        (encoded(palette, transparency=0), (255, 0, 0)),
        (np.asarray(clear), (255, 0, 0)),
    ):
        picture = open_picture(source)
        assert [picture.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), colour]


def test_an_opaque_palette_keeps_its_colours():
    palette = Image.new("P", (1, 1), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert open_picture(encoded(palette)).getpixel((0, 0)) == (255, 0, 0)


def test_of_an_animation_the_first_frame_is_read_and_a_warning_says_so(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue", "green")]
    path = tmp_path / "moving.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match=r"moving.gif' is animated: frame 1 of 3 is read\."):
        assert open_picture(path).getpixel((0, 0)) == (255, 0, 0)


def test_an_ordinary_picture_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_picture(encoded(Image.fromarray(PHOTO)))


@pytest.mark.parametrize(
    "array",
    [
        PHOTO / np.float32(255),  # 0..1
        PHOTO.astype(np.float64),  # 0..255
        PHOTO.astype(np.int64),
        PHOTO.astype(np.uint16) * np.uint16(257),
    ],
    ids=["unit floats", "byte floats", "integers", "uint16"],
)
def test_arrays_of_any_depth_give_the_same_picture(array):
    np.testing.assert_array_equal(np.asarray(open_picture(array)), PHOTO)


def test_grey_and_boolean_arrays_are_pictures():
    grey = noise(4, 5)
    for array in (grey, grey[..., None]):
        np.testing.assert_array_equal(np.asarray(open_picture(array))[..., 2], grey)
    np.testing.assert_array_equal(np.asarray(open_picture(grey > 99))[..., 0], (grey > 99) * 255)


# What is refused --------------------------------------------------------------------------------


def refusal(source) -> str:
    """The sentence of a refusal; it shows no traceback of Pillow's and is one line."""
    with pytest.raises(PictureError) as caught:
        open_picture(source)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_file_names_its_nearest_neighbours(tmp_path):
    (tmp_path / "scene.png").write_bytes(b"x")
    sentence = refusal(tmp_path / "sceen.png")
    assert sentence.startswith("There is no file ")
    assert sentence.endswith("sceen.png'; in its folder: did you mean 'scene.png'?")


def test_a_missing_file_in_an_empty_folder_says_so(tmp_path):
    assert refusal(tmp_path / "a.png").endswith("a.png'; its folder is empty.")


def test_a_missing_folder_is_told_with_the_working_directory(tmp_path):
    sentence = refusal(tmp_path / "photos" / "a.png")
    assert sentence.startswith("There is no folder ")
    assert "so no picture" in sentence


def test_a_folder_is_not_a_picture(tmp_path):
    assert refusal(tmp_path).endswith(
        "is a folder: give the path of one picture; it holds no files."
    )
    (tmp_path / "a.png").write_bytes(b"x")
    assert refusal(str(tmp_path)).endswith("it holds 'a.png'.")


def test_an_address_is_not_downloaded():
    assert refusal("https://example.org/cat.png") == (
        "'https://example.org/cat.png' is an address: download it first, then give the file's path."
    )
    assert "is an address" in refusal("https:/example.org/cat.png")  # as a Path spells it


def test_a_path_that_no_system_takes_is_refused():
    assert "cannot be read (" in refusal("a" * 5000 + ".png")
    assert "cannot be read (" in refusal("a\0b.png")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    assert refusal(tmp_path / "empty.png").endswith(
        "empty.png' is empty (0 bytes): copy or download it again."
    )


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_refused(tmp_path, format):
    data = encoded(Image.fromarray(noise(64, 64, 3)), format)
    path = tmp_path / f"half.{format.lower()}"
    path.write_bytes(data[: len(data) // 2])
    sentence = refusal(path)
    assert "is damaged or cut short (" in sentence or "is not a picture that Pillow" in sentence
    assert f"half.{format.lower()}'" in sentence


@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd tags before it gives up
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damage_anywhere_is_read_or_refused_and_nothing_else(format):
    rng = np.random.default_rng(0)
    whole = encoded(Image.fromarray(noise(20, 30, 3)), format)
    refused = 0
    for _ in range(100):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 200), 4):
            data[place] = rng.integers(0, 256)
        try:
            assert open_picture(bytes(data)).mode == "RGB"
        except PictureError:
            refused += 1
    assert refused


def test_text_is_not_a_picture():
    assert refusal(b"once upon a time") == (
        "The picture of 16 bytes is not a picture that Pillow knows (its first bytes are"
        " b'once upo'): give a PNG, JPEG, WebP, GIF, BMP or TIFF."
    )


def test_a_drawing_is_not_pixels():
    for svg in (b"<svg xmlns='x'></svg>", b"\xef\xbb\xbf<?xml version='1.0'?>\n<SVG/>"):
        assert refusal(svg).endswith(
            "is an SVG drawing, not pixels: export it as PNG, then give that file."
        )


def test_a_heic_photo_is_told_what_to_install():
    sentence = refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    assert "is a HEIC or AVIF picture" in sentence and "save it as JPEG or PNG" in sentence


@pytest.mark.parametrize("side", [10_001, 20_000], ids=["our limit", "beyond Pillow's"])
def test_a_bomb_is_refused_by_its_header(side):
    assert side * side > MAX_PIXELS
    sentence = refusal(png_of_size(side, side))
    assert "has more than 100 million pixels" in sentence and "was not decoded" in sentence


def test_the_largest_allowed_header_reaches_the_decoder():
    assert "is damaged or cut short" in refusal(png_of_size(10_000, 10_000))


def test_a_picture_without_pixels_is_refused():
    assert refusal(Image.new("RGB", (0, 5))) == (
        "The PIL image of size (0, 5) is 0 x 5 pixels, so it is empty:"
        " give a picture of at least 1 x 1."
    )
    assert "is 5 x 0 pixels" in refusal(np.zeros((0, 5, 3), np.uint8))


@pytest.mark.parametrize("shape", [(4,), (6, 6, 2), (6, 6, 5), (1, 4, 4, 3)])
def test_other_shapes_are_not_pictures(shape):
    sentence = refusal(np.zeros(shape))
    assert sentence.startswith(f"The array of shape {shape} is not a picture: give [row, column]")


def test_channels_first_is_told_to_transpose():
    assert refusal(np.zeros((3, 8, 8))) == (
        "The array of shape (3, 8, 8) looks channels-first: write array.transpose(1, 2, 0)"
        " for [row, column, channel]."
    )


def test_values_out_of_range_are_refused():
    assert "has values from -2 to 2: scale them to 0..1" in refusal(np.array([[-2.0, 2.0]]))
    assert "has values from -1 to 0:" in refusal(np.array([[-1.0, 0.0]]))
    assert "has values from 0 to 300:" in refusal(np.array([[0, 300]]))
    assert "has values from 0 to 70000:" in refusal(
        Image.fromarray(np.array([[0, 70000]], dtype=np.int32))
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused(bad):
    array = np.full((2, 2), bad, dtype=np.float32)
    for source in (array, Image.fromarray(array)):
        assert "contains NaN or infinite values: clean it first" in refusal(source)


def test_arrays_of_other_things_are_refused():
    assert "holds complex128 values: give uint8" in refusal(np.zeros((2, 2), complex))


def test_other_objects_are_told_what_a_picture_is():
    unchecked = inspect.unwrap(open_picture)  # the tests' type checker would speak first
    with pytest.raises(PictureError, match=r"A builtins\.list is not a picture"):
        unchecked([[0, 1]])  # type: ignore[arg-type]


# Depth, black and white, colour profiles ---------------------------------------------------------

RAMP = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
EIGHT = (RAMP >> 8).astype(np.uint8)


def grey_of(source) -> np.ndarray:
    return np.asarray(open_picture(source))[..., 0]


def tiff(values: np.ndarray, zero_is_white: bool = False, kind: int = 1) -> bytes:
    """A grey TIFF; `kind` is its sample format: 1 unsigned, 2 signed, 3 float."""
    data, (rows, cols) = values.astype(values.dtype.newbyteorder("<")).tobytes(), values.shape
    entries = [(256, 4, cols), (257, 4, rows), (258, 3, 8 * values.itemsize), (259, 3, 1)]
    entries += [(262, 3, 0 if zero_is_white else 1), (273, 4, 8), (277, 3, 1), (278, 4, rows)]
    entries += [(279, 4, len(data)), (339, 3, kind)]
    table = b"".join(struct.pack("<HHII", tag, type, 1, value) for tag, type, value in entries)
    count = struct.pack("<H", len(entries))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + count + table + bytes(4)


def png16(values: np.ndarray, transparent: int | None = None) -> bytes:
    """A 16-bit PNG, grey or RGB by the shape of `values`; one grey of it may be transparent."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checked

    colour = 2 if values.ndim == 3 else 0
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    key = b"" if transparent is None else struct.pack(">H", transparent) * (3 if colour else 1)
    told = chunk(b"tRNS", key) if key else b""
    body = chunk(b"IHDR", header) + told + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_an_overshoot_is_clipped_and_does_not_make_a_picture_black():
    soft = np.clip(PHOTO / 255.0, 0, 1)
    soft[0, 0], soft[1, 1] = 1.01, -0.01
    expected = PHOTO.copy()
    expected[0, 0], expected[1, 1] = 255, 0
    for source in (soft, soft.astype(np.float32)):
        np.testing.assert_array_equal(np.asarray(open_picture(source)), expected)
    np.testing.assert_array_equal(np.asarray(open_picture(soft * 255)), expected)
    np.testing.assert_array_equal(grey_of(Image.fromarray(soft[..., 0].astype(np.float32))),
                                  expected[..., 0])  # fmt: skip


def test_floats_between_the_two_ranges_are_refused():
    assert "which is neither 0..1 nor 0..255" in refusal(np.array([[0.1, 3.5]]))
    np.testing.assert_array_equal(grey_of(np.array([[0.0, 2.0]])), [[0, 2]])


def test_a_tiff_whose_zero_is_white_is_no_negative():
    for values in (RAMP, EIGHT):
        np.testing.assert_array_equal(grey_of(tiff(values)), EIGHT)
        np.testing.assert_array_equal(grey_of(tiff(values, zero_is_white=True)), 255 - EIGHT)
    unit = (EIGHT / np.float32(255)).astype(np.float32)
    np.testing.assert_array_equal(grey_of(tiff(unit, True, kind=3)), 255 - EIGHT)


def test_the_white_of_a_signed_tiff_is_its_own_and_negative_numbers_are_refused():
    half = (RAMP >> 1).astype(np.int16)
    np.testing.assert_array_equal(grey_of(tiff(half, kind=2)), np.rint(half * (255 / 32767)))
    small = (EIGHT >> 1).astype(np.int8)
    np.testing.assert_array_equal(grey_of(tiff(small, kind=2)), np.rint(small * (255 / 127)))
    for values in (half - np.int16(20000), small - np.int8(100), RAMP.astype(np.int32) - 9):
        assert "holds negative numbers (down to -" in refusal(tiff(values, kind=2))


def test_the_transparent_grey_of_a_deep_png_lies_on_white():
    expected = EIGHT.copy()
    expected[RAMP[1, 2] == RAMP] = 255
    np.testing.assert_array_equal(grey_of(png16(RAMP, int(RAMP[1, 2]))), expected)
    np.testing.assert_array_equal(grey_of(png16(RAMP)), EIGHT)
    colours = np.stack([RAMP + 1] * 3, -1)  # 65536 wraps: its low byte is not its high byte
    shown = np.asarray(open_picture(png16(colours, int(colours[1, 2, 0]))))[..., 0]
    assert shown[1, 2] == 255 and shown[1, 1] == colours[1, 1, 0] >> 8


@pytest.mark.parametrize("white", [65535, 1000])
def test_a_deep_pgm_is_scaled_by_the_white_that_it_names(white):
    values = np.array([[0, white // 400, white // 2, white]])
    data = b"P5 4 1 %d\n" % white + values.astype(">u2").tobytes()
    np.testing.assert_array_equal(grey_of(data)[0], np.rint(values[0] * 255 / white))


def test_a_dark_deep_picture_stays_dark():
    dark = RAMP // 300  # nothing above 255, as in a picture of 8 bits
    for data in (b"P5 4 4 65535\n" + dark.astype(">u2").tobytes(), png16(dark), tiff(dark)):
        np.testing.assert_array_equal(grey_of(data), np.rint(dark * (255 / 65535)))


def test_a_deep_jpeg_2000_is_scaled():
    pytest.importorskip("PIL.Jpeg2KImagePlugin")
    for values in (RAMP, RAMP // 300):
        data = encoded(Image.fromarray(values), "JPEG2000")
        np.testing.assert_array_equal(grey_of(data), np.rint(values * (255 / 65535)))


def profile(gamma: float, swapped: bool = False, name: bytes = b"test") -> bytes:
    """The ICC profile of an RGB space with the primaries of sRGB (two swapped), a plain gamma."""

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    red, green, blue = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)
    red, green = (green, red) if swapped else (red, green)
    curve = b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0\0\0\0\5" + name + b"\0" + bytes(78)
    tags = [(b"desc", text), (b"wtpt", xyz(0.9642, 1.0, 0.8249)), (b"rXYZ", xyz(*red)),
            (b"gXYZ", xyz(*green)), (b"bXYZ", xyz(*blue)), (b"rTRC", curve), (b"gTRC", curve),
            (b"bTRC", curve)]  # fmt: skip
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"test", 0x02400000, b"mntr", b"RGB ",
                       b"XYZ ") + bytes(12) + b"acsp" + bytes(28)  # fmt: skip
    head += b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1.0, 0.8249))
    head += bytes(128 - len(head))
    return head + struct.pack(">I", len(tags)) + table + body


def srgb(linear: np.ndarray) -> np.ndarray:
    low = linear * 12.92
    return np.where(linear <= 0.0031308, low, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def test_a_colour_profile_is_applied():
    pytest.importorskip("PIL.ImageCms")
    photo = Image.fromarray(PHOTO)
    linear = srgb((PHOTO / 255.0) ** 1.0) * 255
    shown = np.asarray(open_picture(encoded(photo, icc_profile=profile(1.0))), float)
    assert np.abs(shown - linear).max() <= 2 and np.abs(shown - PHOTO).max() > 50
    swapped = srgb(((PHOTO / 255.0) ** 2.2)[..., [1, 0, 2]]) * 255
    for name in (
        b"test",
        b"sRGB",
    ):  # a name that was carried over from another profile says nothing
        data = encoded(photo, icc_profile=profile(2.2, swapped=True, name=name))
        shown = np.asarray(open_picture(data), float)
        assert np.abs(shown - swapped).max() <= 2


def test_a_colour_profile_is_applied_once_and_transparency_stays_on_white():
    pytest.importorskip("PIL.ImageCms")
    clear = Image.fromarray(np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)]))
    clear.putpixel((0, 0), (9, 9, 9, 0))
    once = open_picture(encoded(clear, icc_profile=profile(1.0)))
    np.testing.assert_array_equal(np.asarray(open_picture(once)), np.asarray(once))
    assert once.getpixel((0, 0)) == (255, 255, 255)
    opaque = np.asarray(open_picture(encoded(Image.fromarray(PHOTO), icc_profile=profile(1.0))))
    np.testing.assert_array_equal(np.asarray(once)[1:], opaque[1:])


def test_a_picture_in_srgb_keeps_every_pixel():
    cms = pytest.importorskip("PIL.ImageCms")
    own = cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes()
    shown = open_picture(encoded(Image.fromarray(PHOTO), icc_profile=own))
    np.testing.assert_array_equal(np.asarray(shown), PHOTO)


def test_a_broken_profile_is_told_and_its_colours_are_taken_as_srgb():
    with pytest.warns(UserWarning, match=r"The colour profile in .* cannot be applied .* as sRGB"):
        shown = open_picture(encoded(Image.fromarray(PHOTO), icc_profile=b"no profile"))
    np.testing.assert_array_equal(np.asarray(shown), PHOTO)


# Files that are none, and kinds of pictures -------------------------------------------------------


def test_a_pipe_and_an_endless_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero", "/dev/null"):
        assert "cannot be read (it is a device or a pipe, not a file)" in refusal(path)


def test_a_link_to_nothing_names_what_is_not_there(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    assert "is a link to" in refusal(tmp_path / "a.jpg")
    assert "gone.jpg', which is not there: mend the link" in refusal(tmp_path / "a.jpg")


def test_the_home_of_nobody_is_no_folder():
    assert refusal("~nobody-of-that-name/a.png") == (
        "There is no folder '~nobody-of-that-name', so no picture '~nobody-of-that-name/a.png'."
    )


def test_a_file_larger_than_any_picture_is_not_read(tmp_path):
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert "has 1.1 GB, more than any picture" in refusal(tmp_path / "huge.jpg")


def test_every_kind_that_pillow_opens_is_a_picture_and_the_others_are_known_by_name():
    assert {".jpg", ".jfif", ".jp2", ".ppm", ".pgm", ".png", ".webp", ".tif"} <= readable()
    assert {".jxl", ".heic", ".svg"} & readable() == set()
    assert {".jxl", ".heic", ".avif", ".svg"} <= pictures()
    assert not {".pdf", ".mpg", ".h5", ".txt", ""} & pictures()


@pytest.mark.parametrize("name", ["photo.avif", "photo.JXL", "photo.jfif", "a b.ppm"])
def test_the_name_of_a_picture_that_is_there_is_not_read_as_words(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if " " in name:
        assert Prompt(name).text == name  # words, unless there is such a file
    else:
        with pytest.raises(PromptError, match="the name of a picture file, and there is none here"):
            Prompt(name)
    assert Prompt(f"I see {name}").text == f"I see {name}"
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(PromptError, match="is text here, but a picture file of that name exists"):
        Prompt(name)
