"""Predicts how full rows are, from the lengths of samples alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from uno_jax.batch import REGIONS

_FILLS = 8  # times that all bins are filled, at least
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

    If none has room, all of them are complete and the next ones begin. The samples are repeated until enough rows are
    complete for a mean.

    Args:
      lengths: tokens of each sample per region, in the order of `REGIONS` and in the order of sampling. Each sample
        must fit a row.
      capacities: tokens of a row per region.
      bins: rows that are filled at the same time.
      max_samples: maximum number of samples per row; 0 = no limit.

    Raises:
      ValueError: there are no samples, or one fits no row.
    """
    capacity = np.array([capacities[region] for region in REGIONS])
    if not len(lengths) or np.any(lengths > capacity):
        raise ValueError("packing needs at least one sample, and a row must have room for each of them")
    complete: list[tuple[np.ndarray, np.ndarray]] = []
    used, samples = _empty(bins)
    placed = 0
    while placed < len(lengths) or (len(complete) < _FILLS and placed < len(lengths) + _MOST_PLACED):
        sample = lengths[placed % len(lengths)]
        room = np.all(used + sample <= capacity, axis=1)
        if max_samples:
            room &= samples < max_samples
        if not room.any():
            complete.append((used, samples))
            used, samples = _empty(bins)
            room = np.ones(bins, bool)
        row = int(room.argmax())
        used[row] += sample
        samples[row] += 1
        placed += 1
    if not complete:
        complete.append((used[samples > 0], samples[samples > 0]))
    rows, counts = (np.concatenate(parts) for parts in zip(*complete, strict=True))
    return Packing(rows, counts, dict(capacities))


def _empty(bins: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((bins, len(REGIONS)), np.int64), np.zeros(bins, np.int64)
