"""TPU chips and descriptions of slices, for compiling without the hardware.

Peak rates are the published ones. Arithmetic, memory size and memory bandwidth are from cloud.google.com/tpu/docs (v5e,
v5p, v6e system architecture). The bandwidth of one direction of one interconnect link and the data-center network per
chip are from jax-ml.github.io/scaling-book ("How to think about TPUs"). `hbm_bytes` is the memory available to a
program, as reported by the compiler.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax
from jax.experimental import topologies

from uno_jax.config import ConfigError

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """Peak rates of one chip, per second."""

    name: str
    flops: float
    """bfloat16 multiplications and additions."""
    hbm_bytes: float
    """Capacity in bytes (not a rate)."""
    hbm_bandwidth: float
    link_bandwidth: float
    """One direction of one link of the interconnect within a slice, in bytes."""
    dcn_bandwidth: float
    """This chip's share of its host's network between slices, in bytes."""
    wrap_multiple: int
    """Axis length that closes a ring: an axis of a 2D slice is a ring if its length is a multiple of this. The axes of
    a 3D slice are rings only if all lengths are."""
    dimensions: int
    """Number of dimensions of a slice. With 3, slices consist of cubes, and optical switches close the rings."""
    host_chips: tuple[int, int, int] = (2, 2, 1)
    """Shape of the chips of one host."""


CHIPS = {
    "v5e": Chip("v5e", 197e12, 15.75 * GIB, 819e9, 4.5e10, 3.125e9, wrap_multiple=16, dimensions=2),
    "v5p": Chip("v5p", 459e12, 95.74 * GIB, 2765e9, 9e10, 6.25e9, wrap_multiple=4, dimensions=3),
    "v6e": Chip("v6e", 918e12, 31.25 * GIB, 1640e9, 9e10, 12.5e9, wrap_multiple=16, dimensions=2),
}


@dataclass(frozen=True)
class Slice:
    """One or more slices of the same chip and shape."""

    chip: Chip
    shape: tuple[int, ...]
    slices: int

    @property
    def name(self) -> str:
        text = f"{self.chip.name}:{'x'.join(map(str, self.shape))}"
        return text if self.slices == 1 else f"{self.slices}x{text}"

    @property
    def chips(self) -> int:
        count = self.slices
        for size in self.shape:
            count *= size
        return count

    @property
    def ici_bandwidth(self) -> float:
        """Bytes per second received by the chip with the fewest links: two per ring, one at the end of a line."""
        closed = [size % self.chip.wrap_multiple == 0 for size in self.shape]
        rings = closed if self.chip.dimensions == 2 else [all(closed)] * len(closed)
        links = sum(2 if ring else 1 for ring, size in zip(rings, self.shape, strict=True) if size > 1)
        return links * self.chip.link_bandwidth


def parse_slice(text: str) -> Slice:
    """Parses `v5e:4x4`, or `2xv5e:16x16` for two slices.

    Raises:
      ConfigError: the text is malformed, the chip is unknown, or the number of dimensions does not match the chip.
    """
    match = re.fullmatch(r"(?:(\d+)x)?(v\d+[a-z]*):(\d+(?:x\d+)*)", text)
    if not match or match[2] not in CHIPS:
        raise ConfigError(
            f"--topology is {text!r}: expected KIND:AxB[xC], KIND one of {', '.join(CHIPS)}, for example v5e:4x4, "
            "or 2xv5e:16x16 for two slices"
        )
    chip, shape = CHIPS[match[2]], tuple(map(int, match[3].split("x")))
    if len(shape) != chip.dimensions or 0 in shape:
        example = "x".join("2" * chip.dimensions)
        raise ConfigError(
            f"--topology is {text!r}: a {chip.name} slice has {chip.dimensions} dimensions of at least 1. Example: "
            f"{chip.name}:{example} ({2**chip.dimensions} chips)"
        )
    return Slice(chip, shape, int(match[1] or 1))


def describe_devices(target: Slice) -> Sequence[jax.Device]:
    """Returns abstract devices of a slice, for shardings and compilation only: no hardware is needed.

    Raises:
      ConfigError: libtpu is not installed or does not support the slice.
    """
    # Without a TPU, libtpu would query a metadata server and wait for the answer.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    options: dict[str, Any] = {} if target.slices == 1 else {"num_slices": target.slices}
    shape = target.shape
    if target.chips < 4 or any(size % bound for size, bound in zip(shape, target.chip.host_chips, strict=False)):
        options["chips_per_host_bounds"] = [*shape, *(1,) * (3 - len(shape))]
    name = f"{target.chip.name}:{'x'.join(map(str, shape))}"
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
    except Exception as error:
        if find_spec("libtpu") is None:
            raise ConfigError(
                "compiling for a TPU needs libtpu, and libtpu is not installed: pip install -r requirements-tpu.txt"
            ) from error
        raise ConfigError(f"--topology is {target.name!r}: the TPU compiler rejected it: {error}") from error
