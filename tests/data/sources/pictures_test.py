"""The user's own pictures, kept unchanged or converted to RGB."""

import io

import pytest
from PIL import Image

from uno_jax.data.sources.pictures import PictureError, encode_rgb


def encode(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_rgb_pictures_are_kept_byte_for_byte(kind):
    encoded = encode(Image.new("RGB", (5, 5), "red"), kind)
    assert encode_rgb(encoded) == encoded


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_other_modes_become_rgb(mode):
    encoded = encode_rgb(encode(Image.new(mode, (5, 5)), "TIFF"))
    assert Image.open(io.BytesIO(encoded)).mode == "RGB"


def test_transparency_is_pasted_on_white():
    encoded = encode_rgb(encode(Image.new("RGBA", (2, 2), (0, 0, 0, 0))))
    assert Image.open(io.BytesIO(encoded)).getpixel((0, 0)) == (255, 255, 255)


def test_the_orientation_of_a_photo_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    encoded = encode_rgb(encode(Image.new("RGB", (4, 2)), "JPEG", exif=exif))
    assert Image.open(io.BytesIO(encoded)).size == (2, 4)


def test_sixteen_bit_pictures_are_rejected():
    with pytest.raises(PictureError, match="8 bits"):
        encode_rgb(encode(Image.new("I;16", (2, 2))))
