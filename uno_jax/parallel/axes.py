"""Logical axis names of arrays, and the one table of the mesh axes that each is sharded over.

Models name the axes of their arrays and do not depend on the mesh. Inside `on_mesh`, `constrain` and `partition_spec`
look up the names in the table and the sizes in the mesh. Outside, they do nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec


@dataclass(frozen=True)
class AxisSizes:
    """Size of each mesh axis. At most one may be -1: it takes the remaining devices."""

    data: int = 1
    """Shards the rows of the batch, and replicates everything else."""
    fsdp: int = -1
    """Shards the rows of the batch, and parameters, optimizer state and EMA. Layers gather their parameters for use."""
    tensor: int = 1
    """Shards heads and the inner features of the MLPs."""
    sequence: int = 1
    """Shards the tokens of a row, for rows too long for one device."""


MESH_AXES = tuple(field.name for field in dataclasses.fields(AxisSizes))

TABLE: dict[str, tuple[str, ...]] = {
    # Activations.
    "batch": ("data", "fsdp"),  # rows
    "tokens": ("sequence",),  # either buffer, and the packed patches of the vision encoder
    # Activations and parameters.
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    # Parameters, their optimizer state and EMA.
    "embed": ("fsdp", "sequence"),  # gathered where it is used
    "layers": (),  # the scan over layers slices it
    # Rows of looked-up embeddings while their features are still sharded like those of the table.
    "lookup_batch": ("data",),
}
"""Logical axis -> mesh axes, the first varying slowest. An axis named None is replicated."""


@contextlib.contextmanager
def on_mesh(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """Traces functions for `mesh`: axis names take effect, and `attend.platform` is the platform of the mesh.

    The latter also holds for a mesh of one device. Use it as a decorator inside jit, `jax.jit(on_mesh(mesh)(step))`, so
    that callers and `lower` need no context.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def spec_on_mesh(names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """PartitionSpec of an array on `mesh`, from the logical names of its axes; None names a replicated axis.

    Mesh axes of size 1, and those already used by an earlier axis of the array, are skipped. Mesh axes whose product
    does not divide an axis are dropped from the end.

    Raises:
      KeyError: a name is not in the table.
      ValueError: the number of names differs from the number of axes.
    """
    if len(names) != len(shape):
        raise ValueError(
            f"got {len(names)} axis names {tuple(names)} for an array of shape {tuple(shape)}: expected {len(shape)}"
        )
    used: set[str] = set()
    parts: list[Any] = []
    for name, size in zip(names, shape, strict=True):
        axes = [axis for axis in TABLE[name] if axis not in used and mesh.shape[axis] > 1] if name else []
        while axes and size % math.prod(mesh.shape[axis] for axis in axes):
            axes.pop()
        used.update(axes)
        parts.append(tuple(axes) if len(axes) > 1 else axes[0] if axes else None)
    while parts and parts[-1] is None:
        parts.pop()
    return PartitionSpec(*parts)


def partition_spec(names: Sequence[str | None], shape: Sequence[int]) -> PartitionSpec | None:
    """`spec_on_mesh` on the mesh that the surrounding function is traced for; None without a mesh or on one device."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else spec_on_mesh(names, shape, mesh)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Constrains the sharding of `x`, and of its gradient, by the names of its axes."""
    spec = partition_spec(names, x.shape)
    return x if spec is None else jax.lax.with_sharding_constraint(x, spec)


def is_sharded(name: str) -> bool:
    """Whether axes of this name can be sharded on the mesh that the surrounding function is traced for."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and any(mesh.shape[axis] > 1 for axis in TABLE[name])
