"""Safetensors files of a directory as one set of named tensors, read one tensor, or a part of one, at a time."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from uno_jax.interop.json_object import read_object
from uno_jax.process.errors import CheckpointError, lines_of
from uno_jax.process.json_reader import parse_json

STORED_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


_LARGEST_READ = 2**30  # one call reads at most 2 GiB


class StoredTensor(NamedTuple):
    """What a file's header says of one tensor."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As safetensors spells it: F32, F16, BF16, and others that we refuse."""
    offset: int
    """Of its first byte in the file."""


class TensorFiles:
    """Tensors of one safetensors file, or of the shards that an index lists; only headers are read at first.

    Files are read, not mapped: pages of a mapped file count as memory of the process.
    """

    def __init__(self, files: list[Path], source: Path):
        self.source = source
        """The file or index that messages name."""
        self.files = files
        self.tensors: dict[str, StoredTensor] = {}
        for file in files:
            for name, stored in _read_header(file).items():
                if name in self.tensors:
                    raise CheckpointError(f"{name} is stored twice, in {self.tensors[name].file} and in {file}")
                self.tensors[name] = stored

    @classmethod
    def find(cls, directory: str | Path, name: str, other_indices: Sequence[str] = ()) -> TensorFiles:
        """Opens `name` (such as ema.safetensors) in a directory, or else the shards that an index lists.

        Indices are looked for as `<name>.index.json`, and under the other names.

        Raises:
          CheckpointError: no such file and no index, a shard that is missing, or a damaged file or index.
        """
        directory = Path(directory)
        if (directory / name).is_file():
            return cls([directory / name], directory / name)
        for index in (directory / file for file in (f"{name}.index.json", *other_indices)):
            if index.is_file():
                return cls._sharded(index)
        raise CheckpointError(f"{directory}: expected {name}, or shards with {name}.index.json, and found neither")

    @classmethod
    def _sharded(cls, index: Path) -> TensorFiles:
        try:
            weight_map = read_object(index)["weight_map"]
            listed = {str(tensor): index.parent / file for tensor, file in weight_map.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{index}: expected a JSON object whose weight_map gives the file of every tensor ({error!r})"
            ) from error
        files = sorted(set(listed.values()))
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise CheckpointError(f"{index}: the shards {', '.join(absent)} are listed but not in {index.parent}")
        opened = cls(files, index)
        misplaced = [
            f"{tensor} (expected in {file.name})"
            for tensor, file in listed.items()
            if tensor not in opened.tensors or opened.tensors[tensor].file != file
        ]
        if misplaced:
            raise CheckpointError(f"{index}: not in the shard that the index gives:{lines_of(misplaced)}")
        return opened

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """One tensor in its stored dtype, or the part of it that `index` cuts out (steps of 1).

        Of a cut along the first axis only the rows that are needed are read, and of a matrix that is cut along both
        only what is needed of each row.

        Raises:
          CheckpointError: the file cannot be read, or no longer to where the tensor ends.
        """
        stored = self.tensors[name]
        shape = stored.shape
        cuts = [part.indices(size)[:2] for part, size in zip(index, shape, strict=False)]
        cuts += [(0, size) for size in shape[len(cuts) :]]
        dtype = STORED_DTYPES[stored.dtype]
        with open(stored.file, "rb", buffering=0) as file:
            if not shape:
                return self._read_at(file, name, 0, np.empty((), dtype))
            first, last = cuts[0]
            row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            if len(shape) == 2 and cuts[1] != (0, shape[1]):
                begin, end = cuts[1]
                part = np.empty((last - first, end - begin), dtype)
                for i in range(first, last):
                    self._read_at(file, name, i * row + begin * dtype.itemsize, part[i - first])
                return part
            rows = self._read_at(file, name, first * row, np.empty((last - first, *shape[1:]), dtype))
            return rows[(slice(None), *(slice(*cut) for cut in cuts[1:]))]

    def _read_at(self, file: FileIO, name: str, offset: int, out: np.ndarray) -> np.ndarray:
        """Fills a contiguous array from the bytes at `offset` within a tensor."""
        stored = self.tensors[name]
        target = out.reshape(-1).view(np.uint8).data
        while len(target):
            count = os.preadv(file.fileno(), [target[:_LARGEST_READ]], stored.offset + offset)
            if not count:
                raise CheckpointError(f"{stored.file}: tensor {name} cannot be read, the file ends before it does")
            target, offset = target[count:], offset + count
        return out


def _read_header(file: Path) -> dict[str, StoredTensor]:
    """What the file holds, after the checks of the safetensors library (whole, no gaps, no overlaps)."""
    try:
        with safe_open(str(file), framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise CheckpointError(
            f"{file}: not a whole safetensors file ({error}); it has {size} bytes. "
            "If it was downloaded or copied, that was cut short: fetch it again"
        ) from error
    with open(file, "rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        header = parse_json(opened.read(length))
    return {
        name: StoredTensor(file, tuple(entry["shape"]), entry["dtype"], 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }
