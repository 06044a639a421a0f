"""Reads tensors, or parts of tensors, from the safetensors files of a directory."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from uno_jax.interop.json_object import read_object
from uno_jax.process.errors import CheckpointError, lines_of, say
from uno_jax.process.json_reader import JsonError, parse_json

STORED_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


_LARGEST_READ = 2**30  # one call reads at most 2 GiB


class StoredTensor(NamedTuple):
    """Header entry of a tensor."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """Notation of safetensors. F32, F16 and BF16 are supported."""
    offset: int
    """Offset in bytes of the tensor from the start of the file."""


class TensorFiles:
    """Tensors of one safetensors file, or of the shards listed by an index. Opening reads the headers only.

    Files are read, not mapped, because pages of a mapped file count as memory of the process.
    """

    def __init__(self, files: list[Path], source: Path):
        self.source = source
        """File or index named in messages."""
        self.files = files
        self.tensors: dict[str, StoredTensor] = {}
        for file in files:
            for name, stored in _read_header(file).items():
                if name in self.tensors:
                    raise CheckpointError(f"{name} is stored twice, in {self.tensors[name].file} and in {file}")
                self.tensors[name] = stored

    @classmethod
    def find(
        cls, directory: str | Path, name: str, other_indices: Sequence[str] = (), other_names: Sequence[str] = ()
    ) -> TensorFiles:
        """Opens `name` (such as ema.safetensors) in a directory, or the shards listed by an index.

        Args:
          directory: the folder of the files.
          name: name of the single file. Its index is `<name>.index.json`.
          other_indices: further names of the index.
          other_names: further names of the single file, used with a note if there is neither file nor index.

        Raises:
          CheckpointError: file and index are missing, a shard is missing, or a file is damaged.
        """
        directory = Path(directory)
        if (directory / name).is_file():
            return cls([directory / name], directory / name)
        for index in (directory / file for file in (f"{name}.index.json", *other_indices)):
            if index.is_file():
                return cls._sharded(index)
        for other in (directory / file for file in other_names):
            if other.is_file():
                say(f"note: {other} is read, because there is no {name}")
                return cls([other], other)
        there = ", ".join(sorted(path.name for path in directory.glob("*.safetensors"))[:5])
        raise CheckpointError(
            f"{directory}: found neither {name} nor an index of its shards, {name}.index.json"
            + (f"; there are {there}" if there else "")
        )

    @classmethod
    def _sharded(cls, index: Path) -> TensorFiles:
        weight_map = read_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(file, str) for file in weight_map.values()):
            raise CheckpointError(f"{index}: expected a JSON object with the file of every tensor in weight_map")
        outside = [file for file in weight_map.values() if PurePath(file).is_absolute() or ".." in PurePath(file).parts]
        if outside:
            raise CheckpointError(f"{index}: {outside[0]!r} is outside of the folder; expected names of files in it")
        listed = {tensor: index.parent / file for tensor, file in weight_map.items()}
        files = sorted(set(listed.values()))
        absent = [file.name for file in files if not file.is_file()]
        if absent:
            raise CheckpointError(f"{index}: missing shards in {index.parent}: {', '.join(absent)}")
        opened = cls(files, index)
        misplaced = [
            f"{tensor} (expected in {file.name})"
            for tensor, file in listed.items()
            if tensor not in opened.tensors or opened.tensors[tensor].file != file
        ]
        if misplaced:
            raise CheckpointError(f"{index}: tensors that are not in the indexed shard:{lines_of(misplaced)}")
        return opened

    def without_prefix(self, prefix: str) -> TensorFiles:
        """Returns the same tensors under names without a prefix that all of them have."""
        renamed = TensorFiles([], self.source)
        renamed.files = self.files
        renamed.tensors = {name.removeprefix(prefix): stored for name, stored in self.tensors.items()}
        return renamed

    def read(self, name: str, index: tuple[slice, ...] = ()) -> np.ndarray:
        """Reads one tensor in its stored dtype, or the part selected by `index` (slices with steps of 1).

        A slice along the first axis reads only the selected rows. Slices along both axes of a matrix read only the
        selected part of each row.

        Raises:
          CheckpointError: the file is truncated.
        """
        stored = self.tensors[name]
        shape = stored.shape
        ranges = [part.indices(size)[:2] for part, size in zip(index, shape, strict=False)]
        ranges += [(0, size) for size in shape[len(ranges) :]]
        dtype = STORED_DTYPES[stored.dtype]
        with open(stored.file, "rb", buffering=0) as file:
            if not shape:
                return self._read_at(file, name, 0, np.empty((), dtype))
            first, last = ranges[0]
            row = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            if len(shape) == 2 and ranges[1] != (0, shape[1]):
                begin, end = ranges[1]
                part = np.empty((last - first, end - begin), dtype)
                for i in range(first, last):
                    self._read_at(file, name, i * row + begin * dtype.itemsize, part[i - first])
                return part
            rows = self._read_at(file, name, first * row, np.empty((last - first, *shape[1:]), dtype))
            return rows[(slice(None), *(slice(*bounds) for bounds in ranges[1:]))]

    def _read_at(self, file: FileIO, name: str, offset: int, out: np.ndarray) -> np.ndarray:
        """Fills a contiguous array from the bytes at `offset` within a tensor."""
        stored = self.tensors[name]
        target = out.reshape(-1).view(np.uint8).data
        while len(target):
            count = os.preadv(file.fileno(), [target[:_LARGEST_READ]], stored.offset + offset)
            if not count:
                raise CheckpointError(f"{stored.file}: tensor {name} cannot be read, because the file is truncated")
            target, offset = target[count:], offset + count
        return out


def _read_header(file: Path) -> dict[str, StoredTensor]:
    """Reads the header, after the checks of the safetensors library for completeness, gaps and overlaps."""
    try:
        with safe_open(str(file), framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise CheckpointError(
            f"{file}: incomplete or damaged safetensors file of {size} bytes ({error}). "
            "If a download or copy was interrupted, repeat it"
        ) from error
    with open(file, "rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8))
        try:
            header = parse_json(opened.read(length))
        except JsonError as error:
            raise CheckpointError(f"{file}: damaged header: {error}") from error
    return {
        name: StoredTensor(file, tuple(entry["shape"]), entry["dtype"], 8 + length + entry["data_offsets"][0])
        for name, entry in header.items()
        if name != "__metadata__"
    }
