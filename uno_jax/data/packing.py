"""Predicts how full rows are, from the lengths of samples alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from uno_jax.batch import REGIONS

_FILLS = 16  # times that all bins are filled, at least
_MOST_PLACED = 50_000  # samples placed after the first round, at most


@dataclass(frozen=True)
class Packing:
    """Rows that the packer of the pipeline fills."""

    used: Int[np.ndarray, "rows regions"]
    """Tokens per region, in the order of `REGIONS`."""
    samples: Int[np.ndarray, " rows"]
    capacities: Mapping[str, int]
    """Tokens of a row per region."""

    @property
    def samples_per_row(self) -> float:
        """Mean number of samples."""
        return float(self.samples.mean())

    @property
    def padding(self) -> dict[str, float]:
        """Fraction of padding tokens of each region that rows have, as in the metrics `padding/<region>`."""
        means = self.used.mean(axis=0)
        return {
            region: float(1 - mean / self.capacities[region])
            for region, mean in zip(REGIONS, means, strict=True)
            if self.capacities[region]
        }

    @property
    def fullest(self) -> str:
        """The region with the least padding, which keeps more samples out of a row."""
        return min(self.padding, key=self.padding.__getitem__)


def pack(
    lengths: Int[np.ndarray, "samples regions"], capacities: Mapping[str, int], bins: int, max_samples: int = 0
) -> Packing:
    """Places samples into rows as the pipeline does: into the first of `bins` rows that has room.

    If none has room, all of them are complete and the next ones begin. The samples are repeated, in other orders as in
    the epochs of a run, until enough rows are complete for a mean.

    Args:
      lengths: tokens of each sample per region, in the order of `REGIONS` and in the order of sampling. Each sample
        must fit a row.
      capacities: tokens of a row per region.
      bins: rows that are filled at the same time.
      max_samples: maximum number of samples per row; 0 = no limit.

    Raises:
      ValueError: there are no samples, or one fits no row.
    """
    capacity = [capacities[region] for region in REGIONS]
    if not len(lengths) or np.any(lengths > np.array(capacity)):
        raise ValueError("packing needs at least one sample, and a row must have room for each of them")
    complete: list[tuple[list[int], int]] = []
    used, counts, fills = _empty(bins), [0] * bins, 0
    most = max_samples or len(lengths) + _MOST_PLACED
    for placed, sample in enumerate(_repeated(lengths)):
        if placed >= len(lengths) and (fills >= _FILLS or placed >= len(lengths) + _MOST_PLACED):
            break
        row = _first_with_room(used, counts, sample, capacity, most)
        if row is None:
            complete.extend(zip(used, counts, strict=True))
            used, counts, fills, row = _empty(bins), [0] * bins, fills + 1, 0
        used[row] = [tokens + more for tokens, more in zip(used[row], sample, strict=True)]
        counts[row] += 1
    complete = complete or [(tokens, count) for tokens, count in zip(used, counts, strict=True) if count]
    rows, samples = zip(*complete, strict=True)
    return Packing(np.array(rows), np.array(samples), dict(capacities))


def _repeated(lengths: Int[np.ndarray, "samples regions"]) -> Iterator[list[int]]:
    """Yields the samples in their order, and then without end in others."""
    random = np.random.default_rng(0)
    yield from lengths.tolist()
    while True:
        yield from random.permutation(lengths).tolist()


def _first_with_room(
    used: list[list[int]], counts: list[int], sample: list[int], capacity: list[int], most: int
) -> int | None:
    """Returns the first row that has room for a sample. Lists, which are faster than arrays of so few numbers."""
    for row, tokens in enumerate(used):
        if counts[row] < most and all(a + b <= c for a, b, c in zip(tokens, sample, capacity, strict=True)):
            return row
    return None


def _empty(bins: int) -> list[list[int]]:
    return [[0] * len(REGIONS) for _ in range(bins)]
