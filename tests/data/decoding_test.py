"""Decoding of pictures: what is read, how, and what is refused in plain words."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.helpers.paths import ROOT
from uno_jax.data.decoding import PictureError, decode_rgb, picture_size, read_file
from uno_jax.data.transforms import ImageTransform

RED_GREEN = np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def refused(data: bytes, **options) -> PictureError:
    with pytest.raises(PictureError) as error:
        decode_rgb(data, "record 'r7', field image", **options)
    assert str(error.value).startswith("record 'r7', field image: ")
    return error.value


# Read


def test_transparency_is_pasted_on_white():
    image = Image.new("RGBA", (1, 2), (255, 0, 0, 0))
    image.putpixel((0, 1), (10, 20, 30, 255))
    np.testing.assert_array_equal(decode_rgb(encoded(image), "x")[:, 0], [[255, 255, 255], [10, 20, 30]])


def test_transparent_palette_entries_are_white():
    image = Image.new("P", (1, 1), 0)
    image.putpalette([9, 9, 9])
    image.info["transparency"] = 0
    np.testing.assert_array_equal(decode_rgb(encoded(image), "x"), [[[255, 255, 255]]])


def test_grey_pictures_become_rgb():
    np.testing.assert_array_equal(decode_rgb(encoded(Image.new("L", (1, 1), 7)), "x"), [[[7, 7, 7]]])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_8_bit_mode_becomes_rgb(mode):
    assert decode_rgb(encoded(Image.new(mode, (5, 4)), "TIFF"), "x").shape == (4, 5, 3)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 3)])
def test_every_shape_is_read(size):
    assert decode_rgb(encoded(Image.new("RGB", size)), "x").shape == (*reversed(size), 3)


def test_colour_pictures_of_16_bits_are_read_by_their_upper_8_bits():
    np.testing.assert_array_equal(decode_rgb(png_of_16_bits([0x1234, 0xAB00, 0x00FF]), "x"), [[[0x12, 0xAB, 0x00]]])


def png_of_16_bits(values: list[int]) -> bytes:
    """Returns a PNG of one RGB pixel with 16 bits per channel, which Pillow cannot write."""
    rows = b"\0" + struct.pack(">3H", *values)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_read(kind):
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode_rgb(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options), "x")
    np.testing.assert_array_equal(pixels, np.full((2, 2, 3), (255, 0, 0), np.uint8))


def test_the_content_decides_and_not_the_name(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded(Image.fromarray(RED_GREEN)))
    np.testing.assert_array_equal(decode_rgb(read_file(tmp_path / "photo.jpg"), "x"), RED_GREEN)


def oriented(orientation: int, kind: str = "PNG", **tags) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.update({int(tag, 16): value for tag, value in tags.items()})
    return encoded(Image.fromarray(RED_GREEN), kind, exif=exif)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_photo_is_turned_as_its_exif_says(kind):
    np.testing.assert_array_equal(decode_rgb(oriented(6, kind), "x"), RED_GREEN.transpose(1, 0, 2))
    np.testing.assert_array_equal(decode_rgb(oriented(3, kind), "x"), RED_GREEN[:, ::-1])


def test_a_photo_is_turned_without_rewriting_its_exif():
    """A fraction where text belongs can be read, but not written."""
    data = oriented(6, **{"0x10F": "Canon123"})
    at = data.index(b"eXIf") + 4
    directory = bytearray(data[at : at + struct.unpack(">I", data[at - 8 : at - 4])[0]])
    entry = directory.index(struct.pack(">HHI", 0x10F, 2, 9))
    directory[entry : entry + 8] = struct.pack(">HHI", 0x10F, 5, 1)
    chunk = b"eXIf" + bytes(directory)
    damaged = data[: at - 4] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[at + len(directory) + 4 :]
    np.testing.assert_array_equal(decode_rgb(damaged, "x"), RED_GREEN.transpose(1, 0, 2))


def test_damaged_exif_is_ignored():
    for exif in (b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\xff" * 100):
        np.testing.assert_array_equal(decode_rgb(encoded(Image.fromarray(RED_GREEN), exif=exif), "x"), RED_GREEN)


# Refused


@pytest.mark.parametrize(
    ("data", "cause", "words"),
    [
        (b"", "picture_empty", "the file is empty. Replace the file"),
        (b"not a picture", "picture_format", "not a picture, or damaged at its start"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "picture_format", "not a picture"),  # would be executed
        (encoded(Image.new("RGB", (9, 9)))[:-30], "picture_format", "damaged at its start"),
        (encoded(Image.effect_noise((90, 90), 9))[:-99], "picture_damaged", "is damaged (image file is truncated"),
        (encoded(Image.new("RGB", (90, 90)), "JPEG")[:-80], "picture_damaged", "truncated"),
        (encoded(Image.new("I;16", (2, 2), 40_000)), "picture_depth", "more than 8 bits (mode I;16)"),
        (encoded(Image.new("F", (2, 2)), "TIFF"), "picture_depth", "more than 8 bits (mode F)"),
        (encoded(Image.new("1", (20_000, 20_000))), "picture_size", "far too many pixels"),
    ],
)
def test_an_unusable_picture_is_refused_with_its_cause(data, cause, words):
    error = refused(data)
    assert error.cause == cause
    assert words in str(error)


def test_a_picture_above_the_limit_is_refused_before_it_is_decoded():
    error = refused(encoded(Image.new("1", (400, 300))), max_pixels=100_000)
    assert error.cause == "picture_size"
    assert "400 x 300 pixels are more than the maximum of 100,000" in str(error)
    assert decode_rgb(encoded(Image.new("1", (400, 250))), "x", 100_000).shape == (250, 400, 3)


def test_a_message_holds_no_words_of_the_library():
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("comment", "x" * 2_000_000, zip=True)
    message = str(refused(encoded(Image.new("RGB", (2, 2)), pnginfo=chunks)))
    assert message == "record 'r7', field image: the picture is damaged. Replace the file"


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="not a file"):
        read_file(tmp_path / "pipe.png")


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**28 + 1)
    with pytest.raises(PictureError, match="a file of 268,435,457 bytes"):
        read_file(tmp_path / "huge.png")


BOMB = """
import io
from PIL import Image
from uno_jax.data.transforms import ImageTransform
from uno_jax.data.decoding import PictureError, decode_rgb
buffer = io.BytesIO()
Image.new("1", (12_000, 12_000)).save(buffer, "PNG")
try:
    decode_rgb(buffer.getvalue(), "record 'r7'")
except PictureError as error:
    print(error)
"""


def test_a_huge_picture_is_refused_without_a_warning_that_names_no_record():
    ended = subprocess.run([sys.executable, "-c", BOMB], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("record 'r7': 12000 x 12000 pixels are more than the maximum of 64,000,000")
    assert ended.stderr == ""


# Sizes without pixels


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_the_size_is_that_of_the_upright_picture(kind, turn):
    exif = Image.Exif()
    exif[274] = turn
    data = encoded(Image.new("RGB", (5, 4)), kind, exif=exif)
    assert picture_size(data, "x") == decode_rgb(data, "x").shape[1::-1]


def test_the_size_of_what_is_no_picture_or_too_large_is_refused_like_its_pixels():
    large = encoded(Image.new("RGB", (5, 4)))
    for data, limit in ((b"x", 100), (b"", 100), (large, 19), (encoded(Image.new("I;16", (1, 1))), 100)):
        with pytest.raises(PictureError) as error:
            picture_size(data, "record 'r7', field image", limit)
        assert str(error.value) == str(refused(data, max_pixels=limit))


# At a reduced size


def photograph(width: int, height: int) -> Image.Image:
    """Returns a smooth picture."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("scale", "size"), [(0.6, (100, 60)), (0.5, (50, 30)), (0.3, (50, 30)), (0.01, (13, 8))])
def test_a_jpeg_file_is_decoded_at_the_smallest_size_that_suffices(scale, size):
    data = encoded(photograph(100, 60), "JPEG", quality=95)
    assert decode_rgb(data, "x", scale_of=lambda width, height: scale).shape[1::-1] == size


def test_other_files_and_pictures_to_be_turned_are_decoded_whole():
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    turned = encoded(photograph(100, 60), "JPEG", exif=exif)
    assert decode_rgb(turned, "x", scale_of=lambda width, height: 0.1).shape == (100, 60, 3)
    assert decode_rgb(encoded(photograph(100, 60)), "x", scale_of=lambda width, height: 0.1).shape == (60, 100, 3)


@pytest.mark.parametrize("buckets", [0, 2])
@pytest.mark.parametrize("size", [(200, 120), (203, 121), (117, 251)])
def test_a_picture_decoded_at_a_reduced_size_gives_nearly_the_same_pixels(size, buckets):
    transform = ImageTransform(48, 16, 16, buckets=buckets)
    data = encoded(photograph(*size), "JPEG", quality=95)
    reduced = decode_rgb(data, "x", scale_of=transform.scale)
    assert reduced.shape[1] in (-(-size[0] // 2), -(-size[0] // 4))
    whole = transform.resize(decode_rgb(data, "x"))
    difference = np.abs(transform.resize(reduced, size).astype(int) - whole)
    assert difference.mean() < 1.0
    assert difference.max() < 8
