"""The attention that models call: over separate token buffers, sharded over the mesh, dense or as a Pallas kernel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from uno_jax.attention.dense import dense_attention
from uno_jax.attention.kernel import kernel_attention
from uno_jax.attention.metadata import TokenMetadata, pairwise_visible
from uno_jax.parallel.axes import partition_spec

Attention = Literal["auto", "dense", "kernel"]
"""`dense` holds all scores in memory, `kernel` is the Pallas kernel, `auto` selects the kernel on a TPU."""

QUERY_AXES = ("batch", "tokens", "heads", None)
KEY_AXES = ("batch", None, "kv_heads", None)  # each device reads all keys of its heads


class Visibility(NamedTuple):
    """Which keys the queries of a forward pass may attend to; shared by all layers."""

    query: tuple[TokenMetadata, ...]
    """Metadata of each query buffer, `[batch or 1, tokens]`. For a single buffer, one token may stand for all."""
    key: tuple[TokenMetadata, ...]
    """Metadata of each key buffer, `[batch or 1, tokens]`."""
    mask: Bool[Array, "#batch queries keys"] | None
    """The mask of all buffers for dense attention. None for the kernel, which evaluates the metadata block by block."""


def visibility(query: Sequence[TokenMetadata], key: Sequence[TokenMetadata], attention: Attention) -> Visibility:
    """Builds the visibility of query and key buffers for an attention implementation."""
    if attention == "kernel" or (attention == "auto" and platform() == "tpu"):
        return Visibility(tuple(query), tuple(key), None)
    return Visibility(tuple(query), tuple(key), pairwise_visible(concatenated(query), concatenated(key)))


def attend(
    query: Sequence[Float[Array, "batch _ heads head_dim"]],
    key: Sequence[Float[Array, "batch _ kv_heads head_dim"]],
    value: Sequence[Float[Array, "batch _ kv_heads head_dim"]],
    seen: Visibility,
) -> list[Float[Array, "batch _ heads head_dim"]]:
    """Grouped-query attention of each query buffer over all visible keys.

    Buffers come in the order of `seen`; the order itself has no effect on the result. A query that sees nothing gets
    zeros.
    """
    if seen.mask is not None:
        q, k, v = (jnp.concatenate(x, axis=1) for x in (query, key, value))
        return _split(dense_attention(q, k, v, seen.mask), query)
    if partition_spec(QUERY_AXES, query[0].shape) is None:
        return _kernel(query, key, value, seen.query, seen.key)
    return _on_each_device(query, key, value, seen)


def _kernel(query: Any, key: Any, value: Any, query_metadata: Any, key_metadata: Any) -> list[Array]:
    q, k, v = (jnp.concatenate(x, axis=1) for x in (query, key, value))
    metadata = concatenated(query_metadata), concatenated(key_metadata)
    return _split(kernel_attention(q, k, v, *metadata, interpret=platform() != "tpu"), query)


def _on_each_device(query: Any, key: Any, value: Any, seen: Visibility) -> list[Array]:
    """Runs `_kernel` on each device's rows, heads and queries: XLA cannot shard a kernel, so `shard_map` does.

    Buffers are concatenated inside, on tokens that are already local or replicated. Outside, the concatenation would
    move tokens between devices.
    """
    heads, kv_heads = query[0].shape[2], key[0].shape[2]
    # Empty buffers stay outside: the compiler of JAX 0.11.2 crashes on inputs that a shard_map does not use.
    queries, own_metadata = _filled(query, query), _filled(seen.query, query)
    keys, values, key_metadata = (_filled(x, key) for x in (key, value, seen.key))
    query_specs: Any = [partition_spec(QUERY_AXES, x.shape) for x in queries]
    key_specs = [partition_spec(KEY_AXES, x.shape) for x in keys]
    metadata_specs = [[partition_spec(("batch", "tokens"), m.sample.shape) for m in own_metadata]]
    metadata_specs += [[partition_spec(("batch", None), m.sample.shape) for m in key_metadata]]

    def share(query: Any, key: Any, value: Any, query_metadata: Any, key_metadata: Any) -> list[Array]:
        own_heads = query[0].shape[2]
        if own_heads < heads and key[0].shape[2] == kv_heads:
            # More devices than key-value heads: the keys are replicated, so each query head selects its own.
            first = jax.lax.axis_index(query_specs[0][2]) * own_heads
            own = (first + jnp.arange(own_heads)) // (heads // kv_heads)
            key, value = ([jnp.take(x, own, axis=2) for x in buffers] for buffers in (key, value))
        return _kernel(query, key, value, query_metadata, key_metadata)

    call = jax.shard_map(
        share, in_specs=(query_specs, key_specs, key_specs, *metadata_specs), out_specs=query_specs, check_vma=False
    )
    outputs = iter(call(queries, keys, values, own_metadata, key_metadata))
    return [next(outputs) if x.shape[1] else x for x in query]


def _filled(items: Sequence[Any], buffers: Sequence[Array]) -> list[Any]:
    """Selects the items of the buffers that have tokens."""
    return [item for item, buffer in zip(items, buffers, strict=True) if buffer.shape[1]]


def _split(joined: Array, like: Sequence[Array]) -> list[Array]:
    """Splits `joined` along tokens into buffers with the lengths of `like`."""
    ends = list(itertools.accumulate((x.shape[1] for x in like), initial=0))
    return [joined[:, start:stop] for start, stop in itertools.pairwise(ends)]


def concatenated(buffers: Sequence[TokenMetadata]) -> TokenMetadata:
    """Concatenates the metadata of all buffers along tokens."""
    return TokenMetadata(*(jnp.concatenate(fields, axis=1) for fields in zip(*buffers, strict=True)))


def platform() -> str:
    """Platform that the surrounding function is traced for: that of the current mesh, or else the default backend."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
