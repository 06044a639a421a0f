"""Leaves of our tree straight from files onto devices, in pieces: the host never holds a whole stacked leaf."""

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

# Bytes of a leaf that the host holds at a time. Larger pieces gain no speed.
PIECE_BYTES = 2**28

_STRIP = 64
_CHECKED = 2**20  # numbers that are looked at together

Bounds = tuple[tuple[int, int], ...]
"""First and last (exclusive) index along each axis."""


def stored_dtype(files: TensorFiles, entries: list[TensorName]) -> np.dtype:
    """The dtype of a leaf as it is stored; layers that differ are promoted to what holds them all."""
    return jnp.result_type(*{STORED_DTYPES[files.tensors[entry.public].dtype] for entry in entries})


def read_leaf(
    files: TensorFiles,
    entries: list[TensorName],
    dtype: np.dtype,
    bounds: Bounds | None = None,
    *,
    checked: bool = True,
) -> np.ndarray:
    """One leaf of our tree, or the part of it within `bounds`, from the tensors that fill it; reads that part only.

    Raises:
      CheckpointError: a number that is not finite (if that is `checked`), or a file that cannot be read; the message
        names the tensor.
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
    """One leaf as an array with `sharding`, of which this host reads what its own devices hold.

    A shard of more than `piece_bytes` is filled on its device, piece by piece.

    Raises:
      CheckpointError: as for `read_leaf`.
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
    """The same part of a leaf on each of the devices, read once."""
    pieces = list(split(bounds, dtype.itemsize, piece_bytes))
    if len(pieces) == 1:
        whole = read_leaf(files, entries, dtype, bounds)
        return [jax.device_put(whole, device) for device in devices]
    shape = [last - first for first, last in bounds]
    shards = [jnp.zeros(shape, dtype, device=SingleDeviceSharding(device)) for device in devices]
    for piece in pieces:
        part = read_leaf(files, entries, dtype, piece)
        start = np.asarray([first - origin for (first, _), (origin, _) in zip(piece, bounds, strict=True)], np.int32)
        for i, device in enumerate(devices):
            shards[i] = _fill(shards[i], jax.device_put(part, device), start)
        # Without this, parts that are waiting to be copied would pile up.
        jax.block_until_ready(shards)
    return shards


@functools.partial(jax.jit, donate_argnums=0)
def _fill(shard: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(shard, part, list(start))


def split(bounds: Bounds, itemsize: int, most_bytes: int) -> Iterator[Bounds]:
    """Cuts a box into boxes of at most `most_bytes`, along its first axes first.

    An axis is cut only where one step along it is already too large to be put together with others; a single row of
    the last axis may exceed the limit.
    """
    lengths = [last - first for first, last in bounds]
    steps = []
    for axis, length in enumerate(lengths):
        rest = math.prod(lengths[axis + 1 :]) * itemsize
        steps.append(max(1, min(length, most_bytes // max(rest, 1))))
        if steps[-1] > 1 or length * rest <= most_bytes:
            steps += lengths[axis + 1 :]
            break
    ranges = [range(first, last, step) for (first, last), step in zip(bounds, steps, strict=True)]
    for corner in itertools.product(*ranges):
        yield tuple(
            (begin, min(begin + step, last)) for begin, step, (_, last) in zip(corner, steps, bounds, strict=True)
        )


def _read_part(files: TensorFiles, entry: TensorName, bounds: Bounds, checked: bool) -> np.ndarray:
    """The part of one tensor within bounds of our axes, in our orientation and its stored dtype."""
    public = tuple(slice(*bounds[axis]) for axis in entry.transform.to_public)
    part = files.read(entry.public, public)
    if checked:
        check_finite(part, f"{files.tensors[entry.public].file}: tensor {entry.public}")
    return entry.to_ours(part)


def check_finite(weights: np.ndarray, what: str) -> None:
    """Demands that weights are numbers.

    Raises:
      CheckpointError: `what` holds an infinity or NaN.
    """
    if not is_finite(weights):
        wrong = weights[~np.isfinite(weights)][0]
        raise CheckpointError(
            f"{what} holds {wrong}, which is no weight: the training that wrote it diverged, or the file is damaged"
        )


def is_finite(weights: np.ndarray) -> bool:
    """Whether all are numbers; compares bits, which is faster than to look at each number."""
    if not jnp.issubdtype(weights.dtype, jnp.floating):
        return True
    bits = np.dtype(f"u{weights.dtype.itemsize}")
    infinity = np.asarray(np.inf, weights.dtype).view(bits)
    sign = np.asarray(-0.0, weights.dtype).view(bits)
    flat = weights.ravel(order="K").view(bits)
    return all((flat[i : i + _CHECKED] & ~sign).max() < infinity for i in range(0, flat.size, _CHECKED))


def _assign(out: np.ndarray, part: np.ndarray) -> None:
    """Copies, and casts where dtypes differ; the same dtype is copied bit by bit, and as integers, which is faster."""
    if out.dtype == part.dtype:
        bits = np.dtype(f"u{out.dtype.itemsize}")
        out, part = out.view(bits), part.view(bits)
    if out.ndim < 2:
        out[...] = part
        return
    # A transposed view is copied three times as fast in strips that the processor's cache holds.
    for start in range(0, out.shape[-1], _STRIP):
        out[..., start : start + _STRIP] = part[..., start : start + _STRIP]
