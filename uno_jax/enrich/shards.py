"""Makes the missing shards of an annex, one after the other, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from uno_jax.data.annex import Annex, Shard, remove_leftovers, write_shard

RECORDS_PER_SHARD = 256
"""Records that are in memory at a time, and that are computed again after a kill at most."""


def make_shards(
    annex: Annex,
    make: Callable[[Shard], Iterator[bytes]],
    console: Console,
    *,
    stage: str,
    part: tuple[int, int] = (0, 1),
) -> None:
    """Makes every shard of an annex that is not there yet.

    Args:
      annex: the annex.
      make: yields the entries of a shard, which depend on nothing but the shard.
      console: shows the progress.
      stage: name of the work, at most 18 characters.
      part: makes every n-th shard from i, for `(i, n)`. Several processes with different parts may run at once.
    """
    number, count = part
    shards = [shard for split in annex.about["splits"] for shard in annex.shards(split)][number::count]
    with _progress(console) as progress:
        task = progress.add_task(stage, total=sum(len(shard.records) for shard in shards))
        for shard in shards:
            if shard.is_written:
                progress.advance(task, len(shard.records))
                continue
            entries: list[bytes] = []
            for entry in make(shard):
                entries.append(entry)
                progress.advance(task)
            write_shard(shard, entries)
    if not waiting_for(annex):
        remove_leftovers(annex.folder)


def waiting_for(annex: Annex) -> int:
    """Returns the number of shards that other processes still have to make."""
    return sum(not shard.is_written for split in annex.about["splits"] for shard in annex.shards(split))


def _progress(console: Console) -> Progress:
    text = TextColumn("{task.description:18}")
    return Progress(text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
