"""The device mesh, and where arrays lie on it. One device is a mesh of one.

Mesh axes: `data` (rows of the batch, everything else replicated) and `fsdp` (rows of the batch, and every large
parameter and optimizer leaf cut along one of its axes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from uno_jax.config import ConfigError

Tree = TypeVar("Tree")

AXES = ("data", "fsdp")

# Leaves smaller than this stay whole on every device: cutting them saves nothing and costs a collective each.
SMALLEST_SHARDED_SIZE = 2**16


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 (at most once) takes the devices that the other axis leaves."""

    data: int = 1
    fsdp: int = -1


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (default: all of all hosts).

    Raises:
      ConfigError: the axes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = {axis: getattr(config, axis) for axis in AXES}
    wrong = [axis for axis, size in sizes.items() if size < 1 and size != -1]
    if wrong:
        raise ConfigError(
            f"config.mesh.{wrong[0]} is {sizes[wrong[0]]}: expected a positive number, or -1 for the rest"
        )
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ConfigError("config.mesh.data and config.mesh.fsdp are both -1: one axis only can take the rest")
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    if free and len(devices) % fixed == 0:
        sizes[free[0]] = len(devices) // fixed
    if int(np.prod(list(sizes.values()))) != len(devices):
        product = " * ".join(f"config.mesh.{axis} ({size})" for axis, size in sizes.items() if size != -1)
        raise ConfigError(f"{product} does not {'divide' if free else 'equal'} the number of devices, {len(devices)}")
    return jax.make_mesh(
        tuple(sizes.values()), AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES), devices=devices
    )


def check_rows(rows: int, mesh: Mesh, *, field: str) -> None:
    """Demands that the mesh divides a global batch of `rows` rows; `field` is what the error calls them.

    Raises:
      ConfigError: it does not.
    """
    if rows % mesh.size:
        raise ConfigError(
            f"{field} is {rows}, which the {mesh.size} devices of the mesh do not divide: "
            f"give a multiple of {mesh.size}, or fewer devices"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis (rows) over every device of the mesh."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """A sharding for every leaf (array or ShapeDtypeStruct) of parameters, optimizer state, or a whole TrainState.

    A large leaf is cut over `fsdp` along its longest axis that the mesh axis divides; others are whole everywhere.
    The leading axis of stacked layers is never cut: a scan slices it at every layer.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, _leaf_spec(path, leaf, mesh)), tree)


def with_shardings(tree: Tree, mesh: Mesh) -> Tree:
    """`jax.ShapeDtypeStruct` of every leaf (array or ShapeDtypeStruct), with the sharding of `tree_shardings`."""
    shardings = tree_shardings(tree, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def _leaf_spec(path: Sequence[Any], leaf: Any, mesh: Mesh) -> PartitionSpec:
    shape = np.shape(leaf)
    parts = mesh.shape["fsdp"]
    if parts == 1 or np.prod(shape, dtype=np.int64) < SMALLEST_SHARDED_SIZE:
        return PartitionSpec()
    stacked = any(getattr(key, "key", getattr(key, "name", None)) == "layers" for key in path)
    candidates = [axis for axis in range(int(stacked), len(shape)) if shape[axis] % parts == 0]
    if not candidates:
        return PartitionSpec()
    longest = max(candidates, key=lambda axis: shape[axis])
    return PartitionSpec(*("fsdp" if axis == longest else None for axis in range(longest + 1)))


def put_rows(tree: Tree, mesh: Mesh) -> Tree:
    """This host's rows of a batch (numpy or device arrays, leading axis) as global arrays, rows over every device."""
    sharding = batch_sharding(mesh)
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)
