"""Reads a reference directory, and compares what we compute with what the original implementation stored.

A part of the model states its checks as a generator of `Check`s. The test compares each with the stored array, then
perturbs the stored array and demands that the comparison fails, so no check is one that cannot fail.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Compare = Callable[[np.ndarray, np.ndarray], None]


class Check(NamedTuple):
    """One stored array and what we computed for it."""

    file: str
    array: str
    actual: Any
    compare: Compare


class Reference:
    """A directory in the reference format; remembers which arrays were read as inputs."""

    def __init__(self, directory: Path):
        self.directory = Path(directory)
        self.read: set[tuple[str, str]] = set()
        self._archives: dict[str, Any] = {}

    @cached_property
    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.glob("*.npz"))

    def _archive(self, file: str):
        if file not in self._archives:
            self._archives[file] = np.load(self.directory / file)
        return self._archives[file]

    def names(self, file: str) -> list[str]:
        return list(self._archive(file).files)

    def expected(self, file: str, array: str) -> np.ndarray:
        """The stored array, for comparison only."""
        return self._archive(file)[array]

    def array(self, file: str, array: str) -> np.ndarray:
        """The stored array, as an input of ours."""
        self.read.add((file, array))
        return self._archive(file)[array]

    def json(self, file: str) -> Any:
        return json.loads((self.directory / file).read_text())

    @property
    def time_shift(self) -> float:
        """The shift of the times that the case was trained with."""
        return self.json("config.json").get("timestep_shift", 1.0)


def _same_shape(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    return actual


def exact(actual: np.ndarray, expected: np.ndarray) -> None:
    """Equal in every element."""
    np.testing.assert_array_equal(_same_shape(actual, expected), expected)


def close(absolute: float = 2e-5, relative: float = 1e-5) -> Compare:
    """Float32 agreement of activations."""

    def compare(actual: np.ndarray, expected: np.ndarray) -> None:
        np.testing.assert_allclose(_same_shape(actual, expected), expected, rtol=relative, atol=absolute)

    return compare


def gradient(relative: float = 1e-4) -> Compare:
    """Relative L2 distance of a gradient tensor; a tensor stored as exactly zero must be exactly zero."""

    def compare(actual: np.ndarray, expected: np.ndarray) -> None:
        actual = _same_shape(actual, expected).astype(np.float64)
        norm = np.linalg.norm(expected.astype(np.float64))
        distance = np.linalg.norm(actual - expected.astype(np.float64))
        assert distance <= relative * norm, f"gradient differs by {distance:.3g} of a norm of {norm:.3g}"

    return compare
