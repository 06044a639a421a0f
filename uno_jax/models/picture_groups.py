"""Encodes pictures of several sizes in groups of one size, on all devices of a host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, UInt8

from uno_jax.parallel.mesh import MeshConfig, batch_sharding, make_mesh, row_parts


def encode_in_groups(
    pictures: Sequence[UInt8[np.ndarray, "_height _width 3"]],
    side: int,
    encode: Callable[[UInt8[Array, "pictures height width 3"]], Float[Array, "pictures tokens features"]],
    mesh: Mesh,
    *,
    pixels_at_once: int,
    most_at_once: int,
) -> list[Float[np.ndarray, "_rows _columns features"]]:
    """Returns the tokens of each picture.

    Pictures of one size are encoded in groups of equally many, the last one padded, so that a program is compiled for
    each size and no more.

    Args:
      pictures: pictures whose sides are multiples of `side`.
      side: side of a token in pixels.
      encode: encodes pictures of one size, sharded like rows, to tokens row by row.
      mesh: the devices.
      pixels_at_once: maximum number of pixels of a group per device. It changes memory and speed.
      most_at_once: maximum number of pictures of a group per device.
    """
    sizes: dict[tuple[int, ...], list[int]] = {}
    for number, picture in enumerate(pictures):
        sizes.setdefault(picture.shape[:2], []).append(number)
    groups = []
    for (height, width), numbers in sorted(sizes.items()):
        each = min(max(pixels_at_once // (height * width), 1), most_at_once)
        together = row_parts(mesh) * (1 << each.bit_length() - 1)
        for start in range(0, len(numbers), together):
            group = numbers[start : start + together]
            stack = np.zeros((together, height, width, 3), np.uint8)
            stack[: len(group)] = [pictures[number] for number in group]
            placed = jax.device_put(stack, batch_sharding(mesh))
            groups.append((group, (height // side, width // side), encode(placed)))
    found: dict[int, np.ndarray] = {}
    for group, grid, encoded in groups:
        for number, tokens in zip(group, np.asarray(encoded), strict=False):  # the rest is padding
            found[number] = tokens.reshape(*grid, -1)
    return [found[number] for number in range(len(pictures))]


def mesh_of(params: Any) -> Mesh:
    """The mesh of the parameters; a mesh of one device if they have none, or if there are no parameters."""
    for leaf in jax.tree.leaves(params):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
            return sharding.mesh
    return make_mesh(MeshConfig(), jax.local_devices()[:1])
