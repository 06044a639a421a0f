"""Pictures to patches: decoding, the resize rule of the public implementation, patches and their positions."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from uno_jax.process.errors import UserError

# 1344 x 1344: the most pixels that the public implementation lets into one sample.
MAX_PIXELS = 1806336

MORE_THAN_8_BITS = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Modes of pictures that Pillow would clip at 255, so that most of them would be white."""


@dataclass(frozen=True)
class ImageTransform:
    """Resizes to sides that are multiples of `stride`, between `min_side` (short) and `max_side` (long).

    The arithmetic is the public implementation's, its quirks included: sides round half to even twice, an area that
    is too large scales both sides by the ratio of areas, and the last rule (long side) may undercut `min_side`.
    """

    max_side: int
    min_side: int
    stride: int
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.max_side or not 0 < self.min_side <= self.max_side:
            raise ValueError(
                f"image transform needs 0 < stride <= max_side and 0 < min_side <= max_side, got max_side="
                f"{self.max_side}, min_side={self.min_side}, stride={self.stride}"
            )

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the transform."""
        scale = min(self.max_side / max(width, height), 1.0)
        scale = max(scale, self.min_side / min(width, height))
        width, height = self._scaled(width, scale), self._scaled(height, scale)
        if width * height > self.max_pixels:
            scale = self.max_pixels / (width * height)
            width, height = self._scaled(width, scale), self._scaled(height, scale)
        if max(width, height) > self.max_side:
            scale = self.max_side / max(width, height)
            width, height = self._scaled(width, scale), self._scaled(height, scale)
        return width, height

    def resize(self, pixels: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Bicubic with antialiasing, on 8-bit data."""
        height, width = pixels.shape[:2]
        size = self.size(width, height)
        if size == (width, height):
            return pixels
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    @property
    def largest_side(self) -> int:
        """The longest side that any picture can have after the transform."""
        return self._to_stride(self.max_side)

    def _scaled(self, side: int, scale: float) -> int:
        return self._to_stride(round(side * scale))

    def _to_stride(self, side: int) -> int:
        return max(self.stride, round(side / self.stride) * self.stride)


def decode_rgb(encoded: bytes, what: str) -> UInt8[np.ndarray, "height width 3"]:
    """Pixels of an encoded picture, as `rgb_pixels` gives them.

    Raises:
      UserError: the bytes are no picture of 8 bits that Pillow reads; the message names `what` (record and field).
    """
    try:
        opened = Image.open(io.BytesIO(encoded))
        opened.load()
        return rgb_pixels(opened)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{what}: {len(encoded)} bytes that are no readable picture ({str(error).rstrip('.')}); give PNG or JPEG "
            "of 8 bits"
        ) from error


def rgb_pixels(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    """Pixels of a picture: the orientation of a photo is applied, transparency is pasted on white.

    Raises:
      OSError: its file, which Pillow reads when pixels are first asked for, is damaged.
      ValueError: its pixels have more than 8 bits.
    """
    if image.mode in MORE_THAN_8_BITS:
        raise ValueError(f"{image.mode} pixels, more than 8 bits each")
    image = ImageOps.exif_transpose(image)
    if image.mode not in ("RGBA", "LA", "PA") and image.info.get("transparency") is None:
        return np.asarray(image.convert("RGB"))
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return np.asarray(white)


def patchify(pixels: UInt8[np.ndarray, "height width 3"], patch: int) -> UInt8[np.ndarray, "patches values"]:
    """Patches row by row, each flattened (row, column, channel)."""
    height, width, channels = pixels.shape
    if height % patch or width % patch:
        raise ValueError(f"a picture of {width}x{height} pixels is not made of {patch}x{patch} patches")
    grid = pixels.reshape(height // patch, patch, width // patch, patch, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, patch * patch * channels)


def position_ids(rows: int, columns: int, side: int) -> Int[np.ndarray, " patches"]:
    """Indices into a position table of `side` x `side`, row by row over a grid of patches.

    Raises:
      ValueError: the grid is larger than the table.
    """
    if rows > side or columns > side:
        raise ValueError(f"a grid of {rows}x{columns} patches is larger than the position table of {side}x{side}")
    return (np.arange(rows, dtype=np.int32)[:, None] * side + np.arange(columns, dtype=np.int32)).reshape(-1)
