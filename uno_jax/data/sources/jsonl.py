"""The user's own data: a JSONL file with one record per line, and a folder of pictures. See `docs/data.md`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from etils import epath

from uno_jax.data.sources.lines import parse_line, read_lines
from uno_jax.data.sources.locations import file_hash, folder_state, records_and_images
from uno_jax.data.sources.pictures import read_picture
from uno_jax.data.sources.rows import Row, open_rows, picture_limits
from uno_jax.data.sources.schema import IMAGES, PICTURE_OPTIONS
from uno_jax.data.sources.source import (
    TEST_FRACTION,
    DataSource,
    DataSourceError,
    Opened,
    Option,
    Reporter,
    Values,
    values_of,
)

# What people have instead of JSONL: beginning of the file, its name, and how to read or convert it.
_OTHER_FORMATS = (
    (b"PAR1", "Parquet", "--dataset=parquet --parquet={name}"),
    (b"ARROW1", "Arrow", "pandas.read_feather({name!r}).to_json({out!r}, orient='records', lines=True)"),
    (b"\x1f\x8b", "gzip", "gunzip {name}"),
    (b"PK\x03\x04", "a zip archive, such as XLSX", "export it as CSV"),
    (b"[", "one JSON list", "pandas.read_json({name!r}).to_json({out!r}, orient='records', lines=True)"),
)
_CSV = "--dataset=csv --csv={name}"


def open_jsonl(values: Values, reporter: Reporter) -> Opened:
    """Opens the file `values["jsonl"]` with the pictures in `values["images"]`."""
    jsonl, images = _places(values)
    return open_rows(
        [partial(_rows, jsonl)],
        values,
        description=f"Records of {jsonl.name}.",
        load=partial(read_picture, images, limits=picture_limits(values)),
        total=sum(1 for _ in read_lines(jsonl)),
    )


def _rows(jsonl: Path | epath.Path) -> Iterator[Row]:
    for number, _, line in read_lines(jsonl):
        fields, problems = parse_line(line)
        given = {name: value for name, value in fields.items() if value is not None}
        yield Row(jsonl.name, number, {"id": "", **given}, problems)  # without an id, none is made of the position


def _places(values: Values) -> tuple[Path | epath.Path, Path | epath.Path]:
    return records_and_images("jsonl", values, "the JSONL file of your records")


def _identity(values: Values) -> dict[str, object]:
    jsonl, images = _places(values)
    _check_format(jsonl)
    return {
        "test_fraction": values["test_fraction"],
        **values_of(PICTURE_OPTIONS, values),
        "records": file_hash(jsonl),
        "images": folder_state("images", images),
    }


def _check_format(jsonl: Path | epath.Path) -> None:
    """Refuses files of other formats, with the way to read or convert them, instead of every line of them."""
    with jsonl.open("rb") as file:
        start = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()
    found = [(kind, how) for magic, kind, how in _OTHER_FORMATS if start.startswith(magic)]
    first, _, _ = start.partition(b"\n")
    if not found and b"{" not in first and (b"," in first or b"\t" in first):
        found = [("CSV", _CSV)]
    for kind, how in found:
        convert = how.format(name=str(jsonl), out=str(jsonl.with_suffix(".jsonl")))
        raise DataSourceError(
            f"--jsonl: {jsonl} is {kind}, and not JSONL (one JSON object per line). Instead: {convert}"
        )


JSONL = DataSource(
    name="jsonl",
    summary="your own records: a JSONL file and a folder of pictures",
    options=(
        Option("jsonl", str, None, "file of records, one JSON object per line; a path or gs://", required=True),
        IMAGES,
        *PICTURE_OPTIONS,
        TEST_FRACTION,
    ),
    identity=_identity,
    open=open_jsonl,
)
