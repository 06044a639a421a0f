"""Text on a sheet, wrapped to a width."""

from __future__ import annotations

from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

_MAX_LINES = 4  # of each text; what does not fit ends in "..."


def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own font."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), f"Pillow has no font of size {size}: install it with FreeType"
    return font


def text_image(text: str, font: ImageFont.FreeTypeFont, width: int, colour: str) -> Image.Image:
    """The text on white, in lines of at most `width` pixels; a few lines at most, then an ellipsis."""
    lines: list[str] = []
    for word in text.split():
        for piece in _pieces(word, font, width):
            joined = f"{lines[-1]} {piece}" if lines else piece
            if lines and font.getlength(joined) <= width:
                lines[-1] = joined
            else:
                lines.append(piece)
    if len(lines) > _MAX_LINES:
        last = lines[_MAX_LINES - 1]
        while last and font.getlength(f"{last} ...") > width:
            last = last[:-1]
        lines = [*lines[: _MAX_LINES - 1], f"{last} ..."]
    line_height = round(font.size * 1.25)
    image = Image.new("RGB", (width, line_height * max(len(lines), 1)), "white")
    draw = ImageDraw.Draw(image)
    for index, line in enumerate(lines):
        draw.text((0, index * line_height), line, font=font, fill=colour)
    return image


def _pieces(word: str, font: ImageFont.FreeTypeFont, width: int) -> Iterator[str]:
    """The word in pieces of at most `width` pixels: whole where it fits. Some scripts, and paths, have no blanks."""
    piece = ""
    for character in word:
        if piece and font.getlength(piece + character) > width:
            yield piece
            piece = ""
        piece += character
    yield piece
