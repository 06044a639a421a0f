"""What a data source is: its options, the identity of its datasets, and its records.

A source knows neither the command line nor how records are stored. `prepare_data` makes flags of its options, shows
its progress and its refusals, and writes its records.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from uno_jax.data.record import Record
from uno_jax.process.errors import UserError

Values = Mapping[str, Any]
"""The value of each option of a source, by name."""


class DataSourceError(UserError):
    """A source that cannot be read; the message says what is wrong and what to do."""


@dataclass(frozen=True)
class Option:
    """One option of a source. Sources with the same option share one `Option`."""

    name: str
    type: type[str] | type[int] | type[float] | type[bool]
    default: str | int | float | bool | None
    help: str
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False


TEST_FRACTION = Option("test_fraction", float, 0.05, "part of the records that goes to the test split", 0.0, 0.9)


def split_of(id_: str, test_fraction: float) -> str:
    """`train` or `test`, by the id alone: adding records moves none from one split to the other."""
    number = int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8], "big")
    return "test" if number < test_fraction * 2**64 else "train"


@dataclass(frozen=True)
class Refusal:
    """One thing that is wrong with one record."""

    file: str
    line: int
    """Position of the record in the file, from 1: a line, a row or an entry."""
    id: str
    """Empty when the record has none."""
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        record = f" record {self.id!r}," if self.id else ""
        return f"{self.file}:{self.line}:{record} field {self.field!r}: {self.problem}. {self.remedy}."


@runtime_checkable
class Reporter(Protocol):
    """Where a source reports while it is opened and while its records are read."""

    def begin(self, stage: str, total: int | None) -> Callable[[], None]:
        """Shows a new stage, such as `Checking records`, and returns the function to call after each of its items.

        Args:
          stage: what is done, at most 18 characters.
          total: number of items, or None if it is not known in advance.
        """

    def refuse(self, refusal: Refusal) -> None:
        """Reports a problem of a record, which is then left out. A record may have several."""


@dataclass(frozen=True)
class Opened:
    """A source whose records can be read."""

    splits: Mapping[str, Callable[[], Iterable[Record]]]
    """For each split with at least one record, `train` or `test`, a function that gives its records. It is called once,
    and the records of one split are read to their end before those of the next."""
    total: int | None
    """Number of records of all splits; None if it is not known yet, because records are checked as they are read."""
    description: str
    license: str
    homepage: str = ""


@dataclass(frozen=True)
class DataSource:
    """One kind of data that datasets are prepared from: a row of `uno_jax.data.sources.registry.SOURCES`."""

    name: str
    """Snake case; the dataset's files start with it."""
    summary: str
    options: tuple[Option, ...]
    identity: Callable[[Values], dict[str, object]]
    """Everything that decides the records, as JSON values: equal identities make the same dataset. Raises
    DataSourceError if there is nothing to read."""
    open: Callable[[Values, Reporter], Opened]
    """Prepares reading, as far as it must to know the splits. Raises DataSourceError."""
    count_texts_once: bool = False
    """Whether the tokenizer is trained on each distinct text once, however many records have it."""
