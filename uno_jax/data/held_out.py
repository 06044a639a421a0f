"""Held-out records: a fixed choice of records, each with random numbers of its own, packed into rows in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from uno_jax.batch import REGIONS, TASKS, Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.layout import Regions
from uno_jax.data.records import RecordSource
from uno_jax.data.samples import Skipped, read_sample
from uno_jax.data.tokenizer import Tokenizer


def spread(tasks: Int[np.ndarray, " records"], names: Collection[str], count: int) -> list[int]:
    """Returns the numbers of `count` records, evenly spaced over a split and balanced over the tasks `names`.

    Tasks without records have no share. A task with fewer records than its share gives all of them.

    Args:
      tasks: index into `uno_jax.batch.TASKS` of each record.
      names: the tasks, as in `TASKS`.
      count: number of records.
    """
    groups = [group for name in names if len(group := np.flatnonzero(tasks == TASKS.index(name))) > 0]
    chosen: list[int] = []
    for i, group in enumerate(groups):
        share = min((count + i) // len(groups), len(group))
        chosen += group[np.linspace(0, len(group) - 1, share).round().astype(int)].tolist()
    return chosen


def trained_tasks(config: DataConfig) -> list[str]:
    """Returns the tasks whose records the config samples, as far as the split has any."""
    return [name for name in TASKS if not config.task_weights or config.task_weights.get(name, 0) > 0]


def held_out_samples(
    records: RecordSource, numbers: Sequence[int], config: DataConfig, layout: Layout, tokenizer: Tokenizer
) -> Iterator[Regions | Skipped]:
    """Yields the sample of each record. Its occurrence is the record's number, so it depends on nothing else.

    Args:
      records: random access to the records.
      numbers: numbers of the records.
      config: the method and its options, the transforms, and the length of a row.
      layout: sizes of the model.
      tokenizer: turns text into ids.
    """
    inputs = config.inputs(tokenizer)
    for number in numbers:
        sample = read_sample(records, number, config, layout, inputs, occurrence=number)
        yield sample if isinstance(sample, Skipped) else {region: sample[region] for region in REGIONS}


def fill_rows(samples: Iterable[Regions], config: DataConfig) -> Iterator[list[Regions]]:
    """Yields rows of consecutive samples, each as many as a row of the config holds. Each sample must fit a row."""
    row: list[Regions] = []
    used: Counter[str] = Counter()
    for sample in samples:
        lengths = {region: len(sample[region]) for region in REGIONS}
        full = 0 < config.max_samples_per_row == len(row)
        if full or any(used[region] + lengths[region] > config.capacities[region] for region in REGIONS):
            yield row
            row, used = [], Counter()
        row.append(sample)
        used.update(lengths)
    if row:
        yield row
