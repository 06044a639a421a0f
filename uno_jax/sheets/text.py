"""Renders wrapped text for a sheet."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

_MAX_LINES = 4


def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Returns Pillow's built-in font."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), f"Pillow lacks FreeType, so it has no font of size {size}"
    return font


def text_image(
    text: str, font: ImageFont.FreeTypeFont, width: int, colour: str, max_lines: int = _MAX_LINES
) -> Image.Image:
    """Renders text on white in at most `max_lines` lines of `width` pixels, with an ellipsis if it is longer."""
    lines: list[str] = []
    for word in text.split():
        for piece in _pieces(word, font, width):
            joined = f"{lines[-1]} {piece}" if lines else piece
            if lines and font.getlength(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(piece)
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and font.getlength(f"{last} ...") > width:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], f"{last} ..."]
    line_height = round(font.size * 1.25)
    image = Image.new("RGB", (width, line_height * max(len(lines), 1)), "white")
    draw = ImageDraw.Draw(image)
    for index, line in enumerate(lines):
        draw.text((0, index * line_height), line, font=font, fill=colour)
    return image


def _pieces(word: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """Splits a word into pieces of at most `width` pixels. Some scripts, and paths, have no spaces to wrap at."""
    piece = ""
    for character in word:
        if piece and font.getlength(piece + character) > width:
            yield piece
            piece = ""
        piece += character
    yield piece
