"""Attention as models call it: over token buffers that stay apart, by the implementation that suits the device, each
device its share."""

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
"""Implementations: all scores in memory; Pallas kernels; `auto` takes the kernel on a TPU and dense elsewhere."""

QUERY_AXES = ("batch", "tokens", "heads", None)
KEY_AXES = ("batch", None, "kv_heads", None)  # each device reads all keys of its heads


class Visibility(NamedTuple):
    """Who the queries of a forward pass may look at; the same for all its layers."""

    query: tuple[TokenMetadata, ...]
    """Of each buffer of queries, `[batch or 1, tokens]`; of a single buffer, one token may stand for all."""
    key: tuple[TokenMetadata, ...]
    """Of each buffer of keys."""
    mask: Bool[Array, "#batch queries keys"] | None
    """What they say together, for the dense attention; None for the kernel, which reads them itself."""


def visibility(query: Sequence[TokenMetadata], key: Sequence[TokenMetadata], attention: Attention) -> Visibility:
    """The visibility of buffers of queries and of keys, for an implementation of attention."""
    if attention == "kernel" or (attention == "auto" and platform() == "tpu"):
        return Visibility(tuple(query), tuple(key), None)
    return Visibility(tuple(query), tuple(key), pairwise_visible(concatenated(query), concatenated(key)))


def attend(
    query: Sequence[Float[Array, "batch _ heads head_dim"]],
    key: Sequence[Float[Array, "batch _ kv_heads head_dim"]],
    value: Sequence[Float[Array, "batch _ kv_heads head_dim"]],
    seen: Visibility,
) -> list[Float[Array, "batch _ heads head_dim"]]:
    """What the queries of each buffer read from all keys that `seen` lets them see: grouped-query attention.

    Buffers are those of `seen`, in its order, and their order means nothing. A query that sees nothing gets zeros.
    """
    if seen.mask is not None:
        q, k, v = (jnp.concatenate(x, axis=1) for x in (query, key, value))
        return _parts(dense_attention(q, k, v, seen.mask), query)
    if partition_spec(QUERY_AXES, query[0].shape) is None:
        return _kernel(query, key, value, seen.query, seen.key)
    return _on_each_device(query, key, value, seen)


def _kernel(query: Any, key: Any, value: Any, query_metadata: Any, key_metadata: Any) -> list[Array]:
    q, k, v = (jnp.concatenate(x, axis=1) for x in (query, key, value))
    metadata = concatenated(query_metadata), concatenated(key_metadata)
    return _parts(kernel_attention(q, k, v, *metadata, interpret=platform() != "tpu"), query)


def _on_each_device(query: Any, key: Any, value: Any, seen: Visibility) -> list[Array]:
    """`_kernel` of each device's rows, heads and queries: XLA cannot cut a kernel, so the cut is written out.

    Buffers are joined inside, where their tokens are whole or the device's own; outside, that would move tokens
    between devices.
    """
    heads, kv_heads = query[0].shape[2], key[0].shape[2]
    query_specs: Any = [partition_spec(QUERY_AXES, x.shape) for x in query]
    key_specs = [partition_spec(KEY_AXES, x.shape) for x in key]
    metadata_specs = [[partition_spec(("batch", "tokens"), m.sample.shape) for m in seen.query]]
    metadata_specs += [[partition_spec(("batch", None), m.sample.shape) for m in seen.key]]

    def share(query: Any, key: Any, value: Any, query_metadata: Any, key_metadata: Any) -> list[Array]:
        own_heads = query[0].shape[2]
        if own_heads < heads and key[0].shape[2] == kv_heads:
            # More devices than key-value heads: each query head takes its own along.
            first = jax.lax.axis_index(query_specs[0][2]) * own_heads
            own = (first + jnp.arange(own_heads)) // (heads // kv_heads)
            key, value = ([jnp.take(x, own, axis=2) for x in buffers] for buffers in (key, value))
        return _kernel(query, key, value, query_metadata, key_metadata)

    call = jax.shard_map(
        share, in_specs=(query_specs, key_specs, key_specs, *metadata_specs), out_specs=query_specs, check_vma=False
    )
    return call(list(query), list(key), list(value), list(seen.query), list(seen.key))


def _parts(whole: Array, like: Sequence[Array]) -> list[Array]:
    """`whole` cut along tokens into buffers as long as those of `like`."""
    ends = list(itertools.accumulate((x.shape[1] for x in like), initial=0))
    return [whole[:, start:stop] for start, stop in itertools.pairwise(ends)]


def concatenated(buffers: Sequence[TokenMetadata]) -> TokenMetadata:
    """The metadata of all buffers, one after the other."""
    return TokenMetadata(*(jnp.concatenate(fields, axis=1) for fields in zip(*buffers, strict=True)))


def platform() -> str:
    """Of the devices that the surrounding function is traced for: those of the mesh in force, if there is one."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform
