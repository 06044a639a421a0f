"""Held-out records: a fixed choice of records, each with random numbers of its own, packed into rows in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from uno_jax.batch import REGIONS, Layout
from uno_jax.data.config import DataConfig
from uno_jax.data.layout import Regions
from uno_jax.data.mixture import Mixture
from uno_jax.data.samples import Skipped, read_sample
from uno_jax.data.tokenizer import Tokenizer


def spread(groups: Sequence[Int[np.ndarray, " _"]], count: int) -> list[int]:
    """Returns `count` numbers of records, evenly spaced over each group and balanced over the groups.

    Empty groups have no share. A group with fewer records than its share gives all of them.

    Args:
      groups: numbers of the records of each group.
      count: number of records.
    """
    groups = [group for group in groups if len(group)]
    chosen: list[int] = []
    for i, group in enumerate(groups):
        share = min((count + i) // len(groups), len(group))
        chosen += group[np.linspace(0, len(group) - 1, share).round().astype(int)].tolist()
    return chosen


def held_out_samples(
    mixture: Mixture, numbers: Sequence[int], layout: Layout, tokenizer: Tokenizer
) -> Iterator[Regions | Skipped]:
    """Yields the sample of each record. Its occurrence is the record's number, so it depends on nothing else.

    Args:
      mixture: the records, with method, transforms and length of a row.
      numbers: numbers of the records.
      layout: sizes of the model.
      tokenizer: turns text into ids.
    """
    inputs = [part.config.inputs(tokenizer) for part in mixture.parts]
    for number in numbers:
        part, within = mixture.locate(number)
        sample = read_sample(mixture.parts[part], within, layout, inputs[part], number, part)
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
