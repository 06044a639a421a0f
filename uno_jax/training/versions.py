"""The versions of what wrote a checkpoint."""

from __future__ import annotations

import importlib.metadata
import platform

import uno_jax
from uno_jax.config import json_file

VERSIONS_FILE = "versions.json"

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "ml_dtypes", "safetensors")


def versions() -> dict[str, str]:
    """Package -> version, of this process."""
    return {
        "uno_jax": uno_jax.__version__,
        "python": platform.python_version(),
        **{package: importlib.metadata.version(package) for package in _PACKAGES},
    }


def versions_json() -> bytes:
    """The same as a file."""
    return json_file(versions())
