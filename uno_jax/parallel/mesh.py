"""The device mesh, over one slice or many, and the rows of a batch on it. One device is a mesh of one."""

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
    """Parts along each mesh axis across slices, which the data-centre network joins."""

    data: int = -1
    fsdp: int = 1


@dataclass(frozen=True)
class MeshConfig(AxisSizes):
    """Devices along each mesh axis inside a slice.

    What is cut over which axis is the table of `uno_jax.parallel.axes`.
    """

    dcn: DcnConfig = field(default_factory=DcnConfig)
    """The same across slices: a mesh axis has `size * dcn size` parts in all."""


class RowShare(NamedTuple):
    """Which rows of the global batch a host makes: share `number`, from 0, of `total` equal ones."""

    number: int
    total: int
    parts: tuple[int, ...]
    """Where they lie: of the `row_parts` equal parts of the batch, in order, those that are on the host's devices. They
    are neighbours only where the host's devices are neighbours in the mesh, which on a TPU they often are not."""


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (default: all of all hosts).

    Slices are told apart by the devices' slice index. Devices without one (CPUs of one host) are one slice; or, where
    `config.dcn` names more, that many runs of devices of the same length.

    Raises:
      ConfigError: the axes do not multiply to the number of devices in a slice, or to the number of slices.
    """
    devices = jax.devices() if devices is None else devices
    across = {axis: getattr(config.dcn, axis) for axis in MESH_AXES}
    slices = _slices(devices, across)
    across = _resolve(across, len(slices), "config.mesh.dcn", "slices")
    inside = {axis: getattr(config, axis) for axis in MESH_AXES}
    inside = _resolve(inside, len(slices[0]), "config.mesh", "devices" if len(slices) == 1 else "devices in a slice")
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
    """This host's devices as a mesh of rows: for what every host computes of its own rows alone."""
    return make_mesh(MeshConfig(data=-1, fsdp=1), jax.local_devices())


def _has_slice_index(devices: Sequence[jax.Device]) -> bool:
    return getattr(devices[0], "slice_index", None) is not None


def _slices(devices: Sequence[jax.Device], across: Mapping[str, int]) -> list[list[jax.Device]]:
    if _has_slice_index(devices):
        indices = sorted({device.slice_index for device in devices})
        return [[device for device in devices if device.slice_index == index] for index in indices]
    count = int(np.prod([size for size in across.values() if size > 0]))
    if len(devices) % count:
        raise ConfigError(f"config.mesh.dcn asks for {count} slices, which do not divide {len(devices)} devices")
    length = len(devices) // count
    return [list(devices[i * length : (i + 1) * length]) for i in range(count)]


def _hybrid_grid(
    slices: Sequence[Sequence[jax.Device]], inside: Mapping[str, int], across: Mapping[str, int]
) -> np.ndarray:
    """As `mesh_utils.create_hybrid_device_mesh`, for devices that do not tell their slice."""
    blocks = np.array(slices, object).reshape(*across.values(), *inside.values())
    pairs = [(axis, len(MESH_AXES) + axis) for axis in range(len(MESH_AXES))]
    blocks = blocks.transpose(np.array(pairs).flatten())
    return blocks.reshape([across[axis] * inside[axis] for axis in MESH_AXES])


def _resolve(sizes: Mapping[str, int], total: int, path: str, what: str) -> dict[str, int]:
    """The sizes with -1 replaced, so that their product is `total`."""
    sizes = dict(sizes)
    for axis, size in sizes.items():
        if size < 1 and size != -1:
            raise ConfigError(f"{path}.{axis} is {size}: expected a positive number, or -1 for the rest")
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
        both = " and ".join(f"{path}.{axis}" for axis in free)
        raise ConfigError(f"{both} are both -1: one axis only can take the rest")
    fixed = int(np.prod([size for size in sizes.values() if size != -1]))
    shown = [axis for axis, size in sizes.items() if size > 1] or list(sizes)
    given = " * ".join(f"{path}.{axis} ({sizes[axis]})" for axis in shown)
    if free and total % fixed == 0:
        sizes[free[0]] = total // fixed
    elif fixed != total:
        raise ConfigError(f"{given} does not {'divide' if free else 'equal'} the number of {what}, {total}")
    return sizes


def row_parts(mesh: Mesh) -> int:
    """How many parts the rows of a batch are cut into."""
    return int(np.prod([mesh.shape[axis] for axis in TABLE["batch"]]))


def check_rows(rows: int, mesh: Mesh, *, field: str) -> None:
    """Demands that the mesh divides a global batch of `rows` rows; `field` is what the error calls them.

    Raises:
      ConfigError: it does not.
    """
    parts = row_parts(mesh)
    if rows % parts:
        sizes = " * ".join(f"{axis} ({mesh.shape[axis]})" for axis in TABLE["batch"])
        raise ConfigError(
            f"{field} is {rows}, which the mesh cuts into {parts} parts, {sizes}, and they do not divide it: "
            f"give a multiple of {parts}, or a smaller mesh"
        )


def row_share(mesh: Mesh, process: int | None = None) -> RowShare:
    """Which rows of the global batch a process (default: this one) makes.

    Processes whose devices hold the same rows (because tokens or heads are cut across them) have the same share.

    Raises:
      ConfigError: the devices of two processes have some rows in common and others not.
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
            "config.mesh spreads rows over hosts unevenly, some hosts share only some of theirs: let tensor * sequence "
            "divide the devices of a host, or be a multiple of them"
        )
    own = tuple(held[process])
    return RowShare(shares.index(own), len(shares), own)


def replicated(mesh: Mesh) -> NamedSharding:
    """Whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Leading axis (rows) over the axes that cut rows; tokens are whole until the model cuts them."""
    return NamedSharding(mesh, PartitionSpec(TABLE["batch"]))


def jit_whole(function: Callable[..., Any], mesh: Mesh) -> Any:
    """`function` jitted for the mesh; its results are whole on every device, so that every host can read them."""
    return jax.jit(on_mesh(mesh)(function), out_shardings=replicated(mesh))


def own_rows(tree: Tree, mesh: Mesh) -> Tree:
    """This host's rows of a batch that every host has whole (numpy arrays, leading axis): `put_rows` of them on every
    host gives the batch in its own order. The mesh must divide the rows (`check_rows`).
    """
    parts, own = row_parts(mesh), row_share(mesh).parts
    rows: Tree = jax.tree.map(lambda x: np.concatenate([np.split(x, parts)[part] for part in own]), tree)
    return rows


def put_rows(tree: Tree, mesh: Mesh) -> Tree:
    """This host's share of a batch's rows (numpy or device arrays, leading axis) as global arrays.

    The rows go where the host's devices are in the mesh, part by part as `RowShare.parts` says.
    """
    sharding = batch_sharding(mesh)
    rows: Tree
    if jax.process_count() == 1:
        rows = jax.device_put(tree, sharding)
    else:
        rows = jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)
    return rows
