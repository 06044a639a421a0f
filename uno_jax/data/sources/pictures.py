"""Reads the user's picture files as 8-bit RGB."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from PIL import Image

from uno_jax.data.decoding import LARGEST_PICTURE, PictureError, decoded, orientation, read_file, rgb_pixels
from uno_jax.data.transforms import encode_png


def read_picture(images: Path, path: Any, max_pixels: int = LARGEST_PICTURE) -> bytes:
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
    try:
        full = (images / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise PictureError("picture_path", f"{path!r} is not a path ({error})", relative) from error
    if not full.is_relative_to(images.resolve()):
        raise PictureError("picture_path", f"{path!r} leads out of the image folder", relative)
    try:
        encoded = read_file(full)
    except PictureError as error:
        remedy = f"Put the file into {images.name}/" if error.cause == "picture_missing" else error.remedy
        raise PictureError(error.cause, f"{path!r}: {error.problem}", remedy) from error
    return encode_rgb(encoded, max_pixels)


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


def folder_state(folder: Path) -> str:
    """Returns a hash of the names, sizes and modification times of a folder's files, without reading them."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            stat = path.stat()
            state.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return state.hexdigest()
