"""What sources share that read rows, such as those of Parquet files: their check in threads, splits and rejections.

A source yields the rows of its files in order, without decoding anything. Each picture is decoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

from uno_jax.data.decoding import LARGEST_FILE, LARGEST_PICTURE, PictureError
from uno_jax.data.record import Record
from uno_jax.data.sources.pictures import encode_rgb
from uno_jax.data.sources.schema import Checked, Load, Problem, check_record
from uno_jax.data.sources.source import SPLITS, Opened, Rejection, Reporter, Values, split_of
from uno_jax.process.errors import reason_of

LICENSE = "The license of the original pictures and texts."
"""License of a dataset whose source names none."""
_ROWS_AT_A_TIME = 256
_BYTES_AT_A_TIME = 2**26


@dataclass(frozen=True)
class Row:
    """A row of a file: the fields of one record of the schema, before any check."""

    file: str
    number: int
    """Position in the file, from 1."""
    fields: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()
    """What is wrong with the row before its fields are looked at."""
    id: str = field(init=False)
    """The field `id`; without one, made of file and position."""

    def __post_init__(self) -> None:
        given = self.fields.get("id")
        own = given if isinstance(given, str) else "" if given is not None else f"{self.file}/{self.number}"
        object.__setattr__(self, "id", own)


def by_id(read: Callable[[], Iterable[Row]], values: Values) -> dict[str, Callable[[], Iterable[Row]]]:
    """Splits rows by a hash of their ids, with the option `test_fraction`.

    Args:
      read: returns all rows, from the first one, whenever it is called. It is called once for each split.
      values: the options of the source.
    """
    fraction = values["test_fraction"]

    def rows(split: str) -> Iterator[Row]:
        return (row for row in read() if split_of(row.id, fraction) == split)

    return {split: partial(rows, split) for split in (SPLITS if fraction else SPLITS[:1])}


def open_rows(
    splits: Mapping[str, Callable[[], Iterable[Row]]],
    values: Values,
    reporter: Reporter,
    *,
    description: str,
    license: str = LICENSE,
    load: Load | None = None,
) -> Opened:
    """Opens a source of rows, which are checked while they are read.

    Args:
      splits: for each split, a function that returns its rows, such as those of `by_id`.
      values: the options of the source, `max_picture_pixels` among them.
      reporter: receives rejections.
      description: description of the dataset.
      license: its license.
      load: reads the picture of a field; None: the fields hold encoded pictures.
    """
    load = load or partial(read_bytes, max_pixels=values["max_picture_pixels"])
    found = {}
    for split, read in splits.items():
        records = _records(read, load, reporter)
        first = next(records, None)
        if first is not None:
            found[split] = partial(chain, [first], records)
    return Opened(found, None, description, license)


def read_bytes(value: Any, max_pixels: int = LARGEST_PICTURE) -> bytes:
    """Returns the picture of a field that holds an encoded picture, as 8-bit RGB.

    Raises:
      PictureError: the value is no picture, or one that cannot be used.
    """
    if not isinstance(value, bytes):
        found = f"the text {value[:80]!r}" if isinstance(value, str) and value else "nothing"
        raise PictureError("picture_missing", f"{found} instead of an encoded picture", "Store the content of its file")
    if len(value) > LARGEST_FILE:
        problem = f"{len(value):,} bytes, more than the maximum of {LARGEST_FILE:,}"
        raise PictureError("picture_size", problem, "Scale the picture down")
    return encode_rgb(value, max_pixels)


def cut_off(error: Exception) -> Problem:
    """Returns the problem of a file from which an error keeps the rest of its rows."""
    return "(file)", f"cannot be read from here on ({reason_of(error)})", "Write the file again", "damaged"


def _records(read: Callable[[], Iterable[Row]], load: Load, reporter: Reporter) -> Iterator[Record]:
    """Yields the records of valid rows and reports the others."""
    place: dict[str, tuple[str, int]] = {}
    with ThreadPoolExecutor() as threads:
        for batch in _batches(read()):
            for row, checked in zip(batch, threads.map(partial(_check, load=load), batch), strict=True):
                here = (row.file, row.number)
                problems = list(checked.problems)
                for used in dict.fromkeys((row.id, *(record.id for record in checked.records))):
                    if used and place.setdefault(used, here) != here:
                        file, number = place[used]
                        again = f"{file}:{number} already has the id {used!r}"
                        problems = [("id", again, "Give every record a unique id"), *problems]
                for problem in problems:
                    reporter.reject(Rejection(*here, row.id, *problem))
                if not problems:
                    yield from checked.records


def _check(row: Row, load: Load) -> Checked:
    if row.problems:
        return Checked((), row.problems)
    given = row.fields.get("id") is not None
    return check_record(row.fields if given else {**row.fields, "id": row.id}, load)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Yields lists of rows that hold a bounded number of bytes, or one row."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        size += _size(row.fields)
        if batch and (size > _BYTES_AT_A_TIME or len(batch) == _ROWS_AT_A_TIME):
            yield batch
            batch, size = [], _size(row.fields)
        batch.append(row)
    if batch:
        yield batch


def _size(value: Any) -> int:
    if isinstance(value, (bytes, str)):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, (list, tuple)) else 0
