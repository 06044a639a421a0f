"""Writes tensors in any order to one safetensors file, or to shards with an index."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from uno_jax.config import json_file
from uno_jax.interop.tensor_files import STORED_DTYPES

# Readers expect this entry in files for PyTorch.
_METADATA = {"format": "pt"}

# The order of the safetensors library: wide dtypes first, then by name. It makes our files equal byte for byte.
_DTYPE_ORDER = ("F32", "BF16", "F16")


class TensorPlan(NamedTuple):
    """Shape and dtype (F32, F16 or BF16) of a tensor to write."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * STORED_DTYPES[self.dtype].itemsize


class TensorWriter:
    """Writes tensors to files of known sizes, in any order.

    Entering the context creates the files. Leaving it completes them, and checks that every tensor was written.

    Args:
      directory: folder of the files.
      name: base name. The file is `<name>.safetensors`. Shards are `<name>-00001-of-00003.safetensors`, with the index
        `<name>.safetensors.index.json`.
      plans: every tensor to write, by name.
      shard_bytes: maximum bytes of a shard, without its header. A larger tensor has its own shard. None writes a
        single file.
    """

    def __init__(self, directory: Path, name: str, plans: Mapping[str, TensorPlan], shard_bytes: int | None = None):
        self._plans = dict(plans)
        shards = list(_shards(plans, shard_bytes))
        single = len(shards) == 1
        self._shards = {
            directory / (f"{name}.safetensors" if single else f"{name}-{i:05}-of-{len(shards):05}.safetensors"): names
            for i, names in enumerate(shards, 1)
        }
        self._index = None if single else directory / f"{name}.safetensors.index.json"
        self._places: dict[str, tuple[FileIO, int]] = {}
        self._left = set(plans)
        self._stack = ExitStack()

    @property
    def files(self) -> list[Path]:
        """Paths of the safetensors files, in order."""
        return list(self._shards)

    def __enter__(self) -> TensorWriter:
        for path, names in self._shards.items():
            file = self._stack.enter_context(open(path, "wb", buffering=0))
            header, offsets, size = _header({name: self._plans[name] for name in names})
            with _naming(file):
                file.write(header)
                file.truncate(len(header) + size)
            self._places |= {name: (file, len(header) + offset) for name, offset in offsets.items()}
        return self

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Writes one tensor.

        Raises:
          ValueError: shape or dtype are not the planned ones, or the tensor was written before.
          OSError: the file cannot be written. The error names it.
        """
        plan = self._plans[name]
        if tensor.shape != plan.shape or tensor.dtype != STORED_DTYPES[plan.dtype] or name not in self._left:
            again = "" if name in self._left else ", and was written before"
            raise ValueError(f"{name} is {tensor.dtype}{list(tensor.shape)}, planned as {plan}{again}")
        file, offset = self._places[name]
        data = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data
        while len(data):
            with _naming(file):
                count = os.pwrite(file.fileno(), data, offset)
            data, offset = data[count:], offset + count
        self._left.remove(name)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            if kind is not None:
                return
            if self._left:
                raise ValueError(f"tensors not written: {', '.join(sorted(self._left))}")
            for file in {file for file, _ in self._places.values()}:
                os.fsync(file.fileno())
        if self._index is not None:
            index = {
                "metadata": {"total_size": sum(plan.size for plan in self._plans.values())},
                "weight_map": {name: path.name for path, names in self._shards.items() for name in names},
            }
            self._index.write_bytes(json_file(index))


@contextmanager
def _naming(file: FileIO) -> Iterator[None]:
    """Adds the file name to errors of writing, which lack it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from error


def _shards(plans: Mapping[str, TensorPlan], max_bytes: int | None) -> Iterator[list[str]]:
    """Yields the tensor names of each shard, filling one shard after the other."""
    shard: list[str] = []
    size = 0
    for name in sorted(plans, key=lambda name: (_DTYPE_ORDER.index(plans[name].dtype), name)):
        if shard and max_bytes is not None and size + plans[name].size > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += plans[name].size
    yield shard


def _header(plans: Mapping[str, TensorPlan]) -> tuple[bytes, dict[str, int], int]:
    """Returns the header of a file, the offset of each tensor after it, and their total bytes."""
    entries: dict[str, object] = {"__metadata__": _METADATA}
    offsets: dict[str, int] = {}
    end = 0
    for name, plan in plans.items():
        offsets[name], end = end, end + plan.size
        entries[name] = {"dtype": plan.dtype, "shape": list(plan.shape), "data_offsets": [offsets[name], end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offsets, end
