"""Safetensors files of a directory as one set of named tensors, read one tensor at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from uno_jax.interop.errors import CheckpointError

STORED_DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}


class StoredTensor(NamedTuple):
    """What a file's header says of one tensor."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As safetensors spells it: F32, F16, BF16, and others that we refuse."""


class TensorFiles:
    """Tensors of one safetensors file, or of the shards that an index lists; only headers are read at first."""

    def __init__(self, files: list[Path], source: Path):
        self.source = source
        """The file or index that messages name."""
        self.tensors: dict[str, StoredTensor] = {}
        self._open = {file: _open_safetensors(file) for file in files}
        for file, handle in self._open.items():
            for name in handle.offset_keys():
                if name in self.tensors:
                    raise CheckpointError(f"{name} is stored twice, in {self.tensors[name].file} and in {file}")
                header = handle.get_slice(name)
                self.tensors[name] = StoredTensor(file, tuple(header.get_shape()), header.get_dtype())

    @classmethod
    def find(cls, directory: str | Path, name: str) -> TensorFiles:
        """Opens `name` (such as ema.safetensors) in a directory, or else the shards that an index lists.

        Indices are looked for as `<name>.index.json`, and as the `model.safetensors.index.json` that the public
        libraries write.

        Raises:
          CheckpointError: no such file and no index, a shard that is missing, or a damaged file or index.
        """
        directory = Path(directory)
        if (directory / name).is_file():
            return cls([directory / name], directory / name)
        for index in (directory / f"{name}.index.json", directory / "model.safetensors.index.json"):
            if index.is_file():
                return cls._sharded(index)
        raise CheckpointError(f"{directory}: expected {name}, or shards with {name}.index.json, and found neither")

    @classmethod
    def _sharded(cls, index: Path) -> TensorFiles:
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            listed = {str(tensor): index.parent / file for tensor, file in weight_map.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
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
            raise CheckpointError(f"{index}: not in the shard that the index gives: {', '.join(misplaced)}")
        return opened

    def read(self, name: str) -> np.ndarray:
        """One tensor, in its stored dtype."""
        stored = self.tensors[name]
        try:
            return self._open[stored.file].get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{stored.file}: tensor {name} cannot be read ({error})") from error


def _open_safetensors(file: Path) -> safe_open:
    try:
        return safe_open(str(file), framework="numpy")
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size if file.exists() else 0
        raise CheckpointError(
            f"{file}: not a whole safetensors file ({error}); it has {size} bytes. "
            "If it was downloaded or copied, that was cut short: fetch it again"
        ) from error
