"""Decodes the pictures of records, prompts and uploads to 8-bit RGB.

Pictures come from anywhere, so every failure of a decoder is a `PictureError` with the reason in plain words. Only the
first frame of an animation is read. A damaged EXIF block is ignored.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from uno_jax.data.record import RecordError

# Pillow would try all of its readers, also those that start another program or that hardly anyone tests.
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM")
LARGEST_PICTURE = 64_000_000
"""Default maximum number of pixels of a picture before it is resized: 8000 x 8000."""

LARGEST_FILE = 2**28
"""Maximum size of a picture file in bytes."""

Cause = Literal[
    "picture_path",
    "picture_missing",
    "picture_empty",
    "picture_format",
    "picture_size",
    "picture_depth",
    "picture_damaged",
    "min_side",
    "max_aspect",
]
"""Why a picture cannot be used."""

# Converting these modes to RGB clips at 255 and turns most pixels white.
_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)

_REPLACE = "Replace the file"

# Pillow warns of large pictures and damaged metadata without naming a file. Ours are errors that do, or harmless.
warnings.filterwarnings("ignore", module=r"PIL\.")


class PictureError(RecordError):
    """A picture that cannot be used: the `problem` in plain words, and a `remedy`."""

    cause: Cause

    def __init__(self, cause: Cause, problem: str, remedy: str, what: str = ""):
        super().__init__(f"{what}{': ' if what else ''}{problem}. {remedy}", cause)
        self.problem, self.remedy = problem, remedy
        self._arguments: tuple[Cause, str, str] = (cause, problem, remedy)

    def of(self, what: str) -> PictureError:
        """Returns the error of the picture that `what` names, such as a record and its field."""
        return PictureError(*self._arguments, what)


def read_file(file: Path) -> bytes:
    """Reads the content of a picture file.

    Raises:
      PictureError: the file cannot be read, is not a regular file, or is too large for a picture.
    """
    try:
        stat = file.stat()
        if not S_ISREG(stat.st_mode):  # reading a pipe would wait for ever
            raise PictureError("picture_path", "not a file", "Give the path of a picture")
        if stat.st_size > LARGEST_FILE:
            problem = f"a file of {stat.st_size:,} bytes, more than the maximum of {LARGEST_FILE:,}"
            raise PictureError("picture_size", problem, "Scale the picture down")
        return file.read_bytes()
    except OSError as error:
        raise PictureError(
            "picture_missing", f"cannot be read ({error.strerror or error})", "Check the path"
        ) from error
    except ValueError as error:
        if isinstance(error, PictureError):
            raise
        raise PictureError("picture_path", f"not a path ({error})", "Check the path") from error


def decode_rgb(
    encoded: bytes,
    what: str,
    max_pixels: int = LARGEST_PICTURE,
    scale_of: Callable[[int, int], float] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """Decodes a picture to 8-bit RGB like `rgb_pixels`.

    Args:
      encoded: the file's content.
      what: name of the picture in error messages, such as record and field.
      max_pixels: maximum number of pixels. Larger pictures are refused before they are decoded.
      scale_of: returns the scale that a picture of a width and height is needed at. A JPEG file that
        need not be turned is then decoded at a half, a quarter or an eighth of its sides (rounded up), if that is no
        smaller. None = at its own size.

    Raises:
      PictureError: the picture cannot be decoded, is too large, or is grey with more than 8 bits.
    """
    try:
        with _opened(encoded, max_pixels) as image:
            if scale_of is not None and image.format == "JPEG" and orientation(image) is None:
                scale = scale_of(*image.size)
                image.draft(None, (math.ceil(scale * image.width), math.ceil(scale * image.height)))
            return rgb_pixels(image)
    except PictureError as error:
        raise error.of(what) from None


@contextlib.contextmanager
def decoded(encoded: bytes, max_pixels: int = LARGEST_PICTURE) -> Iterator[Image.Image]:
    """Yields a decoded picture, whatever its mode.

    Raises:
      PictureError: as for `decode_rgb`, also from the block.
    """
    with _opened(encoded, max_pixels) as image:
        image.load()
        yield image


@contextlib.contextmanager
def _opened(encoded: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Yields a picture of which only the head was read."""
    if not encoded:
        raise PictureError("picture_empty", "the file is empty", _REPLACE)
    with plain_errors(), Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        _check_size(image.width, image.height, max_pixels)
        yield image


def picture_size(encoded: bytes, what: str, max_pixels: int = LARGEST_PICTURE) -> tuple[int, int]:
    """Returns width and height of what `decode_rgb` gives for the same arguments, without reading the pixels.

    An EXIF block after the pixels of a PNG file is not looked for.

    Raises:
      PictureError: as for `decode_rgb`, except that damage after the head of the file is not noticed.
    """
    try:
        with _opened(encoded, max_pixels) as image:
            _check_depth(image)
            looked_for = image.format != "PNG" or "exif" in image.info  # else Pillow would read all pixels
            sideways = looked_for and orientation(image) in _SIDEWAYS
            return (image.height, image.width) if sideways else (image.width, image.height)
    except PictureError as error:
        raise error.of(what) from None


def rgb_pixels(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Converts a picture to RGB, with EXIF orientation applied and transparency on white.

    Raises:
      PictureError: the file is damaged, or the picture is grey with more than 8 bits. Pillow notices damage only when
        it reads the pixels.
    """
    with plain_errors():
        image.load()
        _check_depth(image)
        turn = orientation(image)
        if turn is not None:
            image = image.transpose(turn)
        if image.mode not in ("RGBA", "LA", "PA") and image.info.get("transparency") is None:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return np.asarray(white)


def orientation(image: Image.Image) -> Image.Transpose | None:
    """Returns how a picture must be turned to be upright, according to its metadata; None if it need not be."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata say nothing, and Pillow raises errors of any kind for them
        return None


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turns all failures of Pillow into a PictureError."""
    try:
        yield
    except PictureError:
        raise
    except UnidentifiedImageError:
        problem = f"not a picture, or damaged at its start (formats read here: {', '.join(FORMATS)})"
        raise PictureError("picture_format", problem, "Convert the file") from None
    except Image.DecompressionBombError:
        raise PictureError("picture_size", "far too many pixels", "Scale the picture down") from None
    except Exception as error:  # Pillow raises errors of any kind for damaged files
        raise PictureError("picture_damaged", f"the picture is damaged{_reason(error)}", _REPLACE) from error


def _check_depth(image: Image.Image) -> None:
    if image.mode in _DEEP_MODES:
        raise PictureError(
            "picture_depth",
            f"a grey picture with more than 8 bits (mode {image.mode}), whose range of values is unknown",
            "Convert it to 8 bits",
        )


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise PictureError(
            "picture_size",
            f"{width} x {height} pixels are more than the maximum of {max_pixels:,} (max_picture_pixels)",
            "Scale the picture down",
        )


def _reason(error: Exception) -> str:
    """Returns Pillow's reason in parentheses if it is a plain sentence."""
    reason = str(error).strip().rstrip(".")
    plain = isinstance(error, (OSError, SyntaxError)) and not re.search(r"[A-Z]+_[A-Z]+|0x|[<>]", reason)
    return f" ({reason})" if plain and reason else ""
