"""A CSV file with one record per row, and a folder of pictures. See `docs/data.md`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from etils import epath

from uno_jax.data.sources.columns import TABLE_OPTIONS, choose_columns, fields_of
from uno_jax.data.sources.lines import LONGEST_LINE, bounded_lines
from uno_jax.data.sources.locations import file_hash, folder_state, records_and_images
from uno_jax.data.sources.pictures import read_picture
from uno_jax.data.sources.rows import Row, open_rows, picture_limits
from uno_jax.data.sources.schema import IMAGES
from uno_jax.data.sources.source import DataSource, DataSourceError, Opened, Option, Reporter, Values, values_of

_DELIMITERS = (",", "\t", ";")
_TOO_LONG = "\udc00"  # in the place of a line; no text that is decoded holds it


def open_csv(values: Values, reporter: Reporter) -> Opened:
    """Opens the file `values["csv"]` with the pictures in `values["images"]`."""
    path, images = _places(values)
    names, delimiter = _header(path)
    columns = choose_columns(names, values, str(path))
    load = partial(read_picture, images, limits=picture_limits(values))
    rows = partial(_rows, path, names, delimiter, columns)
    return open_rows([rows], values, description=f"Records of {path.name}.", load=load)


def _header(path: Path | epath.Path) -> tuple[list[str], str]:
    """Returns the names of the columns, and the delimiter: the one that the first line has most of."""
    lines = _texts(path)
    first = next(lines, "")
    delimiter = max(_DELIMITERS, key=first.count)
    names = next(csv.reader([first], delimiter=delimiter), []) if len(first) <= LONGEST_LINE else []
    names = [name.strip() for name in names]
    if not any(names) or len(set(names)) < len(names) or any("\udc00" <= letter <= "\udcff" for letter in first):
        raise DataSourceError(
            f"--csv: the first line of {path} is no list of different column names in UTF-8. Write one, such as "
            "id,image,prompt."
        )
    return names, delimiter


def _rows(path: Path | epath.Path, names: list[str], delimiter: str, columns: Mapping[str, str]) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(_texts(path), delimiter=delimiter)
    next(reader)
    number = reader.line_num
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(
                path.name, number, {}, (("(row)", f"not CSV ({error})", "Quote texts, and double quotes in them"),)
            )
            continue
        if cells:
            yield _row(path.name, number, names, cells, columns)


def _row(file: str, number: int, names: list[str], cells: list[str], columns: Mapping[str, str]) -> Row:
    if any(_TOO_LONG in cell for cell in cells):
        return Row(file, number, {}, (("(row)", f"a line of more than {LONGEST_LINE:,} bytes", "Shorten it"),))
    if len(cells) != len(names):
        problem = ("(row)", f"{len(cells):,} cells for {len(names):,} columns", "Quote texts that hold a delimiter")
        return Row(file, number, {}, (problem,))
    if any("\udc00" <= letter <= "\udcff" for cell in cells for letter in cell):
        return Row(file, number, {}, (("(row)", "text that is not UTF-8", "Write UTF-8"),))
    fields = fields_of({name: cell or None for name, cell in zip(names, cells, strict=True)}, columns)
    if isinstance(fields.get("sources"), str):
        fields["sources"] = [fields["sources"]]
    if fields.get("task") == "understanding" and "prompt" in columns and fields["prompt"] is None:
        fields["prompt"] = ""
    return Row(file, number, fields)


def _texts(path: Path | epath.Path) -> Iterator[str]:
    """Yields lines, with bytes that are not UTF-8 as halves of surrogate pairs. `_TOO_LONG` replaces a line."""
    with path.open("rb") as file:
        for number, (line, _) in enumerate(bounded_lines(file)):
            if len(line) > LONGEST_LINE:
                yield f"{_TOO_LONG}\n"
            else:
                yield line.decode("utf-8" if number else "utf-8-sig", "surrogateescape")


def _places(values: Values) -> tuple[Path | epath.Path, Path | epath.Path]:
    return records_and_images("csv", values, "the CSV file of your records")


def _identity(values: Values) -> dict[str, object]:
    path, images = _places(values)
    names, _ = _header(path)
    choose_columns(names, values, str(path))
    return {"records": file_hash(path), "images": folder_state("images", images)} | values_of(TABLE_OPTIONS, values)


CSV = DataSource(
    name="csv",
    summary="a CSV file and a folder of pictures",
    options=(
        Option(
            "csv",
            str,
            None,
            "file of records, one per row, with column names in the first line; a path or gs://",
            required=True,
        ),
        IMAGES,
        *TABLE_OPTIONS,
    ),
    identity=_identity,
    open=open_csv,
)
