"""The time that a step cannot undercut, and what bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from uno_jax.planning.chips import Slice
from uno_jax.planning.collectives import ACROSS


@dataclass(frozen=True)
class Roofline:
    """Seconds of a step if only one thing took time. All of them overlap at best, so the longest is the bound."""

    arithmetic: float
    memory: float
    interconnect: float
    """Between chips of a slice."""
    network: float
    """Between slices."""

    @property
    def seconds(self) -> float:
        return max(self.arithmetic, self.memory, self.interconnect, self.network)

    @property
    def bound_by(self) -> str:
        times = vars(self)
        return max(times, key=lambda name: times[name])


def roofline(target: Slice, flops: float, hbm_bytes: float, collective_bytes: Mapping[str, float]) -> Roofline:
    """The bound of a step at the published peak rates of the chip.

    Args:
      target: the slice.
      flops: executed by all chips.
      hbm_bytes: read and written by one chip.
      collective_bytes: received by one chip, as `collectives.bytes_by_axes` says it.
    """
    chip = target.chip
    across = sum(size for name, size in collective_bytes.items() if name.endswith(ACROSS))
    within = sum(collective_bytes.values()) - across
    return Roofline(
        arithmetic=flops / target.chips / chip.flops,
        memory=hbm_bytes / chip.hbm_bandwidth,
        interconnect=within / target.ici_bandwidth if within else 0.0,
        network=across / chip.dcn_bandwidth,
    )
