"""A table of pictures: one row per example, with headings above the columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFont

from uno_jax.sheets.arrange import beside, framed, stack
from uno_jax.sheets.text import load_font, text_image

_GAP = 2  # between the pictures of a cell
_MARGIN = 12  # between cells
_TEXT_SIZE = 11
_CAPTION_LINES = 12


class Column(NamedTuple):
    """Headings of a column."""

    heading: str
    labels: tuple[str, ...] = ("",)
    """A label for each picture of its cells."""


class Cell(NamedTuple):
    """Pictures side by side, with texts below them."""

    pictures: Sequence[UInt8[np.ndarray, "_height _width 3"]]
    texts: Sequence[str] = ()


def make_grid(title: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]], side: int) -> Image.Image:
    """Renders a table of cells, with a cell for each column in every row.

    Args:
      title: text above the table.
      columns: headings.
      rows: the cells.
      side: longest side of a picture, in pixels.
    """
    font, large = load_font(_TEXT_SIZE), load_font(_TEXT_SIZE + 5)
    widths = [len(column.labels) * (side + 2 + _GAP) - _GAP for column in columns]
    lines = [
        [text_image(column.heading, large, width, "black") for column, width in zip(columns, widths, strict=True)],
        *([[_labels(column, side, font) for column in columns]] if any(any(c.labels) for c in columns) else []),
        *([_cell(cell, width, side, font) for cell, width in zip(row, widths, strict=True)] for row in rows),
    ]
    table = [beside(line, _MARGIN) for line in lines]
    return stack([text_image(title, large, table[0].width, "black"), *table], _MARGIN, border=_MARGIN)


def _labels(column: Column, side: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    return beside([text_image(label, font, side + 2, "dimgray") for label in column.labels], _GAP)


def _cell(cell: Cell, width: int, side: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    texts = [text_image(text, font, width, "black", _CAPTION_LINES) for text in cell.texts]
    pictures = beside([framed(pixels, side) for pixels in cell.pictures], _GAP)
    # A cell with fewer pictures than its column has labels is as wide as the others.
    return stack([pictures, *texts, Image.new("RGB", (width, 0))], 3)
