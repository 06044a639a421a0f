"""Names of the axes of arrays, and the one table of which mesh axes each of them is cut over.

Models name the axes of their arrays and know nothing of meshes: inside `on_mesh`, `constrain` and `partition_spec` look
the names up here and the sizes in the mesh; outside, they do nothing.
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
    """A size for each mesh axis; -1 (at most once) takes what the other axes leave."""

    data: int = 1
    """Rows of the batch; everything else is replicated."""
    fsdp: int = -1
    """Rows of the batch; and parameters, optimizer and averages, gathered layer by layer where they are used."""
    tensor: int = 1
    """Heads and the experts' inner features."""
    sequence: int = 1
    """Tokens of a row: for rows too long for one device."""


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
    # Parameters, and with them their optimizer state and averages.
    "embed": ("fsdp", "sequence"),  # gathered where it is used
    "layers": (),  # the scan over layers slices it
    # Rows of looked-up embeddings while their features are still cut as the table's are.
    "lookup_batch": ("data",),
}
"""Logical axis -> mesh axes, the first varying slowest. What is named here by no entry is whole on every device."""


@contextlib.contextmanager
def on_mesh(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """Functions are traced for `mesh`: the names that they give to axes take effect, and what suits one kind of device
    only (`attend.platform`) is chosen by the mesh's, also where it has a single one.

    To decorate what is jitted, `jax.jit(on_mesh(mesh)(step))`, so that whoever calls or lowers it need not know.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        yield


def cut_spec(names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Which mesh axes each axis of an array is cut over; None names an axis that is whole.

    Mesh axes that do not divide an axis (the last of them first), that an earlier axis of the array took, or that have
    one device are left out.

    Raises:
      KeyError: a name that the table does not have.
      ValueError: not as many names as the array has axes.
    """
    if len(names) != len(shape):
        raise ValueError(f"{len(names)} names of axes, {tuple(names)}, for an array of shape {tuple(shape)}")
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
    """`cut_spec` on the mesh that the surrounding function is traced for; None where there is none to speak of."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 else cut_spec(names, shape, mesh)


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """`x`, and in the backward pass its gradient, cut by the names of its axes."""
    spec = partition_spec(names, x.shape)
    return x if spec is None else jax.lax.with_sharding_constraint(x, spec)


def is_cut(name: str) -> bool:
    """Whether arrays can be cut along an axis of that name, on the mesh that the function is traced for."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and any(mesh.shape[axis] > 1 for axis in TABLE[name])
