"""Writes safetensors files, one or shards with an index, tensor by tensor in any order."""

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

# What the public libraries look for: tensors that PyTorch may load.
_METADATA = {"format": "pt"}

# The library's order, so that its files and ours are alike byte by byte: wide dtypes first, then names.
_DTYPE_ORDER = ("F32", "BF16", "F16")


class TensorPlan(NamedTuple):
    """Shape and dtype (F32, F16 or BF16) of a tensor that will be written."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * STORED_DTYPES[self.dtype].itemsize


class TensorWriter:
    """Writes tensors to their places in files whose sizes are known from the start.

    Entering the context makes the files; leaving it finishes them, and demands that all was written.

    Args:
      directory: where the files are made.
      name: `<name>.safetensors`; shards are `<name>-00001-of-00003.safetensors`, with an index
        `<name>.safetensors.index.json`.
      plans: every tensor that will be written.
      shard_bytes: the most that a shard takes, its header apart; a larger tensor has a shard of its own. None: one
        file.
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
        """The safetensors files, in order."""
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
        """Writes one tensor, which has the planned shape and dtype, at its place.

        Raises:
          ValueError: it has not, or it has been written already.
          OSError: the file cannot be written; it is named.
        """
        plan = self._plans[name]
        if tensor.shape != plan.shape or tensor.dtype != STORED_DTYPES[plan.dtype] or name not in self._left:
            again = "" if name in self._left else ", and it has been written already"
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
                raise ValueError(f"planned and never written: {', '.join(sorted(self._left))}")
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
    """Puts the file's name into errors of writing it, which have none."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, file.name) from error


def _shards(plans: Mapping[str, TensorPlan], most_bytes: int | None) -> Iterator[list[str]]:
    """The names of each shard, filled one after the other."""
    shard: list[str] = []
    size = 0
    for name in sorted(plans, key=lambda name: (_DTYPE_ORDER.index(plans[name].dtype), name)):
        if shard and most_bytes is not None and size + plans[name].size > most_bytes:
            yield shard
            shard, size = [], 0
        shard.append(name)
        size += plans[name].size
    yield shard


def _header(plans: Mapping[str, TensorPlan]) -> tuple[bytes, dict[str, int], int]:
    """The header of a file, the offset of each tensor after it, and the bytes of all of them."""
    entries: dict[str, object] = {"__metadata__": _METADATA}
    offsets: dict[str, int] = {}
    end = 0
    for name, plan in plans.items():
        offsets[name], end = end, end + plan.size
        entries[name] = {"dtype": plan.dtype, "shape": list(plan.shape), "data_offsets": [offsets[name], end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offsets, end
