"""The parameters that answers to questions about pictures depend on, if pictures are read as ViT tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from uno_jax.config import to_json
from uno_jax.interop.load import LoadedModel
from uno_jax.models.apart import stacked
from uno_jax.training.state import is_under_any
from uno_jax.training.stored_trees import named_leaves

UNDERSTANDING = (
    "connector",
    "decoder/embedding",
    "decoder/head",
    "decoder/layers/understanding",
    "decoder/norm/understanding",
    "vision",
)
"""Path prefixes of these parameters: all that ViT tokens and texts pass through."""


def fingerprints(model: LoadedModel) -> dict[str, str]:
    """Returns the SHA-256 of the content of every array that answers depend on, with its dtype and shape; the
    transform of pictures as `vit_transform`."""
    found = {
        name: _fingerprint(np.asarray(leaf))
        for name, leaf in sorted(named_leaves(stacked(model.params)).items())
        if is_under_any(name, UNDERSTANDING)
    }
    return {**found, "vit_transform": json.dumps(to_json(model.vit_transform))}


def _fingerprint(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype} {array.shape} ".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Returns the names whose fingerprints differ, or that only one has."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
