"""Compares two checkpoints part by part."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import rich.table

from uno_jax.interop.contents import Contents
from uno_jax.interop.place import is_finite
from uno_jax.training.report import PARTS, part_of


@dataclass(frozen=True)
class Difference:
    """Difference between an array of the first checkpoint and the same array of the second."""

    name: str
    dtypes: tuple[str, str]
    same: bool
    """Whether the bytes are equal or, if the dtypes differ, the numbers."""
    largest: float = 0.0
    """Largest absolute difference."""
    squares: float = 0.0
    """Sum of the squared differences."""
    first_squares: float = 0.0
    """Sum of the squares of the first array."""
    not_finite: tuple[str, ...] = ()
    """Names of those that contain infinities or NaN: `first`, `second`."""


@dataclass(frozen=True)
class Comparison:
    """Differences of two checkpoints, array by array."""

    arrays: list[Difference]
    """Differences of the arrays that both hold with the same shape."""
    others: list[str]
    """One line for each array that only one holds, or whose shapes differ."""

    @property
    def same(self) -> bool:
        """Whether both hold the same arrays with the same numbers, whatever their dtypes."""
        return not self.others and all(array.same for array in self.arrays)


def compare(first: Contents, second: Contents) -> Comparison:
    """Compares two checkpoints; at most one array of each (or a few small ones) is in memory at a time.

    Raises:
      CheckpointError: a file cannot be read.
    """
    others = []
    for name in sorted(first.leaves.keys() | second.leaves.keys()):
        shapes = [contents.leaves[name].shape if name in contents.leaves else None for contents in (first, second)]
        if None in shapes:
            which = "second" if shapes[0] is None else "first"
            others.append(f"{name} {list(shapes[0] or shapes[1] or ())} is in the {which} only")
        elif shapes[0] != shapes[1]:
            others.append(f"{name} is {list(shapes[0] or ())} in the first and {list(shapes[1] or ())} in the second")
    common = [
        name for name, leaf in first.leaves.items() if name in second.leaves and leaf.shape == second.leaves[name].shape
    ]
    pairs = zip(first.arrays(common), second.arrays(common), strict=True)
    return Comparison([difference(name, a, b) for (name, a), (_, b) in pairs], others)


def difference(name: str, first: np.ndarray, second: np.ndarray, chunk: int = 2**22) -> Difference:
    """Compares two arrays of the same shape, `chunk` numbers at a time (in float64)."""
    dtypes = str(first.dtype), str(second.dtype)
    a, b = first.reshape(-1), second.reshape(-1)
    same, largest, squares, first_squares = True, 0.0, 0.0, 0.0
    for start in range(0, a.size, chunk):
        one, other = a[start : start + chunk], b[start : start + chunk]
        numbers = one.astype(np.float64)
        first_squares += float(np.vdot(numbers, numbers))
        if one.dtype == other.dtype and one.tobytes() == other.tobytes():
            continue
        with np.errstate(invalid="ignore"):  # infinities
            distances = other.astype(np.float64) - numbers
        same = same and one.dtype != other.dtype and not distances.any()
        largest = float(np.maximum(largest, np.abs(distances).max()))  # propagates NaN
        squares += float(np.vdot(distances, distances))
    not_finite = tuple(which for which, array in (("first", a), ("second", b)) if not is_finite(array))
    return Difference(name, dtypes, same, largest, squares, first_squares, not_finite)


def comparison_table(comparison: Comparison) -> rich.table.Table:
    """Returns a row per part: arrays, how many differ, largest difference, and its norm relative to the first."""
    table = _table("part", "arrays", "differ")
    for part, _ in PARTS:
        of_part = [array for array in comparison.arrays if part_of(array.name) == part]
        if of_part:
            table.add_row(part, *_row(of_part))
    table.add_section()
    table.add_row("all", *_row(comparison.arrays), style="bold")
    return table


def differing_table(comparison: Comparison) -> rich.table.Table:
    """Returns a row per array that differs, in decreasing order of the relative difference."""
    table = _table("array")
    differing = [array for array in comparison.arrays if not array.same]
    for array in sorted(differing, key=lambda array: (array.not_finite, _relative([array])), reverse=True):
        table.add_row(array.name, *_row([array])[2:])
    return table


def _table(first: str, *counts: str) -> rich.table.Table:
    table = rich.table.Table(show_edge=False, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for heading in (*counts, "largest", "relative"):
        table.add_column(heading, justify="right")
    table.add_column("dtype")
    return table


def _row(arrays: Iterable[Difference]) -> tuple[str, ...]:
    arrays = list(arrays)
    differing = sum(not array.same for array in arrays)
    largest = float(np.max([array.largest for array in arrays], initial=0.0))  # propagates NaN
    distances = (f"{largest:.3g}", f"{_relative(arrays):.3g}") if differing else ("", "")
    return f"{len(arrays)}", f"{differing}" if differing else "same", *distances, ", ".join(_dtypes(arrays))


def _relative(arrays: Iterable[Difference]) -> float:
    arrays = list(arrays)
    squares = sum(array.squares for array in arrays)
    of_first = sum(array.first_squares for array in arrays)
    if not squares:
        return 0.0
    return math.sqrt(squares / of_first) if of_first else math.inf


def _dtypes(arrays: Iterable[Difference]) -> Iterator[str]:
    for first, second in sorted({array.dtypes for array in arrays}):
        yield first if first == second else f"{first} / {second}"


def config_differences(first: dict[str, str], second: dict[str, str]) -> list[str]:
    """Returns a line for every field that differs between two flat configs."""
    absent = "absent"
    return [
        f"{name}: {first.get(name, absent)} / {second.get(name, absent)}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]
