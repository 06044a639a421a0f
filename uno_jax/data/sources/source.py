"""The interface of a data source: its options, the identity of its datasets, and its records.

A source knows neither the command line nor the storage of records. `prepare_data` turns its options into flags, shows
its progress and its rejections, makes its records in several processes, and writes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from uno_jax.data.record import Record
from uno_jax.process.errors import UserError

Values = Mapping[str, Any]
"""The value of each option of a source, by name."""


class DataSourceError(UserError):
    """A source cannot be read. The message says what is wrong and what to do."""


@dataclass(frozen=True)
class Option:
    """An option of a source. Sources with the same option share one `Option`."""

    name: str
    type: type[str] | type[int] | type[float] | type[bool] | type[Path]
    """Values of the type `Path` are texts, with `~` expanded."""
    default: str | int | float | bool | None
    help: str
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False


IMAGE_SIZE = Option("image_size", int, 64, "side of the square pictures, in pixels", minimum=16, maximum=1024)
TEST_FRACTION = Option("test_fraction", float, 0.05, "fraction of the records in the test split", 0.0, 0.9)

SPLITS = ("train", "test")
"""The splits of sources that hold out a part of their records. A source may have others."""


def values_of(options: Sequence[Option], values: Values) -> dict[str, object]:
    """Returns the values of some options by name, for `DataSource.identity`."""
    return {option.name: values[option.name] for option in options}


def split_of(id_: str, test_fraction: float) -> str:
    """Returns `train` or `test`. It depends only on the id, so adding records moves none to another split."""
    number = int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8], "big")
    return "test" if number < test_fraction * 2**64 else "train"


@dataclass(frozen=True)
class Rejection:
    """One problem of one record."""

    file: str
    line: int
    """Position of the record in the file, from 1: a line, a row or an entry."""
    id: str
    """Id of the record; empty if it has none."""
    field: str
    problem: str
    remedy: str
    cause: str = ""
    """The kind of problem in one word, for counting; empty: the field says enough."""

    def __str__(self) -> str:
        record = f" record {self.id!r}," if self.id else ""
        return f"{self.file}:{self.line}:{record} field {self.field!r}: {self.problem}. {self.remedy}."


@runtime_checkable
class Reporter(Protocol):
    """Receives a source's progress while it is opened."""

    def begin(self, stage: str, total: int | None) -> Callable[[], None]:
        """Shows a new stage, such as `Checking records`, and returns the function to call after each of its items.

        Args:
          stage: name of the stage, at most 18 characters.
          total: number of items, or None if unknown in advance.
        """


@dataclass(frozen=True)
class Made:
    """What is made of an item: records of one split, or why there are none."""

    split: str
    records: tuple[Record, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    """What is wrong with the item. It then has no records."""
    id: str = ""
    """Id of the item, which no other item may have; "" = only the ids of its records count."""
    file: str = ""
    """Where the item is, for messages."""
    line: int = 0


@dataclass(frozen=True)
class Opened:
    """An opened source, ready to be read: items that are cheap to read, and a function that makes records of them.

    All of it can be pickled, so that other processes can read pieces and make records.
    """

    pieces: tuple[Callable[[], Iterable[Any]], ...]
    """The pieces of the source, such as its files. Each is a function that returns items, such as rows whose pictures
    nobody has decoded, in the same order whenever it is called. Items can be pickled."""
    make: Callable[[Any], Made]
    """Checks an item, decodes its pictures, and makes records of it. Depends on nothing but the item."""
    total: int | None
    """Number of items of all pieces; None if it is not known before they are read."""
    description: str
    license: str
    homepage: str = ""


@dataclass(frozen=True)
class DataSource:
    """A kind of data to prepare datasets from, registered in `uno_jax.data.sources.registry.SOURCES`."""

    name: str
    """Name in snake case, the prefix of the dataset's file names."""
    summary: str
    options: tuple[Option, ...]
    identity: Callable[[Values], dict[str, object]]
    """Returns everything that determines the records, as JSON values. Equal identities give equal datasets. Raises
    DataSourceError if there is nothing to read."""
    open: Callable[[Values, Reporter], Opened]
    """Opens the source and determines its splits. Raises DataSourceError."""
    count_texts_once: bool = False
    """Whether the tokenizer is trained on each distinct text once, regardless of the number of records with it."""


def open_records_of(
    splits: Mapping[str, Sequence[Record]], *, description: str, license: str, homepage: str = ""
) -> Opened:
    """Opens a source whose records are in memory, by split."""
    items = tuple((split, record) for split, records in splits.items() for record in records)
    return Opened((partial(iter, items),), _made_before, len(items), description, license, homepage)


def _made_before(item: tuple[str, Record]) -> Made:
    split, record = item
    return Made(split, (record,))
