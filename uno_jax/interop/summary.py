"""Summarises a checkpoint for printing: parts with sizes and hashes, versions, config."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import rich.table

from uno_jax.interop.contents import Contents, Leaves
from uno_jax.interop.place import is_finite
from uno_jax.training.report import PARTS, part_of


class Read(NamedTuple):
    """Results of reading all parameters of a checkpoint."""

    hashes: dict[str, str]
    """SHA-256 of every part, by name of the part."""
    not_finite: list[str]
    """Paths of the arrays with infinities or NaN."""


def read_parts(contents: Contents) -> Read:
    """Hashes paths, shapes, dtypes and bytes of the parameters of every part, independently of the layout on disk.

    Raises:
      CheckpointError: a file cannot be read.
    """
    hashes = {part: hashlib.sha256() for part, _ in PARTS}
    not_finite = []
    for name, leaf in contents.arrays(sorted(contents.leaves)):
        digest = hashes[part_of(name)]
        digest.update(f"{name} {leaf.dtype} {list(leaf.shape)}\n".encode())
        digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
        if not is_finite(leaf):
            not_finite.append(name)
    present = {part_of(name) for name in contents.leaves}
    return Read({part: digest.hexdigest() for part, digest in hashes.items() if part in present}, not_finite)


def parts_table(leaves: Leaves, read: Read | None = None) -> rich.table.Table:
    """Returns a table of the number of arrays and parameters, dtypes and size of each part, and the totals.

    With `read`, the table adds the first 16 digits of each hash, and marks parts with infinities or NaN.
    """
    hashes = read.hashes if read else {}
    broken = {part_of(name) for name in read.not_finite} if read else set()
    table = rich.table.Table(show_edge=False, pad_edge=False)
    table.add_column("part", no_wrap=True)
    for heading in ("arrays", "parameters", "dtype", "size", *(["sha256"] if hashes else [])):
        table.add_column(heading, justify="left" if heading in ("dtype", "sha256") else "right")
    for part, _ in PARTS:
        of_part = [leaf for name, leaf in leaves.items() if part_of(name) == part]
        if of_part:
            mark = " (not finite)" if part in broken else ""
            table.add_row(part, *_row(of_part), *([hashes[part][:16] + mark] if hashes else []))
    table.add_section()
    table.add_row("all", *_row(leaves.values()), *([""] if hashes else []), style="bold")
    return table


def arrays_table(leaves: Leaves) -> rich.table.Table:
    """Returns a table of all arrays with shape and dtype."""
    table = rich.table.Table(show_edge=False, pad_edge=False)
    for heading in ("array", "shape", "dtype"):
        table.add_column(heading, no_wrap=True)
    for name in sorted(leaves):
        shape = " x ".join(map(str, leaves[name].shape))
        table.add_row(name, shape, str(np.dtype(leaves[name].dtype)))
    return table


def facts(contents: Contents) -> Iterator[tuple[str, str]]:
    """Yields names and values of what is known about a checkpoint apart from its parameters."""
    if contents.public:
        yield "layout", "public"
    else:
        yield "step", "none (a model without training state)" if contents.step is None else str(contents.step)
        yield "holds", ", ".join(contents.items)
    yield "written by", ", ".join(f"{name} {version}" for name, version in contents.versions.items()) or "unknown"


def flat_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flattens nested objects to dotted paths with JSON values."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flat_config(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.dumps(value, ensure_ascii=False)
    return flat


def _row(leaves: Iterable[Any]) -> tuple[str, ...]:
    leaves = list(leaves)
    sizes = [math.prod(leaf.shape) for leaf in leaves]
    dtypes = sorted({str(np.dtype(leaf.dtype)) for leaf in leaves})
    size = sum(count * np.dtype(leaf.dtype).itemsize for count, leaf in zip(sizes, leaves, strict=True))
    return f"{len(leaves)}", f"{sum(sizes):,}", ", ".join(dtypes), _size(size)


def _size(size: float) -> str:
    """Formats bytes, such as 26.94 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
