"""Logical axis names of every parameter, and the shardings of parameters, optimizer state and EMA on a mesh."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from uno_jax.parallel.axes import constrain, partition_spec, spec_on_mesh

Tree = TypeVar("Tree")
Names = tuple[str | None, ...]

PARAMETERS: tuple[tuple[str, Names], ...] = (
    # Low-rank adapters: the inputs of a linear layer, to the rank (down), to its outputs (up).
    (r"adapters/(query|key|value|gate|up)/down/kernel", ("embed", None)),
    (r"adapters/output/down/kernel", ("heads", None)),
    (r"adapters/down/down/kernel", ("mlp", None)),
    (r"adapters/query/up/kernel", (None, "heads")),
    (r"adapters/(key|value)/up/kernel", (None, "kv_heads")),
    (r"adapters/(gate|up)/up/kernel", (None, "mlp")),
    (r"adapters/(output|down)/up/kernel", (None, "embed")),
    # Both experts and the vision encoder.
    (r"query/kernel", ("embed", "heads")),
    (r"query/bias", ("heads",)),
    (r"(key|value)/kernel", ("embed", "kv_heads")),
    (r"(key|value)/bias", ("kv_heads",)),
    (r"output/kernel", ("heads", "embed")),
    (r"(gate|up|fc1)/kernel", ("embed", "mlp")),
    (r"fc1/bias", ("mlp",)),
    (r"(down|fc2)/kernel", ("mlp", "embed")),
    # Into and out of the width of the decoder or the vision encoder.
    (r"embedding", ("vocab", "embed")),
    (r"(latent_in|patch_embedding)/kernel", (None, "embed")),
    (r"metaqueries/table", (None, "embed")),
    (r"position_table", (None, "embed")),
    (r"metaqueries/head/kernel", ("embed", None)),
    (r"head/kernel", ("embed", "vocab")),
    (r"latent_out/kernel", ("embed", None)),
    # Vectors of at most the width of the residual stream.
    (r"(scale|bias)", (None,)),
    # Scales of int8 kernels, a small fraction of these.
    (r"kernel_scale", (None,)),
)
"""End of a leaf's path (a regular expression) -> axis names. The first match applies. Stacked leaves add `layers`."""

# The autoencoder is small, and each host encodes its own rows.
_REPLICATED = "autoencoder"


def parameter_axes(path: str, ndim: int) -> Names:
    """Axis names of the parameter at `path`, which has slashes and may lack its beginning.

    Raises:
      ValueError: no entry matches the path, or the entry has another number of axes.
    """
    if path.split("/")[0] == _REPLICATED:
        return (None,) * ndim
    for pattern, names in PARAMETERS:
        if re.search(rf"(^|/){pattern}$", path):
            if ndim == len(names) + 1:
                return ("layers", *names)
            if ndim == len(names):
                return names
            break
    raise ValueError(
        f"parameter {path} with {ndim} axes has no axis names: add them to PARAMETERS in uno_jax/parallel/parameters.py"
    )


def gathered(leaf: jax.Array, path: Sequence[str], dtype: Any) -> jax.Array:
    """The parameter at `path` as a layer uses it: cast to `dtype` and gathered over all mesh axes except `tensor`.

    Its gradient has the sharding of the stored parameter from the start, so it is reduce-scattered. Without this
    constraint, the compiler may choose to gather activations instead.
    """
    names = parameter_axes("/".join(path), leaf.ndim)
    stored, used = partition_spec(names, leaf.shape), partition_spec(_without("embed", names), leaf.shape)
    if stored is None or used is None:
        return leaf.astype(dtype)
    return _gather(leaf, (leaf.dtype, jnp.dtype(dtype)), stored, used)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gather(leaf: jax.Array, dtypes: tuple[Any, Any], stored: PartitionSpec, used: PartitionSpec) -> jax.Array:
    if dtypes[0] != dtypes[1]:
        # Otherwise the compiler casts the parameters of all layers before the layer scan, and keeps the copies.
        leaf = jax.lax.optimization_barrier(leaf)
    leaf = jax.lax.with_sharding_constraint(leaf.astype(dtypes[1]), stored)
    gathered: jax.Array = jax.lax.with_sharding_constraint(leaf, used)
    return gathered


def _gather_forward(leaf: jax.Array, *settings: Any) -> tuple[jax.Array, None]:
    return _gather(leaf, *settings), None


def _gather_backward(
    dtypes: tuple[Any, Any], stored: PartitionSpec, used: PartitionSpec, _: None, gradient: jax.Array
) -> tuple[jax.Array]:
    del used
    return (jax.lax.with_sharding_constraint(gradient, stored).astype(dtypes[0]),)


_gather.defvjp(_gather_forward, _gather_backward)


def _without(name: str, names: Names) -> Names:
    return tuple(None if other == name else other for other in names)


def lookup(
    table: Float[Array, "rows features"], ids: Int[Any, "batch tokens"], path: Sequence[str]
) -> Float[Array, "batch tokens features"]:
    """Looks up rows `ids` of the parameter `table` at `path`.

    On a mesh, each device looks up its shard of the features for the ids of all devices that hold the other shards, and
    then exchanges the results. A large table is never gathered.
    """
    table = constrain(table, *parameter_axes("/".join(path), table.ndim))
    found = constrain(jnp.take(table, ids, axis=0), "lookup_batch", None, "embed")
    return constrain(found, "batch", "tokens", None)


def tree_shardings(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Sharding of every leaf (array or ShapeDtypeStruct) of parameters, optimizer state, or a complete TrainState.

    The optimizer state of a parameter has the same sharding as the parameter. State of no parameter is replicated.

    Raises:
      ValueError: the axes of a leaf have no names (`parameter_axes`).
    """

    def sharding(path: Sequence[Any], leaf: Any) -> NamedSharding:
        shape, parameter = np.shape(leaf), _parameter_path(path)
        names = parameter_axes(parameter, len(shape)) if shape and parameter else (None,) * len(shape)
        return NamedSharding(mesh, spec_on_mesh(names, shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def with_shardings(tree: Tree, mesh: Mesh) -> Tree:
    """Converts every leaf (array or ShapeDtypeStruct) to a ShapeDtypeStruct with the sharding of `tree_shardings`."""
    shardings = tree_shardings(tree, mesh)
    placed: Tree = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)
    return placed


def _parameter_path(path: Sequence[Any]) -> str:
    """Path of the parameter within the path of a leaf: the dictionary keys at its end, before the number of a layer."""
    names: list[str] = []
    keys = path[:-1] if path and isinstance(path[-1], jax.tree_util.SequenceKey) else path
    for key in reversed(keys):
        if not isinstance(key, jax.tree_util.DictKey):
            break
        names.append(str(key.key))
    return "/".join(reversed(names))
