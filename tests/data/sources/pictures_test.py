"""The user's own pictures, stored as they came or rewritten."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.made_up_records import picture
from uno_jax.data.decoding import decode_rgb, picture_size
from uno_jax.data.sources.pictures import (
    NO_LIMITS,
    PictureError,
    PictureLimits,
    Rewritten,
    read_picture,
    stored_picture,
)


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode="RGB", width=24, height=16):
    return Image.open(io.BytesIO(picture(0, width, height))).convert(mode)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # by 90 degrees
    return exif


def opened(encoded):
    return Image.open(io.BytesIO(encoded))


@pytest.mark.parametrize(
    "encoded",
    [
        *(encode(noise(mode)) for mode in ("RGB", "L", "LA", "P", "RGBA", "1")),
        *(encode(noise(mode), "JPEG") for mode in ("RGB", "L", "CMYK")),
        encode(noise(), "JPEG", exif=turned()),
        *(encode(noise(mode), "WEBP") for mode in ("RGB", "RGBA")),
        encode(noise(), "MPO", save_all=True, append_images=[noise()]),
    ],
)
def test_pictures_that_need_no_change_are_stored_byte_for_byte(encoded):
    assert stored_picture(encoded, NO_LIMITS) == encoded
    height, width = decode_rgb(encoded, "x").shape[:2]
    assert picture_size(encoded, "x") == (width, height)


@pytest.mark.parametrize(
    "encoded",
    [
        *(encode(noise(mode), "TIFF") for mode in ("L", "P", "RGBA", "CMYK", "1")),
        encode(noise(), "BMP"),
        encode(noise(), "PNG", exif=turned()),
        encode(noise(), "WEBP", save_all=True, append_images=[noise("L").convert("RGB")], lossless=True),
        encode(noise("P"), "GIF"),
    ],
)
def test_other_pictures_become_rgb_png_with_the_same_pixels(encoded):
    stored = stored_picture(encoded, NO_LIMITS)
    assert (opened(stored).format, opened(stored).mode, stored.why) == ("PNG", "RGB", "converted")
    np.testing.assert_array_equal(decode_rgb(stored, "x"), decode_rgb(encoded, "x"))


def test_transparency_is_pasted_on_white():
    stored = stored_picture(encode(Image.new("RGBA", (2, 2), (0, 0, 0, 0)), "TIFF"), NO_LIMITS)
    assert opened(stored).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_pictures_are_rejected():
    with pytest.raises(PictureError, match="8 bits"):
        stored_picture(encode(Image.new("I;16", (2, 2))), NO_LIMITS)


@pytest.mark.parametrize(("kind", "becomes"), [("JPEG", "JPEG"), ("WEBP", "JPEG"), ("PNG", "PNG"), ("BMP", "PNG")])
def test_a_picture_with_a_longer_side_is_scaled_down(kind, becomes):
    stored = stored_picture(encode(noise(), kind), PictureLimits(max_side=12))
    assert (opened(stored).format, opened(stored).size, stored.why) == (becomes, (12, 8), "scaled")


def test_a_picture_that_is_not_upright_is_scaled_and_turned():
    stored = stored_picture(encode(noise(), "JPEG", exif=turned()), PictureLimits(max_side=12))
    assert opened(stored).size == (8, 12)
    assert not opened(stored).getexif()


def test_a_picture_that_is_small_enough_is_not_touched():
    encoded = encode(noise(), "JPEG")
    assert not isinstance(stored_picture(encoded, PictureLimits(max_side=24)), Rewritten)


@pytest.mark.parametrize(
    ("limits", "cause"),
    [(PictureLimits(min_side=17, max_side=4), "min_side"), (PictureLimits(max_aspect=1.4), "max_aspect")],
)
def test_a_picture_beyond_a_limit_is_refused_by_its_size_before_scaling(limits, cause):
    with pytest.raises(PictureError, match=f"24 x 16 pixels.*--{cause}") as error:
        stored_picture(encode(noise()), limits)
    assert error.value.cause == cause


def test_a_picture_at_the_limits_is_used():
    assert stored_picture(encode(noise()), PictureLimits(min_side=16, max_aspect=1.5))


def test_the_remedy_for_a_missing_picture_names_the_current_folder_as_it_was_given():
    with pytest.raises(PictureError) as error:
        read_picture(Path("."), "nothing.png", PictureLimits())
    assert error.value.remedy == "Put the file into ./"
