"""Reads leaves from files onto devices in pieces, without ever holding a whole stacked leaf on the host."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from uno_jax.interop.names import TensorName, leaf_shape
from uno_jax.interop.tensor_files import STORED_DTYPES, TensorFiles
from uno_jax.process.errors import CheckpointError

# Maximum bytes of a leaf on the host at a time. Larger pieces are not faster.
PIECE_BYTES = 2**28

_STRIP = 64
_CHECKED = 2**20  # numbers per check for finite values

Bounds = tuple[tuple[int, int], ...]
"""First and last (exclusive) index along each axis of a leaf."""


def stored_dtype(files: TensorFiles, entries: list[TensorName]) -> np.dtype:
    """Returns the stored dtype of a leaf. Layers of different dtypes are promoted to a common one."""
    return jnp.result_type(*{STORED_DTYPES[files.tensors[entry.public].dtype] for entry in entries})


def read_leaf(
    files: TensorFiles,
    entries: list[TensorName],
    dtype: np.dtype,
    bounds: Bounds | None = None,
    *,
    checked: bool = True,
) -> np.ndarray:
    """Returns one leaf of our tree, or its part within `bounds`. Only that part is read.

    Args:
      files: the files that hold the tensors.
      entries: the tensors that fill the leaf, in layer order.
      dtype: dtype of the result.
      bounds: the part to read; None reads the whole leaf.
      checked: whether non-finite values are an error.

    Raises:
      CheckpointError: a value is not finite, or a file cannot be read. The message names the tensor.
    """
    bounds = bounds or tuple((0, size) for size in leaf_shape(entries))
    if entries[0].layer is None:
        out = np.empty([last - first for first, last in bounds], dtype)
        _assign(out, _read_part(files, entries[0], bounds, checked))
        return out
    (first, last), rest = bounds[0], bounds[1:]
    out = np.empty([last - first, *(end - begin for begin, end in rest)], dtype)
    for layer in range(first, last):
        _assign(out[layer - first], _read_part(files, entries[layer], rest, checked))
    return out


def place_leaf(
    files: TensorFiles,
    entries: list[TensorName],
    dtype: np.dtype,
    sharding: Sharding,
    piece_bytes: int = PIECE_BYTES,
) -> jax.Array:
    """Returns one leaf as an array with `sharding`. A host reads only the shards of its own devices.

    A shard of more than `piece_bytes` is filled on its device, piece by piece.

    Raises:
      CheckpointError: a value is not finite, or a file cannot be read. The message names the tensor.
    """
    shape = leaf_shape(entries)
    owners: dict[Bounds, list[jax.Device]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        assert index is not None
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        owners.setdefault(bounds, []).append(device)
    shards: list[jax.Array] = []
    for bounds, devices in owners.items():
        shards += _place_shards(files, entries, dtype, bounds, devices, piece_bytes)
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def _place_shards(
    files: TensorFiles,
    entries: list[TensorName],
    dtype: np.dtype,
    bounds: Bounds,
    devices: list[jax.Device],
    piece_bytes: int,
) -> list[jax.Array]:
    """Reads one part of a leaf, and replicates it on the given devices."""
    pieces = list(split(bounds, dtype.itemsize, piece_bytes))
    if len(pieces) == 1:
        values = read_leaf(files, entries, dtype, bounds)
        return [jax.device_put(values, device) for device in devices]
    shape = [last - first for first, last in bounds]
    shards = [jnp.zeros(shape, dtype, device=SingleDeviceSharding(device)) for device in devices]
    for piece in pieces:
        part = read_leaf(files, entries, dtype, piece)
        start = np.asarray([first - origin for (first, _), (origin, _) in zip(piece, bounds, strict=True)], np.int32)
        for i, device in enumerate(devices):
            shards[i] = _fill(shards[i], jax.device_put(part, device), start)
        # Otherwise pieces that wait for their copy would pile up in host memory.
        jax.block_until_ready(shards)
    return shards


@functools.partial(jax.jit, donate_argnums=0)
def _fill(shard: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(shard, part, list(start))


def split(bounds: Bounds, itemsize: int, max_bytes: int) -> Iterator[Bounds]:
    """Splits a box into boxes of at most `max_bytes`, along its first axes first.

    A later axis is split only if a single index of the earlier ones exceeds the limit. An element of the last axis is
    never split.
    """
    lengths = [last - first for first, last in bounds]
    steps = []
    for axis, length in enumerate(lengths):
        rest = math.prod(lengths[axis + 1 :]) * itemsize
        steps.append(max(1, min(length, max_bytes // max(rest, 1))))
        if steps[-1] > 1 or length * rest <= max_bytes:
            steps += lengths[axis + 1 :]
            break
    ranges = [range(first, last, step) for (first, last), step in zip(bounds, steps, strict=True)]
    for corner in itertools.product(*ranges):
        yield tuple(
            (begin, min(begin + step, last)) for begin, step, (_, last) in zip(corner, steps, bounds, strict=True)
        )


def _read_part(files: TensorFiles, entry: TensorName, bounds: Bounds, checked: bool) -> np.ndarray:
    """Reads the part of a tensor within bounds along our axes, in our orientation and the stored dtype."""
    public = tuple(slice(*bounds[axis]) for axis in entry.transform.to_public)
    part = files.read(entry.public, public)
    if checked:
        check_finite(part, f"{files.tensors[entry.public].file}: tensor {entry.public}")
    return entry.to_ours(part)


def check_finite(weights: np.ndarray, what: str) -> None:
    """Checks that all weights are finite; `what` names them in the message.

    Raises:
      CheckpointError: an infinity or NaN was found.
    """
    if not is_finite(weights):
        wrong = weights[~np.isfinite(weights)][0]
        raise CheckpointError(
            f"{what} contains a non-finite value ({wrong}): the training diverged, or the file is damaged"
        )


def is_finite(weights: np.ndarray) -> bool:
    """Whether no weight is an infinity or NaN. Compares bits, which is faster than `np.isfinite`."""
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        return True
    bits = np.dtype(f"u{weights.dtype.itemsize}")
    infinity = np.asarray(np.inf, weights.dtype).view(bits)
    sign = np.asarray(-0.0, weights.dtype).view(bits)
    flat = weights.ravel(order="K").view(bits)
    return all((flat[i : i + _CHECKED] & ~sign).max() < infinity for i in range(0, flat.size, _CHECKED))


def _assign(out: np.ndarray, part: np.ndarray) -> None:
    """Copies with a cast. Equal dtypes are copied as integers, which keeps every bit and is faster."""
    if out.dtype == part.dtype:
        bits = np.dtype(f"u{out.dtype.itemsize}")
        out, part = out.view(bits), part.view(bits)
    if out.ndim < 2:
        out[...] = part
        return
    # Strips that fit the processor's cache copy a transposed view three times as fast.
    for start in range(0, out.shape[-1], _STRIP):
        out[..., start : start + _STRIP] = part[..., start : start + _STRIP]
