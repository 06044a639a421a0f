"""Parameters of the decoder's layers kept one layer apiece in memory, for programs that do not loop over the layers.

A loop needs the parameters of all layers in one array with a leading axis of layers. Unrolled, XLA would copy each
layer's slice of that array before every use, and concatenate the gradients of all layers after. Checkpoints always
have the stacked arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from uno_jax.models.config import DecoderConfig

Tree = TypeVar("Tree")

LAYERS = ("decoder", "layers")
"""Path of the parameters of all layers of the decoder."""


@jax.tree_util.register_pytree_with_keys_class
class Apart:
    """The arrays of one parameter, layer by layer: what `[layers, ...]` is if it is stacked."""

    def __init__(self, arrays: Iterable[Any]):
        self.arrays = tuple(arrays)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], None]:
        return [(jax.tree_util.SequenceKey(i), array) for i, array in enumerate(self.arrays)], None

    @classmethod
    def tree_unflatten(cls, _: None, arrays: Sequence[Any]) -> Apart:
        return cls(arrays)


def is_apart(leaf: Any) -> bool:
    """Whether this is a parameter kept layer by layer; for `jax.tree.map(..., is_leaf=is_apart)`."""
    return isinstance(leaf, Apart)


def arranged(params: Any, config: DecoderConfig, *, free: bool = False) -> Any:
    """The parameters (arrays or ShapeDtypeStruct) as programs of this config read them best.

    They are kept apart if the config unrolls the layers completely, and else returned as they are. With `free`, every
    array is deleted once it is split, so that no second copy of all is in memory.
    """
    if config.scan_unroll < config.num_layers:
        return params

    def split(leaf: Any) -> Any:
        parts = _split(leaf)
        if free and parts is not leaf:
            jax.block_until_ready(parts)
            leaf.delete()
        return parts

    flat = flatten_dict(params)
    return unflatten_dict({path: split(leaf) if path[:2] == LAYERS else leaf for path, leaf in flat.items()})


def stacked(tree: Tree) -> Tree:
    """Stacks every parameter that is kept apart in a tree (arrays or ShapeDtypeStruct), such as a train state."""
    return _mapped(_stack, tree)


def like(tree: Tree, target: Tree) -> Tree:
    """Splits the parameters of a stacked tree that `target`, of otherwise the same structure, keeps apart."""

    def split(to: Any, leaf: Any) -> Any:
        return _split(leaf) if is_apart(to) else leaf

    found: Tree = jax.tree.map(split, target, tree, is_leaf=is_apart)
    return found


def layer(params: Any, number: int) -> Any:
    """The parameters of one layer, from 0, of a tree that keeps all of them apart."""
    return _mapped(lambda leaf: leaf.arrays[number], params)


def _mapped(function: Callable[[Apart], Any], tree: Tree) -> Tree:
    mapped: Tree = jax.tree.map(lambda leaf: function(leaf) if is_apart(leaf) else leaf, tree, is_leaf=is_apart)
    return mapped


def _split(leaf: Any) -> Any:
    if is_apart(leaf):
        return leaf
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return Apart(leaf[i] for i in range(leaf.shape[0]))
    return Apart([_shape(leaf, leaf.shape[1:], lambda spec: spec[1:])] * leaf.shape[0])


def _stack(leaf: Apart) -> Any:
    first = leaf.arrays[0]
    if not isinstance(first, jax.ShapeDtypeStruct):
        return jnp.stack(leaf.arrays)
    return _shape(first, (len(leaf.arrays), *first.shape), lambda spec: (None, *spec))


def _shape(like: jax.ShapeDtypeStruct, shape: tuple[int, ...], of: Callable[[Any], Any]) -> jax.ShapeDtypeStruct:
    """A shape with the dtype of another one, and its sharding after `of` has changed the spec."""
    sharding = like.sharding
    if isinstance(sharding, NamedSharding):
        parts = list(of(tuple(sharding.spec)))
        while parts and parts[-1] is None:
            parts.pop()
        sharding = sharding.update(spec=PartitionSpec(*parts))
    return jax.ShapeDtypeStruct(shape, like.dtype, sharding=sharding)
