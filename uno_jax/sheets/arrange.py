"""Arranges images on a sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw


def framed(pixels: UInt8[np.ndarray, "height width 3"], side: int) -> Image.Image:
    """Scales the picture to fit a square and adds a thin frame. Enlarged pixels stay sharp."""
    picture = Image.fromarray(pixels)
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (side + 2, side + 2), "white")
    ImageDraw.Draw(square).rectangle((0, 0, size[0] + 1, size[1] + 1), outline="lightgray")
    square.paste(picture.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC), (1, 1))
    return square


def beside(images: Sequence[Image.Image], gap: int) -> Image.Image:
    """Joins images from left to right, aligned at the top, on white."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    joined = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width + gap
    return joined


def stack(images: Sequence[Image.Image], gap: int, border: int = 0) -> Image.Image:
    """Joins images from top to bottom, aligned at the left, on white, with a border around all."""
    height = sum(image.height for image in images) + gap * (len(images) - 1)
    joined = Image.new("RGB", (max(i.width for i in images) + 2 * border, height + 2 * border), "white")
    top = border
    for image in images:
        joined.paste(image, (border, top))
        top += image.height + gap
    return joined
