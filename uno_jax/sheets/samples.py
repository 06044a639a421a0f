"""Sheet of samples: the prompt and the labelled, captioned pictures of each example."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from uno_jax.sheets.text import load_font, text_image

_SMALLEST, _LARGEST = 128, 512  # longest side of a picture on the sheet
_PICTURES_PER_ROW = 8  # on a sheet of pictures from text
_MARGIN = 14
_GAP = 8
_TEXT_SIZE = 12


class Picture(NamedTuple):
    """One picture of an example."""

    label: str
    """Kind of picture: source, target or sample."""
    pixels: UInt8[np.ndarray, "height width 3"]
    caption: str = ""
    """Caption that the model wrote for the picture."""


class Example(NamedTuple):
    """One cell of the sheet."""

    task: str
    prompt: str
    pictures: Sequence[Picture]


def make_sheet(title: str, examples: Sequence[Example]) -> Image.Image:
    """Renders the examples in order, several per row, with a heading and separate rows for each task."""
    font, large = load_font(_TEXT_SIZE), load_font(_TEXT_SIZE + 8)
    longest = max(max(picture.pixels.shape[:2]) for example in examples for picture in example.pictures)
    side = min(max(longest, _SMALLEST), _LARGEST)
    width = _PICTURES_PER_ROW * (side + _MARGIN)
    rows: list[list[Image.Image]] = [[text_image(title, large, width, "black")]]
    for task, group in groupby(examples, key=lambda example: example.task):
        cells = [_cell(example, side, font) for example in group]
        rows.append([text_image(task.replace("_", " "), large, width, "black")])
        per_row = max(1, (width + _MARGIN) // (max(cell.width for cell in cells) + _MARGIN))
        rows += [cells[i : i + per_row] for i in range(0, len(cells), per_row)]
    return _stack([_beside(row, _MARGIN) for row in rows], _MARGIN, border=_MARGIN)


def _cell(example: Example, side: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    columns = []
    for label, pixels, caption in example.pictures:
        texts = [text_image(label, font, side, "black")]
        if caption:
            texts.append(text_image(caption, font, side, "dimgray"))
        columns.append(_stack([_framed(pixels, side), *texts], 3))
    pictures = _beside(columns, _GAP)
    return _stack([text_image(example.prompt, font, pictures.width, "black"), pictures], 4)


def _framed(pixels: np.ndarray, side: int) -> Image.Image:
    """Scales the picture to fit a square and adds a thin frame. Enlarged pixels stay sharp."""
    picture = Image.fromarray(pixels)
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (side + 2, side + 2), "white")
    ImageDraw.Draw(square).rectangle((0, 0, size[0] + 1, size[1] + 1), outline="lightgray")
    square.paste(picture.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC), (1, 1))
    return square


def _beside(images: Sequence[Image.Image], gap: int) -> Image.Image:
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    joined = Image.new("RGB", (width, max(image.height for image in images)), "white")
    left = 0
    for image in images:
        joined.paste(image, (left, 0))
        left += image.width + gap
    return joined


def _stack(images: Sequence[Image.Image], gap: int, border: int = 0) -> Image.Image:
    height = sum(image.height for image in images) + gap * (len(images) - 1)
    joined = Image.new("RGB", (max(i.width for i in images) + 2 * border, height + 2 * border), "white")
    top = border
    for image in images:
        joined.paste(image, (border, top))
        top += image.height + gap
    return joined
