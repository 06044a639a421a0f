"""The ledger of a conversion: which records there are, and what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from uno_jax.batch import TASKS
from uno_jax.data.conversion.parts import Converted, Facts, PartNumber
from uno_jax.data.sources.source import Rejection
from uno_jax.data.storage import hash_of

ALREADY_THERE = "already_there"
"""Cause of leaving out a record whose id the dataset has that records are appended to."""

LEFT_OUT = ("min_side", "max_aspect", ALREADY_THERE)
"""Causes for which records are left out on purpose. They do not count as rejected."""


class Stored(NamedTuple):
    """Where an encoded record is, and what the dataset's small files say of it."""

    hash: int
    """Number by which the records of a split are ordered."""
    id: str
    task: int
    """Index into `TASKS`."""
    part: PartNumber
    start: int
    """Position in the file of its part, in bytes."""
    length: int


@dataclass(frozen=True)
class _Place:
    """Who has an id: a record of a file, or, without a file, one that the dataset had before."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


_BEFORE = _Place("", 0)


class Ledger:
    """Takes the items of a source in their order, and keeps what is needed to write the dataset.

    It keeps about 500 bytes and the texts of a record.
    """

    def __init__(self, on_rejection: Callable[[Rejection], None], known: Mapping[str, Iterable[str]] | None = None):
        """Begins with nothing but the ids of records that the dataset has, by split."""
        self.stored: dict[str, list[Stored]] = {}
        """The accepted records of each split, in the order of the source."""
        self.facts: dict[str, list[Facts]] = {}
        """Their facts."""
        self.rejections: list[Rejection] = []
        self.left_out: list[Rejection] = []
        """The first cause of each item that was left out on purpose."""
        self.rewritten: Counter[str] = Counter()
        """Number of pictures of accepted records that are not stored as they came, by reason."""
        self.rejected = 0
        """Number of rejected items. An item may have several rejections."""
        self._on_rejection = on_rejection
        self._places = {split: dict.fromkeys(ids, _BEFORE) for split, ids in (known or {}).items()}

    @property
    def accepted(self) -> int:
        """Number of records."""
        return sum(map(len, self.stored.values()))

    def add(self, part: PartNumber, items: Iterable[Converted]) -> None:
        """Adds the items of a part. Parts come in the order of their numbers."""
        start = 0
        for item in items:
            problems = [*self._used_ids(item), *item.rejections]
            rejections = [problem for problem in problems if problem.cause not in LEFT_OUT]
            for rejection in rejections:
                self._on_rejection(rejection)
            self.rejections += rejections
            self.rejected += bool(rejections)
            self.left_out += [] if rejections else problems[:1]
            for facts in item.records:
                if not problems:
                    hash_ = hash_of(item.split, facts.id)
                    stored = Stored(hash_, facts.id, TASKS.index(facts.task), part, start, facts.bytes)
                    self.stored.setdefault(item.split, []).append(stored)
                    self.facts.setdefault(item.split, []).append(facts)
                    self.rewritten.update(facts.rewritten)
                start += facts.bytes

    def _used_ids(self, item: Converted) -> list[Rejection]:
        """Returns a problem for each id of an item that an earlier item or the dataset has."""
        here = _Place(item.file, item.line)
        places = self._places.setdefault(item.split, {})
        problems = []
        for id_ in dict.fromkeys((item.id, *(record.id for record in item.records))):
            owner = places.setdefault(id_, here) if id_ else here
            if owner is _BEFORE:
                remedy = "Give another id to a record that should be added"
                problems.append(
                    Rejection(item.file, item.line, item.id, "id", "in the dataset already", remedy, ALREADY_THERE)
                )
            elif owner != here:
                again = f"{owner} already has the id {id_!r}"
                problems.append(Rejection(item.file, item.line, item.id, "id", again, "Give every record a unique id"))
        return problems[::-1]


def by_field(rejections: Sequence[Rejection]) -> dict[str, int]:
    """Counts rejections by field and cause, the most frequent first."""
    # Items of a list are counted as one field, so that the counts stay few.
    fields = Counter(f"{entry.field.partition('[')[0]} {entry.cause}".strip() for entry in rejections)
    return dict(fields.most_common())


def by_cause(left_out: Sequence[Rejection]) -> dict[str, int]:
    """Counts records that were left out by cause, the most frequent first."""
    return dict(Counter(entry.cause for entry in left_out).most_common())
