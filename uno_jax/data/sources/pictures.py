"""Reads the user's picture files as 8-bit RGB."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from etils import epath
from PIL import Image

from uno_jax.data.decoding import (
    LARGEST_FILE,
    LARGEST_PICTURE,
    PictureError,
    decoded,
    orientation,
    read_file,
    rgb_pixels,
)
from uno_jax.data.sources.locations import is_remote
from uno_jax.data.transforms import encode_png


def read_picture(images: Path | epath.Path, path: Any, max_pixels: int = LARGEST_PICTURE) -> bytes:
    """Reads the picture at `path` below the folder `images` and returns it encoded as 8-bit RGB.

    Raises:
      PictureError: the picture is missing, outside the folder, larger than `max_pixels`, or invalid.
    """
    if not isinstance(path, str) or not path.strip():
        remedy = "Give the path of a picture, relative to the image folder"
        raise PictureError("picture_path", "missing, empty, or not text", remedy)
    relative = "Give a path relative to the image folder"
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute():
        raise PictureError("picture_path", f"{path!r} is an absolute path", relative)
    if is_remote(images):
        return encode_rgb(_read_remote(images / path, path, relative), max_pixels)
    try:
        full = Path(images / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise PictureError("picture_path", f"{path!r} is not a path ({error})", relative) from error
    if not full.is_relative_to(Path(images).resolve()):
        raise PictureError("picture_path", f"{path!r} leads out of the image folder", relative)
    try:
        encoded = read_file(full)
    except PictureError as error:
        remedy = f"Put the file into {images.name}/" if error.cause == "picture_missing" else error.remedy
        raise PictureError(error.cause, f"{path!r}: {error.problem}", remedy) from error
    return encode_rgb(encoded, max_pixels)


def _read_remote(file: Any, path: str, relative: str) -> bytes:
    if ".." in PurePosixPath(path).parts or "://" in path or not path.isprintable():
        raise PictureError("picture_path", f"{path!r} leads out of the image folder", relative)
    try:
        if (size := file.stat().length) > LARGEST_FILE:
            problem = f"{path!r}: a file of {size:,} bytes, more than the maximum of {LARGEST_FILE:,}"
            raise PictureError("picture_size", problem, "Scale the picture down")
        content: bytes = file.read_bytes()
        return content
    except OSError as error:
        reason = error.strerror or error
        raise PictureError("picture_missing", f"{path!r}: cannot be read ({reason})", "Check the path") from error


def encode_rgb(encoded: bytes, max_pixels: int = LARGEST_PICTURE) -> bytes:
    """Converts a picture to an upright 8-bit RGB PNG or JPEG. Returns it unchanged if it already is one.

    Transparency is composited on white, and EXIF orientation is applied.

    Raises:
      PictureError: the picture cannot be decoded, is too large, or is grey with more than 8 bits.
    """
    with decoded(encoded, max_pixels) as picture:
        plain = picture.mode == "RGB" and picture.info.get("transparency") is None
        if picture.format in ("PNG", "JPEG") and plain and orientation(picture) is None:
            return encoded
        return encode_png(Image.fromarray(rgb_pixels(picture)))
