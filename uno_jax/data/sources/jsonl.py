"""The user's own data: a JSONL file with one record per line, and a folder of pictures. See `docs/data.md`.

Every record is checked before anything is written. A rejection names the line and the field, the problem and the
remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from etils import epath

from uno_jax.data.decoding import LARGEST_PICTURE
from uno_jax.data.record import Record
from uno_jax.data.sources.lines import LONGEST_LINE, parse_line, read_lines
from uno_jax.data.sources.locations import file_hash, folder_state, records_and_images
from uno_jax.data.sources.pictures import read_picture
from uno_jax.data.sources.rows import LICENSE
from uno_jax.data.sources.schema import IMAGES, MAX_PICTURE_PIXELS, Checked, Problem, check_record
from uno_jax.data.sources.source import (
    SPLITS,
    TEST_FRACTION,
    DataSource,
    DataSourceError,
    Opened,
    Option,
    Rejection,
    Reporter,
    Values,
    split_of,
)

_LINES_AT_A_TIME = 256

# What people have instead of JSONL: beginning of the file, its name, and how to read or convert it.
_OTHER_FORMATS = (
    (b"PAR1", "Parquet", "--dataset=parquet --parquet={name}"),
    (b"ARROW1", "Arrow", "pandas.read_feather({name!r}).to_json({out!r}, orient='records', lines=True)"),
    (b"\x1f\x8b", "gzip", "gunzip {name}"),
    (b"PK\x03\x04", "a zip archive, such as XLSX", "export it as CSV"),
    (b"[", "one JSON list", "pandas.read_json({name!r}).to_json({out!r}, orient='records', lines=True)"),
)
_CSV = "--dataset=csv --csv={name}"


@dataclass(frozen=True)
class Accepted:
    """A valid line: its byte offset in the file, its id, its task, and the number of records that it makes."""

    offset: int
    id: str
    task: str
    records: int


@dataclass(frozen=True)
class CheckedFile:
    """Result of checking a JSONL file. A record with at least one rejection is skipped; it may have several."""

    accepted: tuple[Accepted, ...]
    rejections: tuple[Rejection, ...]


def open_jsonl(values: Values, reporter: Reporter) -> Opened:
    """Checks the file `values["jsonl"]` with the pictures in `values["images"]`, and splits its accepted records."""
    jsonl, images = _places(values)
    advance = reporter.begin("Checking records", sum(1 for _ in read_lines(jsonl)))
    largest = values["max_picture_pixels"]
    checked = check_jsonl(jsonl, images, advance, max_pixels=largest)
    for rejection in checked.rejections:
        reporter.reject(rejection)
    members: dict[str, list[Accepted]] = {split: [] for split in SPLITS}
    for entry in checked.accepted:
        members[split_of(entry.id, values["test_fraction"])].append(entry)
    return Opened(
        splits={
            split: partial(read_records, jsonl, images, entries, max_pixels=largest)
            for split, entries in members.items()
            if entries
        },
        total=sum(entry.records for entry in checked.accepted),
        description=f"Records of {jsonl.name}.",
        license=LICENSE,
    )


def check_jsonl(
    jsonl: str | Path | epath.Path,
    images: str | Path | epath.Path,
    on_record: Callable[[], None] = lambda: None,
    *,
    max_pixels: int = LARGEST_PICTURE,
) -> CheckedFile:
    """Checks every record of a JSONL file and decodes every picture it refers to.

    Args:
      jsonl: the file. Empty lines are skipped.
      images: the base folder of picture paths.
      on_record: called after each record, for a progress bar.
      max_pixels: maximum number of pixels of a picture.

    Raises:
      FileNotFoundError: the file or the folder does not exist.
    """
    jsonl, images = epath.Path(jsonl), epath.Path(images)
    if not jsonl.is_file():
        raise FileNotFoundError(f"{jsonl}: no such file. Give the JSONL file of your records.")
    if not images.is_dir():
        raise FileNotFoundError(f"{images}: no such folder. Give the base folder of the picture paths.")
    accepted: list[Accepted] = []
    rejections: list[Rejection] = []
    first_line: dict[str, int] = {}
    lines = read_lines(jsonl)
    with ThreadPoolExecutor() as threads:
        while batch := list(islice(lines, _LINES_AT_A_TIME)):
            checked = threads.map(lambda item: _ids_and_problems(item[2], images, max_pixels), batch)
            for (number, offset, _), (id_, task, ids, found) in zip(batch, checked, strict=True):
                problems = list(found)
                for used in dict.fromkeys((id_, *ids)):
                    if used and first_line.setdefault(used, number) != number:
                        again = f"line {first_line[used]} already has the id {used!r}"
                        problems = [("id", again, "Give every record a unique id"), *problems]
                rejections += [Rejection(jsonl.name, number, id_, *problem) for problem in problems]
                if not problems:
                    accepted.append(Accepted(offset, id_, task, len(ids)))
                on_record()
    return CheckedFile(tuple(accepted), tuple(rejections))


def read_records(
    jsonl: str | Path | epath.Path,
    images: str | Path | epath.Path,
    accepted: Sequence[Accepted],
    *,
    max_pixels: int = LARGEST_PICTURE,
) -> Iterator[Record]:
    """Yields the accepted records of a checked file, in order. Reads the pictures of one record at a time."""
    with epath.Path(jsonl).open("rb") as file:
        for entry in accepted:
            file.seek(entry.offset)
            _, checked = _check_line(file.readline(LONGEST_LINE + 1), epath.Path(images), max_pixels)
            for field, problem, remedy, *_ in checked.problems:  # of a file that has changed since its check
                raise DataSourceError(f"{jsonl}: record {entry.id!r}, field {field!r}: {problem}. {remedy}")
            yield from checked.records


def _check_line(line: bytes, images: Path | epath.Path, max_pixels: int) -> tuple[dict[str, Any], Checked]:
    """Returns the fields of a line, and their check."""
    fields, problems = parse_line(line)
    if problems:
        return {}, Checked((), problems)
    return fields, check_record(fields, lambda path: read_picture(images, path, max_pixels))


def _ids_and_problems(
    line: bytes, images: Path | epath.Path, max_pixels: int
) -> tuple[str, str, tuple[str, ...], tuple[Problem, ...]]:
    """Returns id, task, ids of the records and problems of a line, without the pictures."""
    fields, checked = _check_line(line, images, max_pixels)
    id_ = fields.get("id")
    task = checked.records[0].task if checked.records else ""
    return id_ if isinstance(id_, str) else "", task, tuple(record.id for record in checked.records), checked.problems


def _places(values: Values) -> tuple[Path | epath.Path, Path | epath.Path]:
    return records_and_images("jsonl", values, "the JSONL file of your records")


def _identity(values: Values) -> dict[str, object]:
    jsonl, images = _places(values)
    _check_format(jsonl)
    return {
        "test_fraction": values["test_fraction"],
        "max_picture_pixels": values["max_picture_pixels"],
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
        MAX_PICTURE_PIXELS,
        TEST_FRACTION,
    ),
    identity=_identity,
    open=open_jsonl,
)
