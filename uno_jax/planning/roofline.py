"""Roofline model: the minimum time of a step, and the resource that bounds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from uno_jax.planning.chips import Slice
from uno_jax.planning.collectives import ACROSS


@dataclass(frozen=True)
class Roofline:
    """Seconds that a step needs of each resource. At best all of them overlap, so the maximum is the bound."""

    arithmetic: float
    memory: float
    interconnect: float
    """Transfers between chips of a slice."""
    network: float
    """Transfers between slices."""

    @property
    def seconds(self) -> float:
        return max(self.arithmetic, self.memory, self.interconnect, self.network)

    @property
    def bound_by(self) -> str:
        times = vars(self)
        return max(times, key=lambda name: times[name])


def roofline(target: Slice, flops: float, hbm_bytes: float, collective_bytes: Mapping[str, float]) -> Roofline:
    """Computes the roofline of a step at the chip's published peak rates.

    Args:
      target: the slice.
      flops: FLOPs executed by all chips.
      hbm_bytes: bytes read and written by one chip.
      collective_bytes: bytes received by one chip, by mesh axes (`collectives.bytes_by_axes`).
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
