"""What sources share that read rows, such as those of Parquet files: their check, splits and rejections.

A source yields the rows of its files in order, without decoding anything. Each picture is decoded once, when its row
becomes a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from uno_jax.data.decoding import LARGEST_FILE, PictureError
from uno_jax.data.sources.pictures import NO_LIMITS, PictureLimits, stored_picture
from uno_jax.data.sources.schema import PICTURE_OPTIONS, Checked, Load, Problem, check_record
from uno_jax.data.sources.source import DataSourceError, Made, Opened, Rejection, Values, split_of
from uno_jax.process.errors import reason_of

LICENSE = "The license of the original pictures and texts."
"""License of a dataset whose source names none."""

Read = Callable[[], Iterable["Row"]]
"""Returns the rows of a file, in order. It can be pickled."""


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


def open_rows(
    reads: Sequence[Read] | Mapping[str, Sequence[Read]],
    values: Values,
    *,
    description: str,
    license: str = LICENSE,
    load: Load | None = None,
    total: int | None = None,
) -> Opened:
    """Opens a source of rows, which are checked when records are made of them.

    Args:
      reads: a function for each file. They are split by a hash of the ids of their rows, with the option
        `test_fraction`; or such functions for each split of the source.
      values: the options of the source, `PICTURE_OPTIONS` among them.
      description: description of the dataset.
      license: its license.
      load: reads the picture of a field; None: the fields hold encoded pictures.
      total: number of rows, if it is known.
    """
    load = load or partial(read_bytes, limits=picture_limits(values))
    by_split = reads if isinstance(reads, Mapping) else {"": reads}
    pieces = tuple(partial(_of_split, split, read) for split, some in by_split.items() for read in some)
    make = partial(_make, load=load, test_fraction=values.get("test_fraction", 0.0))
    return Opened(pieces, make, total, description, license)


def picture_limits(values: Values) -> PictureLimits:
    """Returns what the options of a source (`PICTURE_OPTIONS`) say of pictures.

    Raises:
      DataSourceError: no picture can have what they ask for.
    """
    if 0 < values["max_aspect"] < 1:
        raise DataSourceError(
            f"--max_aspect is {values['max_aspect']:g}, and no picture's longer side is shorter than the other one. "
            "Give at least 1, or 0 for any."
        )
    return PictureLimits(*(values[option.name] for option in PICTURE_OPTIONS))


def read_bytes(value: Any, limits: PictureLimits = NO_LIMITS) -> bytes:
    """Returns the picture of a field that holds an encoded picture, as it is stored.

    Raises:
      PictureError: the value is no picture, or one that cannot be used.
    """
    if not isinstance(value, bytes):
        found = f"the text {value[:80]!r}" if isinstance(value, str) and value else "nothing"
        raise PictureError("picture_missing", f"{found} instead of an encoded picture", "Store the content of its file")
    if len(value) > LARGEST_FILE:
        problem = f"{len(value):,} bytes, more than the maximum of {LARGEST_FILE:,}"
        raise PictureError("picture_size", problem, "Scale the picture down")
    return stored_picture(value, limits)


def cut_off(error: Exception) -> Problem:
    """Returns the problem of a file from which an error keeps the rest of its rows."""
    return "(file)", f"cannot be read from here on ({reason_of(error)})", "Write the file again", "damaged"


def _of_split(split: str, read: Read) -> Iterator[tuple[str, Row]]:
    return ((split, row) for row in read())


def _make(item: tuple[str, Row], load: Load, test_fraction: float) -> Made:
    """Makes the records of a row, or says what is wrong with it."""
    split, row = item
    checked = _check(row, load)
    return Made(
        split=split or split_of(row.id, test_fraction),
        records=checked.records,
        rejections=tuple(Rejection(row.file, row.number, row.id, *problem) for problem in checked.problems),
        id=row.id,
        file=row.file,
        line=row.number,
    )


def _check(row: Row, load: Load) -> Checked:
    if row.problems:
        return Checked((), row.problems)
    given = row.fields.get("id") is not None
    return check_record(row.fields if given else {**row.fields, "id": row.id}, load)
