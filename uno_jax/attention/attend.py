"""The attention that models call: over separate token buffers, sharded over the mesh, by one of its implementations."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from uno_jax.attention.dense import dense_attention
from uno_jax.attention.flash import FUSED_DTYPES, ValidFirst, flash_attention, valid_first
from uno_jax.attention.kernel import kernel_attention
from uno_jax.attention.metadata import TokenMetadata, pairwise_visible
from uno_jax.parallel.axes import partition_spec

Implementation = Literal["dense", "kernel", "flash"]
"""`dense` holds all scores in memory, `kernel` is the Pallas kernel for TPUs, `flash` is cuDNN's attention for GPUs."""
Attention = Literal["auto", Implementation]
"""`auto` selects the kernel on a TPU, flash on a GPU in bfloat16 or float16, and otherwise dense."""

GPUS = ("gpu", "cuda", "rocm")  # names of the platform; JAX's own name for all GPUs is the first

QUERY_AXES = ("batch", "tokens", "heads", None)
KEY_AXES = ("batch", None, "kv_heads", None)  # each device reads all keys of its heads


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Visibility:
    """Which keys the queries of a forward pass may attend to; shared by all layers."""

    implementation: Implementation = field(metadata={"static": True})
    query: tuple[TokenMetadata, ...]
    """Metadata of each query buffer, `[batch or 1, tokens]`. For a single buffer, one token may stand for all."""
    key: tuple[TokenMetadata, ...]
    """Metadata of each key buffer, `[batch or 1, tokens]`."""
    mask: Bool[Array, "#batch queries keys"] | None = None
    """The mask of all buffers for dense attention. The others evaluate the metadata in each layer."""
    valid: ValidFirst | None = None
    """The valid keys of all buffers for flash attention, if every valid query sees all of them."""


def visibility(
    query: Sequence[TokenMetadata],
    key: Sequence[TokenMetadata],
    attention: Attention,
    dtype: Any,
    *,
    all_valid: bool = False,
) -> Visibility:
    """Builds the visibility of query and key buffers for attention in `dtype`.

    With `all_valid`, the caller knows that every valid query sees every valid key of its row, so that flash attention
    needs no mask.
    """
    implementation, buffers = chosen(attention, dtype), (tuple(query), tuple(key))
    if implementation == "dense":
        return Visibility(implementation, *buffers, mask=pairwise_visible(concatenated(query), concatenated(key)))
    if implementation == "flash" and all_valid:
        return Visibility(implementation, *buffers, valid=valid_first(concatenated(key)))
    return Visibility(implementation, *buffers)


def chosen(attention: Attention, dtype: Any) -> Implementation:
    """The implementation that `attention` selects for inputs of `dtype` on the current platform."""
    if attention != "auto":
        return attention
    if platform() == "tpu":
        return "kernel"
    return "flash" if platform() in GPUS and jnp.dtype(dtype) in FUSED_DTYPES else "dense"


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
        return _on_one_device(query, key, value, seen)
    return _on_each_device(query, key, value, seen)


def _on_one_device(query: Any, key: Any, value: Any, seen: Visibility) -> list[Array]:
    q, k, v = (jnp.concatenate(x, axis=1) for x in (query, key, value))
    metadata = concatenated(seen.query), concatenated(seen.key)
    if seen.implementation == "flash":
        by: Any = "cudnn" if platform() in GPUS else "xla"
        return _split(flash_attention(q, k, v, *metadata, seen.valid, implementation=by), query)
    return _split(kernel_attention(q, k, v, *metadata, interpret=platform() != "tpu"), query)


def _on_each_device(query: Any, key: Any, value: Any, seen: Visibility) -> list[Array]:
    """Runs `_on_one_device` on each device's rows, heads and queries: XLA cannot shard a kernel, so `shard_map` does.

    Buffers are concatenated inside, on tokens that are already local or replicated. Outside, the concatenation would
    move tokens between devices.
    """
    heads, kv_heads = query[0].shape[2], key[0].shape[2]
    # Empty buffers stay outside: the compiler of JAX 0.11.2 crashes on inputs that a shard_map does not use.
    queries, keys, values = _filled(query, query), _filled(key, key), _filled(value, key)
    query_specs: Any = [partition_spec(QUERY_AXES, x.shape) for x in queries]
    key_specs = [partition_spec(KEY_AXES, x.shape) for x in keys]
    own = replace(seen, query=tuple(_filled(seen.query, query)), key=tuple(_filled(seen.key, key)))

    def specs(part: Any, tokens: str | None) -> Any:
        """Specs of arrays `[batch or 1, ...]` of which the second axis are tokens of that name."""
        return jax.tree.map(lambda x: partition_spec(("batch", tokens)[: x.ndim], x.shape), part)

    own_specs = replace(own, query=specs(own.query, "tokens"), key=specs(own.key, None), valid=specs(own.valid, None))

    def share(query: Any, key: Any, value: Any, own: Visibility) -> list[Array]:
        own_heads = query[0].shape[2]
        if own_heads < heads and key[0].shape[2] == kv_heads:
            # More devices than key-value heads: the keys are replicated, so each query head selects its own.
            first = jax.lax.axis_index(query_specs[0][2]) * own_heads
            taken = (first + jnp.arange(own_heads)) // (heads // kv_heads)
            key, value = ([jnp.take(x, taken, axis=2) for x in buffers] for buffers in (key, value))
        return _on_one_device(query, key, value, own)

    call = jax.shard_map(
        share, in_specs=(query_specs, key_specs, key_specs, own_specs), out_specs=query_specs, check_vma=False
    )
    outputs = iter(call(queries, keys, values, own))
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
