"""Comparison of trees of arrays."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def assert_same(actual: Any, expected: Any) -> None:
    """Requires the same structure and equal leaves."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
