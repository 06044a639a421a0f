"""Sheet of samples: the prompt and the labelled, captioned pictures of each example."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFont

from uno_jax.sheets.arrange import beside, framed, stack
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
    return stack([beside(row, _MARGIN) for row in rows], _MARGIN, border=_MARGIN)


def _cell(example: Example, side: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    columns = []
    for label, pixels, caption in example.pictures:
        texts = [text_image(label, font, side, "black")]
        if caption:
            texts.append(text_image(caption, font, side, "dimgray"))
        columns.append(stack([framed(pixels, side), *texts], 3))
    pictures = beside(columns, _GAP)
    return stack([text_image(example.prompt, font, pictures.width, "black"), pictures], 4)
