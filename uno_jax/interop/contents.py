"""What is in a checkpoint, a run's or one in the public layout, read leaf by leaf."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import rich.table

from uno_jax.checkpoint_errors import CheckpointError
from uno_jax.interop.load import is_public_directory, open_public
from uno_jax.interop.names import leaf_shape
from uno_jax.interop.place import read_leaf, stored_dtype
from uno_jax.interop.sizes import UNO_JSON
from uno_jax.training.checkpoints import find_checkpoint, restore_leaves, saved_leaves
from uno_jax.training.report import PARTS, part_of
from uno_jax.training.versions import VERSIONS_FILE

Leaves = Mapping[str, Any]
"""Path with slashes -> array or ShapeDtypeStruct; paths of the autoencoder's parameters begin with "autoencoder"."""


_BATCH_BYTES = 2**28


@dataclass(frozen=True)
class Contents:
    """An opened checkpoint."""

    where: Path
    leaves: dict[str, jax.ShapeDtypeStruct]
    """Every parameter, and of which shape and dtype it is stored."""
    read: Callable[[Sequence[str]], dict[str, np.ndarray]]
    """Reads some of them, in our orientation."""
    step: int | None = None
    """Of training; None for a model alone."""
    config: dict[str, Any] = field(default_factory=dict)
    """Of the run, as JSON; or the JSON files of a public-layout directory."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of what wrote it; empty where nothing says."""
    public: bool = False
    """Whether it is a directory in the public layout."""
    averages: bool = False
    """Whether it also holds averages of the trained parameters."""

    def arrays(self, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
        """Reads parameters one after the other; what is small is read together, up to `_BATCH_BYTES`."""
        batch: list[str] = []
        for name in names:
            if batch and sum(map(self._bytes, [*batch, name])) > _BATCH_BYTES:
                yield from self.read(batch).items()
                batch = []
            batch.append(name)
        if batch:
            yield from self.read(batch).items()

    def _bytes(self, name: str) -> int:
        return math.prod(self.leaves[name].shape) * self.leaves[name].dtype.itemsize


def open_contents(path: str | Path, *, ema: bool = False) -> Contents:
    """Opens what `load_model` would load; `ema` puts the averages in the place of the trained parameters.

    Raises:
      CheckpointError: nothing is there, it is damaged, or it holds no averages.
    """
    checkpoint = find_checkpoint(path)
    if checkpoint is not None:
        return _saved(checkpoint, ema)
    if not is_public_directory(path):
        raise CheckpointError(f"{path}: neither a checkpoint nor a directory in the public layout is there")
    if ema:
        raise CheckpointError(f"{path}: a directory in the public layout holds no averages beside its parameters")
    return _public(Path(path))


def _saved(checkpoint: Path, ema: bool) -> Contents:
    items = {"params": "", "autoencoder": "autoencoder/"}
    if ema and not (checkpoint / "ema").is_dir():
        raise CheckpointError(f"{checkpoint}: it holds no averages (ema); its run kept none")
    if ema:
        items["ema"] = ""
    places: dict[str, tuple[Path, str]] = {}
    leaves: dict[str, jax.ShapeDtypeStruct] = {}
    for item, prefix in items.items():
        if (checkpoint / item).is_dir():
            for name, leaf in saved_leaves(checkpoint / item).items():
                places[prefix + name], leaves[prefix + name] = (checkpoint / item, name), leaf

    def read(names: Sequence[str]) -> dict[str, np.ndarray]:
        by_item: dict[Path, dict[str, str]] = {}
        for name in names:
            item, saved = places[name]
            by_item.setdefault(item, {})[saved] = name
        arrays = {
            wanted[saved]: array
            for item, wanted in by_item.items()
            for saved, array in restore_leaves(item, list(wanted)).items()
        }
        return {name: arrays[name] for name in names}

    return Contents(
        where=checkpoint,
        leaves=leaves,
        read=read,
        step=int(checkpoint.name) if checkpoint.name.isdigit() else None,
        config=_json(checkpoint / "assets" / "config.json"),
        versions=_json(checkpoint / "assets" / VERSIONS_FILE),
        averages=(checkpoint / "ema").is_dir(),
    )


def _public(directory: Path) -> Contents:
    public = open_public(directory)
    places = {"/".join(path): place for path, place in public.leaves().items()}
    names = ("config.json", "llm_config.json", "vit_config.json", UNO_JSON)
    return Contents(
        where=directory,
        leaves={
            name: jax.ShapeDtypeStruct(leaf_shape(entries), stored_dtype(files, entries))
            for name, (files, entries) in places.items()
        },
        read=lambda names: {name: read_leaf(*places[name], stored_dtype(*places[name])) for name in names},
        config={name: _json(directory / name) for name in names if (directory / name).is_file()},
        public=True,
    )


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise CheckpointError(f"{file}: not valid JSON ({error})") from error


def hash_parts(contents: Contents) -> dict[str, str]:
    """SHA-256 of every part, over paths, shapes, dtypes and bytes of its parameters; whatever the layout on disk."""
    hashes = {part: hashlib.sha256() for part, _ in PARTS}
    for name, leaf in contents.arrays(sorted(contents.leaves)):
        digest = hashes[part_of(name)]
        digest.update(f"{name} {leaf.dtype} {list(leaf.shape)}\n".encode())
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    present = {part_of(name) for name in contents.leaves}
    return {part: digest.hexdigest() for part, digest in hashes.items() if part in present}


def parts_table(title: str, leaves: Leaves, hashes: Mapping[str, str] | None = None) -> rich.table.Table:
    """Arrays, parameters, dtypes and bytes of each part, and of all; with `hashes`, the first 16 digits of each."""
    table = rich.table.Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("part")
    for heading in ("arrays", "parameters", "dtype", "GiB", *(["sha256"] if hashes else [])):
        table.add_column(heading, justify="left" if heading in ("dtype", "sha256") else "right")
    for part, _ in PARTS:
        of_part = [leaf for name, leaf in leaves.items() if part_of(name) == part]
        if of_part:
            table.add_row(part, *_row(of_part), *([hashes[part][:16]] if hashes else []))
    table.add_section()
    table.add_row("all", *_row(leaves.values()), *([""] if hashes else []), style="bold")
    return table


def _row(leaves: Iterable[Any]) -> tuple[str, ...]:
    leaves = list(leaves)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    dtypes = sorted({str(np.dtype(leaf.dtype)) for leaf in leaves})
    size = sum(count * np.dtype(leaf.dtype).itemsize for count, leaf in zip(sizes, leaves, strict=True))
    return f"{len(leaves)}", f"{sum(sizes):,}", ", ".join(dtypes), f"{size / 2**30:.3f}"
