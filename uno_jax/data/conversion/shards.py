"""Shards of a dataset, made of the encoded records of parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from uno_jax.data.conversion.ledger import Stored
from uno_jax.data.conversion.parts import Folder, PartNumber, part_file
from uno_jax.data.storage import holds_records, shard_count, shard_of, write_shard_file
from uno_jax.process.errors import say


@dataclass(frozen=True)
class Shard:
    """The records of a shard, in their order."""

    number: int
    records: tuple[Stored, ...]

    @property
    def bytes(self) -> int:
        """Bytes of its encoded records."""
        return sum(record.length for record in self.records)


def shards_of(records: Sequence[Stored], first: int = 0) -> list[Shard]:
    """Divides the records of a split into shards, whose numbers begin with `first`. None of them is empty."""
    count = shard_count(sum(record.length for record in records))
    members: dict[int, list[Stored]] = defaultdict(list)
    for record in records:
        members[shard_of(record.hash, count)].append(record)
    return [Shard(first + i, tuple(sorted(members[number]))) for i, number in enumerate(sorted(members))]


@dataclass(frozen=True)
class WriteShard:
    """Writes shards of the records of parts. Picklable."""

    parts: Folder
    """The folder of the parts."""

    def __call__(self, order: tuple[Folder, Shard]) -> int:
        """Writes a shard to a file, unless that was done before and it is whole. Returns the number of its records.

        It reads every part once, and has the records of the shard in memory.
        """
        file, shard = order
        encoded = self._records(shard)
        if not file.is_file():
            write_shard_file(file, encoded)
        elif not holds_records(file, encoded):
            say(f"{file}: damaged since it was written; written again")
            write_shard_file(file, encoded)
        return len(encoded)

    def _records(self, shard: Shard) -> list[bytes]:
        by_part: dict[PartNumber, list[int]] = defaultdict(list)
        for position, record in enumerate(shard.records):
            by_part[record.part].append(position)
        encoded = [b""] * len(shard.records)
        for part, positions in by_part.items():
            with part_file(self.parts, part).open("rb") as opened:
                for position in sorted(positions, key=lambda position: shard.records[position].start):
                    opened.seek(shard.records[position].start)
                    encoded[position] = opened.read(shard.records[position].length)
        return encoded
