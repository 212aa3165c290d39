"""Every odd picture is either read as a person would see it, or refused in one clear sentence."""

from __future__ import annotations

import inspect
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from mmlens.errors import PictureError
from mmlens.pictures import MAX_PIXELS, open_picture


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
        "The PIL image of size (0, 5) is 0 x 5 pixels, so there is nothing to see:"
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
