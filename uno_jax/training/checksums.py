"""Checksums of arrays, the same for every sharding and on every device, and of small files.

The checksum of an array is the sum, modulo 2**32, of one term per element. A term mixes the element's bits with its
position. A changed element always changes the sum; any other damage escapes with probability 2**-32.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

_CHUNK = 2**16  # elements; numpy's temporaries of a chunk fit the processor's cache
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}


class ArrayCheck(NamedTuple):
    """What a stored array is checked by."""

    checksum: int
    finite: bool
    """Whether all values are finite; true for integers."""


def check_arrays(arrays: Mapping[str, Any]) -> dict[str, ArrayCheck]:
    """Returns the checksum of every array. Called by all hosts if an array spans several of them.

    Args:
      arrays: name -> `jax.Array` or `numpy.ndarray` of a dtype of at most 4 bytes.
    """
    checks = {}
    for name, array in arrays.items():
        # One after another: hosts may run programs in flight in different orders, and then wait for each other forever.
        found = check_on_host(array) if _is_on_host(array) else jax.device_get(check_on_device(array))
        checks[name] = ArrayCheck(int(found[0]), bool(found[1]))
    return checks


def file_checksum(content: bytes) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _is_on_host(array: Any) -> bool:
    if not isinstance(array, jax.Array):
        return True
    return array.is_fully_addressable and all(device.platform == "cpu" for device in array.devices())


def check_on_host(array: Any) -> tuple[int, bool]:
    """Computes `ArrayCheck` in numpy, which needs no compilation for every shape."""
    flat = np.ascontiguousarray(array).reshape(-1)
    total, finite = 0, True
    for start in range(0, flat.size, _CHUNK):
        part = flat[start : start + _CHUNK]
        position = np.arange(start, start + part.size, dtype=np.uint64).astype(np.uint32)
        bits = part.view(_UNSIGNED[part.dtype.itemsize]).astype(np.uint32)
        total = (total + int(np.sum(_terms(bits, position), dtype=np.uint32))) % 2**32
        finite = finite and bool(_is_finite(part, np))
    return total, finite


def check_on_device(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes `ArrayCheck` where the array is, without copying it to the host."""
    sharding = array.sharding
    if sharding.memory_kind == "pinned_host":
        array = jax.device_put(array, sharding.with_memory_kind("device"))
    everywhere = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    totals: tuple[jax.Array, jax.Array] = _device_program(everywhere)(array)
    return totals


@functools.cache
def _device_program(everywhere: NamedSharding | None) -> Any:
    return jax.jit(_total, out_shardings=everywhere)


def _total(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    bits = array.astype(jnp.uint8) if array.dtype == bool else array
    bits = jax.lax.bitcast_convert_type(bits, _UNSIGNED[bits.dtype.itemsize]).astype(jnp.uint32)
    position = jnp.zeros(array.shape, jnp.uint32)
    for axis in range(array.ndim):
        stride = math.prod(array.shape[axis + 1 :]) % 2**32
        position += jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis) * jnp.uint32(stride)
    return jnp.sum(_terms(bits, position), dtype=jnp.uint32), jnp.asarray(_is_finite(array, jnp))


def _terms(bits: Any, position: Any) -> Any:
    """Mixes uint32 numbers with their positions. For a given position, different bits give different terms."""
    word = np.uint32
    mixed = bits + position * word(0x9E3779B1)
    mixed = (mixed ^ (mixed >> word(16))) * word(0x7FEB352D)
    mixed = (mixed ^ (mixed >> word(15))) * word(0x846CA68B)
    return mixed ^ (mixed >> word(16))


def _is_finite(array: Any, xp: Any) -> Any:
    return xp.all(xp.isfinite(array)) if jnp.issubdtype(array.dtype, jnp.floating) else True
