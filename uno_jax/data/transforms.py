"""Pixels for the encoders: BAGEL's resize rule, patches and their positions; and PNG bytes of pixels."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

# 1344 x 1344: the maximum number of pixels per image in BAGEL's public implementation.
MAX_PIXELS = 1806336


@dataclass(frozen=True)
class ImageTransform:
    """Resizes to sides that are multiples of `stride`, between `min_side` (short) and `max_side` (long).

    The arithmetic reproduces BAGEL's public implementation, including its quirks: sides round half to even twice, an
    excessive area scales both sides by the ratio of areas, and the final limit on the long side may violate `min_side`.

    With `buckets`, pictures have one of a few sizes instead, so that few programs are compiled.
    """

    max_side: int
    min_side: int
    stride: int
    max_pixels: int = MAX_PIXELS
    buckets: int = 0
    """Number of aspect ratios from square to `max_side` : `min_side`, for portraits and landscapes alike; 0 = any.
    A picture is resized to cover the nearest of them, with a long side of `max_side`, and its overhang is cropped."""

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.max_side or not 0 < self.min_side <= self.max_side:
            raise ValueError(
                f"an image transform needs 0 < stride <= max_side and 0 < min_side <= max_side, got max_side="
                f"{self.max_side}, min_side={self.min_side}, stride={self.stride}"
            )
        if max(self.max_side, self.max_pixels) >= 2**31 or self.max_pixels < 1:
            raise ValueError(
                f"an image transform needs max_side, min_side and stride below 2**31, and max_pixels from 1 to below "
                f"2**31, got max_side={self.max_side} and max_pixels={self.max_pixels}"
            )
        if not 0 <= self.buckets < 2**31 or (self.buckets and self.largest_side**2 > self.max_pixels):
            raise ValueError(
                f"an image transform needs buckets from 0 to below 2**31, and with them max_side * max_side of at most "
                f"max_pixels={self.max_pixels}, got buckets={self.buckets} and max_side={self.max_side}"
            )

    def sizes(self) -> list[tuple[int, int]]:
        """Returns width and height of each bucket, from the widest to the highest."""
        least = self.min_side / self.max_side if self.buckets > 1 else 1.0
        shares = np.geomspace(least, 1.0, max(self.buckets, 1))
        sides = sorted({self._scaled(self.max_side, share) for share in shares})
        return [(self.largest_side, side) for side in sides] + [(side, self.largest_side) for side in sides[-2::-1]]

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Returns width and height after the transform."""
        if self.buckets:
            return min(self.sizes(), key=lambda size: abs(math.log(size[0] / size[1] * height / width)))
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

    def scale(self, width: int, height: int) -> float:
        """Returns the scale at which a picture covers its size after the transform."""
        new_width, new_height = self.size(width, height)
        return max(new_width / width, new_height / height)

    def resize(
        self, pixels: UInt8[np.ndarray, "height width 3"], stored: tuple[int, int] | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Resizes 8-bit pixels with an antialiased bicubic filter, and crops them to the size of their bucket.

        Args:
          pixels: the picture.
          stored: width and height of the stored picture, if `pixels` may be its copy at a half, a quarter or an eighth
            of the sides, rounded up. The result has the size, and shows the part, that the stored picture would give.
        """
        height, width = pixels.shape[:2]
        if stored is None or stored == (width, height):
            size = self.size(width, height)
            if self.buckets:
                left, top, right, bottom = _middle(width, height, *size)
                pixels = pixels[top:bottom, left:right]
            return resize(pixels, *size)
        size = self.size(*stored)
        factor = next(f for f in (2, 4, 8) if (-(-stored[0] // f), -(-stored[1] // f)) == (width, height))
        box = _middle(*stored, *size) if self.buckets else (0, 0, *stored)
        # A side that is no multiple of the factor ends within a pixel of the copy.
        part = (box[0] / factor, box[1] / factor, box[2] / factor, box[3] / factor)
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, box=part))

    @property
    def largest_side(self) -> int:
        """Maximum side of any picture after the transform, in pixels."""
        return self._to_stride(self.max_side)

    def _scaled(self, side: int, scale: float) -> int:
        return self._to_stride(round(side * scale))

    def _to_stride(self, side: int) -> int:
        return max(self.stride, round(side / self.stride) * self.stride)


def _middle(columns: int, rows: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Returns the part of a picture with the aspect ratio of a width and a height, in its middle.

    Args:
      columns: width of the picture.
      rows: its height.
      width: the width.
      height: the height.

    Returns:
      The part's left, top, right and bottom, in pixels.
    """
    scale = min(columns / width, rows / height)
    kept_rows, kept_columns = max(round(height * scale), 1), max(round(width * scale), 1)
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    return left, top, left + kept_columns, top + kept_rows


def resize(
    pixels: UInt8[np.ndarray, "height width 3"], width: int, height: int
) -> UInt8[np.ndarray, "new_height new_width 3"]:
    """Resizes 8-bit pixels with an antialiased bicubic filter."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def encode_png(image: Image.Image) -> bytes:
    """Encodes an image losslessly as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def patchify(pixels: UInt8[np.ndarray, "height width 3"], patch: int) -> UInt8[np.ndarray, "patches values"]:
    """Splits a picture into patches in row-major order, each flattened as (row, column, channel).

    Raises:
      ValueError: a side is not a multiple of `patch`.
    """
    height, width, channels = pixels.shape
    if height % patch or width % patch:
        raise ValueError(f"a picture of {width}x{height} pixels is not divisible into {patch}x{patch} patches")
    grid = pixels.reshape(height // patch, patch, width // patch, patch, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, patch * patch * channels)
