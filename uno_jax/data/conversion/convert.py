"""Converts a source into the shards of a dataset, in several processes. Every finished part and shard is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from uno_jax.data.conversion.ledger import Ledger
from uno_jax.data.conversion.parts import ConvertParts, Part, about_file, parts_of, read_about
from uno_jax.data.conversion.shards import Shard, WriteShard
from uno_jax.data.sources.source import Opened
from uno_jax.data.storage import shard_file
from uno_jax.process.pool import map_in_processes


def convert_source(
    opened: Opened,
    folder: Path,
    ledger: Ledger,
    on_items: Callable[[int], None],
    *,
    processes: int,
    items_per_part: int,
) -> None:
    """Converts the parts of a source that are not converted yet, and adds all of them to the ledger.

    The records do not depend on the number of processes.

    Args:
      opened: the source.
      folder: keeps the parts.
      ledger: gets the parts in their order.
      on_items: called with the number of items of each part, for a progress bar.
      processes: number of processes that decode.
      items_per_part: number of items of a part, at most. A kill costs the unfinished parts.
    """
    folder.mkdir(exist_ok=True)
    missing = _without_done(parts_of(opened.pieces, items_per_part), folder)
    for number in map_in_processes(ConvertParts(folder, opened.make), missing, processes):
        items = read_about(folder, number)
        ledger.add(number, items)
        on_items(len(items))


def _without_done(parts: Iterator[Part], folder: Path) -> Iterator[Part]:
    """Yields parts without the items of those that are converted, which need not be sent anywhere."""
    for part in parts:
        yield Part(part.number, ()) if about_file(folder, part.number).is_file() else part


def write_shards(
    directory: Path,
    name: str,
    shards: Mapping[str, list[Shard]],
    parts: Path,
    on_records: Callable[[int], None],
    *,
    processes: int,
) -> None:
    """Writes the shards of each split that are not written yet, of the records of parts.

    Args:
      directory: the folder of the dataset.
      name: its name, the prefix of the files.
      shards: the shards of each split.
      parts: the folder of the parts.
      on_records: called with the number of records of each shard, for a progress bar.
      processes: number of processes that write.
    """
    orders = [
        (shard_file(directory, name, split, shard.number), shard) for split, some in shards.items() for shard in some
    ]
    for count in map_in_processes(WriteShard(parts), orders, processes):
        on_records(count)
