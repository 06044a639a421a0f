"""Merges low-rank adapters into the kernels for an export, because the public layout has no place for them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from uno_jax.interop.contents import Contents
from uno_jax.interop.provenance import Provenance
from uno_jax.models.adapters import ADAPTED_LAYERS, ADAPTERS, merged_kernel
from uno_jax.models.config import ModelConfig
from uno_jax.training.state import is_under


class Merged(NamedTuple):
    """Arguments of `export_public`."""

    contents: Contents
    model: ModelConfig
    provenance: Provenance


def without_adapters(contents: Contents, model: ModelConfig, provenance: Provenance) -> Merged:
    """Returns the model with its adapters merged into float32 kernels, which then count as trained.

    A kernel is merged when it is read, layer by layer. A model without adapters is returned unchanged.
    """
    if not model.decoder.adapter_rank:
        return Merged(contents, model, provenance)
    kernels = {f"decoder/layers/generation/{name}/kernel": f"{ADAPTERS}/{name}" for name in ADAPTED_LAYERS}
    scale = model.decoder.adapter_scale

    def read(names: Sequence[str]) -> dict[str, np.ndarray]:
        halves = {
            name: [f"{kernels[name]}/{half}/kernel" for half in ("down", "up")] for name in names if name in kernels
        }
        stored = contents.read([*names, *itertools.chain(*halves.values())])
        for name, (down, up) in halves.items():
            stored[name] = _merge(stored[name], stored[down], stored[up], scale)
        return {name: stored[name] for name in names}

    leaves = {
        name: jax.ShapeDtypeStruct(leaf.shape, np.float32) if name in kernels else leaf
        for name, leaf in contents.leaves.items()
        if not is_under(name, ADAPTERS)
    }
    decoder = dataclasses.replace(model.decoder, adapter_rank=0)
    return Merged(
        dataclasses.replace(contents, leaves=leaves, read=read),
        dataclasses.replace(model, decoder=decoder),
        provenance.with_trained(kernels),
    )


def _merge(kernel: np.ndarray, down: np.ndarray, up: np.ndarray, scale: float) -> np.ndarray:
    """Applies `merged_kernel` layer by layer."""
    out = np.empty(kernel.shape, np.float32)
    with jax.default_matmul_precision("highest"):
        for layer in range(len(kernel)):
            out[layer] = merged_kernel(kernel[layer], down[layer], up[layer], scale)
    return out
