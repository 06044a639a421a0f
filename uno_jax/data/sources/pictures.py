"""Reads the user's picture files as 8-bit RGB."""

from __future__ import annotations

import io
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from PIL import ExifTags, Image

from uno_jax.data.transforms import MORE_THAN_8_BITS, encode_png, rgb_pixels


class PictureError(Exception):
    """An invalid picture: the `problem` and a `remedy`."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}. {remedy}.")
        self.problem, self.remedy = problem, remedy


def read_picture(images: Path, path: Any) -> bytes:
    """Reads the picture at `path` below the folder `images` and returns it encoded as 8-bit RGB.

    Raises:
      PictureError: the picture is missing, outside the folder, or invalid.
    """
    if not isinstance(path, str) or not path.strip():
        raise PictureError("missing, empty, or not text", "Give the path of a picture, relative to the image folder")
    relative = "Give a path relative to the image folder"
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute():
        raise PictureError(f"{path!r} is an absolute path", relative)
    try:
        full = (images / path).resolve()
        if not full.is_relative_to(images.resolve()):
            raise PictureError(f"{path!r} leads out of the image folder", relative)
        encoded = full.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PictureError(f"{path!r} cannot be read ({reason})", f"Put the file into {images.name}/") from error
    return encode_rgb(encoded)


def encode_rgb(encoded: bytes) -> bytes:
    """Converts a picture to an upright 8-bit RGB PNG or JPEG. Returns it unchanged if it already is one.

    Transparency is composited on white, and EXIF orientation is applied.

    Raises:
      PictureError: the picture cannot be decoded, or has more than 8 bits per channel.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            picture.load()
            if picture.mode in MORE_THAN_8_BITS:
                raise PictureError(
                    f"mode {picture.mode} has more than 8 bits per channel", "Convert the picture to 8 bits"
                )
            upright = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
            plain = picture.mode == "RGB" and "transparency" not in picture.info
            if picture.format in ("PNG", "JPEG") and upright and plain:
                return encoded
            rgb = Image.fromarray(rgb_pixels(picture))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        problem = f"the picture cannot be decoded ({str(error).rstrip('.') or type(error).__name__})"
        raise PictureError(problem, "Replace the file, or remove the record") from error
    return encode_png(rgb)
