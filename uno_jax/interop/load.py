"""Loads a model for sampling from a checkpoint of a run, or from a directory in the public layout."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePath

import flax.linen as nn
import jax
from jax.sharding import Mesh
from jax.typing import DTypeLike

from uno_jax.data.tokenizer import Tokenizer
from uno_jax.data.transforms import ImageTransform
from uno_jax.interop.source import find_source
from uno_jax.models.autoencoder import make_autoencoder
from uno_jax.models.config import ModelConfig
from uno_jax.models.quantised import Weights, placed_quantised
from uno_jax.parallel.mesh import MeshConfig, cpu_mesh, make_mesh, replicated
from uno_jax.training.state import Params


@dataclass(frozen=True)
class LoadedModel:
    """Everything that sampling needs from a checkpoint."""

    config: ModelConfig
    params: Params
    autoencoder: nn.Module
    autoencoder_params: Params
    """Empty for the pixel autoencoder."""
    tokenizer: Tokenizer
    vae_transform: ImageTransform
    vit_transform: ImageTransform
    time_shift: float
    """Time shift of the training run; 3.0, the public implementation's, if no file states one."""
    origin: str
    """Resolved path of the checkpoint, for messages."""
    weights: Weights = "plain"
    """Format of the large kernels."""

    @property
    def precision(self) -> str:
        """The compute dtype, and the format of the weights unless plain, for what is written about results."""
        return f"{self.config.compute_dtype}{'' if self.weights == 'plain' else f', {self.weights} weights'}"

    @property
    def name(self) -> str:
        """Last part of the path, such as `uno/1000`, and a hash of it, for what is shown to others."""
        parts = [part for part in PurePath(self.origin).parts if part != "checkpoints"]
        shown = "/".join(parts[-2:] if "checkpoints" in PurePath(self.origin).parts else parts[-1:])
        return f"{shown} ({hashlib.sha256(os.fsencode(self.origin)).hexdigest()[:8]})"


def load_model(
    path: str | Path,
    *,
    ema: bool = False,
    dtype: DTypeLike | None = None,
    mesh: Mesh | None = None,
    weights: Weights = "plain",
) -> LoadedModel:
    """Loads a model with its autoencoder, tokenizer and transforms.

    Args:
      path: as for `find_source`.
      ema: loads the EMA of the trained parameters instead of the parameters (only from a checkpoint of a run).
      dtype: dtype of the parameters; None keeps the stored one. The autoencoder is always float32.
      mesh: mesh on which the parameters are sharded (see `tree_shardings`); None places them on the first device of
        this host.
      weights: `int8` quantises the large kernels in the memory of the host before they are placed on the mesh.

    Raises:
      CheckpointError: there is no checkpoint or no EMA, the tokenizer exceeds the vocabulary, or a file is missing or
        damaged.
      CheckpointMismatch: the tensors of a run's checkpoint do not match its `model.json`.
      ConfigError: the weights are to be quantised, but JAX may not use the CPU.
    """
    mesh = mesh or make_mesh(MeshConfig(), jax.local_devices()[:1])
    source = find_source(path)
    model, settings, tokenizer = source.model(), source.settings(), source.tokenizer()
    first = mesh if weights == "plain" else cpu_mesh()
    params, autoencoder = source.parameters(first, replicated(mesh), lambda path: dtype, ema=ema)
    params = params if weights == "plain" else placed_quantised(params, mesh)
    return LoadedModel(
        config=model,
        params=params,
        autoencoder=make_autoencoder(model.autoencoder),
        autoencoder_params=autoencoder,
        tokenizer=tokenizer,
        vae_transform=settings.vae_transform,
        vit_transform=settings.vit_transform,
        time_shift=settings.time_shift,
        origin=f"{source.origin}{', EMA weights' if ema else ''}",
        weights=weights,
    )
