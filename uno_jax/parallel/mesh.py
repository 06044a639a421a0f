"""The device mesh, over one slice or several, and the rows of a batch on it. One device is a mesh of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from uno_jax.config import ConfigError
from uno_jax.parallel.axes import MESH_AXES, TABLE, AxisSizes, on_mesh

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class DcnConfig(AxisSizes):
    """Size of each mesh axis across slices, which the data-centre network connects."""

    data: int = -1
    fsdp: int = 1


@dataclass(frozen=True)
class MeshConfig(AxisSizes):
    """Devices along each mesh axis within a slice.

    `TABLE` in `uno_jax.parallel.axes` lists what each axis shards.
    """

    dcn: DcnConfig = field(default_factory=DcnConfig)
    """The same across slices: the total size of a mesh axis is `size * dcn size`."""


class RowShare(NamedTuple):
    """The rows of the global batch that a host loads: share `number`, from 0, of `total` equal shares."""

    number: int
    total: int
    parts: tuple[int, ...]
    """Indices, in order, of the host's parts among the `row_parts` equal parts of the batch.

    They are contiguous only where the host's devices are contiguous in the mesh, which on a TPU they often are not.
    """


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes the mesh over `devices` (default: all devices of all hosts).

    The slice index of a device determines its slice. Devices without one (CPUs) form one slice, or as many equal runs
    of devices as `config.dcn` asks for.

    Raises:
      ConfigError: the product of the axes is not the number of devices in a slice, or not the number of slices.
    """
    devices = jax.devices() if devices is None else devices
    across = {axis: getattr(config.dcn, axis) for axis in MESH_AXES}
    slices = _slices(devices, across)
    across = _resolve(across, len(slices), "config.mesh.dcn", "slices")
    inside = {axis: getattr(config, axis) for axis in MESH_AXES}
    inside = _resolve(inside, len(slices[0]), "config.mesh", "devices" if len(slices) == 1 else "devices per slice")
    if len(slices) == 1:
        grid = mesh_utils.create_device_mesh(tuple(inside.values()), slices[0], allow_split_physical_axes=True)
    elif _has_slice_index(devices):
        grid = mesh_utils.create_hybrid_device_mesh(
            tuple(inside.values()), tuple(across.values()), devices, allow_split_physical_axes=True
        )
    else:
        grid = _hybrid_grid(slices, inside, across)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def host_mesh() -> Mesh:
    """A data-parallel mesh of this host's devices, for work on its own rows."""
    return make_mesh(MeshConfig(data=-1, fsdp=1), jax.local_devices())


def cpu_mesh() -> Mesh:
    """A mesh of one CPU device of this host, for arrays that stay in its memory.

    Raises:
      ConfigError: JAX may not use the CPU.
    """
    try:
        devices = jax.local_devices(backend="cpu")
    except RuntimeError as error:
        raise ConfigError(
            "quantising weights needs the CPU beside the accelerator, but JAX_PLATFORMS leaves it out: add cpu to it, "
            "as in JAX_PLATFORMS=cuda,cpu"
        ) from error
    return make_mesh(MeshConfig(), devices[:1])


def _has_slice_index(devices: Sequence[jax.Device]) -> bool:
    return getattr(devices[0], "slice_index", None) is not None


def _slices(devices: Sequence[jax.Device], across: Mapping[str, int]) -> list[list[jax.Device]]:
    if _has_slice_index(devices):
        indices = sorted({device.slice_index for device in devices})
        return [[device for device in devices if device.slice_index == index] for index in indices]
    count = int(np.prod([size for size in across.values() if size > 0]))
    if len(devices) % count:
        raise ConfigError(f"config.mesh.dcn asks for {count} slices: expected a divisor of the {len(devices)} devices")
    length = len(devices) // count
    return [list(devices[i * length : (i + 1) * length]) for i in range(count)]


def _hybrid_grid(
    slices: Sequence[Sequence[jax.Device]], inside: Mapping[str, int], across: Mapping[str, int]
) -> np.ndarray:
    """Like `mesh_utils.create_hybrid_device_mesh`, for devices without a slice index."""
    blocks = np.array(slices, object).reshape(*across.values(), *inside.values())
    pairs = [(axis, len(MESH_AXES) + axis) for axis in range(len(MESH_AXES))]
    blocks = blocks.transpose(np.array(pairs).flatten())
    return blocks.reshape([across[axis] * inside[axis] for axis in MESH_AXES])


def _resolve(sizes: Mapping[str, int], total: int, path: str, what: str) -> dict[str, int]:
    """Replaces -1 so that the product of the sizes is `total`."""
    sizes = dict(sizes)
    for axis, size in sizes.items():
        if size < 1 and size != -1:
            raise ConfigError(f"{path}.{axis} is {size}: expected a positive number, or -1 for the remaining {what}")
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        both = " and ".join(f"{path}.{axis}" for axis in free)
        raise ConfigError(f"{both} are -1: expected at most one axis with -1")
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    shown = [axis for axis, size in sizes.items() if size > 1] or list(sizes)
    given = " * ".join(f"{path}.{axis} ({sizes[axis]})" for axis in shown)
    if free and total % fixed == 0:
        sizes[free[0]] = total // fixed
    elif fixed != total:
        raise ConfigError(f"{given} does not {'divide' if free else 'equal'} the number of {what}, {total}")
    return sizes


def row_parts(mesh: Mesh) -> int:
    """Number of parts that the rows of a batch are sharded into."""
    return int(np.prod([mesh.shape[axis] for axis in TABLE["batch"]]))


def check_rows(rows: int, mesh: Mesh, *, field: str) -> None:
    """Checks that the mesh divides a global batch of `rows` rows; `field` is their name in the error.

    Raises:
      ConfigError: the number of rows is not a multiple of `row_parts`.
    """
    parts = row_parts(mesh)
    if rows % parts:
        sizes = " * ".join(f"{axis} ({mesh.shape[axis]})" for axis in TABLE["batch"])
        raise ConfigError(
            f"{field} is {rows}, but the mesh shards rows into {parts} parts, {sizes}: "
            f"expected a multiple of {parts}, or a smaller mesh"
        )


def row_share(mesh: Mesh, process: int | None = None) -> RowShare:
    """The rows of the global batch that a process (default: this one) loads.

    Processes whose devices hold the same rows (because tokens or heads are sharded across them) have the same share.

    Raises:
      ConfigError: the rows of two processes overlap only in part.
    """
    process = jax.process_index() if process is None else process
    rows = mesh.devices.reshape(row_parts(mesh), -1)
    held: dict[int, list[int]] = {}
    for part, devices in enumerate(rows):
        for owner in sorted({device.process_index for device in devices}):
            held.setdefault(owner, []).append(part)
    shares = sorted({tuple(parts) for parts in held.values()})
    if sum(map(len, shares)) != len(rows) or len(set(map(len, shares))) != 1:
        raise ConfigError(
            "config.mesh shards rows unevenly over hosts, so that some hosts share only part of their rows: expected "
            "tensor * sequence to divide the number of devices per host, or to be a multiple of it"
        )
    own = tuple(held[process])
    return RowShare(shares.index(own), len(shares), own)


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding that replicates an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch's rows (leading axis). Tokens are replicated until the model shards them."""
    return NamedSharding(mesh, PartitionSpec(TABLE["batch"]))


def jit_replicated(function: Callable[..., Any], mesh: Mesh) -> Any:
    """Jits `function` for the mesh with replicated results, which every host can read."""
    return jax.jit(on_mesh(mesh)(function), out_shardings=replicated(mesh))


def own_rows(tree: Tree, mesh: Mesh) -> Tree:
    """Selects this host's rows (leading axis) of a batch of numpy arrays that every host holds in full.

    `put_rows` on every host then restores the batch in its original order. The mesh must divide the rows
    (`check_rows`).
    """
    parts, own = row_parts(mesh), row_share(mesh).parts
    rows: Tree = jax.tree.map(lambda x: np.concatenate([np.split(x, parts)[part] for part in own]), tree)
    return rows


def put_rows(tree: Tree, mesh: Mesh) -> Tree:
    """Assembles global arrays from each host's rows (numpy or device arrays, leading axis).

    The rows are placed on the host's devices part by part, as `RowShare.parts` lists them.
    """
    sharding = batch_sharding(mesh)
    rows: Tree
    if jax.process_count() == 1:
        rows = jax.device_put(tree, sharding)
    else:
        rows = jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)
    return rows
