"""A document of headings, paragraphs, tables and pictures, written as Markdown and as one HTML file."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 0.6rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
img { max-width: 100% }
code { background: #f3f3f3; padding: 0.1rem 0.3rem }
pre { background: #f3f3f3; padding: 0.8rem; overflow-x: auto }
""".strip()


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Text, with `code` between backticks."""

    text: str


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A picture, by its path below the folder of the document."""

    file: str
    about: str


@dataclass(frozen=True)
class Listing:
    """Lines of text as they are."""

    text: str


Block = Heading | Paragraph | Table | Figure | Listing


def markdown(blocks: Sequence[Block]) -> str:
    """Returns the document as Markdown, with links to its pictures."""
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def one_file_html(blocks: Sequence[Block], folder: Path) -> str:
    """Returns the document as HTML that needs no other file. Its pictures are read from `folder`."""
    title = next((block.text for block in blocks if isinstance(block, Heading)), "")
    body = "\n".join(_html(block, folder) for block in blocks)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Table(head, rows):
            lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
            return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
        case Figure(file, about):
            return f"![{about}]({file})"
        case Listing(text):
            return f"```\n{text}\n```"


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{html.escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_with_code(text)}</p>"
        case Table(head, rows):
            lines = [_html_row(head, "th"), *(_html_row(row, "td") for row in rows)]
            return f"<table>\n{chr(10).join(lines)}\n</table>"
        case Figure(file, about):
            encoded = base64.b64encode((folder / file).read_bytes()).decode()
            return f'<p><img alt="{html.escape(about)}" src="data:image/png;base64,{encoded}"></p>'
        case Listing(text):
            return f"<pre>{html.escape(text)}</pre>"


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{_with_code(cell)}</{tag}>" for cell in cells) + "</tr>"


def _with_code(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))
