"""Converts a source into the shards of a dataset. Every finished part and shard is kept.

A runner does the work: processes of this machine, or those of a cluster (`beam_runner.py`). The dataset is the same.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from uno_jax.data.conversion.ledger import Ledger
from uno_jax.data.conversion.parts import (
    ConvertParts,
    Folder,
    Part,
    PartNumber,
    is_missing,
    parts_of,
    read_about,
)
from uno_jax.data.conversion.shards import Shard, WriteShard
from uno_jax.data.sources.source import Opened
from uno_jax.data.storage import shard_file
from uno_jax.process.pool import map_in_processes

Orders = Sequence[tuple[Folder, Shard]]
"""Files of shards, and what they will hold."""


@runtime_checkable
class Runner(Protocol):
    """Where a source is converted."""

    def convert(self, opened: Opened, folder: Folder, items_per_part: int) -> Iterator[PartNumber]:
        """Converts the parts of a source that are not in a folder yet, and yields the numbers of all, in order."""

    def write(self, orders: Orders, parts: Folder) -> Iterator[int]:
        """Writes shards that are not there yet of the parts in a folder, and yields the number of records of each."""


@dataclass(frozen=True)
class ProcessRunner:
    """Converts in processes of this machine."""

    processes: int

    def convert(self, opened: Opened, folder: Folder, items_per_part: int) -> Iterator[PartNumber]:
        missing = _without_done(parts_of(opened.pieces, items_per_part), folder)
        return map_in_processes(ConvertParts(folder, opened.make), missing, self.processes)

    def write(self, orders: Orders, parts: Folder) -> Iterator[int]:
        return map_in_processes(WriteShard(parts), orders, self.processes)


def _without_done(parts: Iterator[Part], folder: Folder) -> Iterator[Part]:
    """Yields parts without the items of those that are converted, which need not be sent anywhere."""
    for part in parts:
        yield part if is_missing(folder, part.number) else Part(part.number, ())


def convert_source(
    opened: Opened, folder: Folder, ledger: Ledger, on_items: Callable[[int], None], runner: Runner, items_per_part: int
) -> None:
    """Converts the parts of a source that are not converted yet, and adds all of them to the ledger.

    Args:
      opened: the source.
      folder: keeps the parts.
      ledger: gets the parts in their order.
      on_items: called with the number of items of each part, for a progress bar.
      runner: does the work. The records do not depend on it.
      items_per_part: number of items of a part, at most. A kill costs the unfinished parts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in runner.convert(opened, folder, items_per_part):
        items = read_about(folder, number)
        ledger.add(number, items)
        on_items(len(items))


def write_shards(
    directory: Folder,
    name: str,
    shards: Mapping[str, list[Shard]],
    parts: Folder,
    on_records: Callable[[int], None],
    runner: Runner,
) -> None:
    """Writes the shards of each split that are not written yet.

    Args:
      directory: the folder of the shards.
      name: the name of the dataset, the prefix of the files.
      shards: the shards of each split.
      parts: the folder of the parts.
      on_records: called with the number of records of each shard, for a progress bar.
      runner: does the work.
    """
    directory.mkdir(parents=True, exist_ok=True)
    orders = [
        (shard_file(directory, name, split, shard.number), shard) for split, some in shards.items() for shard in some
    ]
    for count in runner.write(orders, parts):
        on_records(count)


def fetch_shards(there: Folder, directory: Path) -> None:
    """Copies shards that a runner wrote elsewhere into the folder of the dataset, unless that was done before."""
    for file in there.iterdir():
        target = directory / file.name
        if not target.is_file():
            partial = target.with_name(f".{target.name}.tmp")
            with file.open("rb") as source, partial.open("wb") as copy:
                shutil.copyfileobj(source, copy)
            partial.rename(target)
