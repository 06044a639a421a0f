"""Versions of the packages that wrote a checkpoint."""

from __future__ import annotations

import importlib.metadata
import platform

import uno_jax
from uno_jax.config import json_file

VERSIONS_FILE = "versions.json"

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_dtypes", "safetensors")


def versions() -> dict[str, str]:
    """Returns package -> version of this process."""
    return {
        "uno_jax": uno_jax.__version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
    }


def versions_json() -> bytes:
    """Returns the content of `versions.json`."""
    return json_file(versions())
