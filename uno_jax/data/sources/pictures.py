"""Reads the user's picture files, and decides in which form they are stored."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

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
from uno_jax.data.transforms import encode_png, resize

_KEPT = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "JPEG": ("L", "RGB", "CMYK"),
    "MPO": ("L", "RGB", "CMYK"),  # a JPEG file with further pictures after the first, as phones write them
    "WEBP": ("RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
    "JPEG2000": ("L", "RGB", "RGBA"),
}
"""The modes of each format in which pictures are stored as they came, if they are one picture and no animation."""
_PHOTOS = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")


@dataclass(frozen=True)
class PictureLimits:
    """Which pictures are used, and how large they are at most; 0 = no limit."""

    max_pixels: int = LARGEST_PICTURE
    """Number of pixels. A picture that has more is refused without decoding it."""
    max_side: int = 0
    """Longest side in pixels. A picture with a longer one is scaled down."""
    min_side: int = 0
    """Shortest side in pixels, before scaling. A picture with a shorter one is left out."""
    max_aspect: float = 0.0
    """Longest side / shortest side. A picture with more is left out."""

    def check(self, width: int, height: int) -> None:
        """Raises PictureError for a picture to leave out."""
        short, long = sorted((width, height))
        if short < self.min_side:
            problem = f"{width} x {height} pixels, and --min_side is {self.min_side}"
            raise PictureError("min_side", problem, "Give a larger picture, or lower --min_side")
        if self.max_aspect and long > self.max_aspect * short:
            problem = f"{width} x {height} pixels are {long / short:.2f} : 1, and --max_aspect is {self.max_aspect:g}"
            raise PictureError("max_aspect", problem, "Crop the picture, or raise --max_aspect")


NO_LIMITS = PictureLimits()


class Rewritten(bytes):
    """An encoded picture that is not the file that came."""

    why: Literal["converted", "scaled"]

    def __new__(cls, encoded: bytes, why: Literal["converted", "scaled"]) -> Rewritten:
        picture = super().__new__(cls, encoded)
        picture.why = why
        return picture


def read_picture(images: Path | epath.Path, path: Any, limits: PictureLimits) -> bytes:
    """Reads the picture at `path` below the folder `images` and returns it as it is stored.

    Raises:
      PictureError: the picture is missing, outside the folder, invalid, or violates a limit.
    """
    if not isinstance(path, str) or not path.strip():
        remedy = "Give the path of a picture, relative to the image folder"
        raise PictureError("picture_path", "missing, empty, or not text", remedy)
    relative = "Give a path relative to the image folder"
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute():
        raise PictureError("picture_path", f"{path!r} is an absolute path", relative)
    if is_remote(images):
        return stored_picture(_read_remote(images / path, path, relative), limits)
    try:
        full = Path(images / path).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise PictureError("picture_path", f"{path!r} is not a path ({error})", relative) from error
    if not full.is_relative_to(Path(images).resolve()):
        raise PictureError("picture_path", f"{path!r} leads out of the image folder", relative)
    try:
        encoded = read_file(full)
    except PictureError as error:
        remedy = f"Put the file into {images.name or images}/" if error.cause == "picture_missing" else error.remedy
        raise PictureError(error.cause, f"{path!r}: {error.problem}", remedy) from error
    return stored_picture(encoded, limits)


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


def stored_picture(encoded: bytes, limits: PictureLimits) -> bytes:
    """Returns a picture as it is stored: as it came, if what reads datasets (`decode_rgb`) reads it in that form.

    Other pictures become an upright 8-bit RGB PNG, with transparency on white. Pictures that are too large are scaled
    down, with an antialiased bicubic filter, and become a JPEG of quality 95 without chroma subsampling if they came in
    a format for photos (JPEG, WebP, AVIF, JPEG 2000), else a PNG.

    Raises:
      PictureError: the picture cannot be decoded, violates a limit, or is grey with more than 8 bits.
    """
    with decoded(encoded, limits.max_pixels) as picture:
        limits.check(picture.width, picture.height)
        scale = limits.max_side / max(picture.size) if limits.max_side else 1.0
        if scale >= 1:
            return (
                encoded
                if _is_kept(picture)
                else Rewritten(encode_png(Image.fromarray(rgb_pixels(picture))), "converted")
            )
        pixels = rgb_pixels(picture)
        height, width = (max(round(side * scale), 1) for side in pixels.shape[:2])
        small = Image.fromarray(resize(pixels, width, height))
        return Rewritten(_encode_photo(small) if picture.format in _PHOTOS else encode_png(small), "scaled")


def _is_kept(picture: Image.Image) -> bool:
    """Whether a decoded picture is stored as it came."""
    if picture.mode not in _KEPT.get(picture.format or "", ()):
        return False
    if picture.format == "PNG":  # one that is not upright is not looked for where only the size is read
        return orientation(picture) is None
    return picture.format in ("JPEG", "MPO") or getattr(picture, "n_frames", 1) == 1


def _encode_photo(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, subsampling="4:4:4")
    return buffer.getvalue()
