"""Contact sheet of a dataset: pictures with their texts below."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from uno_jax.data.decoding import decode_rgb
from uno_jax.data.record import Record
from uno_jax.sheets.text import load_font, text_image

_MARGIN = 12
_ARROW = 28
_BESIDE = 60
_TEXT_SIZE = 13
_HEADINGS = {"text_to_image": "Text to image", "editing": "Editing", "understanding": "Understanding"}


def make_contact_sheet(records: Sequence[Record], columns: int = 5, side: int = 128) -> Image.Image:
    """Renders records in a grid, with a section per task.

    Text to image: picture, prompt, other captions in grey. Editing: sources, arrow, target, and below them the
    instruction and a caption of the target in grey. Understanding: picture, question, answer in grey.

    Args:
      records: the records to show, at least one.
      columns: cells per row.
      side: longest side of a picture, in pixels.

    Raises:
      ValueError: `records` is empty.
    """
    if not records:
        raise ValueError("a contact sheet needs at least one record")
    font, heading_font = load_font(_TEXT_SIZE), load_font(_TEXT_SIZE + 7)
    rows: list[list[Image.Image]] = []
    for task, heading in _HEADINGS.items():
        chosen = [record for record in records if record.task == task]
        if chosen:
            rows.append([text_image(heading, heading_font, 400, "black")])
            width = _cell_width(max(len(record.sources) for record in chosen), side)
            per_row = max(1, columns * (side + _BESIDE) // width)
            cells = [_cell(record, width, side, font) for record in chosen]
            rows += [cells[start : start + per_row] for start in range(0, len(cells), per_row)]
    total_width = max(sum(cell.width + _MARGIN for cell in row) for row in rows) + _MARGIN
    total_height = sum(max(cell.height for cell in row) + _MARGIN for row in rows) + _MARGIN
    sheet = Image.new("RGB", (total_width, total_height), "white")
    top = _MARGIN
    for row in rows:
        left = _MARGIN
        for cell in row:
            sheet.paste(cell, (left, top))
            left += cell.width + _MARGIN
        top += max(cell.height for cell in row) + _MARGIN
    return sheet


def _cell_width(sources: int, side: int) -> int:
    """Returns the cell width of a record in pixels. A cell with a single picture is wider, to fit its texts."""
    return (sources + 1) * side + sources * _ARROW if sources else side + _BESIDE


def _cell(record: Record, width: int, side: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    if record.task == "understanding":
        grey = [record.answer]
    else:
        grey = list(record.captions[: 1 if record.task == "editing" else None])
    texts = [text_image(record.prompt, font, width, "black")] + [text_image(text, font, width, "gray") for text in grey]
    pictures = [_fit(encoded, side) for encoded in (*record.sources, record.image)]
    cell = Image.new("RGB", (width, side + 6 + sum(text.height + 3 for text in texts)), "white")
    left = 0
    for index, picture in enumerate(pictures):
        if index:
            _draw_arrow(cell, left, side // 2)
            left += _ARROW
        cell.paste(picture, (left, 0))
        left += side
    top = side + 6
    for text in texts:
        cell.paste(text, (0, top))
        top += text.height + 3
    return cell


def _fit(encoded: bytes, side: int) -> Image.Image:
    """Scales the picture to fit a square and adds a thin frame."""
    picture = Image.fromarray(decode_rgb(encoded, "a picture of the contact sheet"))
    scale = (side - 2) / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    framed = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(framed).rectangle((0, 0, side - 1, side - 1), outline="lightgray")
    framed.paste(picture.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return framed


def _draw_arrow(image: Image.Image, left: int, middle: int) -> None:
    draw = ImageDraw.Draw(image)
    end = left + _ARROW - 6
    draw.line((left + 6, middle, end, middle), fill="black", width=2)
    draw.polygon(((end + 1, middle), (end - 6, middle - 5), (end - 6, middle + 5)), fill="black")
