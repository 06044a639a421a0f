"""Spreadsheets of one sheet, in the format .xlsx."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from uno_jax.evaluation.benchmark import BenchmarkError
from uno_jax.process.files import atomic_file

_SCHEMA = "http://schemas.openxmlformats.org"
_HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_OFFICE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_PARTS = {
    "[Content_Types].xml": f'<Types xmlns="{_SCHEMA}/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{_OFFICE}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{_OFFICE}.worksheet+xml"/></Types>',
    "_rels/.rels": f'<Relationships xmlns="{_SCHEMA}/package/2006/relationships"><Relationship Id="rId1" '
    f'Type="{_SCHEMA}/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{_SCHEMA}/spreadsheetml/2006/main" '
    f'xmlns:r="{_SCHEMA}/officeDocument/2006/relationships">'
    '<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{_SCHEMA}/package/2006/relationships">'
    f'<Relationship Id="rId1" Type="{_SCHEMA}/officeDocument/2006/relationships/worksheet" '
    'Target="worksheets/sheet1.xml"/></Relationships>',
}
_NAME = f"{{{_SCHEMA}/spreadsheetml/2006/main}}"
_SHARED = "xl/sharedStrings.xml"
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def write_xlsx(file: Path, rows: Sequence[Sequence[str | int]]) -> None:
    """Writes rows of texts and whole numbers. Control characters, which the format lacks, are left out."""
    lines = "".join(f"<row>{''.join(map(_cell, row))}</row>" for row in rows)
    sheet = f'<worksheet xmlns="{_SCHEMA}/spreadsheetml/2006/main"><sheetData>{lines}</sheetData></worksheet>'
    with atomic_file(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**_PARTS, "xl/worksheets/sheet1.xml": sheet}.items():
            archive.writestr(name, _HEAD + content)


def read_xlsx(file: Path) -> list[dict[str, str]]:
    """Reads the rows of the first sheet as texts by column, whose names are in the first row. Empty cells are left out.

    Raises:
      BenchmarkError: it is no such file.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            sheet = ElementTree.fromstring(archive.read("xl/worksheets/sheet1.xml"))
            names = archive.namelist()
            shared = ElementTree.fromstring(archive.read(_SHARED)) if _SHARED in names else ElementTree.Element("none")
    except (OSError, zipfile.BadZipFile, KeyError, ElementTree.ParseError) as error:
        raise BenchmarkError(f"{file}: cannot be read as .xlsx ({error}); give what the scorer has written") from error
    texts = ["".join(each.itertext()) for each in shared.iterfind(f"{_NAME}si")]
    rows = [dict(_read_cell(cell, texts, at) for at, cell in enumerate(row)) for row in sheet.iter(f"{_NAME}row")]
    head = rows[0] if rows else {}
    return [{head[at]: text for at, text in row.items() if at in head and text} for row in rows[1:]]


def _read_cell(cell: ElementTree.Element, shared: Sequence[str], place: int) -> tuple[int, str]:
    """Returns the number of the column and the text of a cell. A cell without a reference is at its place."""
    letters = re.match(r"[A-Z]+", cell.get("r", ""))
    column = -1 if letters else place
    for letter in letters[0] if letters else "":
        column = 26 * (column + 1) + ord(letter) - ord("A")
    text = "".join(cell.itertext())
    return column, shared[int(text)] if cell.get("t") == "s" and text else text


def _cell(value: str | int) -> str:
    if isinstance(value, int):
        return f"<c><v>{value}</v></c>"
    return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(_NOT_XML.sub("", value))}</t></is></c>'
