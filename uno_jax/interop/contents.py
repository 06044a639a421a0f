"""Opens a checkpoint of a run, or one in the public layout, and reads it leaf by leaf."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from uno_jax.interop.json_object import read_object, section
from uno_jax.interop.names import leaf_shape
from uno_jax.interop.place import read_leaf, stored_dtype
from uno_jax.interop.public_files import PublicFiles
from uno_jax.interop.sizes import OUR_SECTION, UNO_JSON
from uno_jax.process.errors import CheckpointError
from uno_jax.training.report import PARTS
from uno_jax.training.stored_trees import restore_leaves, saved_leaves
from uno_jax.training.versions import VERSIONS_FILE

Leaves = Mapping[str, Any]
"""Path with slashes -> array or ShapeDtypeStruct; paths of the autoencoder's parameters begin with "autoencoder"."""


@dataclass(frozen=True)
class Contents:
    """An opened checkpoint."""

    where: Path
    leaves: dict[str, jax.ShapeDtypeStruct]
    """Stored shape and dtype of every parameter, by path."""
    read: Callable[[Sequence[str]], dict[str, np.ndarray]]
    """Reads the named leaves in our orientation, without checking their values. To read all, use `arrays`."""
    step: int | None = None
    """Training step; None for a model without training state."""
    config: dict[str, Any] = field(default_factory=dict)
    """Config of the run as JSON, or the JSON files of a public-layout directory by name."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions of the packages that wrote it; empty if they were not recorded."""
    public: bool = False
    """Whether it is a directory in the public layout."""
    items: tuple[str, ...] = ()
    """Folders of an Orbax checkpoint (see `training.checkpoints`)."""

    def arrays(self, names: Iterable[str], batch_bytes: int = 2**28) -> Iterator[tuple[str, np.ndarray]]:
        """Yields parameters in order. At most one, or a few of `batch_bytes` in total, are in memory at a time.

        Values are not checked, because a checkpoint of a diverged run can be inspected as well.

        Raises:
          CheckpointError: a file cannot be read.
        """
        batch: list[str] = []
        for name in names:
            if batch and sum(map(self._bytes, [*batch, name])) > batch_bytes:
                yield from self._read_all(batch)
                batch = []
            batch.append(name)
        if batch:
            yield from self._read_all(batch)

    def _read_all(self, names: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
        arrays = self.read(names)
        for name in names:
            yield name, arrays.pop(name)

    def _bytes(self, name: str) -> int:
        leaf = self.leaves[name]
        return int(math.prod(leaf.shape) * leaf.dtype.itemsize)


def saved_contents(checkpoint: Path, *, ema: bool = False) -> Contents:
    """Opens an Orbax checkpoint.

    Args:
      checkpoint: the directory of one checkpoint.
      ema: replaces the trained parameters by their EMA, which the checkpoint must hold.

    Raises:
      CheckpointError: the checkpoint is damaged, or holds parameters that no model has.
    """
    items = {"params": "", "autoencoder": "autoencoder/"}
    if ema:
        items["ema"] = ""
    places: dict[str, tuple[Path, str]] = {}
    leaves: dict[str, jax.ShapeDtypeStruct] = {}
    for item, prefix in items.items():
        if (checkpoint / item).is_dir():
            for name, leaf in saved_leaves(checkpoint / item).items():
                places[prefix + name], leaves[prefix + name] = (checkpoint / item, name), leaf

    strange = [name for name in leaves if not name.startswith(tuple(itertools.chain(*(p for _, p in PARTS))))]
    if strange:
        raise CheckpointError(f"{checkpoint}: unknown parameters: {', '.join(strange)}")

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
        step=_step(checkpoint),
        config=_json(checkpoint / "assets" / "config.json"),
        versions=_json(checkpoint / "assets" / VERSIONS_FILE),
        items=tuple(sorted(path.name for path in checkpoint.iterdir() if path.is_dir())),
    )


def _step(checkpoint: Path) -> int | None:
    if not (checkpoint / "training").is_dir():
        return None
    return int(restore_leaves(checkpoint / "training", ["step"])["step"])


def public_contents(public: PublicFiles) -> Contents:
    """Returns the contents of an opened directory in the public layout.

    Raises:
      CheckpointError: a JSON file is damaged.
    """
    directory = public.directory
    places = {"/".join(path): place for path, place in public.leaves().items()}
    names = ("config.json", "llm_config.json", "vit_config.json", UNO_JSON)

    def read(name: str) -> np.ndarray:
        return read_leaf(*places[name], stored_dtype(*places[name]), checked=False)

    config = {name: _json(directory / name) for name in names if (directory / name).is_file()}
    ours = section(config.get("config.json", {}), OUR_SECTION, str(directory / "config.json"))
    return Contents(
        where=directory,
        leaves={
            name: jax.ShapeDtypeStruct(leaf_shape(entries), stored_dtype(files, entries))
            for name, (files, entries) in places.items()
        },
        read=lambda names: {name: read(name) for name in names},
        config=config,
        versions=section(ours, "versions", f"{directory / 'config.json'}, {OUR_SECTION}"),
        public=True,
    )


def _json(file: Path) -> dict[str, Any]:
    return read_object(file) if file.is_file() else {}
